"""One HTTP exchange as both clients hold it: the connections, the answer as it arrives, why there is none.

Connections go straight to the servers: what the environment says of proxies is for the web, not for a cluster, whose
members must be told apart. Of the environment only SSL_CERT_FILE and SSL_CERT_DIR count.
"""

from __future__ import annotations

import os
import random
import ssl
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Final

import httpcore
import httpx

from qed._client.attempts import Failure
from qed._client.calls import Answer
from qed._client.deadline import DeadlineBackend
from qed.errors import ProtocolError

if TYPE_CHECKING:
    from qed._client.topology import Topology

__all__ = [
    "CONNECTION_LIMIT",
    "DEFAULT_ATTEMPTS",
    "DEFAULT_ENDPOINT",
    "DEFAULT_READ",
    "DEFAULT_TIMEOUT_S",
    "Inbox",
    "failure_of",
    "open_async_http",
    "open_http",
    "some_turn",
]

DEFAULT_ENDPOINT: Final = "http://127.0.0.1:8800"
DEFAULT_TIMEOUT_S: Final = 10.0
DEFAULT_ATTEMPTS: Final = 3
DEFAULT_READ: Final = "primary-preferred"

# Shorter than servers, or gateways before them, commonly keep an idle connection (5 s and more), so that no request
# meets one that is being closed: an insertion that does could not be sent again.
IDLE_CONNECTION_S: Final = 3.0
# Further calls wait for their turn, as long as it takes. The pool of httpcore could queue them too, and hold more
# connections, but it looks at all of them for every request: 200 calls at once on 100 connections ran at a quarter of
# the rate of these.
CONNECTION_LIMIT: Final = 16
_LIMITS: Final = httpx.Limits(
    max_connections=CONNECTION_LIMIT,
    max_keepalive_connections=CONNECTION_LIMIT,
    keepalive_expiry=IDLE_CONNECTION_S,
)


class Inbox:
    """One answer as it arrives, bounded in size."""

    def __init__(self, response: httpx.Response, limit_bytes: int) -> None:
        self._response = response
        self._body = bytearray()
        self._limit_bytes = limit_bytes
        # Compressed answers were not asked for, and a small one may be a gigabyte.
        if response.headers.get("content-encoding", "identity") != "identity":
            raise self._refusal("in an encoding that was not asked for")

    def take(self, part: bytes) -> None:
        """Take the next part in, or raise `ProtocolError` where that is too much."""
        if len(self._body) + len(part) > self._limit_bytes:
            raise self._refusal(f"with more than {self._limit_bytes} bytes")
        self._body += part

    def answer(self) -> Answer:
        """Return what has arrived."""
        headers = {name.lower(): value for name, value in self._response.headers.items()}
        return Answer(str(self._response.url), self._response.status_code, headers, bytes(self._body))

    def _refusal(self, what: str) -> ProtocolError:
        status = self._response.status_code
        return ProtocolError(f"{self._response.url} answered {status} {what}", status=status, body=bytes(self._body))


def failure_of(exc: httpx.TransportError | httpx.InvalidURL | TimeoutError, timeout_s: float) -> Failure:
    """Return why no answer came, and whether the request may have arrived all the same."""
    if isinstance(exc, httpx.LocalProtocolError):
        # Its own words may hold a header's value, the api key's.
        return Failure("this is no request that can be sent", may_have_arrived=False)
    was_never_sent = isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.InvalidURL)
    if not isinstance(exc, httpx.TimeoutException | TimeoutError):
        return Failure(_reason(exc), may_have_arrived=not was_never_sent)
    cause = "no connection in time" if was_never_sent else f"no complete answer within {timeout_s:g} s"
    return Failure(cause, may_have_arrived=not was_never_sent, is_timeout=True)


def _reason(exc: Exception) -> str:
    """Return why, for people: for a connection that failed, the system's own words from under the layers above it."""
    cause: BaseException | None = exc if isinstance(exc, httpx.ConnectError) else None
    while cause is not None:
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        if isinstance(cause, ConnectionError) and cause.errno is not None:
            return os.strerror(cause.errno).lower()
        if isinstance(cause, OSError) and cause.strerror is not None:
            return cause.strerror.lower()
        cause = cause.__cause__ or cause.__context__
    return str(exc).lower() or type(exc).__name__


def some_turn() -> int:
    """Return where a new client begins among members that are equally good: not each program with the same one."""
    return random.randrange(1 << 16)  # noqa: S311 - spreads load, guards no secret


def open_http(topology: Topology, *, timeout_s: float, api_key: str | None, verify_tls: bool) -> httpx.Client:
    """Return the connections of a thread's client.

    Args:
        topology: The servers; says whether any of them speaks TLS.
        timeout_s: Longest time for one request.
        api_key: Sent with each.
        verify_tls: Check the servers' certificates.

    Returns:
        The connections, none of them open yet.

    Raises:
        ValueError: The key cannot be sent.
    """
    tls = _tls(topology, verify_tls=verify_tls)
    return httpx.Client(
        transport=_transport(tls),
        headers=_headers(api_key),
        verify=tls,
        timeout=_timeout(timeout_s),
        cookies=_no_cookies(),
        follow_redirects=False,
        trust_env=False,
    )


def open_async_http(
    topology: Topology, *, timeout_s: float, api_key: str | None, verify_tls: bool
) -> httpx.AsyncClient:
    """Return the connections of an asyncio client; everything as for `open_http`.

    Args:
        topology: As for `open_http`.
        timeout_s: As for `open_http`.
        api_key: As for `open_http`.
        verify_tls: As for `open_http`.

    Returns:
        The connections, none of them open yet.
    """
    return httpx.AsyncClient(
        headers=_headers(api_key),
        verify=_tls(topology, verify_tls=verify_tls),
        timeout=_timeout(timeout_s),
        limits=_LIMITS,
        cookies=_no_cookies(),
        follow_redirects=False,
        trust_env=False,
    )


def _headers(api_key: str | None) -> dict[str, str]:
    headers = {"Accept": "application/json", "Accept-Encoding": "identity", "Content-Type": "application/json"}
    if api_key is None:
        return headers
    if not (api_key.isascii() and api_key.isprintable()) or api_key != api_key.strip():
        raise ValueError("expected an api key of printable ascii characters, without a space at either end")
    return headers | {"Api-Key": api_key}


def _timeout(timeout_s: float) -> httpx.Timeout:
    """Half of the time may go into getting a connection: failing there, it is known that nothing was sent."""
    return httpx.Timeout(timeout_s, connect=timeout_s / 2, pool=timeout_s / 2)


def _tls(topology: Topology, *, verify_tls: bool) -> ssl.SSLContext:
    """Load the trusted authorities, which takes 60 ms, only where an endpoint needs them; without them trust nobody."""
    if any(url.startswith("https:") for url in topology.given):
        return httpx.create_ssl_context(verify=verify_tls)
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _transport(tls: ssl.SSLContext) -> httpx.HTTPTransport:
    """Connections that keep a deadline. httpx takes no network backend, so its pool is replaced by an equal one."""
    transport = httpx.HTTPTransport(verify=tls)
    transport._pool = httpcore.ConnectionPool(  # noqa: SLF001 - the only way in; tests meet it if it moves
        ssl_context=tls,
        max_connections=_LIMITS.max_connections,
        max_keepalive_connections=_LIMITS.max_keepalive_connections,
        keepalive_expiry=_LIMITS.keepalive_expiry,
        network_backend=DeadlineBackend(),
    )
    return transport


def _no_cookies() -> CookieJar:
    """Cookies ignore ports: what one server sets would be sent to every other server on the same host."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))
