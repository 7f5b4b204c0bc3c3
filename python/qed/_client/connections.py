"""The connections of a thread's client, and the settings that both clients share.

They go directly to the servers: proxies of the environment are for the web, not for a cluster, whose members must be
distinguished. Only SSL_CERT_FILE and SSL_CERT_DIR are read from the environment.
"""

from __future__ import annotations

import ssl
import threading
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx

from qed._client.duplex import Duplex
from qed._client.exposure import Exposure
from qed._client.sockets import Sockets, renew_after_fork
from qed._client.topology import Trust
from qed._client.transports import CONNECTION_LIMIT, Transport
from qed._files import require_regular

if TYPE_CHECKING:
    from collections.abc import Callable

    from qed._client.topology import Topology

__all__ = ["LINES", "Connections", "HttpSettings", "Security", "no_cookies", "timeout_of"]


LINES: Final = {"Accept": "application/x-ndjson, application/json", "Content-Type": "application/x-ndjson"}
"""The headers of a stream, in place of those of other requests."""


@dataclass(frozen=True, slots=True)
class Security:
    """A client's secrets, and how it checks servers.

    Attributes:
        api_key: Sent with each request; None for none.
        verify_tls: Check the servers' certificates.
        ca: PEM file with the only authorities to trust; None for those of the system.
        certificate: PEM files with the client's certificate and its key; None for none.
        trust_members: Whether keys and events may go to members that servers name.
    """

    api_key: str | None = None
    verify_tls: bool = True
    ca: Path | None = None
    certificate: tuple[Path, Path] | None = None
    trust_members: bool = False

    @staticmethod
    def of(
        api_key: str | None,
        ca: str | Path | None,
        certificate: tuple[str | Path, str | Path] | None,
        *,
        verify_tls: bool,
        trust_members: bool,
    ) -> Security:
        """Return the security for a caller's arguments."""
        files = None if certificate is None else (Path(certificate[0]), Path(certificate[1]))
        return Security(api_key, verify_tls, None if ca is None else Path(ca), files, trust_members)

    def exposure(self) -> Exposure:
        """Return what warns when the key travels in plain text. A caller who wants no checks of servers knows."""
        return Exposure(has_key=self.api_key is not None and self.verify_tls)

    def trust(self) -> Trust:
        """Return what may be sent to members that were not given."""
        return Trust(self.api_key is not None, self.verify_tls, self.trust_members)


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """The settings that all connections of a client share.

    Attributes:
        tls: How to check the servers' certificates.
        headers: The headers of every request.
        timeout: How long the parts of a request may take.
        certificate: The file with the client's certificate; None for none.
    """

    tls: ssl.SSLContext
    headers: dict[str, str]
    timeout: httpx.Timeout
    certificate: Path | None

    def shown_to(self, url: str) -> Path | None:
        """Return the file with the certificate that a server gets to see, if any."""
        return self.certificate if url.startswith("https:") else None

    @staticmethod
    def of(topology: Topology, security: Security, *, timeout_s: float) -> HttpSettings:
        """Return the HTTP settings for a caller's arguments.

        Args:
            topology: The servers; TLS is set up if one of them uses it.
            security: The caller's key and certificate, and how to check those of servers.
            timeout_s: Longest time for one request.

        Returns:
            The settings.

        Raises:
            ValueError: The key cannot be sent in a header, or a file of certificates cannot be used, or there is one
                though no server uses TLS.
        """
        certificate = None if security.certificate is None else security.certificate[0]
        return HttpSettings(_tls(topology, security), _headers(security.api_key), timeout_of(timeout_s), certificate)


def timeout_of(timeout_s: float) -> httpx.Timeout:
    """Return how long the parts of a request may take that may take `timeout_s` altogether."""
    # A connection may use half of the time: if it fails there, nothing was sent.
    return httpx.Timeout(timeout_s, connect=timeout_s / 2, pool=timeout_s / 2)


class Connections:
    """The connections of a thread's client. A forked child gets its own.

    Attributes:
        http: Sends requests.
        turns: Limits concurrent requests; acquire it for each.
    """

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._sockets = Sockets()
        self._open()
        renew_after_fork(self)

    def dial(self, url: str, timeout_s: float) -> Duplex:
        """Return a new connection, for one exchange in both directions at once; see `Duplex.open`."""
        return Duplex.open(url, self._settings.headers | LINES, self._settings.tls, self._sockets, timeout_s)

    def close(self) -> None:
        """Close all connections. They cannot be used again."""
        self.http.close()

    def renew(self) -> None:
        """Use new connections from here on; threads that the child lacks may hold locks of the old ones."""
        if not self.http.is_closed:
            self._open()

    def drop_inherited(self) -> None:
        """Close a child's copies of its parent's sockets."""
        self._sockets.drop_inherited()

    def _open(self) -> None:
        self.turns = threading.Semaphore(CONNECTION_LIMIT)
        self.http = httpx.Client(
            transport=Transport(self._settings.tls, self._sockets),
            headers=self._settings.headers,
            timeout=self._settings.timeout,
            cookies=no_cookies(),
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


def _tls(topology: Topology, security: Security) -> ssl.SSLContext:
    """Load the trusted authorities, which takes 60 ms, only if an endpoint needs them; else none is trusted."""
    if not any(url.startswith("https:") for url in topology.given):
        unused = security.ca or (security.certificate and security.certificate[0])
        if unused is not None:
            raise ValueError(
                f"expected an endpoint with https://, found {topology.given[0]}, where {unused} has no use"
            )
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if security.ca is None:
        context = httpx.create_ssl_context(verify=security.verify_tls)
    else:
        context, ca = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), security.ca
        _load("authorities", ca, lambda: _load_authorities(context, ca))
        if not security.verify_tls:
            raise ValueError("expected either authorities to check servers with, or no check, found both")
    if security.certificate is not None:
        certificate, key = security.certificate
        # Without a callback, OpenSSL would ask for a password on the terminal.
        _load("certificate", certificate, lambda: context.load_cert_chain(certificate, key, password=_no_password))
    return context


def _load_authorities(context: ssl.SSLContext, path: Path) -> None:
    require_regular(path)
    context.load_verify_locations(path)


def _no_password() -> str:
    raise ValueError("its key is encrypted")


def _load(what: str, path: Path, load: Callable[[], None]) -> None:
    """Call `load`, and raise ValueError with a reason if the file at `path` cannot be used."""
    try:
        load()
    except ssl.SSLError as exc:
        reason = exc.reason.lower().replace("_", " ") if exc.reason else "not pem"
        raise ValueError(f"cannot use the {what} in {path}: {reason}") from exc
    except OSError as exc:
        raise ValueError(f"cannot use the {what} in {path}: {exc.strerror or exc}") from exc


def no_cookies() -> CookieJar:
    """Return a jar that stores nothing. Cookies ignore ports: one server's would be sent to all others on its host."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))
