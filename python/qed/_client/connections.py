"""The connections of a thread's client, and the settings that both clients share.

They go directly to the servers: proxies of the environment are for the web, not for a cluster, whose members must be
distinguished. Only SSL_CERT_FILE and SSL_CERT_DIR are read from the environment.
"""

from __future__ import annotations

import ssl
import threading
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING

import httpx

from qed._client.sockets import Sockets, renew_after_fork
from qed._client.transports import CONNECTION_LIMIT, Transport

if TYPE_CHECKING:
    from qed._client.topology import Topology

__all__ = ["Connections", "HttpSettings", "no_cookies", "timeout_of"]


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """The settings that all connections of a client share.

    Attributes:
        tls: How to check the servers' certificates.
        headers: The headers of every request.
        timeout: How long the parts of a request may take.
    """

    tls: ssl.SSLContext
    headers: dict[str, str]
    timeout: httpx.Timeout

    @staticmethod
    def of(topology: Topology, *, timeout_s: float, api_key: str | None, verify_tls: bool) -> HttpSettings:
        """Return the HTTP settings for a caller's arguments.

        Args:
            topology: The servers; TLS is set up if one of them uses it.
            timeout_s: Longest time for one request.
            api_key: Sent with each request.
            verify_tls: Check the servers' certificates.

        Returns:
            The settings.

        Raises:
            ValueError: The key cannot be sent in a header.
        """
        return HttpSettings(_tls(topology, verify_tls=verify_tls), _headers(api_key), timeout_of(timeout_s))


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


def _tls(topology: Topology, *, verify_tls: bool) -> ssl.SSLContext:
    """Load the trusted authorities, which takes 60 ms, only if an endpoint needs them; else none is trusted."""
    if any(url.startswith("https:") for url in topology.given):
        return httpx.create_ssl_context(verify=verify_tls)
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def no_cookies() -> CookieJar:
    """Return a jar that stores nothing. Cookies ignore ports: one server's would be sent to all others on its host."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))
