"""One application on one socket, with the connections of a server, from the first request to an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from typing import TYPE_CHECKING, cast

import uvicorn

from qed.server.connection import ConnectionLimit, http_config
from qed.server.signals import handle_signals, release_hangups
from qed.server.tls_listener import TlsListener

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qed.server.config import Limits
    from qed.server.connection import LimitedConnection
    from qed.server.tls import ServerContext

__all__ = ["Service"]


class Service(uvicorn.Server):
    """uvicorn, but it reports when it listens, calls back on SIGHUP, and ends by itself on SIGINT and SIGTERM."""

    def __init__(
        self,
        application: Callable[..., object],
        limits: Limits,
        *,
        tls: ServerContext | None,
        on_listening: Callable[[], None],
        on_hangup: Callable[[], None],
    ) -> None:
        """Make a service, which `run` starts.

        Args:
            application: Answers the requests (ASGI).
            limits: Those of its connections.
            tls: The certificate, or None for plain HTTP.
            on_listening: Called once, when it listens.
            on_hangup: Called on SIGHUP.
        """
        self._connection_limit = ConnectionLimit(limits)
        config = http_config(application, limits, self._connection_limit, lifespan="off")
        config.timeout_graceful_shutdown = limits.shutdown_grace_s
        super().__init__(config)
        self._tls = tls
        self._tls_listeners: list[TlsListener] = []
        self._on_listening = on_listening
        self._on_hangup = on_hangup

    def stop(self) -> None:
        """Finish what was accepted, and end. May be called in any thread."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, then report it."""
        await super().startup(sockets=[])
        loop = asyncio.get_running_loop()
        for listener in sockets or []:
            if self._tls is not None:
                context, limit = self._tls.context, self._connection_limit
                self._tls_listeners.append(TlsListener(listener, context, limit, self._connection))
            elif listener.family is socket.AF_UNIX:
                self.servers.append(await loop.create_unix_server(self._connection, sock=listener))
            else:
                self.servers.append(await loop.create_server(self._connection, sock=listener))
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        release_hangups()
        self._on_listening()

    def _connection(self) -> LimitedConnection:
        kind = self.config.http_protocol_class
        made = kind(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)  # type: ignore[call-arg]  # as uvicorn does
        return cast("LimitedConnection", made)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, and finish what was accepted."""
        self._connection_limit.close()
        for listener in self._tls_listeners:
            await listener.close()
        await super().shutdown(sockets=sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGINT and SIGTERM; uvicorn would raise the signal again at the end."""

        def stop(*_: object) -> None:
            self.stop()

        handle_signals(stop)
        try:
            yield
        finally:
            handle_signals(signal.SIG_IGN)
