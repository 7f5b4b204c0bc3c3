"""Replaying the entries of a published tree: read ahead by several threads, replayed in order by the core."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Final, Protocol

from qed.monitoring.ahead import ahead
from qed.monitoring.findings import Finding, Kind
from qed.monitoring.published import BUNDLE_ENTRIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qed._qed import Finding as EntryFinding
    from qed.monitoring.published import PublishedTree

__all__ = ["Replay", "evidence_of", "replay"]

_THREADS: Final = 8
_GROUP: Final = 16
"""How many bundles one thread reads, and the core replays, at a time. Those that are read ahead have 8 MiB at most."""


class Replay(Protocol):
    """What replays entries: it keeps the log that they lead to."""

    @property
    def next_entry(self) -> int:
        """The number of entries that were appended."""

    def append(self, first: int, bundles: list[bytes], size: int, /) -> EntryFinding | None:
        """Append bundles of a tree of `size`, from bundle `first` on; return the first thing that is wrong."""


def replay(
    tree: PublishedTree,
    audit: Replay,
    *,
    advance: Callable[[int], None],
    with_tiles: bool = True,
    until: int | None = None,
) -> Finding | None:
    """Replay the entries of a tree that were not replayed before.

    Args:
        tree: The tree.
        audit: Where to replay them.
        advance: Called with the number of entries after each step.
        with_tiles: Whether to check the tiles of level 0, too, which the bundles imply but others read.
        until: How many entries of the tree to replay, up to the end of their last bundle; None to replay all.

    Returns:
        What is wrong with the first entry that is, with evidence, or None.

    Raises:
        DamagedFile: No source has the entries of the tree.
        Unavailable: No source can be reached.
        LogFull: There is no room for so many events.
    """
    size = tree.checkpoint.size
    end = tree.bundles if until is None else -(-until // BUNDLE_ENTRIES)
    numbers = range(audit.next_entry // BUNDLE_ENTRIES, end)
    for first, bundles in _read_ahead(tree, numbers, with_tiles=with_tiles):
        before = audit.next_entry
        found = audit.append(first, bundles, size)
        if found is not None:
            return evidence_of(tree, found)
        advance(audit.next_entry - before)
    return None


def _read_ahead(tree: PublishedTree, numbers: range, *, with_tiles: bool) -> Iterator[tuple[int, list[bytes]]]:
    """Yield bundles in groups, each after the number of its first one."""

    def read(group: range) -> tuple[int, list[bytes]]:
        if with_tiles:
            for number in group:
                tree.check_leaves(number)
        return group.start, [tree.bundle(number) for number in group]

    groups = (numbers[start : start + _GROUP] for start in range(0, len(numbers), _GROUP))
    return ahead(read, groups, threads=_THREADS)


def evidence_of(tree: PublishedTree, found: EntryFinding) -> Finding:
    """Return a wrong entry of a tree as a finding with evidence.

    Args:
        tree: The tree.
        found: What is wrong with the entry.

    Returns:
        The finding.

    Raises:
        DamagedFile: As `replay`.
        Unavailable: As `replay`.
    """
    entry = tree.entry(found.index)
    tree.hashes(0, found.index // BUNDLE_ENTRIES)
    evidence = tree.tiles.invalid_entry(found, entry, found_at=int(time.time()), sources=tree.names)
    kind = Kind.INVALID_ENTRY if found.replay is None else Kind.REPLAY_MISMATCH
    log, size = tree.checkpoint.origin, tree.checkpoint.size
    text = f"entry {found.index} of {log}, which it has signed at size {size}: {found.reason}"
    # The same entry of a tree that has grown is the same finding.
    return Finding(kind, text, evidence, f"{found.index} {hashlib.sha256(entry).hexdigest()}")
