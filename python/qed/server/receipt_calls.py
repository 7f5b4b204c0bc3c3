"""Signed receipts in answers: for events that were just added, and for past ones."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final

from qed._limits import VERSION_LIMIT
from qed._wire import ENCODER, DecodeError, version_in
from qed.errors import Overloaded, QedError, SigningError, UnknownVersion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import Receive, Scope, Send

    from qed._qed import Added, Digest
    from qed._wire import ReceiptLevel
    from qed.server.node import Node

__all__ = ["PastReceipt", "add_with_receipt"]

_JSON: Final = (b"content-type", b"application/json")
_NOT_KEPT: Final = (b"cache-control", b"no-store")
_QUERY: Final = re.compile(
    r"(?:last=(?P<last>[0-9]{1,20})|level=(?P<level>committed|witnessed)|wait=(?P<wait>[0-9]{1,2}))"
)
_MOST_ASKED: Final = 4096
"""Versions of one request for the past. The receipt has a megabyte."""
_SMALL: Final = 64
"""Versions of a receipt that does not wait for others."""
_MOST_WAITING: Final = 32
"""Large receipts that may wait."""
WAIT_S: Final = 10
"""How long a witnessed receipt is waited for, unless the request says otherwise."""


async def add_with_receipt(
    node: Node, events: Sequence[bytes | Digest], level: ReceiptLevel, *, if_absent: bool
) -> tuple[Added, bytes]:
    """Add events, and return what was added, with the fields of an answer that give its receipt.

    Args:
        node: The member.
        events: The events, as `Node.add` takes them.
        level: The receipt that is asked for.
        if_absent: Whether to add only what is not in the log yet.

    Returns:
        What was added; and `"Receipt":…`, with `,"ReceiptError":…` if that is less than was asked for.

    Raises:
        Exception: As `Node.add`.
    """
    reason = None
    if level == "witnessed":
        added = await node.add(events, if_absent=if_absent)
        receipt, reason = await _witnessed(node, *added.added)
    else:
        added, receipt = await node.add_with_receipt(events, if_absent=if_absent)
    if receipt is None:
        return added, b'"Receipt":null'
    # The events are committed, whatever becomes of their receipt.
    if isinstance(receipt, QedError):
        return added, b'"Receipt":null,"ReceiptError":' + ENCODER.encode(str(receipt))
    fields = b'"Receipt":' + receipt
    return added, fields if reason is None else fields + b',"ReceiptError":' + ENCODER.encode(reason)


async def _witnessed(node: Node, first: int, end: int) -> tuple[bytes | QedError | None, str | None]:
    """Return a receipt, or why there is none; and why it is only a committed one."""
    if first == end:
        return None, None
    reason = None
    try:
        await node.await_witnessed(end, WAIT_S)
    except SigningError as exc:
        reason = str(exc)
    try:
        return await node.receipt(first, end, is_witnessed=reason is None), reason
    except QedError as exc:
        return exc, None


class PastReceipt:
    """`GET /receipts/{version}?last=N&level=…&wait=S`: 200 with the receipt for versions of one commit batch.

    The receipt is the whole answer, so it can be saved as it is.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        # A large receipt takes some hundredths of a second and a megabyte. Those of new events must not wait for many.
        self._large = asyncio.Semaphore(1)
        self._waiting = 0

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        """Answer with the receipt.

        Raises:
            DecodeError: The path or the query names no versions.
            UnknownVersion: The log does not have them yet.
            NotLeader: This member does not lead, and no published checkpoint has them yet.
            SigningError: The log is not signed, or not witnessed in time.
        """
        first, last, level, wait_s = _asked(scope)
        await self._node.await_version(last)
        if last >= len(self._node):
            raise UnknownVersion(f"the log does not have version {last} yet")
        if level == "witnessed":
            await self._node.await_witnessed(last + 1, wait_s)
        receipt = await self._receipt(first, last + 1, is_witnessed=level == "witnessed")
        headers = [_JSON, _NOT_KEPT, (b"content-length", b"%d" % len(receipt))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": receipt})

    async def _receipt(self, first: int, end: int, *, is_witnessed: bool) -> bytes:
        if end - first <= _SMALL:
            return await self._node.receipt(first, end, is_witnessed=is_witnessed)
        if self._waiting >= _MOST_WAITING:
            raise Overloaded(f"{_MOST_WAITING} large receipts are waiting already")
        self._waiting += 1
        try:
            async with self._large:
                return await self._node.receipt(first, end, is_witnessed=is_witnessed)
        finally:
            self._waiting -= 1


def _asked(scope: Scope) -> tuple[int, int, ReceiptLevel, int]:
    """Return first and last version, the level and how long to wait.

    Raises:
        DecodeError: They are malformed.
    """
    text = scope["path_params"]["version"]
    found: dict[str, str] = {}
    for part in scope["query_string"].decode("latin-1").split("&"):
        match = _QUERY.fullmatch(part)
        if part and (match is None or match.lastgroup in found):
            raise DecodeError("expected the query last=N, level=committed or witnessed, and wait=S, each at most once")
        if match is not None and match.lastgroup is not None:
            found[match.lastgroup] = match[match.lastgroup]
    first = version_in(text)
    last = int(found.get("last", text))
    if last >= VERSION_LIMIT:
        raise DecodeError("expected versions from 0 to 2**64 - 1")
    if last - first >= _MOST_ASKED:
        raise DecodeError(f"expected at most {_MOST_ASKED} versions at a time")
    if last < first:
        raise DecodeError(f"expected a last version from {first} on, found {last}")
    level: ReceiptLevel = "witnessed" if found.get("level") == "witnessed" else "committed"
    return first, last, level, int(found.get("wait", WAIT_S))
