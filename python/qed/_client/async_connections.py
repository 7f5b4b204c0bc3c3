"""The connections of an asyncio client. A separate module, so that a thread's client does not import asyncio."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx

from qed._client.async_streaming import AsyncDuplex
from qed._client.connections import LINES, no_cookies
from qed._client.sockets import Sockets, renew_after_fork
from qed._client.transports import CONNECTION_LIMIT, AsyncTransport

if TYPE_CHECKING:
    from qed._client.connections import HttpSettings

__all__ = ["AsyncConnections"]


@dataclass(frozen=True, slots=True)
class _Lane:
    """The connections of one event loop."""

    http: httpx.AsyncClient
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CONNECTION_LIMIT))


class AsyncConnections:
    """The connections of an asyncio client: separate ones for each event loop, and therefore for each forked child."""

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._sockets = Sockets()
        self._is_closed = False
        self._lanes: dict[asyncio.AbstractEventLoop, _Lane] = {}
        renew_after_fork(self)

    def here(self) -> _Lane:
        """Return the connections of the running event loop.

        Raises:
            RuntimeError: The client is closed.
        """
        loop = asyncio.get_running_loop()
        return self._lanes.get(loop) or self._open(loop)

    async def dial(self, url: str, timeout_s: float) -> AsyncDuplex:
        """Return a new connection, for one exchange in both directions at once; see `AsyncDuplex.open`.

        Raises:
            RuntimeError: The client is closed.
        """
        if self._is_closed:
            raise RuntimeError("the client is closed")
        return await AsyncDuplex.open(url, self._settings.headers | LINES, self._settings.tls, self._sockets, timeout_s)

    async def aclose(self) -> None:
        """Close the connections of this event loop. Those of others are closed with their loops."""
        self._is_closed = True
        lane = self._lanes.pop(asyncio.get_running_loop(), None)
        self._lanes = {}
        if lane is not None:
            await lane.http.aclose()

    def renew(self) -> None:
        """Use new connections from here on, even if the child runs a loop that its parent ran."""
        self._lanes = {}

    def drop_inherited(self) -> None:
        """Close a child's copies of its parent's sockets."""
        self._sockets.drop_inherited()

    def _open(self, loop: asyncio.AbstractEventLoop) -> _Lane:
        if self._is_closed:
            raise RuntimeError("the client is closed")
        http = httpx.AsyncClient(
            transport=AsyncTransport(self._settings.tls, self._sockets),
            headers=self._settings.headers,
            timeout=self._settings.timeout,
            cookies=no_cookies(),
            follow_redirects=False,
            trust_env=False,
        )
        lane = _Lane(http)
        # A closed loop holds no connections. The dict is replaced as a whole: other threads run other loops.
        kept = {other: its for other, its in self._lanes.items() if not other.is_closed()}
        self._lanes = kept | {loop: lane}
        return lane
