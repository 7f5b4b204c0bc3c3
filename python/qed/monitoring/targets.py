"""Where a log is published to: a folder, or anything else that keeps files of which none ever changes but one.

Two publishers may use one target at once: a file that is there already must be the same, and the checkpoint is replaced
only where it is still the one that was read.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from qed._files import read_regular, replace_file
from qed.errors import DamagedFile
from qed.monitoring.sources import CHECKPOINT, FolderSource, NotPublished, Source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Folder", "Stored", "Superseded", "Target", "require_same"]

_PUBLIC: Final = 0o644
_LOCK: Final = ".publishing"


@dataclass(frozen=True)
class Stored:
    """A checkpoint that is in a target. It is not verified.

    Attributes:
        content: Its bytes.
        tag: What distinguishes it from any other, if the target names its versions; otherwise the content does.
    """

    content: bytes
    tag: str | None = None


class Superseded(Exception):
    """The checkpoint of a target is no longer the one that was read: there is another publisher."""


class Target(Source, Protocol):
    """Where a log is published to. What is there can be read, too. Any number of threads may use it at once."""

    def stored(self) -> Stored | None:
        """Return the checkpoint that is there, or None if there is none; errors as for `read`."""

    def put_new(self, path: str, content: bytes) -> bool:
        """Write a tile or a bundle, unless it is there. On return it is durable.

        Args:
            path: Its path in the log.
            content: Its content.

        Returns:
            Whether it was missing.

        Raises:
            DamagedFile: Something else is there.
            Unavailable: The target cannot be reached.
            ProtocolError: It refuses.
            OSError: The file cannot be written.
        """

    def replace(self, content: bytes, former: Stored | None) -> None:
        """Replace the checkpoint, if it is still the one that was read. On return it is durable.

        Args:
            content: The new checkpoint.
            former: The one that `stored` returned.

        Raises:
            Superseded: Another one is there.
            Unavailable: As `put_new`; it may have been replaced.
            ProtocolError: As `put_new`.
            OSError: As `put_new`.
        """


def require_same(place: str, found: bytes, expected: bytes) -> None:
    """Check that a file that is there already is the one that belongs there.

    Raises:
        DamagedFile: It is another one.
    """
    if found != expected:
        raise DamagedFile(f"{place}: expected what the log has, found something else; remove it if it is damaged")


class Folder(FolderSource):
    """A folder that any web server can serve. A crash leaves whole files, and perhaps temporary ones.

    Args:
        folder: The folder; created if it does not exist.

    Raises:
        OSError: It cannot be created.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder)

    def stored(self) -> Stored | None:
        """See `Target.stored`."""
        try:
            return Stored(self.read(CHECKPOINT))
        except NotPublished:
            return None

    def put_new(self, path: str, content: bytes) -> bool:
        """See `Target.put_new`."""
        place = self._folder / path
        with suppress(FileNotFoundError):
            require_same(str(place), read_regular(place, len(content)), content)
            return False
        # Another publisher may write the same file at the same time: it has the same content.
        place.parent.mkdir(parents=True, exist_ok=True)
        replace_file(place, content, mode=_PUBLIC)
        return True

    def replace(self, content: bytes, former: Stored | None) -> None:
        """See `Target.replace`."""
        with self._held():
            if self.stored() != former:
                raise Superseded
            replace_file(self._folder / CHECKPOINT, content, mode=_PUBLIC)

    @contextmanager
    def _held(self) -> Iterator[None]:
        descriptor = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PUBLIC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
