"""`POST /events/stream`: events in, one a line, and their snapshots out, as soon as they are acknowledged.

Two tasks share a stream. The reader takes lines from the connection and submits them; the writer waits for what was
submitted, in its order, and answers. The reader stops while too many events wait for the writer, and the writer waits
while the client does not read. So a stream needs little memory, whatever its client does.

The last line of the answer says how the stream has ended, and how many lines were acknowledged. An answer without it
was cut off.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

from qed._wire import ENCODER, DecodeError, StreamEnd, StreamError
from qed.errors import NotLeader, OutcomeUnknown, Overloaded, QedError, Unavailable, WriteRefused
from qed.server.access import CALLER, Forbidden, Unauthenticated
from qed.server.bodies import ClientGone, drop_rest
from qed.server.event_lines import BadLine, EventLines, LineTooLong
from qed.server.guard import ForkGuard
from qed.server.logs import Line, OncePerMinute, where
from qed.server.node import NotTaken
from qed.server.open_streams import DONE, GONE, Ending, OpenStream, OpenStreams
from qed.server.rates import RateExceeded
from qed.server.slots import SLOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import Receive, Scope, Send

    from qed._qed import Added
    from qed.server.access import Access, Caller
    from qed.server.bodies import Bodies, Held
    from qed.server.event_lines import Bulk
    from qed.server.node import Node
    from qed.server.rates import Allowance
    from qed.server.slots import Slot

__all__ = ["EventStream"]

_log = logging.getLogger(__name__)

_HEADERS: Final = [
    (b"content-type", b"application/x-ndjson"),
    (b"cache-control", b"no-store"),
    # What a client has sent behind a line that is refused must not be read as another request.
    (b"connection", b"close"),
]
_WITH_RECEIPT: Final = b"receipt=committed"
_MOST_AHEAD: Final = 16_384
"""Events of a stream that may wait for their snapshots. The log commits them in two or three batches."""
_MOST_BULKS_AHEAD: Final = 512
"""Bulks that may wait. If events repeat, each bulk is a single event."""
_ANSWERED_AT_ONCE: Final = 4
"""Bulks whose snapshots are written together, if they are all there: a megabyte and a half."""
_LONGEST_WAIT_S: Final = 5.0
"""How long a stream waits for the rate of its key. Clients give up when they get no snapshot for 10 s."""
_FULL_PAUSE_S: Final = 0.02
"""How long to wait if the queue of the log is full."""

_CODES: Final[dict[type[Exception], str]] = {
    LineTooLong: "too_large",
    BadLine: "malformed",
    Unauthenticated: "unauthorized",
    Forbidden: "forbidden",
    RateExceeded: "rate_limited",
    Overloaded: "overloaded",
    NotLeader: "no_leader",
    ForkGuard: "fork_guard",
    OutcomeUnknown: "outcome_unknown",
    Unavailable: "unavailable",
    WriteRefused: "unavailable",
}
"""The codes of last lines, as those of other answers."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Submitted:
    """A bulk that waits to be added.

    Attributes:
        count: How many events it has.
        future: What was added, and its receipt or why there is none.
    """

    count: int
    future: asyncio.Future[tuple[Added, bytes | QedError | None]]


class _Failed(Exception):
    """Why a stream has to end."""

    def __init__(self, ending: Ending, *, line: int | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(ending.message)
        self.ending = ending
        self.line = line
        self.retry_after_s = retry_after_s


class EventStream:
    """Answers with a snapshot a line, in the order of the lines."""

    def __init__(self, node: Node, bodies: Bodies, access: Access, streams: OpenStreams) -> None:
        self._node = node
        self._bodies = bodies
        self._access = access
        self._streams = streams
        self._once_per_minute = OncePerMinute()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one stream.

        Raises:
            DecodeError: The query is not known.
            Exception: As `Node.add`, if this member accepts no insertions. The body was not read.
        """
        if scope["query_string"] not in {b"", _WITH_RECEIPT}:
            raise DecodeError("expected the query receipt=committed, or none")
        if self._streams.stopping is not None:
            # The client asks again, and then another member may lead.
            raise NotTaken(self._streams.stopping)
        await self._node.require_addable()
        slot: Slot = scope[SLOT]
        with self._bodies.hold(slot) as held:
            course = _Course(self._node, self._access, self._streams, held, scope=scope, receive=receive, send=send)
            reader = asyncio.create_task(course.read())
            stream = slot.stream = OpenStream(reader)
            self._streams.enter(stream)
            reason = GONE
            try:
                reason = await course.run(stream, reader)
            finally:
                slot.stream = None
                course.forget()
                self._streams.leave(stream, reason)
        if reason not in {DONE, GONE} and self._once_per_minute.is_due(slot.owner, reason):
            _log.info(Line("stream ended early", reason=reason, owner=slot.owner, acknowledged=course.acknowledged))


class _Course:
    """One stream from its first to its last line.

    Attributes:
        acknowledged: How many lines were answered with their snapshots.
    """

    def __init__(  # noqa: PLR0913  # the connection, and what it is checked against
        self,
        node: Node,
        access: Access,
        streams: OpenStreams,
        held: Held,
        *,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._node = node
        self._access = access
        self._streams = streams
        self._scope = scope
        self._receive = receive
        self._send = send
        self._held = held
        self._slot: Slot = scope[SLOT]
        self._has_receipt = scope["query_string"] == _WITH_RECEIPT
        limits = node.settings.limits
        self._lines = EventLines(max_line_bytes=limits.max_body_bytes, max_bulk_events=limits.max_bulk_events)
        self.acknowledged = 0
        self._ahead = 0
        """Events that were submitted and are not answered."""
        self._submitted: deque[_Submitted] = deque()
        self._changed = asyncio.Event()
        """Set when something was submitted, and when nothing more will be."""
        self._answered = asyncio.Event()
        """Set when something was answered."""
        self._is_read = False
        self._is_patient = True
        """Whether there is time to wait for what was submitted."""
        self._line_begun_s: float | None = None

    async def run(self, stream: OpenStream, reader: asyncio.Task[None]) -> str:
        """Read and answer until the end; return how it ended."""
        writer = asyncio.create_task(self._write(stream))
        try:
            await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
            # A writer that ends first has failed, and the reader would wait for it.
            reader.cancel()
            await asyncio.wait({reader})
            self._is_read = True
            self._changed.set()
            failed = self._failure_of(reader, stream)
            if failed is None and reader.exception() is not None:
                return GONE
            failed = await writer or failed
        except asyncio.CancelledError:
            # Only shutdown cancels a request, when the grace period is over, and this task ends here.
            failed = _Failed(Ending("unavailable", "the server stopped before it knew the result"))
            self._is_patient = False
        except Exception as exc:  # noqa: BLE001  # the answer has begun, so it must not begin again
            failed = _failed_by(exc)
        finally:
            reader.cancel()
            writer.cancel()
        # The same may happen while the last line is on its way.
        with suppress(asyncio.CancelledError):
            await self._end(failed)
        return DONE if failed is None else failed.ending.code

    def _failure_of(self, reader: asyncio.Task[None], stream: OpenStream) -> _Failed | None:
        if stream.ending is not None:
            return _Failed(stream.ending)
        if reader.cancelled():
            return _Failed(Ending("unavailable", "this server ends the stream"))
        exc = reader.exception()
        if exc is None or isinstance(exc, ClientGone):
            return None
        return exc if isinstance(exc, _Failed) else _failed_by(exc)

    # The reader.

    async def read(self) -> None:
        """Submit the lines as they arrive, and return at the end of the body.

        Raises:
            ClientGone: The client closed the connection. A line without its end was not submitted.
            Exception: The stream has to end.
        """
        is_more = True
        while is_more:
            piece, is_more = await self._next_piece()
            for bulk in self._lines.feed(piece):
                await self._submit(bulk)
            self._note_unfinished(piece)
        for bulk in self._lines.finish():
            await self._submit(bulk)

    async def _next_piece(self) -> tuple[bytes, bool]:
        if not self._ahead:
            self._slot.wait()
        limits, loop = self._node.settings.limits, asyncio.get_running_loop()
        late_s = loop.time() + limits.keep_alive_timeout_s
        if self._line_begun_s is not None:
            late_s = self._line_begun_s + limits.request_arrival_timeout_s
        try:
            async with asyncio.timeout_at(late_s):
                message = await self._receive()
        except TimeoutError:
            what = "the next line did not arrive" if self._line_begun_s is None else "a line did not arrive whole"
            raise _Failed(Ending("timeout", f"{what} in time")) from None
        if message["type"] != "http.request":
            raise ClientGone
        self._slot.work()
        return message["body"], message["more_body"]

    def _note_unfinished(self, piece: bytes) -> None:
        """Start the clock of an unfinished line, which begins again with each line."""
        if not self._lines.held_bytes:
            self._line_begun_s = None
        elif self._line_begun_s is None or b"\n" in piece:
            self._line_begun_s = asyncio.get_running_loop().time()
        self._held.note(self._lines.held_bytes)

    async def _submit(self, bulk: Bulk) -> None:
        self._access.require_still(self._scope)
        caller: Caller = self._scope[CALLER]
        most = None if caller.allowance is None else caller.allowance.events_at_once
        for start in range(0, len(bulk.events), most or len(bulk.events)):
            events = bulk.events[start : start + (most or len(bulk.events))]
            with self._clock_stopped():
                await self._wait_for_room()
                if caller.allowance is not None:
                    await _wait_for_rate(caller.allowance, len(events))
                try:
                    future = await self._begin(bulk._replace(events=events))
                except BaseException:
                    if caller.allowance is not None:
                        caller.allowance.give_back_events(len(events))
                    raise
            self._ahead += len(events)
            self._submitted.append(_Submitted(len(events), future))
            self._changed.set()

    @contextmanager
    def _clock_stopped(self) -> Iterator[None]:
        """Give an unfinished line the time that the block takes: the client cannot send meanwhile."""
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        yield
        if self._line_begun_s is not None:
            self._line_begun_s += loop.time() - begun_s

    async def _wait_for_room(self) -> None:
        while self._ahead >= _MOST_AHEAD or len(self._submitted) >= _MOST_BULKS_AHEAD:
            self._answered.clear()
            await self._answered.wait()

    async def _begin(self, bulk: Bulk) -> asyncio.Future[tuple[Added, bytes | QedError | None]]:
        """Submit a bulk. If the queue of the log is full, wait as long as a request may take."""
        loop = asyncio.get_running_loop()
        late_s = loop.time() + self._node.settings.limits.request_timeout_s
        while True:
            try:
                return await self._node.begin_add(bulk.events, if_absent=bulk.if_absent, has_receipt=self._has_receipt)
            except Overloaded:
                if loop.time() > late_s:
                    raise
                await asyncio.sleep(_FULL_PAUSE_S)

    # The writer.

    async def _write(self, stream: OpenStream) -> _Failed | None:
        """Answer what was submitted; return the first failure, once the rest is known too, or None."""
        await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await self._send({"type": "http.response.body", "body": b"", "more_body": True})
        while await self._has_next():
            lines: list[bytes] = []
            failed = None
            for submitted in list(islice(self._submitted, _ANSWERED_AT_ONCE)):
                if lines and not submitted.future.done():
                    break
                try:
                    lines.append(_spelt(*await submitted.future, has_receipt=self._has_receipt))
                except Exception as exc:  # noqa: BLE001  # the reason goes to the client
                    failed = _failed_by(exc)
                    break
            await self._answer(lines)
            if failed is not None:
                stream.end(*failed.ending)
                return failed
        return None

    async def _has_next(self) -> bool:
        while not self._submitted:
            if self._is_read:
                return False
            self._changed.clear()
            await self._changed.wait()
        return True

    async def _answer(self, lines: list[bytes]) -> None:
        """Answer the first of what was submitted: each of these lines are the snapshots of a bulk."""
        if not lines:
            return
        await self._send({"type": "http.response.body", "body": b"".join(lines), "more_body": True})
        count = sum(self._submitted.popleft().count for _ in lines)
        self.acknowledged += count
        self._streams.note_events(count)
        self._ahead -= count
        self._answered.set()
        if not self._ahead and not self._is_read:
            self._slot.wait()

    # The end.

    def forget(self) -> None:
        """Wait no longer for what was submitted. It may be added nevertheless."""
        for submitted in self._submitted:
            submitted.future.cancel()

    async def _end(self, failed: _Failed | None) -> None:
        """Send the last line. After an error, wait a while until the client has read it and stops sending."""
        if failed is None:
            last = ENCODER.encode(StreamEnd(self.acknowledged)) + b"\n"
            await self._send({"type": "http.response.body", "body": last})
            return
        error = StreamError(
            error=failed.ending.code,
            message=failed.ending.message,
            acknowledged=self.acknowledged,
            unknown=await self._unknown(),
            line=failed.line,
            retry_after=failed.retry_after_s,
        )
        await self._send({"type": "http.response.body", "body": ENCODER.encode(error) + b"\n", "more_body": True})
        if self._is_patient:
            await drop_rest(self._receive)
        await self._send({"type": "http.response.body", "body": b""})

    async def _unknown(self) -> int:
        """Return how many lines after the acknowledged ones may have been added: up to the last that is not refused."""
        unknown = count = 0
        for submitted in self._submitted:
            count += submitted.count
            is_known = submitted.future.done() or self._is_patient
            if not (is_known and await _is_refused(submitted.future)):
                unknown = count
        return unknown


async def _wait_for_rate(allowance: Allowance, count: int) -> None:
    while wait_s := allowance.wait_for_events(count):
        if wait_s > _LONGEST_WAIT_S:
            raise RateExceeded("this key has used up its rate of events on this server", wait_s)
        await asyncio.sleep(wait_s)


def _spelt(added: Added, receipt: bytes | QedError | None, *, has_receipt: bool) -> bytes:
    """Return the snapshots, one a line, and a line with their receipt if one is wanted."""
    # There is no text in snapshots, so this is only between them.
    lines = added.to_json_array()[1:-1].replace(b"},{", b"}\n{") + b"\n"
    if not has_receipt:
        return lines
    if isinstance(receipt, QedError):
        return lines + b'{"Receipt":null,"ReceiptError":' + ENCODER.encode(str(receipt)) + b"}\n"
    return lines + b'{"Receipt":' + (receipt or b"null") + b"}\n"


async def _is_refused(future: asyncio.Future[_T]) -> bool:
    """Return whether what was submitted is certainly not added."""
    try:
        await future
    except (NotLeader, NotTaken, Overloaded):
        return True
    except (QedError, asyncio.CancelledError):
        return False
    return False


def _failed_by(exc: BaseException) -> _Failed:
    code = next((_CODES[kind] for kind in type(exc).__mro__ if kind in _CODES), None)
    if code is None:
        _log.error(Line("unexpected error", **where(exc)))
        return _Failed(Ending("internal", "the server failed to answer; see its log"))
    return _Failed(
        Ending(code, str(exc)),
        line=exc.line if isinstance(exc, BadLine) else None,
        retry_after_s=exc.retry_after_s if isinstance(exc, RateExceeded) else None,
    )
