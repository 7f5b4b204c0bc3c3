"""Publishing a log into a folder, which any web server or CDN can serve: verified files first, the checkpoint last.

The folder only grows. A crash leaves files of a tree that its checkpoint does not reach yet; the next round finds them.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from qed._files import replace_file
from qed._qed import bundle_hashes
from qed.errors import DamagedFile, Unavailable, VerificationError
from qed.monitoring.auditing import standing
from qed.monitoring.comparison import contradiction
from qed.monitoring.published import BUNDLE_ENTRIES, PublishedTree
from qed.monitoring.sources import CHECKPOINT, FolderSource, NotPublished

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from qed._qed import TilePath
    from qed.monitoring.findings import Finding
    from qed.monitoring.sources import Source
    from qed.policy import Policy
    from qed.signed import Checkpoint

__all__ = ["Publication", "Publisher"]

_PUBLIC: Final = 0o644
_LOCK: Final = ".publishing"
_LEVELS: Final = 8
"""Levels of tiles of a log of 2^63 entries."""


@dataclass(frozen=True)
class Publication:
    """What one round has done.

    Attributes:
        checkpoint: The checkpoint of the source.
        published: Size of what the folder has now.
        files: How many files were written, without the checkpoint.
        finding: Why nothing was published; None if it was, or if there was nothing to do.
    """

    checkpoint: Checkpoint
    published: int
    files: int
    finding: Finding | None


class Publisher:
    """Copies a log from a source into a folder.

    Args:
        folder: The folder; created if it does not exist.
        policy: Whom to trust: what does not meet it is not published.
        source: Where the log is published now, such as a server.

    Raises:
        OSError: The folder cannot be created.
    """

    def __init__(self, folder: Path, policy: Policy, source: Source) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder: Final = folder
        self._policy: Final = policy
        self._source: Final = source

    def run(self, *, started: Callable[[int], Callable[[int], None]] = lambda _: lambda _: None) -> Publication:
        """Publish what is new.

        1. The checkpoint of the source is verified by the policy.
        2. It must extend the one in the folder. A smaller one is passed over.
        3. Each file is verified before it is written. One that is there already must be the same.
        4. The checkpoint is replaced last.

        Args:
            started: Called with the number of new entries. What it returns is called with how many of them were
                published, after each step.

        Returns:
            What was done.

        Raises:
            VerificationError: A checkpoint does not verify, or files are damaged; the message names which.
            Unavailable: The source cannot be reached.
            OSError: The folder cannot be read or written.
        """
        moment = int(time.time())
        with self._held():
            # 1.
            note = self._source.read(CHECKPOINT)
            found = self._policy.trust.endorse(note, now=moment)
            known = self._known(moment)
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
            if known is None or known.note != found.note:
                self._write(self._folder / CHECKPOINT, found.note.encode())
            return Publication(found, found.size, files, None)

    def _known(self, moment: int) -> Checkpoint | None:
        try:
            note = FolderSource(self._folder).read(CHECKPOINT)
        except NotPublished:
            return None
        try:
            return self._policy.trust.endorse(note, now=moment)
        except VerificationError as exc:
            exc.add_note(f"this is about the checkpoint in {self._folder}")
            raise

    def _contradiction(self, known: Checkpoint, found: Checkpoint, moment: int) -> Finding | None:
        if known.origin != found.origin:
            raise VerificationError(f"a folder for {known.origin}, but the source has {found.origin}")

        def tree_of(checkpoint: Checkpoint) -> PublishedTree:
            sources = [FolderSource(self._folder), self._source]
            return PublishedTree(checkpoint, sources if checkpoint is known else [self._source])

        try:
            return contradiction(known, found, tree_of, now=moment)
        except Unavailable as exc:
            raise DamagedFile(str(exc)) from exc

    def _write_tree(self, tree: PublishedTree, published: int, started: Callable[[int], Callable[[int], None]]) -> int:
        """Write all files of the tree that the folder may lack, and return how many it lacked."""
        first, files = published // BUNDLE_ENTRIES, 0
        size = tree.checkpoint.size
        advance = started(size - published)
        for index in range(first, tree.bundles):
            content, path = tree.bundle(index), tree.tiles.bundle_path(index)
            leaves = tree.tiles.path_of(0, index)
            if path is not None and leaves is not None:
                files += self._keep(leaves, bundle_hashes(content, path.width)) + self._keep(path, content)
            advance(min((index + 1) * BUNDLE_ENTRIES, size) - published)
        for level in range(1, _LEVELS):
            first //= BUNDLE_ENTRIES
            index = first
            while (tile := tree.tiles.path_of(level, index)) is not None:
                files += self._keep(tile, tree.hashes(level, index))
                index += 1
        return files

    def _keep(self, path: TilePath, content: bytes) -> int:
        """Write a verified file unless it is there; return whether it was missing."""
        place = self._folder / str(path)
        with suppress(FileNotFoundError):
            if place.read_bytes() != content:
                raise DamagedFile(
                    f"{place}: expected what the log has, found something else; remove it if it is damaged"
                )
            return 0
        self._write(place, content)
        return 1

    @staticmethod
    def _write(place: Path, content: bytes) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        replace_file(place, content, mode=_PUBLIC)

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Hold the folder, so that two publishers take turns."""
        descriptor = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
