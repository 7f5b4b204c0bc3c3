"""The tree of a checkpoint, read from where it is published. Everything is verified before it is returned."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from qed._qed import TileTree, bundle_entries, edge_paths
from qed.errors import DamagedFile, ProtocolError, Unavailable, VerificationError
from qed.monitoring.sources import NotPublished

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from qed._qed import TilePath
    from qed.monitoring.copy import Copy
    from qed.monitoring.sources import Source
    from qed.proofs import Digest
    from qed.signed import Checkpoint

__all__ = ["BUNDLE_ENTRIES", "PublishedTree", "first_difference"]

_T = TypeVar("_T")

BUNDLE_ENTRIES: Final = 256
"""Number of entries in a full bundle, and of hashes in a full tile."""
_LEVEL_BITS: Final = 8
_TRIES: Final = 2
"""How often a source is asked for a file that has other hashes: it may have been damaged on its way."""
_AGAIN_S: Final = 1.0
"""When sources are asked again for a file that all of them lack."""


class PublishedTree:
    """The tree of a verified checkpoint. Any number of threads may read from it.

    Args:
        checkpoint: The checkpoint.
        sources: Where to read, in this order: if one has a damaged file, or lacks it, the next one is asked.
        copy: Where files were kept that were read before, and are kept; None to keep none.
        is_published: Whether a source has published this checkpoint, or a larger one. Then a file that none of them has
            is damage.

    Raises:
        DamagedFile: No source has tiles that lead to the root of the checkpoint.
        Unavailable: A source that may have them cannot be reached.
    """

    def __init__(
        self, checkpoint: Checkpoint, sources: Sequence[Source], *, copy: Copy | None = None, is_published: bool = True
    ) -> None:
        self._sources: Final = tuple(sources)
        self._is_published: Final = is_published
        self._copy: Final = copy
        paths = edge_paths(checkpoint.size)

        def opened(source: Source) -> tuple[TileTree, list[bytes]]:
            contents = [_read(source, path) for path in paths]
            return TileTree(checkpoint, contents), contents

        self.tiles, edge = self._first(opened)
        for path, content in zip(paths, edge, strict=True):
            self._keep(path, content)

    @property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint."""
        return self.tiles.checkpoint

    @property
    def names(self) -> list[str]:
        """The names of the sources."""
        return [source.name for source in self._sources]

    @property
    def bundles(self) -> int:
        """Number of bundles, the last of which may not be full."""
        return -(-self.checkpoint.size // BUNDLE_ENTRIES)

    def bundle(self, index: int) -> bytes:
        """Return a bundle of entries of the tree.

        Args:
            index: Its number, below `bundles`.

        Returns:
            The bundle.

        Raises:
            DamagedFile: No source has these entries.
            Unavailable: No source can be reached.
        """
        self._add(self.tiles.missing_above(index))
        path = self.tiles.bundle_path(index)
        if path is None:
            raise ValueError(f"expected a bundle below {self.bundles}, found {index}")

        def verified(source: Source) -> bytes:
            content = _read(source, path)
            self.tiles.verify_bundle(index, content)
            return content

        return self._keep(path, self._first(verified))

    def check_leaves(self, index: int) -> None:
        """Check the tile of level 0 above a bundle. What it has is known from the bundle, but others read it.

        Args:
            index: Number of the bundle.

        Raises:
            DamagedFile: No source has these hashes.
            Unavailable: No source can be reached.
        """
        path = self.tiles.path_of(0, index)
        # A tile of the edge was verified when the tree was opened.
        if path is not None and path.width == BUNDLE_ENTRIES:
            self._add(self.tiles.missing_above(index))
            self._first(lambda source: self.tiles.verify_tile(path, _read(source, path)))

    def hashes(self, level: int, index: int) -> bytes:
        """Return the hashes of a tile, and keep them for proofs.

        Args:
            level: Its level.
            index: Its number in the level.

        Returns:
            The hashes, one after the other.

        Raises:
            DamagedFile: No source has these hashes.
            Unavailable: No source can be reached.
        """
        path = self.tiles.path_of(level, index)
        if path is None:
            raise ValueError(f"expected a tile of the tree, found number {index} of level {level}")
        above = index
        for _ in range(level):
            above *= BUNDLE_ENTRIES
        self._add([each for each in self.tiles.missing_above(above) if _level_of(each) > level])
        content = self._first(partial(self._verified, path))
        self.tiles.add(path, content)
        return content

    def entries(self, index: int) -> list[bytes]:
        """Return the entries of a bundle; arguments and errors as for `bundle`."""
        content = self.bundle(index)
        path = self.tiles.bundle_path(index)
        return [] if path is None else bundle_entries(content, path.width)

    def entry(self, index: int) -> bytes:
        """Return an entry of the tree; errors as for `bundle`."""
        return self.entries(index // BUNDLE_ENTRIES)[index % BUNDLE_ENTRIES]

    def root_at(self, size: int) -> Digest:
        """Return the root that the tree had with `size` entries; errors as for `hashes`."""
        self._add(self.tiles.missing_for_root(size))
        return self.tiles.root_at(size)

    def _add(self, paths: Iterable[TilePath]) -> None:
        for path in paths:
            self.tiles.add(path, self._keep(path, self._first(partial(self._verified, path))))

    def _verified(self, path: TilePath, source: Source) -> bytes:
        content = _read(source, path)
        self.tiles.verify_tile(path, content)
        return content

    def _keep(self, path: TilePath, content: bytes) -> bytes:
        if self._copy is not None:
            self._copy.keep(str(path), content)
        return content

    def _first(self, attempt: Callable[[Source], _T]) -> _T:
        """Return what the first source gives that has it undamaged."""
        if self._copy is not None:
            # What was kept may be of another history, or lost. It is no source that can be at fault.
            with suppress(VerificationError, Unavailable):
                return attempt(self._copy)
        try:
            return self._of_sources(attempt)
        except NotPublished:
            if not self._is_published:
                raise
        # Another member behind the same address may have had the checkpoint earlier.
        time.sleep(_AGAIN_S)
        try:
            return self._of_sources(attempt)
        except NotPublished as exc:
            raise DamagedFile(f"{exc}, but the checkpoint requires this file") from exc

    def _of_sources(self, attempt: Callable[[Source], _T]) -> _T:
        """Return what the first source gives that has it undamaged.

        Raises:
            NotPublished: All sources can be reached, and lack it.
        """
        damage: Exception | None = None
        failure: Unavailable | None = None
        missing: NotPublished | None = None
        for source in self._sources:
            for _ in range(_TRIES):
                try:
                    return attempt(source)
                except (VerificationError, ProtocolError) as exc:
                    damage = damage or DamagedFile(f"{source.name}: {exc}")
                except NotPublished as exc:
                    missing = missing or exc
                    break
                except Unavailable as exc:
                    failure = failure or exc
                    break
        raise damage or failure or missing or Unavailable("there is no source")


def _read(source: Source, path: TilePath) -> bytes:
    """Return the content of a file. A partial one may be gone once the full one exists."""
    try:
        return source.read(str(path))
    except NotPublished:
        if path.width == BUNDLE_ENTRIES:
            raise
        return path.cut(source.read(str(path.full())))


def _level_of(path: TilePath) -> int:
    return int(str(path).split("/", 2)[1])


def first_difference(a: PublishedTree, b: PublishedTree) -> int | None:
    """Return the index of the first entry that differs in two trees, among those that both have.

    Args:
        a: One tree.
        b: The other. Their sizes may differ.

    Returns:
        The index, or None if the smaller tree is the beginning of the larger one. The tiles above the entry were added
        to both trees, so that `TileTree.same_index` can prove it.

    Raises:
        DamagedFile: A tile is not that of its tree.
        Unavailable: A tile cannot be read.
    """
    size = min(a.checkpoint.size, b.checkpoint.size)
    for level in range(size.bit_length() // _LEVEL_BITS, -1, -1):
        hashes = size >> (_LEVEL_BITS * level)
        width, index = hashes % BUNDLE_ENTRIES, hashes // BUNDLE_ENTRIES
        place = _first_other(a, b, level, index, width) if width else None
        if place is not None:
            return _below(a, b, level, place)
    return None


def _below(a: PublishedTree, b: PublishedTree, level: int, place: int) -> int | None:
    """Return the first entry that differs below hash `place` of a level, which does."""
    while level > 0:
        level -= 1
        below = _first_other(a, b, level, place, BUNDLE_ENTRIES)
        if below is None:
            raise VerificationError("two different hashes are those of the same tile")
        place = below
    return place


def _first_other(a: PublishedTree, b: PublishedTree, level: int, index: int, width: int) -> int | None:
    """Return the number in its level of the first of `width` hashes of a tile that differs."""
    ours, theirs = a.hashes(level, index), b.hashes(level, index)
    for place in range(width):
        if ours[32 * place : 32 * place + 32] != theirs[32 * place : 32 * place + 32]:
            return index * BUNDLE_ENTRIES + place
    return None
