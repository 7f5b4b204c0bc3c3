"""A small disk that can be filled."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from campaign.sandbox import run

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SmallDisk"]

_SIZE: Final = "512m"
_PIECE_BYTES: Final = 1024 * 1024


class SmallDisk:
    """A file system of its own at `folder`, in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def mount(self) -> str | None:
        """Create the disk and return None, or return why this machine cannot have one."""
        self.folder.mkdir(parents=True)
        return run("mount", "-t", "tmpfs", "-o", f"size={_SIZE},mode=0700", "tmpfs", str(self.folder))

    def unmount(self) -> None:
        """Remove the file system."""
        run("umount", str(self.folder))

    def fill(self) -> None:
        """Use up all free space."""
        size_bytes = _PIECE_BYTES
        with self._filler.open("ab", buffering=0) as filler:
            while size_bytes:
                try:
                    filler.write(bytes(size_bytes))
                except OSError as exc:
                    if exc.errno != errno.ENOSPC:
                        raise
                    size_bytes //= 2

    def relieve(self) -> None:
        """Free the space that `fill` used."""
        self._filler.unlink()
