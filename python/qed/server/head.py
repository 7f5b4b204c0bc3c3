"""The parts of a request's head that this server reads, apart from path and method: taken from it once, and checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from qed._wire import DecodeError
from qed.errors import QedError

if TYPE_CHECKING:
    from starlette.types import Scope

__all__ = ["Head", "UnsupportedEncoding", "head_of"]

_BEARER: Final = b"bearer "


class UnsupportedEncoding(QedError):
    """The body is compressed or otherwise encoded. This server accepts plain bodies only."""


class Head(NamedTuple):
    """What a request says about itself; untrusted.

    Attributes:
        host: The `Host` header; empty in HTTP/1.0 without one.
        origin: The `Origin` header, with which browsers say whose page makes the request; None if there is none.
        keys: The texts that it presents as API keys.
    """

    host: bytes
    origin: bytes | None
    keys: list[bytes]


def head_of(scope: Scope) -> Head:
    """Return the head of a request, which can be read in one way only.

    Raises:
        DecodeError: There is more than one `Host` header, or none in HTTP/1.1.
        UnsupportedEncoding: `Content-Encoding` names an encoding.
    """
    hosts: list[bytes] = []
    keys: list[bytes] = []
    origin = None
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
        elif name == b"content-encoding" and value.strip().lower() not in {b"", b"identity"}:
            raise UnsupportedEncoding(f"expected a body without Content-Encoding, found {value.decode('latin-1')!r}")
    if len(hosts) != 1 and (hosts or scope["http_version"] == "1.1"):
        raise DecodeError(f"expected one Host header, found {len(hosts)}")
    return Head(hosts[0] if hosts else b"", origin, keys)
