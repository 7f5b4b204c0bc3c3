"""A thread that takes events from the caller: waiting for the next one must not keep receipts waiting."""

from __future__ import annotations

import os
import select
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qed._client.ledger import Ledger
    from qed.proofs import Digest

__all__ = ["Feeder"]


class Feeder:
    """Enters events into a ledger, a bounded number ahead of those that are sent.

    Attributes:
        waker: A descriptor that becomes readable when there is something new for a thread that has said it is waiting.
        error: What the caller's iterable has raised, if it is over.
    """

    def __init__(self, events: Iterable[bytes | Digest], ledger: Ledger) -> None:
        """Start to take events.

        Args:
            events: The events. They are taken in another thread.
            ledger: Where they are entered.
        """
        self._events = events
        self._ledger = ledger
        self.error: BaseException | None = None
        self._is_over = False
        self._is_stopped = False
        self._is_awaited = False
        self._has_room = threading.Event()
        # Each end is closed by the only thread that uses it.
        self.waker, self._alarm = os.pipe()
        os.set_blocking(self._alarm, False)
        # A caller's iterable may block without end, and must not keep the process from its end.
        threading.Thread(target=self._run, name="qed-feeder", daemon=True).start()

    @property
    def is_over(self) -> bool:
        """Whether no more events will be entered."""
        return self._is_over

    def is_idle(self) -> bool:
        """Say that this thread is about to wait for `waker`; return False if there is something to do before."""
        self._is_awaited = True
        if self._ledger.waiting or self._is_over:
            self._is_awaited = False
            return False
        return True

    def wait(self) -> None:
        """Wait until there is something new, after `is_idle`."""
        poll = select.poll()
        poll.register(self.waker, select.POLLIN)
        poll.poll()
        os.read(self.waker, 1 << 12)

    def note_room(self) -> None:
        """Say that events were sent, so that more can be taken."""
        self._has_room.set()

    def stop(self) -> None:
        """Take no more events. If the caller's iterable blocks, the thread ends with its next event."""
        self._is_stopped = True
        self._has_room.set()
        os.close(self.waker)

    def _run(self) -> None:
        try:
            for event in self._events:
                self._ledger.enter(event)
                if self._is_awaited:
                    self._wake()
                while self._ledger.is_full and not self._is_stopped:
                    self._has_room.clear()
                    if self._ledger.is_full and not self._is_stopped:
                        self._has_room.wait()
                if self._is_stopped:
                    break
        except BaseException as exc:  # noqa: BLE001  # it is raised in the caller's thread
            self.error = exc
        self._is_over = True
        self._wake()
        os.close(self._alarm)

    def _wake(self) -> None:
        self._is_awaited = False
        # The pipe is full, or nobody waits any more.
        with suppress(OSError):
            os.write(self._alarm, b"\0")
