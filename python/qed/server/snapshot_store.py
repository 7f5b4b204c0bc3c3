"""The snapshot store of BBVA QED, answered from the log itself, so that its clients need no store of their own.

Its answers hold a signature that those clients do not check. Here it is the signed receipt, which anybody can verify.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Final

from qed._limits import VERSION_LIMIT
from qed._wire import DecodeError
from qed.errors import SigningError
from qed.server.endpoints import NoSuchSnapshot, send_json

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from qed.server.node import Node

__all__ = ["SnapshotCount", "StoredSnapshot"]

_QUERY: Final = re.compile(rb"v=(0|[1-9][0-9]{0,19})")
_TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")


class StoredSnapshot:
    """`GET /snapshot?v=N`: 200 with `{"Snapshot": snapshot, "Signature": receipt}`, the receipt in base64.

    The signature is empty if the log is not signed, or if the receipt cannot be given now.
    """

    def __init__(self, node: Node) -> None:
        self._node = node

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        """Answer with one snapshot.

        Raises:
            DecodeError: The query names no version.
            NoSuchSnapshot: The log does not have it yet.
        """
        query = _QUERY.fullmatch(scope["query_string"])
        version = int(query[1]) if query else VERSION_LIMIT
        if version >= VERSION_LIMIT:
            raise DecodeError("expected the query v=N, with N from 0 to 2**64 - 1")
        await self._node.await_version(version)
        if version >= len(self._node):
            raise NoSuchSnapshot(f"Version not found: {version}")
        snapshot = await self._node.snapshot(version)
        try:
            receipt = await self._node.receipt(version, version + 1)
        except SigningError:
            receipt = b""
        signature = base64.b64encode(receipt)
        await send_json(send, 200, b'{"Snapshot":' + snapshot + b',"Signature":"' + signature + b'"}')


class SnapshotCount:
    """`GET /count`: 200 with the number of snapshots, as text."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def __call__(self, _: Scope, __: Receive, send: Send) -> None:
        """Count the events of the log."""
        text = b"%d" % len(self._node)
        headers = [_TEXT, (b"content-length", b"%d" % len(text))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})
