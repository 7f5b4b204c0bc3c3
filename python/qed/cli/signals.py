"""Ctrl-C, SIGTERM and SIGHUP, for a command that has work to finish before it ends."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

__all__ = ["HEEDED", "Interrupted", "StopRequest", "interrupted_by_signals"]

HEEDED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that end a command."""


class Interrupted(KeyboardInterrupt):
    """A signal ended the command.

    Attributes:
        number: The signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle the signals while the block runs, except for a SIGHUP that is ignored, as under nohup."""
    before = {number: signal.getsignal(number) for number in HEEDED}
    if before[signal.SIGHUP] is signal.SIG_IGN:
        del before[signal.SIGHUP]
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _interrupt(number: int, frame: FrameType | None) -> None:
    del frame
    raise Interrupted(number)


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP do what Ctrl-C does while the block runs.

    Raises:
        Interrupted: One of the signals arrived.
    """
    with _handled(_interrupt):
        yield


class StopRequest:
    """Whether a signal has requested the end. The first only requests it; a second raises `Interrupted` at once.

    Attributes:
        number: The signal's number, or None before the first one.
        descriptor: Readable after the first signal, so that it wakes a poll that waits for input.
        is_patient: Whether the first signal only requests the end. If not, it raises `Interrupted`, too.
    """

    def __init__(self, descriptor: int, waker: int) -> None:
        self.number: int | None = None
        self.descriptor = descriptor
        self.is_patient = True
        self._waker = waker

    @staticmethod
    @contextmanager
    def heeded() -> Iterator[StopRequest]:
        """Turn the first SIGINT, SIGTERM or SIGHUP into a request to stop while the block runs.

        Yields:
            The request.

        Raises:
            Interrupted: A second signal arrived.
        """
        reading, writing = os.pipe()
        request = StopRequest(reading, writing)
        try:
            with _handled(request.note):
                yield request
        finally:
            os.close(reading)
            os.close(writing)

    def note(self, number: int, frame: FrameType | None) -> None:
        """Note a signal, as its handler."""
        del frame
        if self.number is not None or not self.is_patient:
            raise Interrupted(number)
        self.number = number
        os.write(self._waker, b"\0")

    def require_none(self) -> None:
        """Raise `Interrupted` if a signal has requested the end."""
        if self.number is not None:
            raise Interrupted(self.number)
