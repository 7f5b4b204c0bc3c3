"""HTTP over a node: uvicorn, with a defined start and an orderly shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from typing import TYPE_CHECKING, cast

import click
import uvicorn

from qed.server.app import build_application
from qed.server.config import SettingsError
from qed.server.connection import ConnectionLimit, http_config
from qed.server.logs import Line
from qed.server.open_streams import OpenStreams
from qed.server.signals import handle_signals, release_hangups
from qed.server.tls_listener import TlsListener

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from qed.server.access import Access
    from qed.server.connection import LimitedConnection
    from qed.server.node import Node
    from qed.server.tls import ServerContext

__all__ = ["serve"]

_log = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    """uvicorn, but it reports when it listens, stops in order and within a time limit, and exits with 0 on a signal."""

    def __init__(
        self,
        config: uvicorn.Config,
        node: Node,
        connection_limit: ConnectionLimit,
        tls: ServerContext | None,
        *,
        streams: OpenStreams,
        on_listening: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._tls = tls
        self._tls_listeners: list[TlsListener] = []
        self._node = node
        self._connection_limit = connection_limit
        self._streams = streams
        self._on_listening = on_listening

    def _reload_on_hangup(self) -> None:
        loop = asyncio.get_running_loop()
        reloading: set[asyncio.Task[None]] = set()

        def reload() -> None:
            if not self._node.settings.reads_files_again:
                # Its default would end the process without a shutdown, and tools that rotate logs send it.
                _log.info(Line("hangup ignored", reason="there is no file to read again"))
                return
            self._reload_certificates()
            task = loop.create_task(self._node.reload())
            reloading.add(task)
            task.add_done_callback(reloading.discard)

        loop.add_signal_handler(signal.SIGHUP, reload)
        release_hangups()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, then report it."""
        # uvicorn starts the application here. It would accept connections without a limit on their handshakes.
        await super().startup(sockets=[])
        if self.should_exit:
            # The node has failed while it started.
            return
        for listener in sockets or []:
            await self._listen(listener)
        self._reload_on_hangup()
        self._on_listening()

    async def _listen(self, listener: socket.socket) -> None:
        if self._tls is not None:
            self._tls_listeners.append(
                TlsListener(listener, self._tls.context, self._connection_limit, self._connection)
            )
            return
        loop = asyncio.get_running_loop()
        self.servers.append(await loop.create_server(self._connection, sock=listener, backlog=self.config.backlog))

    def _connection(self) -> LimitedConnection:
        kind = self.config.http_protocol_class
        made = kind(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)  # type: ignore[call-arg]  # as uvicorn does
        return cast("LimitedConnection", made)

    def _reload_certificates(self) -> None:
        """Read the certificates for clients and operators again."""
        if self._tls is None:
            return
        try:
            self._tls.reload()
        except SettingsError as exc:
            _log.error(Line("certificates not read again", reason=exc))
        else:
            # What a client showed may be of an authority that is no longer accepted. It can connect again.
            for listener in self._tls_listeners:
                listener.cut_off()
            for connection in list(self.server_state.connections):
                cast("LimitedConnection", connection).end_certified()
            _log.info(Line("certificates read again"))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Hand over while clients are still redirected, stop listening, finish what was accepted, close the log."""
        _log.info(Line("stopping", connections=len(self.server_state.connections)))
        limits = self._node.settings.limits
        loop = asyncio.get_running_loop()
        answered_by = loop.time() + limits.shutdown_grace_s - limits.closing_grace_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(answered_by):
                # While this member leads, it knows what becomes of their lines.
                await self._streams.drain("this server is stopping")
                await self._node.retire()
        self._connection_limit.close()
        for listener in self._tls_listeners:
            await listener.close()
        rest_s = max(answered_by - loop.time(), 0.0)
        self.config.timeout_graceful_shutdown = rest_s  # type: ignore[assignment]  # asyncio accepts fractions
        await super().shutdown(sockets=sockets)

    def stop(self) -> None:
        """Finish what was accepted, then return from `run`."""
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGINT and SIGTERM."""
        # uvicorn's own handler would raise the signal again at the end, and the process would not exit 0.
        # A second signal must not shorten the shutdown either: it has a time limit of its own.
        handle_signals(lambda *_: self.stop())
        try:
            yield
        finally:
            # The process is ending by itself: a signal must neither shorten that nor hide a failure.
            handle_signals(signal.SIG_IGN)


def serve(
    node: Node,
    access: Access,
    tls: ServerContext | None,
    raft_listener: socket.socket | None,
    listeners: list[socket.socket],
) -> None:
    """Serve until a signal or a failure, then finish what was accepted and close the node.

    Args:
        node: An open node.
        access: Decides who may do what.
        tls: The TLS context for clients and operators; None for plain HTTP.
        raft_listener: A socket for the other members; None for a server that is alone.
        listeners: Sockets for clients, operators and readers of metrics.
    """

    def announce() -> None:
        node.observation.end_phase("listen")
        url = f"{settings.scheme}://{settings.http_addr}"
        click.echo(f"qed-server: listening on {url}, data in {settings.data_dir}, {len(node)} events", err=True)

    settings, limits = node.settings, node.settings.limits
    ports = {settings.mgmt_addr.port: "mgmt"} | (
        {settings.metrics_addr.port: "metrics"} if settings.serves_metrics else {}
    )
    connection_limit = ConnectionLimit(limits, ports=ports)
    streams = OpenStreams()
    application = build_application(
        node,
        access,
        raft_listener,
        connection_limit,
        streams=streams,
        on_failure=lambda: server.stop(),  # noqa: PLW0108  # bound below
    )
    config = http_config(application, limits, connection_limit, lifespan="on")
    server = _Server(config, node, connection_limit, tls, streams=streams, on_listening=announce)
    server.run(sockets=listeners)
