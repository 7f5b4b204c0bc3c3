"""The transports of httpx's clients: pools of httpcore that run on network backends of our own.

httpx's own transports accept no network backend. These use only public interfaces of both libraries.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, cast

import httpcore
import httpx

from qed._client.deadline import DeadlineBackend

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator

    from httpcore import SOCKET_OPTION

    from qed._client.sockets import Sockets

__all__ = ["CONNECTION_LIMIT", "AsyncTransport", "NotingBackend", "Transport", "as_httpx"]

# Further calls wait for their turn, without a limit. The pool of httpcore could queue them too, and hold more
# connections, but it examines all of them for every request: 200 concurrent calls on 100 connections ran at a quarter
# of the rate of these.
CONNECTION_LIMIT: Final = 16
# Servers and gateways commonly keep an idle connection for 5 s or more. This is shorter, so that no request uses a
# connection that is being closed: an insertion on it could not be sent again.
IDLE_CONNECTION_S: Final = 3.0

_KINDS: Final[dict[type[Exception], type[httpx.TransportError]]] = {
    httpcore.PoolTimeout: httpx.PoolTimeout,
    httpcore.ConnectTimeout: httpx.ConnectTimeout,
    httpcore.ReadTimeout: httpx.ReadTimeout,
    httpcore.WriteTimeout: httpx.WriteTimeout,
    httpcore.ConnectError: httpx.ConnectError,
    httpcore.ReadError: httpx.ReadError,
    httpcore.WriteError: httpx.WriteError,
    httpcore.LocalProtocolError: httpx.LocalProtocolError,
    httpcore.RemoteProtocolError: httpx.RemoteProtocolError,
}
"""Every exception that a pool raises for an error on a connection, and its counterpart in httpx."""


class Transport(httpx.BaseTransport):
    """Connections of a thread's client; every read and write keeps the deadline of its thread.

    Args:
        tls: How to check the servers' certificates.
        sockets: Records each opened socket.
    """

    def __init__(self, tls: ssl.SSLContext, sockets: Sockets) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=tls,
            max_connections=CONNECTION_LIMIT,
            max_keepalive_connections=CONNECTION_LIMIT,
            keepalive_expiry=IDLE_CONNECTION_S,
            network_backend=DeadlineBackend(sockets),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return its response, whose body is still to be read; see `httpx.BaseTransport`."""
        with as_httpx():
            response = self._pool.handle_request(_request(request))
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Stream(cast("Iterable[bytes]", response.stream)),
            extensions=response.extensions,
        )

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()


class AsyncTransport(httpx.AsyncBaseTransport):
    """Connections of an asyncio client, in one event loop.

    Args:
        tls: As for `Transport`.
        sockets: As for `Transport`.
    """

    def __init__(self, tls: ssl.SSLContext, sockets: Sockets) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=CONNECTION_LIMIT,
            max_keepalive_connections=CONNECTION_LIMIT,
            keepalive_expiry=IDLE_CONNECTION_S,
            network_backend=NotingBackend(sockets),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return its response, whose body is still to be read; see `httpx.AsyncBaseTransport`."""
        with as_httpx():
            response = await self._pool.handle_async_request(_request(request))
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_AsyncStream(cast("AsyncIterable[bytes]", response.stream)),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.aclose()


class _Stream(httpx.SyncByteStream):
    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[bytes]:
        with as_httpx():
            yield from self._parts

    def close(self) -> None:
        close = getattr(self._parts, "close", None)
        if close is not None:
            close()


class _AsyncStream(httpx.AsyncByteStream):
    def __init__(self, parts: AsyncIterable[bytes]) -> None:
        self._parts = parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with as_httpx():
            async for part in self._parts:
                yield part

    async def aclose(self) -> None:
        aclose = getattr(self._parts, "aclose", None)
        if aclose is not None:
            await aclose()


class NotingBackend(httpcore.AnyIOBackend):
    """TCP connections of asyncio whose sockets are recorded. `asyncio.timeout` sets their deadline."""

    def __init__(self, sockets: Sockets) -> None:
        self._sockets = sockets

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        stream = await super().connect_tcp(host, port, timeout, local_address, socket_options)
        self._sockets.note(stream.get_extra_info("socket"))
        return stream


def _request(request: httpx.Request) -> httpcore.Request:
    url = request.url
    content: Iterable[bytes] | AsyncIterable[bytes] = request.stream
    return httpcore.Request(
        request.method,
        httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        headers=request.headers.raw,
        content=content,
        extensions=request.extensions,
    )


@contextmanager
def as_httpx() -> Iterator[None]:
    """Raise each exception of httpcore as its counterpart in httpx."""
    try:
        yield
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as exc:
        raise _KINDS[type(exc)](str(exc)) from exc
