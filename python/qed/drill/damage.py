"""Damage to files: folders are copied, one bit of a file is flipped."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qed.drill.processes import DrillFailed

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["copied", "find", "flip_bit"]

_PART_BYTES: Final = 1 << 20
_BIT: Final = 0x01


def copied(path: Path, folder: Path) -> Path:
    """Return a copy of a file or a folder under the same name, without the holes of files.

    A log is kept in large files that are mostly empty.

    Args:
        path: The file or folder. It is only read.
        folder: Where the copy goes.
    """
    target = folder / path.name
    if path.is_dir():
        shutil.copytree(path, target, copy_function=_copy_file)
    else:
        _copy_file(str(path), str(target))
    return target


def _copy_file(source: str, target: str) -> None:
    with Path(source).open("rb") as reading, Path(target).open("wb") as writing:
        size = os.fstat(reading.fileno()).st_size
        end = 0
        # There is nothing after the last part that is not a hole.
        with suppress(_NoMoreError):
            while end < size:
                start = _seek(reading.fileno(), end, os.SEEK_DATA)
                end = _seek(reading.fileno(), start, os.SEEK_HOLE)
                reading.seek(start)
                writing.seek(start)
                writing.writelines(reading.read(min(_PART_BYTES, end - at)) for at in range(start, end, _PART_BYTES))
        writing.truncate(size)
    shutil.copymode(source, target)


class _NoMoreError(Exception):
    """A file has no more data."""


def _seek(descriptor: int, start: int, whence: int) -> int:
    try:
        return os.lseek(descriptor, start, whence)
    except OSError as exc:
        if exc.errno != errno.ENXIO:
            raise
        raise _NoMoreError from exc


def find(content: bytes, files: Iterable[Path]) -> tuple[Path, int]:
    """Return the file that has some bytes, and their offset in it.

    Args:
        content: The bytes.
        files: Where to look.

    Raises:
        DrillFailed: None of the files has them.
    """
    for path in files:
        if not path.is_file() or not path.stat().st_size:
            continue
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            if (at := whole.find(content)) >= 0:
                return path, at
    raise DrillFailed(f"expected a file with the bytes {content[:8].hex()}…, found none")


def flip_bit(path: Path, offset: int) -> None:
    """Flip one bit of a byte of a file.

    Args:
        path: The file.
        offset: Which byte.
    """
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ _BIT]))
