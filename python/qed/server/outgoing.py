"""Answers on their way to clients: writes the pieces of an answer at once, and limits the answers that are not read."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from qed.server.logs import Line, OncePerMinute

if TYPE_CHECKING:
    from qed.server.config import Limits

__all__ = ["GatheringTransport", "UnreadAnswers"]

_log = logging.getLogger(__name__)

_GATHERED_BYTES: Final = 64 * 1024
"""A larger piece is written at once, so that the connection notices whether the client reads before it continues."""
_PROGRESS_BYTES: Final = 64 * 1024
"""A client that reads this much within the time limit is slow, not stalled."""


class GatheringTransport:
    """A transport that writes all pieces of an answer in one call.

    uvicorn writes head and body separately, and each write is a system call that wakes the client: a seventh of the
    whole time of an add. Therefore pieces wait until the next turn of the event loop.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, patience_s: float) -> None:
        self._transport = transport
        self._loop = loop
        self._patience_s = patience_s
        self._pieces: list[bytes] = []
        self.get_extra_info = transport.get_extra_info
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading
        self.unread_bytes = transport.get_write_buffer_size
        self.abort = transport.abort

    def write(self, data: bytes) -> None:
        """Write `data`, together with all that follows before the next turn of the event loop."""
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(data)
        if len(data) > _GATHERED_BYTES:
            self._flush()

    def close(self) -> None:
        """Write the rest, and close once it is sent; the connection of a client that does not read it is aborted."""
        self._flush()
        self._transport.close()
        if 0 < self.unread_bytes() <= _GATHERED_BYTES:
            # uvloop closes once everything is sent, which is never if the client does not read. `UnreadAnswers` handles
            # larger answers.
            self._loop.call_later(self._patience_s, self.abort)

    def _flush(self) -> None:
        if self._pieces:
            pieces, self._pieces = self._pieces, []
            # A handler may still answer a client that has disconnected, and uvloop raises an error for that.
            if not self.is_closing():
                self._transport.write(b"".join(pieces))


class UnreadAnswers:
    """The answers that clients have not read, on all connections together.

    Each has a time limit, and together they have a limit in bytes: beyond it, the connection whose answer has waited
    longest is closed. New requests are not refused, because the clients that do not read are to blame.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._clocks: dict[GatheringTransport, asyncio.TimerHandle] = {}
        self._once_per_minute = OncePerMinute()

    def begin(self, transport: GatheringTransport) -> None:
        """Start the clock of an answer that fills the buffers of its connection, and make room for it."""
        if transport not in self._clocks:
            self._start(transport)
            self._make_room()

    def end(self, transport: GatheringTransport) -> None:
        """Stop the clock: the answer is read, or the connection lost."""
        clock = self._clocks.pop(transport, None)
        if clock is not None:
            clock.cancel()

    def _start(self, transport: GatheringTransport) -> None:
        loop, unread_bytes = asyncio.get_running_loop(), transport.unread_bytes()
        # A dict keeps the position of a key that is set again, so the oldest stays first.
        self._clocks[transport] = loop.call_later(self._limits.unread_timeout_s, self._look, transport, unread_bytes)

    def _look(self, transport: GatheringTransport, unread_bytes: int) -> None:
        if unread_bytes - transport.unread_bytes() < _PROGRESS_BYTES:
            self.end(transport)
            transport.abort()
        else:
            self._start(transport)

    def _make_room(self) -> None:
        unread_bytes = sum(transport.unread_bytes() for transport in self._clocks)
        # The newest one stays, whatever its size: it is a single answer.
        for transport in list(self._clocks)[:-1]:
            if unread_bytes <= self._limits.max_unread_bytes:
                return
            unread_bytes -= transport.unread_bytes()
            self.end(transport)
            transport.abort()
            if self._once_per_minute.is_due("clients", "unread"):
                _log.warning(Line("closed the oldest unread answer", limit_bytes=self._limits.max_unread_bytes))
