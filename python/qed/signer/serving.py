"""A signer over HTTP, on a Unix socket or a TCP port."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from qed.errors import WitnessError
from qed.server.addresses import SettingsError
from qed.server.logs import Line
from qed.server.service import Service
from qed.server.signals import hold_hangups
from qed.witness.app import Application
from qed.witness.serving import opened
from qed.witness.settings import LIMITS
from qed.witness.witness import Witness

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from qed.signer.settings import Settings

__all__ = ["serve"]

_log = logging.getLogger(__name__)


def serve(settings: Settings, *, on_listening: Callable[[str, Witness], None]) -> None:
    """Run a signer until SIGINT or SIGTERM.

    Args:
        settings: How it runs.
        on_listening: Called once with where it listens, when it does.

    Raises:
        WitnessError: It cannot start, or its database has failed.
    """
    # A hangup would end the process. It is handled once the signer can read its files again.
    hold_hangups()
    tls, listener = opened(settings.listen, settings.tls)
    keys, store, logs = settings.open()

    def stop() -> None:
        service.stop()

    signer = Witness(keys, store, logs, on_failure=stop)

    def announce() -> None:
        on_listening(_where(settings, listener), signer)

    def reload() -> None:
        if tls is None:
            return
        try:
            tls.reload()
        except SettingsError as exc:
            _log.error(Line("files not read again", reason=exc))
        else:
            _log.info(Line("files read again"))

    application = Application(signer, LIMITS, has_receipts=True)
    service = Service(application, LIMITS, tls=tls, on_listening=announce, on_hangup=reload)
    try:
        service.run(sockets=[listener])
    finally:
        signer.close()
        listener.close()
        if isinstance(settings.listen, Path):
            with suppress(OSError):
                settings.listen.unlink()
    if signer.failure is not None:
        raise WitnessError(f"the database {settings.database} has failed: {signer.failure}")


def _where(settings: Settings, listener: socket.socket) -> str:
    if isinstance(settings.listen, Path):
        return f"unix:{settings.listen.absolute()}"
    address = replace(settings.listen, port=listener.getsockname()[1])
    return f"{'http' if settings.tls is None else 'https'}://{address}"
