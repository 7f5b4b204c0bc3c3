"""A second verifier of bulk proofs, from FORMATS.md, "Bulk proofs": slow, simple, and sharing no code with qed."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, TypeAlias

from oracle import DEFAULTS, history_leaf, history_pos, hyper_pos, sha256, shortcut_leaf

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Asked: TypeAlias = "list[tuple[int, dict[str, Any]]]"  # the key as a 256-bit number, and the end of its path

SHORTEST_TO_A_LEAF = 24


class RejectedError(Exception):
    """The proof shows nothing."""


def demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise RejectedError(otherwise)


def verify(keys: Sequence[bytes], answer: dict[str, Any], hyper_root: bytes, history_root: bytes) -> list[int | None]:
    """Return the version of each key in ascending order, or None for one that is absent."""
    current, ends = answer["CurrentVersion"], answer["Ends"]
    demand(len(ends) == len(keys), "a wrong number of ends")
    asked = [(int.from_bytes(key, "big"), end) for key, end in zip(sorted(keys), ends, strict=True)]
    leaves: dict[int, bytes] = {}
    for key, end in asked:
        version = version_of(end)
        demand((1 if version is None else SHORTEST_TO_A_LEAF) <= end["Depth"] <= 256, "an impossible depth")
        if version is None:
            continue
        demand(version <= current, "a version beyond the log")
        digest = key.to_bytes(32, "big")
        if "Neighbour" in end:
            digest = base64.b64decode(end["Neighbour"]["KeyDigest"])
            shared = 256 - (int.from_bytes(digest, "big") ^ key).bit_length()
            demand(end["Depth"] <= shared < 256, "no neighbour")
        demand(leaves.setdefault(version, digest) == digest, "two events at one version")
    siblings = hyper_siblings(base64.b64decode(answer["Hyper"]))
    demand(hyper_node(asked, 0, siblings) == hyper_root, "another hyper root")
    demand(next(siblings, 0) == 0, "hyper hashes left over")
    data = base64.b64decode(answer["History"])
    hashes = iter([data[i : i + 32] for i in range(0, len(data), 32)])
    if leaves:
        demand(history_node(leaves, 0, current.bit_length(), current, hashes) == history_root, "another history root")
    demand(next(hashes, None) is None, "history hashes left over")
    return [end.get("Version") for end in ends]


def version_of(end: dict[str, Any]) -> int | None:
    version: int | None = end["Neighbour"]["Version"] if "Neighbour" in end else end.get("Version")
    return version


def hyper_siblings(data: bytes) -> Iterator[bytes | None]:
    count = int.from_bytes(data[:4], "big")
    bits, hashes = data[4 : 4 + (count + 7) // 8], data[4 + (count + 7) // 8 :]
    place = 0
    for number in range(count):
        if bits[number // 8] >> (7 - number % 8) & 1:
            yield hashes[place : place + 32]
            place += 32
        else:
            yield None
    demand(place == len(hashes), "a wrong number of hyper hashes")


def hyper_node(asked: Asked, depth: int, siblings: Iterator[bytes | None]) -> bytes:
    height = 256 - depth
    if not asked:
        sibling = next(siblings)
        demand(sibling != DEFAULTS[height], "the hash of an empty subtree")
        return sibling or DEFAULTS[height]
    prefix = asked[0][0] >> height << height
    if any(end["Depth"] == depth for _, end in asked):
        versions = {version_of(end) for _, end in asked}
        demand(len(versions) == 1 and all(end["Depth"] == depth for _, end in asked), "paths that meet")
        version = versions.pop()
        return DEFAULTS[height] if version is None else shortcut_leaf(version, prefix, height)
    left = hyper_node([item for item in asked if not item[0] >> (height - 1) & 1], depth + 1, siblings)
    right = hyper_node([item for item in asked if item[0] >> (height - 1) & 1], depth + 1, siblings)
    return sha256(right, left, hyper_pos(prefix, height))


def history_node(leaves: dict[int, bytes], index: int, height: int, current: int, hashes: Iterator[bytes]) -> bytes:
    if not leaves:
        return next(hashes)
    if height == 0:
        return history_leaf(leaves[index], index)
    middle = index + (1 << (height - 1))
    below = {version: digest for version, digest in leaves.items() if version < middle}
    left = history_node(below, index, height - 1, current, hashes)
    if middle > current:
        return sha256(left, history_pos(index, height))
    above = {version: digest for version, digest in leaves.items() if version >= middle}
    return sha256(left, history_node(above, middle, height - 1, current, hashes), history_pos(index, height))
