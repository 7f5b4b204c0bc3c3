"""Read what a log has signed from a file: a receipt, a file of receipts, a bundle or a proof."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from qed._receipt_lines import MalformedLine, parse_header, parse_snapshot
from qed.bundle import Bundle
from qed.errors import MalformedProof
from qed.signed import SIGNED_BYTES_MAX, SignedBundle, SignedReceipt, TlogProof

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from qed.proofs import Snapshot
    from qed.signed import Signed

__all__ = ["Content", "content_of"]

_PROOF: Final = b"c2sp.org/tlog-proof@"
# Several receipts: a file of all that a client got in a year must still fit into memory.
_FILE_BYTES_MAX: Final = 8 * SIGNED_BYTES_MAX
_NOT_JSON: Final = (msgspec.MsgspecError, ValueError, RecursionError)


class _Probe(msgspec.Struct, rename="pascal"):
    format: str | None = None


_PROBE: Final = msgspec.json.Decoder(_Probe)


@dataclass(frozen=True)
class Content:
    """The content of a file that is to be verified.

    Attributes:
        signed: What a log has signed, in the order of the file.
        unsigned: Snapshots that have no signature, and that no receipt of the file is about.
        bundle: A bundle without a signature, or None. If there is one, there is nothing else.
    """

    signed: Sequence[Signed] = ()
    unsigned: Sequence[Snapshot] = ()
    bundle: Bundle | None = None


def content_of(file: BinaryIO) -> Content:
    """Return the content of an open file.

    Args:
        file: The open file.

    Returns:
        The content: one bundle or proof, or any number of receipts and snapshots, one a line.

    Raises:
        MalformedProof: It is anything else.
        OSError: It cannot be read.
    """
    text = file.read(_FILE_BYTES_MAX + 1)
    if len(text) > _FILE_BYTES_MAX:
        raise MalformedProof(f"expected a file of at most {_FILE_BYTES_MAX} bytes, found more")
    if text.startswith(_PROOF):
        return Content([TlogProof.parse(text)])
    lines = [line for line in text.split(b"\n") if line.strip()]
    # An object may extend over several lines; then its first line is none.
    if len(lines) > 1 and _is_object(lines[0]):
        return _of_lines(lines)
    return _of_object(text)


def _is_object(line: bytes) -> bool:
    try:
        _PROBE.decode(line)
    except _NOT_JSON:
        return False
    return True


def _of_object(text: bytes) -> Content:
    try:
        found = _PROBE.decode(text).format
    except _NOT_JSON as exc:
        raise MalformedProof(f"not a bundle, receipt or proof: {exc}") from exc
    match found:
        case "qed-receipt-1":
            return Content([SignedReceipt.from_json(text)])
        case "qed-bundle-2":
            return Content([SignedBundle.from_json(text)])
        case "qed-receipts-1" | None if b'"EventDigest"' in text:
            return _of_lines([text])
        case _:
            # This one names what is wrong, for other formats too.
            return Content(bundle=Bundle.from_json(text))


def _of_lines(lines: Sequence[bytes]) -> Content:
    signed: list[Signed] = []
    unsigned: list[Snapshot] = []
    covered: set[Snapshot] = set()
    for number, line in enumerate(lines, 1):
        try:
            if _PROBE.decode(line).format == "qed-receipt-1":
                receipt = SignedReceipt.from_json(line)
                signed.append(receipt)
                covered.update(receipt.snapshots)
            elif parse_header(line) is None:
                unsigned.append(parse_snapshot(line))
        except (*_NOT_JSON, MalformedLine, MalformedProof) as exc:
            raise MalformedProof(f"not a file of receipts: line {number}: {exc}") from exc
    return Content(signed, [snapshot for snapshot in unsigned if snapshot not in covered])
