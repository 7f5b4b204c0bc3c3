"""A witness over HTTP: uvicorn with the connections of a server, from the first line to an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

import uvicorn

from qed.errors import WitnessError
from qed.server.addresses import SettingsError, bound
from qed.server.connection import ConnectionLimit, http_config
from qed.server.logs import Line
from qed.server.signals import handle_signals, hold_hangups, release_hangups
from qed.server.tls import ServerContext
from qed.server.tls_listener import TlsListener
from qed.witness.app import Application
from qed.witness.settings import LIMITS
from qed.witness.witness import Witness

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from qed.server.connection import LimitedConnection
    from qed.witness.settings import Settings

__all__ = ["serve"]

_log = logging.getLogger(__name__)

_NO_PORT: Final = -1
"""A witness has no connections for operators."""


class _Server(uvicorn.Server):
    """uvicorn, but it reports when it listens, reads its files again on SIGHUP, and ends by itself on a signal."""

    def __init__(
        self,
        config: uvicorn.Config,
        connection_limit: ConnectionLimit,
        tls: ServerContext | None,
        *,
        on_listening: Callable[[], None],
        on_hangup: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._connection_limit = connection_limit
        self._tls = tls
        self._tls_listeners: list[TlsListener] = []
        self._on_listening = on_listening
        self._on_hangup = on_hangup

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, then report it."""
        await super().startup(sockets=[])
        loop = asyncio.get_running_loop()
        for listener in sockets or []:
            if self._tls is not None:
                context, limit = self._tls.context, self._connection_limit
                self._tls_listeners.append(TlsListener(listener, context, limit, self._connection))
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
            self.should_exit = True

        handle_signals(stop)
        try:
            yield
        finally:
            handle_signals(signal.SIG_IGN)


def serve(settings: Settings, *, on_listening: Callable[[str, Witness], None]) -> None:
    """Run a witness until SIGINT or SIGTERM.

    Args:
        settings: How it runs.
        on_listening: Called once with its base URL, when it listens.

    Raises:
        WitnessError: It cannot start, or its database has failed.
    """
    # A hangup would end the process. It is handled once the witness can read its files again.
    hold_hangups()
    tls = _context(settings)
    listener = _bound(settings)
    keys, store, logs = settings.open()

    def stop() -> None:
        server.should_exit = True

    witness = Witness(keys, store, logs, allows_extensions=settings.allows_extensions, on_failure=stop)

    def announce() -> None:
        address = replace(settings.listen, port=listener.getsockname()[1])
        on_listening(f"{'http' if tls is None else 'https'}://{address}", witness)

    def reload() -> None:
        try:
            witness.logs = settings.read_logs(keys[0].name)
            if tls is not None:
                tls.reload()
        except (WitnessError, SettingsError) as exc:
            _log.error(Line("files not read again", reason=exc))
        else:
            _log.info(Line("files read again", logs=len(witness.logs)))

    application = Application(
        witness, LIMITS, submission_prefix=settings.submission_prefix, monitoring_prefix=settings.monitoring_prefix
    )
    try:
        connection_limit = ConnectionLimit(LIMITS, _NO_PORT)
        config = http_config(application, LIMITS, connection_limit, lifespan="off")
        config.timeout_graceful_shutdown = LIMITS.shutdown_grace_s
        server = _Server(config, connection_limit, tls, on_listening=announce, on_hangup=reload)
        server.run(sockets=[listener])
    finally:
        witness.close()
        listener.close()
    if witness.failure is not None:
        raise WitnessError(f"the database {settings.database} has failed: {witness.failure}")


def _context(settings: Settings) -> ServerContext | None:
    try:
        return None if settings.tls is None else ServerContext(settings.tls)
    except SettingsError as exc:
        raise WitnessError(str(exc)) from exc


def _bound(settings: Settings) -> socket.socket:
    """Return a socket that listens. The database is opened after it, so that a second witness ends here."""
    try:
        listener = bound(settings.listen)
        listener.listen(LIMITS.max_connections)
    except SettingsError as exc:
        raise WitnessError(str(exc)) from exc
    except OSError as exc:
        raise WitnessError(f"cannot listen on {settings.listen}: {exc.strerror or exc}") from exc
    return listener
