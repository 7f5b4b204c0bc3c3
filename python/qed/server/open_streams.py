"""The streams of events that are open: each can be ended by others, and all of them are counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from qed.server.families import by_label, counter, gauge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qed.server.families import Family

__all__ = ["DONE", "GONE", "Ending", "OpenStream", "OpenStreams"]

DONE: Final = "done"
"""How a stream is counted that ended well."""
GONE: Final = "gone"
"""How a stream is counted whose client closed the connection."""


class Ending(NamedTuple):
    """Why a stream ends before its client ends it.

    Attributes:
        code: A code for programs, as in other errors.
        message: The reason in words.
    """

    code: str
    message: str


class OpenStream:
    """One stream of events, as its connection and the server see it.

    Attributes:
        ending: Why it has to end; None while it may go on.
    """

    def __init__(self, reader: asyncio.Task[None]) -> None:
        """Open it.

        Args:
            reader: Reads its lines. It is cancelled when the stream has to end.
        """
        self.ending: Ending | None = None
        self._reader = reader

    def end(self, code: str, message: str) -> None:
        """Read no more of it. What was submitted is still answered, then it ends with this error."""
        if self.ending is None:
            self.ending = Ending(code, message)
            self._reader.cancel()


class OpenStreams:
    """All streams of this server.

    Attributes:
        stopping: Why no stream may begin any more; None while streams may.
    """

    def __init__(self) -> None:
        self._streams: set[OpenStream] = set()
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self.stopping: str | None = None
        self._events = 0
        self._ends: Counter[str] = Counter()

    def enter(self, stream: OpenStream) -> None:
        """Count a stream. If the server is stopping, it ends at once."""
        self._streams.add(stream)
        self._is_empty.clear()
        if self.stopping is not None:
            stream.end("unavailable", self.stopping)

    def leave(self, stream: OpenStream, reason: str) -> None:
        """Count a stream no longer.

        Args:
            stream: The stream.
            reason: How it ended: `DONE`, `GONE`, or the code of an error.
        """
        self._streams.discard(stream)
        self._ends[reason] += 1
        if not self._streams:
            self._is_empty.set()

    def note_events(self, count: int) -> None:
        """Count events that were acknowledged."""
        self._events += count

    async def drain(self, message: str) -> None:
        """End all streams, and each later one, and return once those that were open have their last line.

        Args:
            message: Why, in words.
        """
        self.stopping = message
        for stream in list(self._streams):
            stream.end("unavailable", message)
        await self._is_empty.wait()

    def families(self) -> Iterator[Family]:
        """Yield what was counted."""
        yield gauge("streams", "Streams of events that are open.", (len(self._streams),))
        yield counter("stream_events", "Events that were acknowledged in streams.", (self._events,))
        yield counter(
            "stream_ends",
            "Streams that have ended, by how: done, gone if the client closed the connection, or the code of an error.",
            *by_label(self._ends),
            labels=("reason",),
        )
