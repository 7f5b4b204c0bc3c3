"""Ctrl-C and SIGTERM, for a command that has work to finish before it ends."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["Interrupted", "StopRequest"]

_HEEDED: Final = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal ended the command.

    Attributes:
        number: The signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class StopRequest:
    """Whether a signal has requested the end. The first only requests it; a second raises `Interrupted` at once.

    Attributes:
        number: The signal's number, or None before the first one.
        descriptor: Readable after the first signal, so that it wakes a poll that waits for input.
    """

    def __init__(self, descriptor: int, waker: int) -> None:
        self.number: int | None = None
        self.descriptor = descriptor
        self._waker = waker

    @staticmethod
    @contextmanager
    def heeded() -> Iterator[StopRequest]:
        """Turn the first SIGINT or SIGTERM into a request to stop while the block runs.

        Yields:
            The request.

        Raises:
            Interrupted: A second signal arrived.
        """
        reading, writing = os.pipe()
        request = StopRequest(reading, writing)
        before = {number: signal.signal(number, request.note) for number in _HEEDED}
        try:
            yield request
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(reading)
            os.close(writing)

    def note(self, number: int, frame: FrameType | None) -> None:
        """Note a signal, as its handler."""
        del frame
        if self.number is not None:
            raise Interrupted(number)
        self.number = number
        os.write(self._waker, b"\0")

    def require_none(self) -> None:
        """Raise `Interrupted` if a signal has requested the end."""
        if self.number is not None:
            raise Interrupted(self.number)
