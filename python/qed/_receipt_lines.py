"""The lines of a receipts file (FORMATS.md, "Receipts and bundles"): one that names the log, then one per snapshot.

The file may have been edited or damaged, so its lines are parsed as strictly as answers of a server.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from qed._fields import unique_fields
from qed.errors import MalformedProof
from qed.proofs import Snapshot

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "LINE_BYTES_MAX",
    "LOG_NAME_MAX",
    "SIGNED_START",
    "Header",
    "MalformedLine",
    "header_line",
    "is_marked",
    "is_receipts_file",
    "parse_header",
    "parse_snapshot",
    "snapshot_line",
]

# A snapshot takes about 230 bytes. The limit keeps other kinds of files from being read into memory whole.
LINE_BYTES_MAX: Final = 4096
LOG_NAME_MAX: Final = 256
"""A server chooses the name of its log. The first line of the file must not exceed the limit for lines."""

SIGNED_START: Final = b'{"Format":"qed-receipt-1",'
"""What the line of a signed receipt begins with."""
_FORMAT: Final = "qed-receipts-1"
_LINKED: Final = b',"Linked":true}'
_LINKED_LINE: Final = _LINKED + b"\n"
# The quotes around the four names and three digests of a snapshot, which has no other text.
_QUOTES: Final = 14
_QUOTES_WITH_MARK: Final = _QUOTES + 2


class Header(msgspec.Struct, rename="pascal", forbid_unknown_fields=True):
    """The first line.

    Attributes:
        format: The format of the file.
        log: The log's name, or None if it has none.
    """

    format: Literal["qed-receipts-1"]
    log: str | None


class _Mark(msgspec.Struct, rename="pascal"):
    linked: bool = False


class _Probe(msgspec.Struct, rename="pascal"):
    format: str | None = None


_HEADER: Final = msgspec.json.Decoder(Header)
_MARK: Final = msgspec.json.Decoder(_Mark)
_PROBE: Final = msgspec.json.Decoder(_Probe)
# The exceptions that parsing JSON can raise.
_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)


class MalformedLine(ValueError):
    """A line is neither a first line nor a snapshot."""


def header_line(log: str | None) -> bytes:
    """Return the first line for a log of this name."""
    return msgspec.json.encode(Header(_FORMAT, log)) + b"\n"


def snapshot_line(snapshot: Snapshot, *, is_linked: bool) -> bytes:
    """Return the line of a snapshot.

    Args:
        snapshot: The snapshot.
        is_linked: Whether to mark it as linked.
    """
    text = snapshot.to_json()
    return (text.removesuffix(b"}") + _LINKED if is_linked else text) + b"\n"


def parse_header(line: bytes) -> Header | None:
    """Return a first line, or None if the line is not one.

    Args:
        line: Any line.

    Raises:
        MalformedLine: It is meant to be one, but is malformed or of a newer format.
    """
    if b'"Format"' not in line:
        return None
    try:
        header = _HEADER.decode(line)
        json.loads(line, object_pairs_hook=unique_fields)
    except _UNREADABLE as exc:
        raise MalformedLine(_found_format(line) or str(exc)) from exc
    return header


def _found_format(line: bytes) -> str | None:
    with suppress(*_UNREADABLE):
        found = _PROBE.decode(line).format
        if found is not None and found != _FORMAT:
            return f"expected format {_FORMAT}, found {found!r}; a newer qed may read it"
    return None


def parse_snapshot(line: bytes) -> Snapshot:
    """Return the snapshot of a line.

    Args:
        line: Any line.

    Raises:
        MalformedLine: It is not the line of a snapshot.
    """
    try:
        return Snapshot.from_json(line)
    except MalformedProof as exc:
        raise MalformedLine(str(exc)) from exc


def is_receipts_file(path: Path) -> bool:
    """Return whether a file begins like a receipts file.

    Args:
        path: A regular file.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        line = file.readline(LINE_BYTES_MAX)
    with suppress(MalformedLine):
        if parse_header(line) is None:
            parse_snapshot(line)
        return True
    return False


def is_marked(line: bytes) -> bool:
    """Return whether the line of a snapshot is marked as linked.

    Args:
        line: A line that `parse_snapshot` accepts, so it has each field of a snapshot once.

    Raises:
        MalformedLine: The mark is not a boolean, or a field is duplicated.
    """
    # Counting quotes finds every line with at most one more field, without parsing it: there are millions.
    quotes = line.count(b'"')
    if quotes == _QUOTES:
        return False
    if quotes == _QUOTES_WITH_MARK and line.endswith(_LINKED_LINE):
        return True
    try:
        if quotes > _QUOTES_WITH_MARK:
            json.loads(line, object_pairs_hook=unique_fields)
        return _MARK.decode(line).linked
    except _UNREADABLE as exc:
        raise MalformedLine(str(exc)) from exc
