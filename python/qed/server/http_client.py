"""HTTP to services of others: one exchange at a time, with a bounded answer and no redirects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import httpx

from qed._client.connections import no_cookies
from qed._client.exchange import Inbox, failure_of
from qed.errors import Unavailable

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from qed._client.calls import Answer

__all__ = ["HttpClient", "require_url"]

_IDLE_S: Final = 3.0
"""How long an unused connection is kept. Servers commonly keep one for 5 s, so none is used that is being closed."""


_MAX_PORT: Final = 65_535


def require_url(url: str) -> None:
    """Check that requests can be sent to a URL.

    Raises:
        ValueError: It is not an HTTP URL with a host, and perhaps a port that exists.
    """
    try:
        found = httpx.URL(url)
        is_usable = found.scheme in ("http", "https") and found.host and (found.port or 0) <= _MAX_PORT
    except (httpx.InvalidURL, UnicodeError) as exc:
        raise ValueError(f"expected an HTTP URL, found {url!r}: {exc}") from exc
    if not is_usable:
        raise ValueError(f"expected an HTTP URL with a host and perhaps a port up to {_MAX_PORT}, found {url!r}")


class HttpClient:
    """Connections to services. They are kept between requests, go through no proxy, and belong to one event loop."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, socket: Path | None = None) -> None:
        """Make a client; nothing is connected yet.

        Args:
            tls: How to check certificates; by default, with the authorities that the library httpx brings along.
            socket: The Unix socket that every request goes to, whatever its URL says; None for TCP.
        """
        self._http = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(
                verify=True if tls is None else tls,
                trust_env=False,
                uds=None if socket is None else str(socket),
                limits=httpx.Limits(keepalive_expiry=_IDLE_S),
            ),
            headers={"Accept-Encoding": "identity", "User-Agent": "qed"},
            # The caller limits the time of the whole exchange, which no limits on its parts can do.
            timeout=None,  # noqa: S113  # asyncio.timeout limits it
            cookies=no_cookies(),
            follow_redirects=False,
            trust_env=False,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def post(self, url: str, body: bytes, *, limit_bytes: int) -> Answer:
        """Send `body` and return the answer. It has no time limit of its own.

        Args:
            url: Where to; `require_url` accepts it.
            body: What to send.
            limit_bytes: The longest body that is read.

        Returns:
            The answer, whatever its status. A redirect is an answer like any other.

        Raises:
            Unavailable: There is no connection, or it ended before the answer was whole.
            ProtocolError: The answer is too long, or compressed without having been asked for.
        """
        return await self._exchange(self._http.build_request("POST", url, content=body), limit_bytes)

    async def get(self, url: str, *, limit_bytes: int) -> Answer:
        """Return what is at `url`; see `post`."""
        return await self._exchange(self._http.build_request("GET", url), limit_bytes)

    async def _exchange(self, request: httpx.Request, limit_bytes: int) -> Answer:
        try:
            response = await self._http.send(request, stream=True)
            try:
                inbox = Inbox(response, limit_bytes)
                async for part in response.aiter_raw():
                    inbox.take(part)
            finally:
                await response.aclose()
        except httpx.TransportError as exc:
            raise Unavailable(failure_of(exc, 0.0).cause, may_have_happened=True) from exc
        return inbox.answer()
