"""A witness over HTTP: uvicorn with the connections of a server, from the first line to an orderly end."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from qed.errors import WitnessError
from qed.server.addresses import Address, SettingsError, bound
from qed.server.logs import Line
from qed.server.service import Service
from qed.server.signals import hold_hangups
from qed.server.tls import ServerContext
from qed.server.unix_socket import bound_unix
from qed.witness.app import Application
from qed.witness.settings import LIMITS
from qed.witness.witness import Witness

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from qed.server.config import ServerTls
    from qed.witness.settings import Settings

__all__ = ["opened", "serve"]

_log = logging.getLogger(__name__)


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
    tls, listener = opened(settings.listen, settings.tls)
    keys, store, logs = settings.open()

    def stop() -> None:
        service.stop()

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
    service = Service(application, LIMITS, tls=tls, on_listening=announce, on_hangup=reload)
    try:
        service.run(sockets=[listener])
    finally:
        witness.close()
        listener.close()
    if witness.failure is not None:
        raise WitnessError(f"the database {settings.database} has failed: {witness.failure}")


def opened(listen: Address | Path, tls: ServerTls | None) -> tuple[ServerContext | None, socket.socket]:
    """Return the certificate and a socket that listens.

    The database is opened after it, so that a second process with the same settings ends here.

    Args:
        listen: An address, or the path of a Unix socket.
        tls: The files of the certificate, or None for plain HTTP.

    Raises:
        WitnessError: They cannot be used.
    """
    try:
        context = None if tls is None else ServerContext(tls)
        listener = bound(listen) if isinstance(listen, Address) else bound_unix(listen)
        listener.listen(LIMITS.max_connections)
    except SettingsError as exc:
        raise WitnessError(str(exc)) from exc
    except OSError as exc:
        raise WitnessError(f"cannot listen on {listen}: {exc.strerror or exc}") from exc
    return context, listener
