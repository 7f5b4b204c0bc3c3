"""How much of its disk a data folder uses."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qed.server.families import gauge

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qed.server.families import Family


__all__ = ["Usage"]

_PARTS: Final = {"raft": "raft", "backups": "backups"}
"""The parts of a data folder by the names of its folders. All else is the log."""
_LOG: Final = "log"


@dataclass(frozen=True)
class Usage:
    """How much of a disk a data folder uses.

    Attributes:
        by_part: The bytes of each part: `log`, `raft` and `backups`.
        free: What the file system has left, in bytes; None if that is not known.
    """

    by_part: Mapping[str, int]
    free: int | None

    @classmethod
    def of(cls, folder: Path) -> Usage:
        """Read it. Blocks. Files that are deleted meanwhile are left out."""
        by_part = dict.fromkeys((_LOG, *_PARTS.values()), 0)
        for root, _, names in os.walk(folder):
            first, *_ = (*Path(root).relative_to(folder).parts, "")
            for name in names:
                with contextlib.suppress(OSError):
                    # What is allocated, not the length: files may have holes.
                    by_part[_PARTS.get(first, _LOG)] += 512 * (Path(root) / name).lstat().st_blocks
        try:
            return cls(by_part, shutil.disk_usage(folder).free)
        except OSError:
            return cls(by_part, None)

    def families(self) -> Iterator[Family]:
        """Yield it as metrics."""
        yield gauge(
            "disk_used_bytes",
            "What each part of the data folder takes on its disk.",
            *((float(used), part) for part, used in self.by_part.items()),
            labels=("part",),
        )
        if self.free is not None:
            yield gauge("disk_free_bytes", "What the disk of the data folder has left.", (float(self.free),))
