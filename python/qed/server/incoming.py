"""Messages of another member, as they arrive on its stream."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from qed.server.frames import FRAME_S, Frames, TransportError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["IncomingMessages"]


class IncomingMessages(asyncio.Protocol):
    """The receiving end of a stream of messages whose other side is known.

    It takes the place of the stream's reader, which copies each piece and wakes a task for it.
    """

    def __init__(self, receive: Callable[[Sequence[bytes]], None]) -> None:
        self._receive = receive
        self._frames = Frames()
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._clock: asyncio.TimerHandle | None = None

    async def finish(self) -> None:
        """Return once the stream has ended.

        Raises:
            TransportError: A frame is too large, or stalls.
        """
        try:
            await self._ended
        finally:
            self._stop_clock()

    def data_received(self, data: bytes) -> None:
        """Hand over the messages that are complete."""
        if self._ended.done():
            return
        try:
            messages = self._frames.feed(data)
        except TransportError as exc:
            self._end(exc)
            return
        if not self._frames.is_partial:
            self._stop_clock()
        elif messages or self._clock is None:
            self._start_clock()
        if messages:
            self._receive(messages)

    def connection_lost(self, _: Exception | None) -> None:
        """Note the end of the stream."""
        self._end(None)

    def _start_clock(self) -> None:
        self._stop_clock()
        stalled = TransportError(f"a frame did not arrive within {FRAME_S:g} s")
        self._clock = self._loop.call_later(FRAME_S, self._end, stalled)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _end(self, exc: TransportError | None) -> None:
        if self._ended.done():
            return
        if exc is None:
            self._ended.set_result(None)
        else:
            self._ended.set_exception(exc)
