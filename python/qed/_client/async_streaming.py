"""Streams of events for asyncio: `streaming` with tasks in place of threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import httpcore
import httpx

from qed._client.calls import Answer
from qed._client.dialogue import Dialogue
from qed._client.duplex import PORTS
from qed._client.streaming import IDLE_S
from qed._client.transports import NotingBackend, as_httpx
from qed.errors import ProtocolError, QedError

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping

    from qed._client.ledger import Ledger
    from qed._client.sockets import Sockets
    from qed.acknowledgement import Acknowledgement
    from qed.proofs import Digest

__all__ = ["AsyncDuplex", "stream_events"]

_READ_BYTES: Final = 1 << 18
_TURN_EVENTS: Final = 256
"""Events of an iterable that never waits, after which other tasks have their turn."""


class AsyncDuplex:
    """A connection with one exchange on it.

    Attributes:
        dialogue: The exchange.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream, dialogue: Dialogue) -> None:
        self.dialogue = dialogue
        self._stream = stream

    @staticmethod
    async def open(
        url: str, headers: Mapping[str, str], tls: ssl.SSLContext, sockets: Sockets, timeout_s: float
    ) -> AsyncDuplex:
        """Connect, send the head of a request, and return once the head of the answer has arrived; see `Duplex.open`.

        Raises:
            httpx.TransportError: There is no connection, or it was lost.
            TimeoutError: There was no answer in time.
        """
        target = httpx.URL(url)
        with as_httpx():
            async with asyncio.timeout(timeout_s):
                stream = await NotingBackend(sockets).connect_tcp(
                    target.host, target.port or PORTS[target.scheme], timeout=timeout_s / 2
                )
                try:
                    if target.scheme == "https":
                        stream = await stream.start_tls(tls, target.host, timeout=timeout_s / 2)
                    dialogue = Dialogue(target.netloc.decode(), target.raw_path.decode(), headers)
                    duplex = AsyncDuplex(stream, dialogue)
                    await duplex.write(dialogue.head())
                    await duplex._await_head()  # its own
                except BaseException:
                    await stream.aclose()
                    raise
        return duplex

    async def _await_head(self) -> None:
        dialogue = self.dialogue
        try:
            while not dialogue.is_over and dialogue.status != HTTPStatus.OK:
                await self.read()
        except ProtocolError as exc:
            raise httpcore.RemoteProtocolError(str(exc)) from exc
        if not dialogue.status:
            raise httpcore.RemoteProtocolError("server disconnected without sending a response")

    def answer(self, url: str) -> Answer:
        """Return the answer: whole if it is a refusal, else its head."""
        return Answer(url, self.dialogue.status, self.dialogue.headers, self.dialogue.body())

    async def write(self, data: bytes) -> None:
        """Send `data`. If the connection is lost, what can still be read tells."""
        with suppress(httpcore.NetworkError):
            await self._stream.write(data)

    async def read(self) -> None:
        """Receive something, or the end."""
        try:
            part = await self._stream.read(_READ_BYTES)
        except httpcore.NetworkError:
            part = b""
        self.dialogue.receive(part)

    async def aclose(self) -> None:
        """Close the connection, whatever is on its way."""
        await self._stream.aclose()


class _Feed:
    """A task that enters events into a ledger, a bounded number ahead of those that are sent.

    Attributes:
        error: What the caller's iterable has raised, if it is over.
        is_over: Whether no more events will be entered.
        news: Set when an event was entered, and at the end.
        room: Set when events were sent.
    """

    def __init__(self, events: Iterable[bytes | Digest] | AsyncIterable[bytes | Digest], ledger: Ledger) -> None:
        self.error: BaseException | None = None
        self.is_over = False
        self.news = asyncio.Event()
        self.room = asyncio.Event()
        self._events = events
        self._ledger = ledger
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Take no more events."""
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        try:
            if isinstance(self._events, AsyncIterable):
                async for event in self._events:
                    await self._enter(event)
            else:
                for event in self._events:
                    await self._enter(event)
        except Exception as exc:  # noqa: BLE001  # it is raised in the caller's task
            self.error = exc
        self.is_over = True
        self.news.set()

    async def _enter(self, event: bytes | Digest) -> None:
        ledger = self._ledger
        ledger.enter(event)
        self.news.set()
        if len(ledger.waiting) % _TURN_EVENTS == 0:
            await asyncio.sleep(0)
        while ledger.is_full:
            self.room.clear()
            await self.room.wait()


async def stream_events(
    events: Iterable[bytes | Digest] | AsyncIterable[bytes | Digest],
    ledger: Ledger,
    connect: Callable[[], Awaitable[AsyncDuplex]],
    timeout_s: float,
) -> AsyncIterator[Acknowledgement]:
    """Send events, and yield what was acknowledged; see `streaming.stream_events`.

    Yields:
        Each acknowledgement: the snapshots that arrived together.

    Raises:
        Exception: As there.
    """
    duplex = await connect()
    feed = _Feed(events, ledger)
    try:
        while True:
            exchange = _Exchange(duplex, feed, ledger, timeout_s)
            try:
                async for done in exchange.run():
                    yield done
            finally:
                await exchange.stop()
                await duplex.aclose()
            await asyncio.sleep(ledger.end_exchange())
            if not await _has_more(feed, ledger):
                break
            try:
                duplex = await connect()
            except QedError as exc:
                raise ledger.broken(exc) from exc
    finally:
        await feed.stop()
    if feed.error is not None:
        raise feed.error


async def _has_more(feed: _Feed, ledger: Ledger) -> bool:
    """Wait for an event, and return whether there is one."""
    feed.room.set()
    while not ledger.waiting and not feed.is_over:
        feed.news.clear()
        await feed.news.wait()
    return bool(ledger.waiting)


class _Exchange:
    """One exchange of a stream: a task sends, and the caller's task receives."""

    def __init__(self, duplex: AsyncDuplex, feed: _Feed, ledger: Ledger, timeout_s: float) -> None:
        self._duplex = duplex
        self._feed = feed
        self._ledger = ledger
        self._timeout_s = timeout_s
        self._has_ended = False
        self._is_writing = False
        self._since_s = 0.0
        """When something was sent last while nothing else was under way."""
        self._progress = asyncio.Event()
        ledger.begin_exchange()
        self._sender = asyncio.create_task(self._send())

    async def run(self) -> AsyncIterator[Acknowledgement]:
        """Receive until the server has said how the exchange ended, or the connection is lost."""
        ledger, dialogue = self._ledger, self._duplex.dialogue
        while not ledger.is_ended:
            if lines := dialogue.lines():
                for done in ledger.receive(lines):
                    yield done
                self._progress.set()
            elif dialogue.is_over:
                for done in ledger.cut(dialogue.what_is_missing()):
                    yield done
            elif not await self._receive():
                for done in ledger.cut(f"no snapshot within {self._timeout_s:g} s"):
                    yield done

    async def stop(self) -> None:
        """Stop to send. If the server has ended the exchange, end the request: it waits for that, but not long."""
        self._sender.cancel()
        await asyncio.wait({self._sender})
        if self._ledger.is_ended and not (self._has_ended or self._is_writing or self._duplex.dialogue.is_over):
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._duplex.write(self._duplex.dialogue.end())

    async def _receive(self) -> bool:
        """Receive something; return False if the server owes an answer, and gives none in time."""
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        late_s = begun_s + self._timeout_s
        try:
            async with asyncio.timeout_at(late_s):
                await self._duplex.read()
        except TimeoutError:
            # What was sent since then has its own time.
            return not self._is_awaiting() or self._since_s > begun_s
        return True

    def _is_awaiting(self) -> bool:
        return self._has_ended or bool(self._ledger.pending)

    async def _send(self) -> None:
        ledger, feed, dialogue = self._ledger, self._feed, self._duplex.dialogue
        while True:
            self._progress.clear()
            feed.news.clear()
            if not ledger.pending:
                self._since_s = asyncio.get_running_loop().time()
            if lines := ledger.next_lines():
                feed.room.set()
                self._is_writing = True
                await self._duplex.write(dialogue.data(lines))
                self._is_writing = False
            elif ledger.waiting:
                await self._progress.wait()
            elif feed.is_over or not await self._is_fed():
                self._has_ended = True
                await self._duplex.write(dialogue.end())
                return

    async def _is_fed(self) -> bool:
        """Wait for an event; return False if none came for long, and nothing else is under way."""
        while True:
            try:
                async with asyncio.timeout(IDLE_S):
                    await self._feed.news.wait()
            except TimeoutError:
                if self._ledger.pending:
                    continue
                return False
            return True
