"""Streams of events for threads: sends them, and yields their acknowledgements as they arrive.

A stream is one exchange after the other: one ends when nothing is to be sent for a while, and when the leader changes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from qed._client.feeder import Feeder
from qed.errors import QedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from qed._client.duplex import Duplex
    from qed._client.ledger import Ledger
    from qed.acknowledgement import Acknowledgement
    from qed.proofs import Digest

__all__ = ["IDLE_S", "stream_events"]

IDLE_S: Final = 5.0
"""How long a connection is kept on which nothing is to be sent. Servers close those that say nothing for longer."""


def stream_events(
    events: Iterable[bytes | Digest], ledger: Ledger, connect: Callable[[], Duplex], timeout_s: float
) -> Iterator[Acknowledgement]:
    """Send events, and yield what was acknowledged.

    Args:
        events: The events. They are taken in another thread.
        ledger: Knows what became of each.
        connect: Opens an exchange with the leader.
        timeout_s: How long the server may take for the next snapshot.

    Yields:
        Each acknowledgement: the snapshots that arrived together.

    Raises:
        StreamBroken: It ended early.
        QedError: There was no first exchange, so no event was taken; or an answer does not verify.
        BaseException: What the events have raised, once those before it are acknowledged.
    """
    # Before any event is taken: without a stream, the caller still has all of them.
    duplex = connect()
    feeder = Feeder(events, ledger)
    try:
        while True:
            try:
                yield from _Exchange(duplex, feeder, ledger, timeout_s).run()
            finally:
                duplex.close()
            time.sleep(ledger.end_exchange())
            if not _has_more(feeder, ledger):
                break
            duplex = _connect_again(ledger, connect)
    finally:
        feeder.stop()
    if feeder.error is not None:
        raise feeder.error


def _has_more(feeder: Feeder, ledger: Ledger) -> bool:
    """Wait for an event, and return whether there is one."""
    feeder.note_room()
    while feeder.is_idle():
        feeder.wait()
    return bool(ledger.waiting)


def _connect_again(ledger: Ledger, connect: Callable[[], Duplex]) -> Duplex:
    try:
        return connect()
    except QedError as exc:
        raise ledger.broken(exc) from exc


class _Exchange:
    """One exchange of a stream."""

    def __init__(self, duplex: Duplex, feeder: Feeder, ledger: Ledger, timeout_s: float) -> None:
        self._duplex = duplex
        self._feeder = feeder
        self._ledger = ledger
        self._timeout_s = timeout_s
        self._has_ended = False
        self._since_s = time.monotonic()
        """Since when the server owes an answer, if it does."""

    def run(self) -> Iterator[Acknowledgement]:
        """Send and receive until the server has said how it ended, or the connection is lost."""
        ledger, dialogue = self._ledger, self._duplex.dialogue
        ledger.begin_exchange()
        while not ledger.is_ended:
            if lines := dialogue.lines():
                yield from ledger.receive(lines)
                # The caller may have taken any time for what was yielded.
                self._since_s = time.monotonic()
            elif dialogue.is_over:
                yield from ledger.cut(dialogue.what_is_missing())
            else:
                self._put()
                self._turn()
                if self._is_late():
                    yield from ledger.cut(f"no snapshot within {self._timeout_s:g} s")
        self._say_goodbye()

    def _put(self) -> None:
        """Give the connection what can be sent."""
        if self._duplex.has_unsent or self._has_ended:
            return
        if lines := self._ledger.next_lines():
            self._duplex.put(self._duplex.dialogue.data(lines))
            self._feeder.note_room()
        elif self._feeder.is_over and not self._ledger.waiting:
            self._end()

    def _end(self) -> None:
        self._has_ended = True
        self._duplex.put(self._duplex.dialogue.end())

    def _turn(self) -> None:
        """Send and receive what is possible, or wait until something is, or there is something new to send."""
        is_idle = self._feeder.is_idle()
        if self._is_awaiting():
            left_s = self._since_s + self._timeout_s - time.monotonic()
            self._duplex.turn(left_s if is_idle or self._ledger.is_window_full else 0.0, self._feeder.waker)
        elif is_idle:
            if not self._duplex.turn(IDLE_S, self._feeder.waker):
                self._end()
            self._since_s = time.monotonic()

    def _is_awaiting(self) -> bool:
        return self._has_ended or self._duplex.has_unsent or bool(self._ledger.pending)

    def _is_late(self) -> bool:
        return self._is_awaiting() and time.monotonic() - self._since_s > self._timeout_s

    def _say_goodbye(self) -> None:
        """End the request of an exchange that the server has ended: it waits for that, but not long."""
        if not self._has_ended and not self._duplex.has_unsent:
            self._end()
            self._duplex.turn(0)
