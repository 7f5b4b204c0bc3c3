"""Answers on their way to clients: writes the pieces of an answer at once, and limits the answers that are not read."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

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


class _Unread(NamedTuple):
    """An answer that its client has not read.

    Attributes:
        owner: Whose it is.
        clock: Looks after a while whether the client has read more.
    """

    owner: str
    clock: asyncio.TimerHandle


class UnreadAnswers:
    """The answers that clients have not read, on all connections together.

    Each has a time limit, and together they have a limit in bytes: beyond it, the owner with most of them loses the
    oldest. New requests are not refused, because the clients that do not read are to blame.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._unread: dict[GatheringTransport, _Unread] = {}
        self._once_per_minute = OncePerMinute()

    def begin(self, transport: GatheringTransport, owner: str) -> None:
        """Start the clock of an answer that fills the buffers of its connection, and make room for it."""
        if transport not in self._unread:
            self._start(transport, owner)
            self._make_room(transport)

    def end(self, transport: GatheringTransport) -> None:
        """Stop the clock: the answer is read, or the connection lost."""
        unread = self._unread.pop(transport, None)
        if unread is not None:
            unread.clock.cancel()

    def _start(self, transport: GatheringTransport, owner: str) -> None:
        loop, unread_bytes = asyncio.get_running_loop(), transport.unread_bytes()
        clock = loop.call_later(self._limits.unread_timeout_s, self._look, transport, unread_bytes)
        # A dict keeps the position of a key that is set again, so the oldest stays first.
        self._unread[transport] = _Unread(owner, clock)

    def _look(self, transport: GatheringTransport, unread_bytes: int) -> None:
        if unread_bytes - transport.unread_bytes() < _PROGRESS_BYTES:
            self.end(transport)
            transport.abort()
        else:
            self._start(transport, self._unread[transport].owner)

    def _make_room(self, newest: GatheringTransport) -> None:
        by_owner: Counter[str] = Counter()
        for transport, unread in self._unread.items():
            by_owner[unread.owner] += transport.unread_bytes()
        # The newest one stays, whatever its size: it is a single answer.
        while by_owner.total() > self._limits.max_unread_bytes and len(self._unread) > 1:
            transport, owner = max(
                ((transport, unread.owner) for transport, unread in self._unread.items() if transport is not newest),
                key=lambda entry: by_owner[entry[1]],
            )
            by_owner[owner] -= transport.unread_bytes()
            self.end(transport)
            transport.abort()
            if self._once_per_minute.is_due(owner, "unread"):
                limit = self._limits.max_unread_bytes
                _log.warning(Line("closed the oldest unread answer", owner=owner, limit_bytes=limit))
