"""What a dishonest operator makes with the keys of a log: trees of its choice, signed, as files for others to read."""

from __future__ import annotations

import hashlib
import struct
import time
from typing import TYPE_CHECKING, Final

from qed._qed import Digest, UnsignedCheckpoint, bundle_entries
from qed.log import Log

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from qed.log_keys import SigningKey

__all__ = ["entries_of", "publish", "signed"]

_WIDTH: Final = 256
"""How many entries a bundle has, and hashes a tile."""
_ROOT_BYTES: Final = 32


def entries_of(bulks: Sequence[Sequence[str]]) -> list[bytes]:
    """Return the entries of an honest log with these bulks of events."""
    with Log() as log:
        for bulk in bulks:
            log.add_bulk([event.encode() for event in bulk])
        found: list[bytes] = []
        for number, width in enumerate(_widths(len(log))):
            found += bundle_entries(log.tile(_path("entries", number, width)), width)
        return found


def hide(entries: list[bytes], other: list[bytes]) -> list[bytes]:
    """Return entries whose last hyper root is that of another log, which lacks an event."""
    return [*entries[:-1], entries[-1][:-_ROOT_BYTES] + other[-1][-_ROOT_BYTES:]]


def signed(origin: str, size: int, root: Digest, keys: Sequence[SigningKey]) -> bytes:
    """Return a checkpoint as a note that these keys have signed now."""
    checkpoint = UnsignedCheckpoint(origin, size, root)
    return checkpoint.to_note([key.sign(checkpoint, time=int(time.time())) for key in keys])


def publish(folder: Path, origin: str, entries: Sequence[bytes], keys: Sequence[SigningKey]) -> bytes:
    """Write what a log with these entries publishes.

    Args:
        folder: Where to write: `checkpoint` and `tile/…`.
        origin: The name of the log.
        entries: Any entries, less than 65,536.
        keys: What signs the checkpoint.

    Returns:
        The checkpoint, as a note.
    """
    hashes, level = [hashlib.sha256(b"\0" + entry).digest() for entry in entries], 0
    root = _root(hashes)
    _write(folder, "entries", [struct.pack(">H", len(entry)) + entry for entry in entries])
    while hashes:
        _write(folder, str(level), hashes)
        full = len(hashes) // _WIDTH
        hashes, level = [_root(hashes[_WIDTH * i : _WIDTH * (i + 1)]) for i in range(full)], level + 1
    note = signed(origin, len(entries), Digest(root), keys)
    (folder / "checkpoint").write_bytes(note)
    return note


def _root(hashes: Sequence[bytes]) -> bytes:
    """Return the root of RFC 6962, section 2.1."""
    if len(hashes) == 1:
        return hashes[0]
    split = 1 << (len(hashes) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + _root(hashes[:split]) + _root(hashes[split:])).digest()


def _widths(size: int) -> Iterator[int]:
    yield from (min(_WIDTH, size - start) for start in range(0, size, _WIDTH))


def _path(level: str, number: int, width: int) -> str:
    return f"tile/{level}/{number:03}" + (f".p/{width}" if width < _WIDTH else "")


def _write(folder: Path, level: str, items: Sequence[bytes]) -> None:
    for number, width in enumerate(_widths(len(items))):
        path = folder / _path(level, number, width)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(items[_WIDTH * number : _WIDTH * number + width]))
