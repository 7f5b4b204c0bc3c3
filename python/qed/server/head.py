"""The parts of a request's head that this server reads, apart from path and method: taken from it once, and checked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from qed._wire import DecodeError
from qed.errors import QedError

if TYPE_CHECKING:
    from starlette.types import Scope

__all__ = ["Head", "UnsupportedEncoding", "head_of"]

_BEARER: Final = b"bearer "
_PLAIN: Final = {b"content-encoding": {b"", b"identity"}, b"transfer-encoding": {b"chunked"}}
"""What the headers may say of a body that is not encoded."""
_OTHER_SITES: Final = {b"cross-site", b"same-site"}
"""How browsers mark a request of another page. Those that only read have no `Origin`."""
_VISIBLE: Final = re.compile(rb"[!-~]+")
"""What a host, with or without a port, consists of."""


class UnsupportedEncoding(QedError):
    """The body is compressed or otherwise encoded. This server accepts plain bodies only."""


class Head(NamedTuple):
    """What a request says about itself; untrusted.

    Attributes:
        host: The `Host` header; empty in HTTP/1.0 without one.
        origin: The `Origin` header, with which browsers say whose page makes the request; None if there is none. It is
            empty, which is nobody's, if they only say that the page is of another site.
        keys: The texts that it presents as API keys.
    """

    host: bytes
    origin: bytes | None
    keys: list[bytes]


def head_of(scope: Scope) -> Head:
    """Return the head of a request, which can be read in one way only.

    Raises:
        DecodeError: There is more than one `Host` header, or none in HTTP/1.1, or it names no host.
        UnsupportedEncoding: `Content-Encoding` names an encoding, or `Transfer-Encoding` another one than `chunked`.
    """
    hosts: list[bytes] = []
    keys: list[bytes] = []
    origin, is_of_page = None, False
    for name, value in scope["headers"]:
        if name == b"host":
            hosts.append(value)
        elif name == b"api-key":
            keys.append(value)
        elif name == b"authorization":
            if value[: len(_BEARER)].lower() == _BEARER:
                keys.append(value[len(_BEARER) :])
        elif name == b"origin":
            # Two have no meaning, and nobody's page has this origin.
            origin = value if origin is None else b""
        elif name == b"sec-fetch-site":
            is_of_page = is_of_page or value in _OTHER_SITES
        elif name in _PLAIN and value.strip().lower() not in _PLAIN[name]:
            spelt = name.decode("latin-1").title()
            raise UnsupportedEncoding(f"expected a plain body, found {spelt}: {value.decode('latin-1')}")
    if is_of_page and origin is None:
        origin = b""
    return Head(_host_of(hosts, scope["http_version"]), origin, keys)


def _host_of(hosts: list[bytes], http_version: str) -> bytes:
    if not hosts and http_version != "1.1":
        return b""
    if len(hosts) != 1:
        raise DecodeError(f"expected one Host header, found {len(hosts)}")
    host = hosts[0]
    if _VISIBLE.fullmatch(host) is None:
        raise DecodeError(f"expected a host in the Host header, found {host.decode('latin-1')!r}")
    return host
