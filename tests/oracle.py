"""A second implementation of the log and its proofs: slow, simple, and sharing no code with qed.

Written from the protocol's text alone. Both trees are recomputed by recursion for every answer; only the hyper paths of
the present log are kept. Every answer is in wire form: the JSON object as a dict. Where this file and the real
implementation agree, two independent readings of the protocol agree.
"""

from __future__ import annotations

import base64
import hashlib
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Json: TypeAlias = dict[str, object]
Path: TypeAlias = dict[str, bytes]
Entries: TypeAlias = list[tuple[int, int]]  # (digest as a 256-bit number, version), sorted

SHORTCUT_HEIGHT = 232  # A lone key below this height is one leaf; above it every level has its own node.


class RefusedError(Exception):
    """The log cannot answer what was asked."""


class AddedLaterError(RefusedError):
    """The event was first added after the asked version."""

    def __init__(self, first_version: int) -> None:
        super().__init__(f"first added at version {first_version}")
        self.first_version = first_version


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def event_digest(event: bytes) -> bytes:
    return sha256(event)


def b64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def history_pos(index: int, height: int) -> bytes:
    return index.to_bytes(8, "big") + height.to_bytes(2, "big")


def history_key(index: int, height: int) -> str:
    return f"{index}|{height}"


def history_leaf(digest: bytes, version: int) -> bytes:
    return sha256(digest, history_pos(version, 0))


def history_node(digests: Sequence[bytes], index: int, height: int, version: int) -> bytes:
    """Return the hash of the node at (index, height) in the tree at `version`; it must begin at or before `version`."""
    if height == 0:
        return history_leaf(digests[index], index)
    left = history_node(digests, index, height - 1, version)
    middle = index + (1 << (height - 1))
    if middle > version:
        return sha256(left, history_pos(index, height))
    return sha256(left, history_node(digests, middle, height - 1, version), history_pos(index, height))


def history_root(digests: Sequence[bytes], version: int) -> bytes:
    return history_node(digests, 0, version.bit_length(), version)


def history_path(digests: Sequence[bytes], leaf: int, version: int) -> Path:
    """Return the siblings of `leaf` that exist in the tree at `version`."""
    path: Path = {}
    index = 0
    for height in reversed(range(version.bit_length())):
        middle = index + (1 << height)
        index, sibling = (index, middle) if leaf < middle else (middle, index)
        if sibling <= version:
            path[history_key(sibling, height)] = history_node(digests, sibling, height, version)
    return path


def incremental_path(digests: Sequence[bytes], start: int, end: int) -> Path:
    """Return leaves `start` and `end`, and every largest subtree of the tree at `end` that holds neither."""
    path: Path = {}

    def walk(index: int, height: int) -> None:
        if index > end:
            return
        size = 1 << height
        if height == 0 or not (index <= start < index + size or index <= end < index + size):
            path[history_key(index, height)] = history_node(digests, index, height, end)
            return
        walk(index, height - 1)
        walk(index + size // 2, height - 1)

    walk(0, end.bit_length())
    return path


def _defaults() -> list[bytes]:
    hashes = [sha256(b"\0\0")]
    for _ in range(256):
        hashes.append(sha256(hashes[-1], hashes[-1]))
    return hashes


DEFAULTS = _defaults()


def hyper_pos(prefix: int, height: int) -> bytes:
    return height.to_bytes(2, "big") + prefix.to_bytes(32, "big")


def hyper_key(prefix: int, height: int) -> str:
    return f"0x{prefix:064x}|{height}"


def shortcut_leaf(version: int, prefix: int, height: int) -> bytes:
    return sha256(version.to_bytes(32, "big"), hyper_pos(prefix, height))


def _ends(entries: Entries, height: int) -> bool:
    """Return whether a subtree of these keys has no children: it is empty, or a shortcut leaf."""
    return not entries or (height <= SHORTCUT_HEIGHT and len(entries) == 1)


def _split(entries: Entries, prefix: int, height: int) -> tuple[Entries, Entries]:
    middle = bisect_left(entries, (prefix | 1 << (height - 1), -1))
    return entries[:middle], entries[middle:]


def hyper_node(entries: Entries, prefix: int, height: int) -> bytes:
    """Return the hash of the subtree of `height` at `prefix`, which holds exactly `entries`."""
    if not entries:
        return DEFAULTS[height]
    if _ends(entries, height):
        return shortcut_leaf(entries[0][1], prefix, height)
    left, right = _split(entries, prefix, height)
    left_hash = hyper_node(left, prefix, height - 1)
    right_hash = hyper_node(right, prefix | 1 << (height - 1), height - 1)
    return sha256(right_hash, left_hash, hyper_pos(prefix, height))


def hyper_root(entries: Entries) -> bytes:
    return hyper_node(entries, 0, 256)


def hyper_path(entries: Entries, key: int) -> tuple[Path, Entries]:
    """Return the siblings on the path of `key`, and what the path ends at: no entry, or that of a shortcut leaf."""
    path: Path = {}
    prefix, height = 0, 256
    while not _ends(entries, height):
        left, right = _split(entries, prefix, height)
        height -= 1
        right_prefix = prefix | 1 << height
        if key >> height & 1:
            path[hyper_key(prefix, height)] = hyper_node(left, prefix, height)
            prefix, entries = right_prefix, right
        else:
            path[hyper_key(right_prefix, height)] = hyper_node(right, right_prefix, height)
            entries = left
    return path, entries


@dataclass(frozen=True)
class Request:
    """The digests one client asked to add together."""

    digests: list[bytes]
    if_absent: bool = False


@dataclass(frozen=True)
class Added:
    """The result of one request: the version that answers each of its digests, and whether any of them is new."""

    versions: list[int]
    is_new: bool


def wire_path(path: Path) -> dict[str, str]:
    return {position: b64(value) for position, value in path.items()}


class OracleLog:
    """A log in memory. Versions are positions in `digests`; `newest` is the map the hyper tree commits to."""

    def __init__(self) -> None:
        self.digests: list[bytes] = []
        self.newest: dict[bytes, int] = {}
        self._hyper_roots: list[bytes] = []  # one per version: the root after its whole commit batch
        self._hyper_paths: dict[bytes, tuple[Path, Entries]] = {}

    def append(self, digests: Iterable[bytes], *, if_absent: bool = False) -> Added:
        return self.commit([Request(list(digests), if_absent)])[0]

    def commit(self, batch: Sequence[Request]) -> list[Added]:
        """Add the requests of one commit batch, in order."""
        before = len(self.digests)
        answers = [self._add(request) for request in batch]
        self._hyper_roots += [hyper_root(self._entries())] * (len(self.digests) - before)
        self._hyper_paths.clear()
        return answers

    def _add(self, request: Request) -> Added:
        before = len(self.digests)
        answers: list[int] = []
        moved: set[bytes] = set()
        for digest in request.digests:
            if request.if_absent and digest in self.newest:
                answers.append(self.digests.index(digest))
                continue
            version = len(self.digests)
            self.digests.append(digest)
            if digest not in moved:  # within one request the first occurrence wins
                self.newest[digest] = version
                moved.add(digest)
            answers.append(version)
        return Added(answers, len(self.digests) > before)

    def _entries(self) -> Entries:
        return sorted((int.from_bytes(digest, "big"), version) for digest, version in self.newest.items())

    def snapshot(self, version: int) -> Json:
        if not 0 <= version < len(self.digests):
            raise RefusedError(f"no version {version}")
        return {
            "EventDigest": b64(self.digests[version]),
            "HistoryDigest": b64(history_root(self.digests, version)),
            "HyperDigest": b64(self._hyper_roots[version]),
            "Version": version,
        }

    def incremental(self, start: int, end: int) -> Json:
        if not 0 <= start <= end < len(self.digests):
            raise RefusedError(f"no range {start} to {end}")
        return {"Start": start, "End": end, "AuditPath": wire_path(incremental_path(self.digests, start, end))}

    def membership(self, digest: bytes, version: int | None = None, *, key: bytes | None = None) -> Json:
        """Answer for the log at `version` (None: the present one): a membership, an absence, or `AddedLaterError`."""
        current = len(self.digests) - 1
        if current < 0:
            raise RefusedError("the log is empty")
        query = current if version is None else min(version, current)
        if digest not in self._hyper_paths:
            self._hyper_paths[digest] = hyper_path(self._entries(), int.from_bytes(digest, "big"))
        path, found = self._hyper_paths[digest]
        latest = self.newest.get(digest)
        actual = query if latest is None else self._occurrence(digest, query)
        answer: Json = {
            "Exists": latest is not None,
            "Hyper": wire_path(path),
            "History": None if latest is None else wire_path(history_path(self.digests, actual, query)),
            "CurrentVersion": current,
            "QueryVersion": query,
            "ActualVersion": actual,
            "KeyDigest": b64(digest),
            "Key": None if key is None else b64(key),
        }
        if latest is None and found:
            answer["Neighbour"] = self._neighbour(*found[0])
        if latest is not None and latest > query:
            answer["LatestVersion"] = latest
            answer["LatestHistory"] = wire_path(history_path(self.digests, latest, current))
        return answer

    def _occurrence(self, digest: bytes, query: int) -> int:
        """Return the version the hyper tree shows if it is not after `query`, else the latest one at or below."""
        if self.newest[digest] <= query:
            return self.newest[digest]
        occurrences = [version for version, added in enumerate(self.digests) if added == digest]
        if occurrences[0] > query:
            raise AddedLaterError(occurrences[0])
        return max(version for version in occurrences if version <= query)

    def _neighbour(self, key: int, version: int) -> Json:
        path = history_path(self.digests, version, len(self.digests) - 1)
        return {"KeyDigest": b64(key.to_bytes(32, "big")), "Version": version, "History": wire_path(path)}
