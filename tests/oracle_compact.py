"""The compact form of answers, written from FORMATS.md alone: the bytes that a proof must have."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final, cast

from oracle import DEFAULTS, Json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FORMAT: Final = 2
SNAPSHOT, MEMBERSHIP, ABSENCE, INCREMENTAL = range(4)


def snapshot_bytes(snapshot: Json) -> bytes:
    roots = [_hash(snapshot[name]) for name in ("EventDigest", "HistoryDigest", "HyperDigest")]
    return _header(SNAPSHOT) + b"".join(roots) + _numbers(snapshot["Version"])


def answer_bytes(answer: Json) -> bytes:
    """Return the compact form of a membership, absence or incremental answer in wire form."""
    if "Exists" not in answer:
        path = sorted(_path(answer["AuditPath"]).items())
        return _header(INCREMENTAL) + _numbers(answer["Start"], answer["End"]) + _joined(value for _, value in path)
    return _membership(answer) if answer["Exists"] else _absence(answer)


def _membership(answer: Json) -> bytes:
    latest = answer.get("LatestVersion", answer["ActualVersion"])
    versions = _numbers(answer["CurrentVersion"], answer["QueryVersion"], answer["ActualVersion"], latest)
    paths = _hyper_path(answer["Hyper"]) + _history_path(answer["History"])
    paths += _history_path(answer.get("LatestHistory", {}))
    return _header(MEMBERSHIP) + _hash(answer["KeyDigest"]) + versions + paths


def _absence(answer: Json) -> bytes:
    start = _header(ABSENCE) + _hash(answer["KeyDigest"]) + _numbers(answer["CurrentVersion"], answer["QueryVersion"])
    start += _hyper_path(answer["Hyper"])
    if "Neighbour" not in answer:
        return start + b"\0"
    neighbour = cast("Json", answer["Neighbour"])
    key_and_version = _hash(neighbour["KeyDigest"]) + _numbers(neighbour["Version"])
    return start + b"\1" + key_and_version + _history_path(neighbour["History"])


def _hyper_path(value: object) -> bytes:
    """Root down: the number of levels, a bit for each hash that is not an empty subtree's, and those hashes."""
    heights = {height: digest for (_, height), digest in _path(value).items()}
    levels = [(height, heights[height]) for height in sorted(heights, reverse=True)]
    bits = "".join("0" if digest == DEFAULTS[height] else "1" for height, digest in levels)
    size = -(-len(bits) // 8)
    written = int(bits.ljust(8 * size, "0"), 2).to_bytes(size, "big") if size else b""
    present = _joined(digest for height, digest in levels if digest != DEFAULTS[height])
    return len(levels).to_bytes(2, "big") + written + present


def _history_path(value: object) -> bytes:
    """Leaf up: no two siblings of a leaf have the same height."""
    return _joined(digest for _, digest in sorted((height, digest) for (_, height), digest in _path(value).items()))


def _path(value: object) -> dict[tuple[int, int], bytes]:
    """Return hashes by index or prefix, and height."""
    path = cast("Mapping[str, str]", value)
    positions = (position.split("|") for position in path)
    numbers = [(int(index, 0), int(height)) for index, height in positions]
    return dict(zip(numbers, map(_hash, path.values()), strict=True))


def _header(kind: int) -> bytes:
    return bytes([FORMAT, kind])


def _hash(value: object) -> bytes:
    return base64.b64decode(cast("str", value))


def _numbers(*values: object) -> bytes:
    return _joined(cast("int", value).to_bytes(8, "big") for value in values)


def _joined(parts: Iterable[bytes]) -> bytes:
    return b"".join(parts)
