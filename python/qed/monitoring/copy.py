"""The copy of a log that a monitor keeps beside its state: what it has verified, in the layout of the log itself.

It saves reading everything again after a restart. If the log shows another history later, it has the one that was seen
before, and so proves the fork. Nothing in it is trusted: what is read from it is verified again.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from qed._qed import TilePath, bundle_hashes
from qed.monitoring.sources import CHECKPOINT, FolderSource

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Copy"]

_LEAVES: Final = "tile/0/"
_BUNDLES: Final = "tile/entries/"


class Copy(FolderSource):
    """A folder with verified files of a log.

    Args:
        folder: The folder; created if it does not exist.

    Raises:
        OSError: It cannot be created.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        super().__init__(folder)
        self.folder: Final = folder

    def keep(self, path: str, content: bytes) -> None:
        """Keep a verified file, and with a bundle the tile above it. Nothing is synced: what is lost is read again.

        Args:
            path: Its path in the log.
            content: Its content.

        Raises:
            OSError: It cannot be written.
        """
        place = self.folder / path
        if place.exists():
            return
        if path.startswith(_BUNDLES):
            self._write(path.replace(_BUNDLES, _LEAVES, 1), bundle_hashes(content, TilePath(path).width))
        self._write(path, content)

    def keep_checkpoint(self, note: str) -> None:
        """Keep the checkpoint whose files are here, so that the copy is one that anybody can check.

        Args:
            note: The checkpoint.

        Raises:
            OSError: It cannot be written.
        """
        self._write(CHECKPOINT, note.encode())

    def _write(self, path: str, content: bytes) -> None:
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_name(f".{place.name}.{os.urandom(4).hex()}")
        try:
            beside.write_bytes(content)
            beside.replace(place)
        except BaseException:
            with suppress(OSError):
                beside.unlink()
            raise
