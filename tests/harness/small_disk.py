"""File systems that are soon full."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["mount", "small_disk"]


@contextmanager
def small_disk(folder: Path, options: str = "size=32m") -> Iterator[Path]:
    """Mount a small file system at `folder`, which is created; skip the test where that is not allowed."""
    folder.mkdir()
    if os.geteuid() != 0 or mount("-t", "tmpfs", "-o", f"{options},mode=700", "tmpfs", folder).returncode:
        pytest.skip("only root with the right to mount can make a small disk")
    try:
        yield folder
    finally:
        subprocess.run([str(shutil.which("umount")), "--lazy", folder], check=True)


def mount(*options: str | Path) -> subprocess.CompletedProcess[bytes]:
    """Run the command `mount`."""
    return subprocess.run([str(shutil.which("mount")), *options], capture_output=True, check=False)
