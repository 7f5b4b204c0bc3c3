"""Addresses: a host and a port, parsed once."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Final

from qed._hosts import is_everywhere, is_loopback

__all__ = ["Address", "SettingsError", "bound"]

_HOST_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?")
_MAX_LABEL: Final = 63
_PORT: Final = re.compile(r"[0-9]{1,5}")
_MAX_PORT: Final = 65_535


class SettingsError(ValueError):
    """A setting is invalid; the message says what was expected and what was found."""


@dataclass(frozen=True)
class Address:
    """Where something listens or is reached.

    Attributes:
        host: A host name or an IP address; an IPv6 address has no brackets here.
        port: 0 to 65,535. For a listening address, 0 lets the system choose a free port.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Return the address written in `text`.

        Args:
            text: `host:port`, or `[address]:port` for IPv6.

        Returns:
            The address.

        Raises:
            SettingsError: `text` has neither form.
        """
        host, colon, port = text.strip().rpartition(":")
        if not colon:
            raise SettingsError(f"expected HOST:PORT, found {text!r}")
        if not _PORT.fullmatch(port) or int(port) > _MAX_PORT:
            raise SettingsError(f"expected a port from 0 to {_MAX_PORT}, found {port!r} in {text!r}")
        return cls(_parse_host(host, text), int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect to it."""
        return is_loopback(self.host)

    @property
    def is_everywhere(self) -> bool:
        """Whether it means all interfaces: a server can listen on it, but nobody can connect to it."""
        return is_everywhere(self.host)

    def require_somewhere(self, name: str) -> None:
        """Check that others can connect to the address called `name`.

        Raises:
            SettingsError: It means all interfaces.
        """
        if self.is_everywhere:
            raise SettingsError(f"expected {name} to be an address that others can reach, found {self}")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _parse_host(host: str, text: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            raise SettingsError(f"expected an IPv6 address in the brackets of {text!r}") from None
    if not _HOST_NAME.fullmatch(host) or ".." in host or any(len(label) > _MAX_LABEL for label in host.split(".")):
        raise SettingsError(f"expected a host name or an address before the port, found {host!r} in {text!r}")
    return host


def bound(address: Address) -> socket.socket:
    """Return a socket bound to `address`, which does not listen yet.

    Raises:
        SettingsError: There is no such address on this machine, or it is in use.
    """
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # A name may have addresses of both families; clients that connect by name try IPv4 first or second.
        family, kind, protocol, _, name = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(name)
    except (OSError, UnicodeError) as exc:
        raise SettingsError(f"cannot listen on {address}: {getattr(exc, 'strerror', None) or exc}") from exc
    return listener
