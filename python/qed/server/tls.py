"""TLS for clients and operators: the server's certificate, the certificates of clients, and reading both again."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final, cast

from qed._files import is_exposed, require_regular
from qed._limits import ROLE_URI
from qed._printable import printable
from qed.server.access import Caller
from qed.server.acts import CERTIFICATE
from qed.server.config import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qed.server.config import ServerTls

__all__ = ["HANDSHAKE_S", "ServerContext", "caller_of"]

HANDSHAKE_S: Final = 5.0
"""How long a client may take for its handshake."""


class ServerContext:
    """The TLS context of a server, whose files can be read again while it serves.

    Attributes:
        context: For the listeners.
    """

    def __init__(self, settings: ServerTls) -> None:
        """Read the files.

        Raises:
            SettingsError: A file cannot be used; the message names it.
        """
        self._settings = settings
        self._current = _load(settings)
        # Listeners keep the context that they were given. This one hands each connection to the current one, because
        # OpenSSL can replace a certificate in a context, but cannot remove an authority from it.
        self.context = _load(settings)
        self.context.sni_callback = self._use_current

    def reload(self) -> None:
        """Read the files again, for connections from here on.

        Raises:
            SettingsError: A file cannot be used. Nothing has changed.
        """
        self._current = _load(self._settings)

    def _use_current(self, connection: ssl.SSLSocket | ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        connection.context = self._current


def _load(settings: ServerTls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # A resumed session would keep what its first handshake showed, such as a certificate of an authority removed since.
    # In TLS 1.3 there is none without tickets. In TLS 1.2 sessions also have ids, which this module cannot turn off.
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    try:
        if is_exposed(settings.key.stat().st_mode):
            raise SettingsError(f"others can read or change the key in {settings.key}: chmod 600 {settings.key}")
        require_regular(settings.certificate)
        require_regular(settings.key)
        # Without a password callback, OpenSSL would ask on the terminal.
        context.load_cert_chain(settings.certificate, settings.key, password=_no_password)
    except (OSError, ValueError) as exc:
        names = f"--tls-cert {settings.certificate} and --tls-key {settings.key}"
        raise SettingsError(f"cannot use {names}: {_reason(exc)}") from exc
    if settings.client_ca is not None:
        context.verify_mode = ssl.CERT_OPTIONAL
        try:
            require_regular(settings.client_ca)
            context.load_verify_locations(settings.client_ca)
        except (OSError, ValueError) as exc:
            raise SettingsError(f"cannot use --tls-client-ca {settings.client_ca}: {_reason(exc)}") from exc
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted: expected one without a password")


def _reason(exc: Exception) -> str:
    """Return why a file cannot be used, on one line."""
    if isinstance(exc, SettingsError):
        return str(exc)
    if isinstance(exc, ssl.SSLError):
        return exc.reason.lower().replace("_", " ") if exc.reason else "expected PEM, found something else"
    return ((exc.strerror if isinstance(exc, OSError) else None) or str(exc)).lower()


def caller_of(certificate: Mapping[str, object] | None) -> Caller | None:
    """Return whom a client's certificate names, or None if it has none, or names no role.

    Args:
        certificate: As `ssl.SSLObject.getpeercert` returns it: verified, and empty if the client has none.

    Returns:
        The caller. Its roles are the names `qed:role:…` among the URIs of the certificate.
    """
    if not certificate:
        return None
    names = cast("tuple[tuple[str, str], ...]", certificate.get("subjectAltName", ()))
    roles = {value.removeprefix(ROLE_URI) for kind, value in names if kind == "URI" and value.startswith(ROLE_URI)}
    if not roles:
        return None
    serial, ends = certificate.get("serialNumber", ""), ssl.cert_time_to_seconds(cast("str", certificate["notAfter"]))
    return Caller(f"{CERTIFICATE}{serial} ({_common_name(certificate)})", frozenset(roles), ends)


def _common_name(certificate: Mapping[str, object]) -> str:
    subject = cast("tuple[tuple[tuple[str, str], ...], ...]", certificate.get("subject", ()))
    found = (value for name in subject for kind, value in name if kind == "commonName")
    return printable(next(found, "no name"))
