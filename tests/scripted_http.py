"""An HTTP server that answers what a test says, byte by byte if it wants to."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Self

__all__ = ["HANG", "Reply", "Request", "ScriptedServer", "reply"]

HANG: Final = None
"""The reply that never comes."""


@dataclass(frozen=True)
class Request:
    """What a client has sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Reply: TypeAlias = "bytes | Callable[[Request], Awaitable[bytes]] | None"


def reply(status: int, body: bytes | str = b"", *headers: str) -> bytes:
    """Return the bytes of an answer."""
    content = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} x", f"Content-Length: {len(content)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + content


class ScriptedServer:
    """Gives each request the next reply, and the last one again and again.

    Attributes:
        requests: What it was sent so far.
        most_at_once: The largest number of requests that were unanswered at one time.
    """

    def __init__(self, *replies: Reply, drip_s: float = 0.0) -> None:
        self._replies = list(replies)
        self._drip_s = drip_s
        self._open = 0
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.requests: list[Request] = []
        self.most_at_once = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task, writer in self._connections.items():
            task.cancel()
            writer.close()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections[asyncio.get_running_loop().create_task(self._serve(reader, writer))] = writer

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def script(self, *replies: Reply) -> None:
        """Replace the replies that are left."""
        self._replies = list(replies)

    @property
    def posts(self) -> list[Request]:
        """Return the requests that were not merely for reading."""
        return [request for request in self.requests if request.method == "POST"]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                request = await self._read(reader)
                self.requests.append(request)
                self._open += 1
                self.most_at_once = max(self.most_at_once, self._open)
                try:
                    await self._answer(request, writer)
                finally:
                    self._open -= 1

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        replies = self._replies
        chosen = replies.pop(0) if len(replies) > 1 else replies[0]
        if chosen is HANG:
            await asyncio.sleep(3600)
        content = chosen if isinstance(chosen, bytes) else await chosen(request)  # type: ignore[misc]  # it does not hang
        step = 1 if self._drip_s else len(content)
        for start in range(0, len(content), step):
            writer.write(content[start : start + step])
            await writer.drain()
            if self._drip_s:
                await asyncio.sleep(self._drip_s)

    async def _read(self, reader: asyncio.StreamReader) -> Request:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Request(method, path, headers, body)
