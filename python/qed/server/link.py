"""The stream of messages to one member, dialled again whenever it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from qed.server.frames import TransportError, frame
from qed.server.handshake import Removed, Stream, Twin
from qed.server.logs import Line
from qed.server.waiting import delays

if TYPE_CHECKING:
    from qed.server.handshake import Kind

__all__ = ["Dialler", "Link", "LinkHandler"]

_log = logging.getLogger(__name__)

_QUEUE_BYTES: Final = 64 * 1024 * 1024
"""Bytes that may wait for one member. More is dropped: the member cannot keep up with the log, and Raft resends."""
_RETRY_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
"""How long to wait before dialling again, by number of failures."""
_MOST_REASONS: Final = 8
_TWIN_S: Final = 10.0
"""Longer than the stream of a process that has died without a word can seem alive."""


class LinkHandler(Protocol):
    """What is called when a stream to another member fails."""

    def lost(self, receiver: int) -> None:
        """Note that messages to `receiver` may have been lost."""

    def removed(self, message: str) -> None:
        """Note that this member must stop: the cluster has removed it, refuses it, or has another with its identity."""


class Dialler(Protocol):
    """What opens streams to members."""

    async def connect(self, receiver: int) -> Stream:
        """Open a stream to a member, which has shown that it has its key."""

    async def open_stream(self, receiver: int, stream: Stream, kind: Kind) -> None:
        """Send the hello of a stream, and wait until the member accepts it."""

    def name_of(self, member: int) -> str:
        """Return the name of a member, or its number if its name is not known yet."""


class Link:
    """The stream of messages to one member, dialled again whenever it ends.

    Attributes:
        sent_bytes: How much was given to its streams.
    """

    def __init__(self, dialler: Dialler, handler: LinkHandler, receiver: int) -> None:
        self._dialler = dialler
        self._handler = handler
        self._receiver = receiver
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self.sent_bytes = 0
        self._writer: asyncio.StreamWriter | None = None
        self._arrived = asyncio.Event()
        self._contacted = asyncio.Event()
        self._connecting: asyncio.Task[Stream] | None = None
        self._reasons: set[str] = set()
        """Why it could not be opened since it last was: each is worth a line, as they differ in what to do."""
        self._twin_since: float | None = None
        self._task = asyncio.create_task(self._run())

    def put(self, message: bytes) -> None:
        """Queue a message, which may be lost. `flush` sends all that are queued."""
        if self._queued_bytes + len(message) > _QUEUE_BYTES:
            self._handler.lost(self._receiver)
            return
        self._queue.append(message)
        self._queued_bytes += len(message)

    def flush(self) -> None:
        """Send what is queued, in one write: each is encrypted, and costs a system call, by itself."""
        writer = self._writer
        if writer is None or writer.transport.is_closing():
            return  # The queue is sent on the next stream, or reported lost.
        if writer.transport.get_write_buffer_size() == 0:
            # The stream keeps up, so there is no need to wake its task.
            self._write(writer)
        else:
            self._arrived.set()

    def close(self) -> None:
        """End the stream, and stop dialling."""
        self._task.cancel()

    def note_contact(self) -> None:
        """Note that the member has connected: dial it at once, and abandon an attempt that began earlier."""
        self._contacted.set()
        if self._connecting is not None:
            self._connecting.cancel()

    def _note_twin(self, exc: TransportError) -> None:
        """Give up if the other side stays connected to a twin of this member. The twin may just be dying, at first."""
        moment = asyncio.get_running_loop().time()
        if not isinstance(exc, Twin):
            self._twin_since = None
        elif self._twin_since is None:
            self._twin_since = moment
        elif moment - self._twin_since > _TWIN_S:
            self._handler.removed(str(exc))

    def _write(self, writer: asyncio.StreamWriter) -> None:
        sent = b"".join(map(frame, self._queue))
        writer.write(sent)
        self.sent_bytes += len(sent)
        self._queue.clear()
        self._queued_bytes = 0

    async def _run(self) -> None:
        retries = delays(*_RETRY_S)
        while True:
            try:
                await self._transmit()
                retries = delays(*_RETRY_S)
            except Removed as exc:
                self._handler.removed(str(exc))
            except TransportError as exc:
                self._note_twin(exc)
                level = logging.DEBUG
                if str(exc) not in self._reasons and len(self._reasons) < _MOST_REASONS:
                    level = logging.WARNING
                    self._reasons.add(str(exc))
                _log.log(level, Line("cannot send", receiver=self._dialler.name_of(self._receiver), reason=exc))
            self._queue.clear()
            self._queued_bytes = 0
            self._handler.lost(self._receiver)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(next(retries)):
                    await self._contacted.wait()

    async def _transmit(self) -> None:
        """Send until the stream ends, then return. Raises if the stream could not be opened."""
        reader, writer, _ = stream = await self._connect()
        await self._dialler.open_stream(self._receiver, stream, "messages")
        self._reasons, self._twin_since = set(), None
        _log.info(Line("connected", receiver=self._dialler.name_of(self._receiver)))
        try:
            await self._send_all(reader, writer)
        finally:
            writer.transport.abort()
        _log.info(Line("disconnected", receiver=self._dialler.name_of(self._receiver)))

    async def _connect(self) -> Stream:
        """Connect; start over if the member connects to this one meanwhile.

        The system repeats a packet to an unreachable host only after one second, then after three.
        """
        while True:
            self._contacted.clear()
            self._connecting = asyncio.create_task(self._dialler.connect(self._receiver))
            try:
                return await self._connecting
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not self._contacted.is_set() or (task is not None and task.cancelling()):
                    raise
            finally:
                self._connecting = None

    async def _send_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The other side sends nothing more, so anything that can be read means the end.
        closed = asyncio.create_task(reader.read(1))
        closed.add_done_callback(lambda _: self._arrived.set())
        try:
            self._writer = writer
            while not closed.done() and not writer.transport.is_closing():
                self._write(writer)
                await writer.drain()
                await self._arrived.wait()
                self._arrived.clear()
        except OSError:
            pass  # `_run` dials again.
        finally:
            self._writer = None
            closed.cancel()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await closed
