"""The ways in to a member: the addresses by which clients of different networks reach it.

A container reaches a member at another address than its host does. Each way in has a name, which is the same on every
member; a client that came by one way is told the addresses of all members by that way.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

from qed.server.addresses import Address, SettingsError

__all__ = ["Way", "Ways"]

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")
_MOST: Final = 8
"""Every member knows those of all others."""
_MOST_BYTES: Final = 512
"""The same limit as that of the membership."""
_PORTS: Final = {"http": 80, "https": 443}
_SECURE: Final = "https://"


@dataclass(frozen=True)
class Way:
    """One way in to a member.

    Attributes:
        name: Its name on all members; empty for the only one, or the one for everyone else.
        address: Host and port, as clients reach it.
        is_secure: Whether clients use https.
    """

    name: str
    address: Address
    is_secure: bool = False

    @classmethod
    def parse(cls, text: str) -> Way:
        """Return the way in that `text` says: `[NAME=][https://]HOST:PORT`.

        Raises:
            SettingsError: It has another form.
        """
        name, equals, place = text.rpartition("=")
        if equals and not _NAME.fullmatch(name):
            raise SettingsError(f"expected NAME=HOST:PORT, with letters, digits, - and _ in the name, found {text!r}")
        return cls(name, Address.parse(place.removeprefix(_SECURE)), place.startswith(_SECURE))

    @classmethod
    def parse_url(cls, text: str) -> Way:
        """Return the way in that a base URL says, for everyone who came by no other.

        Raises:
            SettingsError: It is not an http or https URL, or has a path, query, fragment or user.
        """
        try:
            parts = urlsplit(text)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            host, port, parts = "", None, urlsplit("")
        is_plain = parts.scheme in _PORTS and parts.path in {"", "/"} and "@" not in text and not set("?#") & set(text)
        if not is_plain or not host:
            raise SettingsError(f"expected a URL such as https://log.example.com, without a path, found {text!r}")
        address = Address.parse(f"[{host}]:1" if ":" in host else f"{host}:1")
        return cls("", replace(address, port=port or _PORTS[parts.scheme]), parts.scheme == "https")

    @property
    def scheme(self) -> str:
        """`https` or `http`."""
        return "https" if self.is_secure else "http"

    @property
    def url(self) -> str:
        """The base URL."""
        return f"{self.scheme}://{self.address}"

    def __str__(self) -> str:
        return f"{self.name}{'=' if self.name else ''}{_SECURE if self.is_secure else ''}{self.address}"


@dataclass(frozen=True)
class Ways:
    """All ways in to one member, at least one. The first is for those who came by none of them.

    Its text is what members know of each other: the ways in their order, separated by commas. With one way that has
    neither a name nor TLS, it is the plain `host:port` of earlier versions.
    """

    all: tuple[Way, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.all) <= _MOST:
            raise SettingsError(f"expected 1 to {_MOST} addresses, found {len(self.all)}")
        names = [way.name for way in self.all]
        if len(set(names)) < len(names):
            raise SettingsError(f"expected a name of its own for each address, found {', '.join(map(str, self.all))}")

        if len(str(self)) > _MOST_BYTES:
            raise SettingsError(f"expected addresses of at most {_MOST_BYTES} bytes together, found {len(str(self))}")

    @classmethod
    def parse(cls, text: str) -> Ways:
        """Return the ways in that `text` says.

        Raises:
            SettingsError: It is not a list of ways, separated by commas.
        """
        return cls(tuple(Way.parse(part) for part in text.split(",")))

    @property
    def first(self) -> Way:
        """The way for those who came by none of the others."""
        return self.all[0]

    @property
    def is_everywhere(self) -> bool:
        """Whether one of the addresses means all interfaces, which nobody can connect to."""
        return any(way.address.is_everywhere for way in self.all)

    def require_somewhere(self, name: str) -> None:
        """Check that others can connect to each of the addresses, which are called `name`.

        Raises:
            SettingsError: One means all interfaces.
        """
        for way in self.all:
            way.address.require_somewhere(name)

    def secured(self) -> Ways:
        """Return these ways with https."""
        return Ways(tuple(replace(way, is_secure=True) for way in self.all))

    def by_name(self, name: str) -> Way:
        """Return the way of this name, or else the first."""
        return next((way for way in self.all if way.name == name), self.first)

    def name_of(self, host: str) -> str:
        """Return the name of the way by which a question came.

        Args:
            host: The `Host` header of the question: untrusted.

        Returns:
            The name; that of the first way if `host` is the address of none.
        """
        return next((way.name for way in self.all if _is_same(way, host)), self.first.name)

    def __str__(self) -> str:
        return ",".join(map(str, self.all))


def _is_same(way: Way, host: str) -> bool:
    address, found = str(way.address).lower(), host.lower()
    # Clients leave out the port of the scheme.
    return address in {found, f"{found}:{_PORTS[way.scheme]}"}
