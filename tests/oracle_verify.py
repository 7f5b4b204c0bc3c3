"""A slow, simple verifier: what protocol §6 demands of an answer, without any code of qed.

It parses answers in wire form strictly and rejects whatever it does not understand. Snapshots are the caller's own.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, cast

from oracle import (
    DEFAULTS,
    SHORTCUT_HEIGHT,
    Json,
    Path,
    b64,
    history_key,
    history_leaf,
    history_pos,
    hyper_key,
    hyper_pos,
    sha256,
    shortcut_leaf,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

MIN_KEY_SIBLINGS = 256 - SHORTCUT_HEIGHT


class RejectedError(Exception):
    """The proof does not show what it claims."""


def parse(text: str | bytes) -> Json:
    """Return the JSON object in `text`, in which no name may be duplicated."""

    def unique(pairs: list[tuple[str, object]]) -> Json:
        names = dict(pairs)
        if len(names) != len(pairs):
            raise RejectedError("a name comes twice")
        return names

    try:
        value = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as exc:
        raise RejectedError(f"not JSON: {exc}") from exc
    return _object(value)


def _object(value: object) -> Json:
    if not isinstance(value, dict):
        raise RejectedError("not an object")
    return cast("Json", value)


def _number(answer: Mapping[str, object], name: str) -> int:
    value = answer.get(name)
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise RejectedError(f"{name} is not a version: {value!r}")
    return value


def _hash(value: object) -> bytes:
    if not isinstance(value, str):
        raise RejectedError(f"not base64: {value!r}")
    try:
        decoded = base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error) as exc:
        raise RejectedError(f"not base64: {value!r}") from exc
    if len(decoded) != 32 or b64(decoded) != value:
        raise RejectedError(f"not the base64 of 32 bytes: {value!r}")
    return decoded


def _path(value: object, max_nodes: int) -> Path:
    positions = _object(value)
    _demand(len(positions) <= max_nodes, "the path is too long")
    return {position: _hash(node) for position, node in positions.items()}


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise RejectedError(otherwise)


def fold_hyper(key: int, path: Path, end: bytes) -> bytes:
    """Return the root over `end`, where the path of `key` ends; the path must hold the key's own siblings only."""
    node = end
    for height in range(256 - len(path), 256):
        prefix = key >> height << height
        sibling = path.get(hyper_key(prefix ^ 1 << height, height))
        if sibling is None:
            raise RejectedError(f"no hyper sibling at height {height}")
        left, right = (sibling, node) if key >> height & 1 else (node, sibling)
        node = sha256(right, left, hyper_pos(prefix & ~(1 << height), height + 1))
    return node


def fold_history(path: Path, leaves: Mapping[int, bytes], version: int) -> tuple[bytes, set[str]]:
    """Return the root at `version` over the given leaf hashes, and the positions of `path` it was computed from."""
    used: set[str] = set()

    def node(index: int, height: int) -> bytes:
        if height == 0 and index in leaves:
            return leaves[index]
        if not any(index <= leaf < index + (1 << height) for leaf in leaves):
            key = history_key(index, height)
            _demand(key in path, f"no history node at {key}")
            used.add(key)
            return path[key]
        left = node(index, height - 1)
        middle = index + (1 << (height - 1))
        right = node(middle, height - 1) if middle <= version else b""
        return sha256(left, right, history_pos(index, height))

    return node(0, version.bit_length()), used


def _verify_history(digest: bytes, path: Path, version: int, query: int, root: object) -> None:
    computed, used = fold_history(path, {version: history_leaf(digest, version)}, query)
    _demand(used == set(path), "the history path holds more than the siblings")
    _demand(computed == _hash(root), "the history digest differs")


def _verify_asked(digest: bytes, answer: Json, version: int | None, current_snapshot: Json) -> tuple[int, int]:
    """Check that the answer is for this event, at the version asked, of the trusted tree; return its versions."""
    query, current = _number(answer, "QueryVersion"), _number(answer, "CurrentVersion")
    _demand(_hash(answer.get("KeyDigest")) == digest, "an answer for another event")
    _verify_echo(answer)
    _demand(query == (current if version is None else min(version, current)), "an answer at another version")
    _demand(current == current_snapshot["Version"], "not the snapshot of CurrentVersion")
    return query, current


def _verify_echo(answer: Json) -> None:
    """Check that the event an answer echoes, if any, is that of its digest."""
    key = answer.get("Key")
    if key is None:
        return
    try:
        event = base64.b64decode(str(key), validate=True)
    except (ValueError, binascii.Error) as exc:
        raise RejectedError(f"not base64: {key!r}") from exc
    _demand(b64(event) == key and b64(sha256(event)) == answer["KeyDigest"], "the echo of another event")


def verify_membership(
    digest: bytes, answer: Json, *, version: int | None, query_snapshot: Json, current_snapshot: Json
) -> None:
    """Raise `RejectedError` unless the answer proves that the log at `version` holds the event (§6.1, §6.3)."""
    _demand(answer.get("Exists") is True, "not a membership")
    query, current = _verify_asked(digest, answer, version, current_snapshot)
    _demand(query == query_snapshot["Version"], "not the snapshot of QueryVersion")
    actual = latest = _number(answer, "ActualVersion")
    _demand(actual <= query, "the event was added after the asked version")
    if answer.get("LatestVersion") is not None:
        latest = _number(answer, "LatestVersion")
        _demand(query < latest <= current, "LatestVersion only names an event added again after the asked version")
        path = _path(answer.get("LatestHistory"), 64)
        _verify_history(digest, path, latest, current, current_snapshot["HistoryDigest"])
    else:
        _demand(answer.get("LatestHistory") is None, "LatestHistory without LatestVersion")
    hyper = _path(answer.get("Hyper"), 256)
    _demand(len(hyper) >= MIN_KEY_SIBLINGS, "a hyper path too short for a key")
    key, height = int.from_bytes(digest, "big"), 256 - len(hyper)
    root = fold_hyper(key, hyper, shortcut_leaf(latest, key >> height << height, height))
    _demand(root == _hash(current_snapshot["HyperDigest"]), "the hyper digest differs")
    _verify_history(digest, _path(answer.get("History"), 64), actual, query, query_snapshot["HistoryDigest"])


def verify_absence(digest: bytes, answer: Json, *, version: int | None, current_snapshot: Json) -> None:
    """Raise `RejectedError` unless the answer proves that the log does not hold the event (§6.2)."""
    _demand(answer.get("Exists") is False and answer.get("History", "missing") is None, "not an absence")
    later = (answer.get("LatestVersion"), answer.get("LatestHistory"))
    _demand(later == (None, None), "an absent event has no later occurrence")
    query, current = _verify_asked(digest, answer, version, current_snapshot)
    _demand(_number(answer, "ActualVersion") == query, "an absence has no version of its own")
    hyper = _path(answer.get("Hyper"), 256)
    key, height = int.from_bytes(digest, "big"), 256 - len(hyper)
    end = DEFAULTS[height]
    if answer.get("Neighbour") is not None:
        neighbour = _object(answer["Neighbour"])
        other, added = _hash(neighbour.get("KeyDigest")), _number(neighbour, "Version")
        _demand(other != digest, "the neighbour is the key itself")
        _demand(int.from_bytes(other, "big") >> height == key >> height, "the neighbour is elsewhere")
        _demand(height <= SHORTCUT_HEIGHT, "no leaf can stand so high")
        _demand(added <= current, "the neighbour is not in the log")
        end = shortcut_leaf(added, key >> height << height, height)
        path = _path(neighbour.get("History"), 64)
        _verify_history(other, path, added, current, current_snapshot["HistoryDigest"])
    _demand(fold_hyper(key, hyper, end) == _hash(current_snapshot["HyperDigest"]), "the hyper digest differs")


def verify_incremental(answer: Json, *, start_snapshot: Json, end_snapshot: Json) -> None:
    """Raise `RejectedError` unless the answer proves that the end's log extends the start's (§6.4)."""
    start, end = _number(answer, "Start"), _number(answer, "End")
    _demand(start <= end, "a range upside down")
    _demand((start, end) == (start_snapshot["Version"], end_snapshot["Version"]), "another range than asked")
    path = _path(answer.get("AuditPath"), 4 * 64)
    ends = {history_key(version, 0) for version in (start, end)}
    _demand(ends <= set(path), "a leaf is missing")
    leaves = {version: path[history_key(version, 0)] for version in (start, end)}
    start_root, _ = fold_history(path, {start: leaves[start]}, start)
    end_root, used = fold_history(path, leaves, end)
    _demand(used | ends == set(path), "the path holds more than it may")
    _demand(start_root == _hash(start_snapshot["HistoryDigest"]), "the history digest of the start differs")
    _demand(end_root == _hash(end_snapshot["HistoryDigest"]), "the history digest of the end differs")
