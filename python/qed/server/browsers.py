"""Refuses what web pages would have a browser send to a server on its user's machine or network.

A page of another site can make a browser post to any address, and a page whose name is made to point to 127.0.0.1 can
read the answers too. The browser then says in `Origin` and `Host` whose page it is.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from qed.errors import QedError

if TYPE_CHECKING:
    from qed.server.config import Settings
    from qed.server.head import Head

__all__ = ["ForeignHost", "ForeignOrigin", "Sites"]

_MOST_KEPT: Final = 64


class ForeignOrigin(QedError):
    """A web page of another site makes the request."""

    def __init__(self) -> None:
        super().__init__("expected no Origin header, or this server's own: web pages of other sites may not use it")


class ForeignHost(QedError):
    """The request is for another host, at an address where it may need no key."""

    def __init__(self) -> None:
        super().__init__("expected a Host header with an address, a name without a dot, or an advertised host")


class Sites:
    """The names under which a server is reached."""

    def __init__(self, settings: Settings) -> None:
        # Where a page may need no key.
        self._is_host_checked = {
            True: settings.is_open or settings.mgmt_addr.is_loopback,
            False: settings.is_open or settings.http_addr.is_loopback,
        }
        self._is_loopback_only = settings.mgmt_addr.is_loopback and settings.http_addr.is_loopback
        self._hosts = {host.lower() for host in settings.own_hosts()}
        # Nearly all requests have one of few values: these need not be parsed. The limit is for hostile ones.
        self._accepted: set[bytes] = set()

    def require_own(self, head: Head, *, is_management: bool) -> None:
        """Check that no page of another site makes a request.

        Raises:
            ForeignOrigin: `Origin` names another host than one of this server's.
            ForeignHost: `Host` does, and the server listens on loopback only, or is open to everyone.
        """
        host, origin, _ = head
        # HTTP/1.0 needs no Host, but browsers do not speak it.
        is_checked = bool(host) and (origin is not None or self._is_host_checked[is_management])
        is_own = not is_checked or host in self._accepted or self._note_own(host)
        if origin is not None and not (is_own and origin.partition(b"://")[2].lower() == host.lower()):
            # Another port of this machine may be the site of somebody else, too.
            raise ForeignOrigin
        if not is_own:
            raise ForeignHost

    def _note_own(self, host: bytes) -> bool:
        is_own = self._is_own(b"//" + host)
        if is_own and len(self._accepted) < _MOST_KEPT:
            self._accepted.add(host)
        return is_own

    def _is_own(self, authority: bytes) -> bool:
        try:
            host = urlsplit(authority.decode("ascii")).hostname or ""
        except ValueError:
            return False
        if host in self._hosts:
            return True
        if host and not set(".:") & set(host):
            # Such as localhost, or the name of a container: nobody on the internet can register a name without a dot.
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        # The owner of a name can make it point here, but a page that is reached by an address comes from there.
        return address.is_loopback or not self._is_loopback_only
