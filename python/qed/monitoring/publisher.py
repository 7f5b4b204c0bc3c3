"""Publishing a log where any web server or CDN can serve it: verified files first, the checkpoint last.

The target only grows. A crash leaves files of a tree that its checkpoint does not reach yet; the next round finds them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from qed._qed import bundle_hashes
from qed.errors import DamagedFile, Unavailable, VerificationError
from qed.monitoring.ahead import ahead
from qed.monitoring.auditing import standing
from qed.monitoring.comparison import contradiction
from qed.monitoring.published import BUNDLE_ENTRIES, PublishedTree
from qed.monitoring.sources import CHECKPOINT
from qed.monitoring.targets import Superseded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qed._qed import TilePath
    from qed.monitoring.findings import Finding
    from qed.monitoring.sources import Source
    from qed.monitoring.targets import Stored, Target
    from qed.policy import Policy
    from qed.signed import Checkpoint

__all__ = ["Publication", "Publisher"]

_LEVELS: Final = 8
"""Levels of tiles of a log of 2^63 entries."""
_THREADS: Final = 16
"""How many bundles, or tiles, are read and written at a time."""
_TRIES: Final = 5
"""How often a round begins again because the checkpoint in the target is another one by now."""


@dataclass(frozen=True)
class Publication:
    """What one round has done.

    Attributes:
        checkpoint: The checkpoint of the source.
        published: Size of what the target has now.
        files: How many files were written, without the checkpoint.
        finding: Why nothing was published; None if it was, or if there was nothing to do.
    """

    checkpoint: Checkpoint
    published: int
    files: int
    finding: Finding | None


class Publisher:
    """Copies a log from a source to a target. Several publishers may share a target.

    Args:
        target: Where to publish it.
        policy: Whom to trust: what does not meet it is not published.
        source: Where the log is published now, such as a server.
    """

    def __init__(self, target: Target, policy: Policy, source: Source) -> None:
        self._target: Final = target
        self._policy: Final = policy
        self._source: Final = source

    def run(self, *, started: Callable[[int], Callable[[int], None]] = lambda _: lambda _: None) -> Publication:
        """Publish what is new.

        1. The checkpoint of the source is verified by the policy.
        2. It must extend the one in the target. A smaller one is passed over.
        3. Each file is verified before it is written. One that is there already must be the same.
        4. What a reader of the new checkpoint needs first is read back.
        5. The checkpoint is replaced last. If another publisher was faster, all of this begins again.

        Args:
            started: Called with the number of new entries. What it returns is called with how many of them were
                published, after each step. It may be called again.

        Returns:
            What was done.

        Raises:
            VerificationError: A checkpoint does not verify, or files are damaged; the message names which.
            Unavailable: The source or the target cannot be reached, or other publishers are faster each time.
            ProtocolError: One of them refuses.
            OSError: A folder cannot be read or written.
        """
        for _ in range(_TRIES):
            try:
                return self._round(int(time.time()), started)
            except Superseded:
                continue
        raise Unavailable(
            f"{self._target.name}/{CHECKPOINT} could not be replaced: each of {_TRIES} times it was no longer the one "
            "that had been read. Are other publishers at work? If not, its ETags are wrong"
        )

    def _round(self, moment: int, started: Callable[[int], Callable[[int], None]]) -> Publication:
        # 1.
        note = self._source.read(CHECKPOINT)
        found = self._policy.trust.endorse(note, now=moment)
        stored = self._target.stored()
        known = None if stored is None else self._verified(stored, moment)
        published = 0 if known is None else known.size
        for doubt in standing(self._policy, found):
            return Publication(found, published, 0, doubt)
        # 2.
        if known is not None:
            finding = self._contradiction(known, found, moment)
            if finding is not None or found.size < known.size:
                return Publication(found, published, 0, finding)
        # 3.
        tree = PublishedTree(found, [self._source])
        files = self._write_tree(tree, published, started)
        # 4.
        if files:
            self._require_readable(found)
        # 5.
        if known is None or _is_newer(found, known):
            self._target.replace(found.note.encode(), stored)
        return Publication(found, found.size, files, None)

    def _verified(self, stored: Stored, moment: int) -> Checkpoint:
        try:
            return self._policy.trust.endorse(stored.content, now=moment)
        except VerificationError as exc:
            exc.add_note(f"this is about the checkpoint in {self._target.name}")
            raise

    def _contradiction(self, known: Checkpoint, found: Checkpoint, moment: int) -> Finding | None:
        if known.origin != found.origin:
            raise VerificationError(f"{self._target.name} is for {known.origin}, but the source has {found.origin}")

        def tree_of(checkpoint: Checkpoint) -> PublishedTree:
            sources = [self._target, self._source]
            return PublishedTree(checkpoint, sources if checkpoint is known else [self._source])

        return contradiction(known, found, tree_of, now=moment)

    def _write_tree(self, tree: PublishedTree, published: int, started: Callable[[int], Callable[[int], None]]) -> int:
        """Write all files of the tree that the target may lack, and return how many it lacked."""
        first, size, files = published // BUNDLE_ENTRIES, tree.checkpoint.size, 0
        advance = started(size - published)
        numbers = range(first, tree.bundles)
        for index, written in ahead(lambda index: (index, self._put_bundle(tree, index)), numbers, threads=_THREADS):
            files += written
            advance(min((index + 1) * BUNDLE_ENTRIES, size) - published)

        def put(tile: tuple[TilePath, int, int]) -> int:
            path, level, index = tile
            return self._target.put_new(str(path), tree.hashes(level, index))

        return files + sum(ahead(put, _tiles_above(tree, first), threads=_THREADS))

    def _put_bundle(self, tree: PublishedTree, index: int) -> int:
        """Write a bundle and the tile of level 0 above it, and return how many of the two were missing."""
        content, path = tree.bundle(index), tree.tiles.bundle_path(index)
        leaves = tree.tiles.path_of(0, index)
        if path is None or leaves is None:
            raise ValueError(f"expected a bundle below {tree.bundles}, found {index}")
        hashes = bundle_hashes(content, path.width)
        return self._target.put_new(str(leaves), hashes) + self._target.put_new(str(path), content)

    def _require_readable(self, checkpoint: Checkpoint) -> None:
        """Check that the target has the edge of the new tree, before its checkpoint says so."""
        try:
            written = PublishedTree(checkpoint, [self._target])
            written.bundle(written.bundles - 1)
        except DamagedFile as exc:
            raise DamagedFile(f"what was written to {self._target.name} cannot be read back: {exc}") from exc


def _tiles_above(tree: PublishedTree, first: int) -> Iterator[tuple[TilePath, int, int]]:
    """Yield the tiles above level 0 from the one over bundle `first` on: path, level and number in the level."""
    for level in range(1, _LEVELS):
        first //= BUNDLE_ENTRIES
        index = first
        while (path := tree.tiles.path_of(level, index)) is not None:
            yield path, level, index
            index += 1


def _is_newer(found: Checkpoint, known: Checkpoint) -> bool:
    """Return whether a checkpoint is to take the place of another of the same log that it extends.

    One of the same tree does only if witnesses have confirmed it later. Otherwise two publishers would replace each
    other's for ever, and a source that lags behind would make readers think that the log is stale.
    """
    if found.size != known.size:
        return True
    return (found.is_witnessed, found.confirmed_at or 0) > (known.is_witnessed, known.confirmed_at or 0)
