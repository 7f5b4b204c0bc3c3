"""The log as a transparency log: tiles of hashes and bundles of entries, which anybody's tools can read.

The paths and bytes are those of C2SP tlog-tiles. A tile never changes, so it may be kept for ever; a path that does not
exist yet may exist a moment later, so errors may not be kept at all. Web pages of other sites may not read a server's
tiles, unlike those of a copy that is published.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from qed._qed import TilePath
from qed.errors import QedError, UnknownVersion
from qed.server.tile_cache import File, TileCache

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

    from qed.server.node import Node

__all__ = ["PREFIX", "NoSuchTile", "PublishedCheckpoint", "TileFile", "for_readers"]

PREFIX: Final = "/log/"
"""Of all paths of the transparency log."""

_TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")
_BUNDLES: Final = "tile/entries/"
_BINARY: Final = (b"content-type", b"application/octet-stream")
_FOR_EVER: Final = b"max-age=31536000, immutable"
_NOT_KEPT: Final = (b"cache-control", b"no-store")
_GZIPPED: Final = (b"content-encoding", b"gzip")
_VARY: Final = (b"vary", b"accept-encoding")
_GZIP_LEVEL: Final = 1
"""Three quarters of a bundle are hashes, which no level makes smaller."""
_ETAG_BYTES: Final = 16
_CACHE_BYTES: Final = 32 << 20
"""Room for the tiles of the leaves of a million entries."""


class NoSuchTile(QedError):
    """The path names no tile, or one that the log does not have yet."""


class TileFile:
    """`GET /log/tile/…`: 200 with a tile or a bundle."""

    def __init__(self, node: Node) -> None:
        self._node = node
        # A cache that many use would give the log to those who have no key.
        kind = b"public" if node.settings.is_open else b"private"
        self._kept = (b"cache-control", kind + b", " + _FOR_EVER)
        self._lately = TileCache(_CACHE_BYTES)

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        """Answer with one file.

        Raises:
            NoSuchTile: There is none at this path.
            Unavailable: The log is not that of the cluster.
        """
        path = scope["path"][len(PREFIX) :]
        key = path, path.startswith(_BUNDLES) and _accepts_gzip(scope)
        self._node.require_sound()
        file = self._lately.get(key)
        if file is None:
            file = await self._file(*key)
            self._lately.put(key, file)
        if file.etag is not None and file.etag in _header(scope, b"if-none-match"):
            await send({"type": "http.response.start", "status": 304, "headers": file.headers})
            await send({"type": "http.response.body", "body": b""})
            return
        headers = [*file.headers, (b"content-length", b"%d" % len(file.body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": file.body})

    async def _file(self, path: str, is_gzipped: bool) -> File:
        try:
            body = await self._node.tile(TilePath(path))
        except (UnknownVersion, ValueError) as exc:
            raise NoSuchTile(str(exc)) from exc
        if not path.startswith(_BUNDLES):
            etag = b'"%s"' % hashlib.sha256(body).hexdigest()[: 2 * _ETAG_BYTES].encode()
            return File((_BINARY, self._kept, (b"etag", etag)), etag, body)
        if not is_gzipped:
            return File((_BINARY, self._kept, _VARY), None, body)
        body = await asyncio.to_thread(gzip.compress, body, _GZIP_LEVEL, mtime=0)
        return File((_BINARY, self._kept, _GZIPPED, _VARY), None, body)


class PublishedCheckpoint:
    """`GET /log/checkpoint`: 200 with the newest published checkpoint that this member has the tiles of."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def __call__(self, _: Scope, __: Receive, send: Send) -> None:
        """Answer with the note.

        Raises:
            NoSuchTile: None is published yet.
            Unavailable: The log is not that of the cluster.
        """
        note = self._node.published_note()
        if note is None:
            raise NoSuchTile("no checkpoint is published yet, or this log is not signed")
        headers = [_TEXT, _NOT_KEPT, (b"content-length", b"%d" % len(note))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": note})


def for_readers(send: Send) -> Send:
    """Return `send` with the header that errors about the transparency log have besides their own."""

    async def send_unkept(message: Message) -> None:
        if message.get("status", 0) >= HTTPStatus.BAD_REQUEST:
            message = {**message, "headers": [*message["headers"], _NOT_KEPT]}
        await send(message)

    return send_unkept


def _accepts_gzip(scope: Scope) -> bool:
    """Return whether the client names gzip, and not with the weight 0."""
    for choice in _header(scope, b"accept-encoding").lower().split(b","):
        name, _, weight = choice.partition(b";")
        if name.strip() == b"gzip":
            return weight.replace(b" ", b"") not in {b"q=0", b"q=0.0", b"q=0.00", b"q=0.000"}
    return False


def _header(scope: Scope, wanted: bytes) -> bytes:
    return b", ".join(value for name, value in scope["headers"] if name == wanted)
