"""A wall clock that jumps, for one member. Monotonic clocks are not changed, just as when an operator sets the time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

__all__ = ["Clock", "find_library"]

_LIBRARY: Final = "libfaketimeMT.so.1"


def find_library() -> Path | None:
    """Return libfaketime, if it is installed and works."""
    library = next(Path("/usr/lib").glob(f"*/faketime/{_LIBRARY}"), None)
    if library is None:
        return None
    command = [sys.executable, "-c", "import time; print(time.time() > 4e9)"]
    environment = {**os.environ, "LD_PRELOAD": str(library), "FAKETIME": "+100y", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return library if ended.stdout.strip() == "True" else None


class Clock:
    """The wall clock of one member."""

    def __init__(self, library: Path, file: Path) -> None:
        self._file = file
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self.jump(0)

    def jump(self, seconds: int) -> None:
        """Set the offset from the true time. The process sees it within a second."""
        # A concurrent reader must find either the old offset or the new one.
        temporary = self._file.with_suffix(".new")
        temporary.write_text(f"{seconds:+d}\n")
        temporary.replace(self._file)
