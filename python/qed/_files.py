"""Files that are written completely or not at all."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["replace_file", "sync_folder"]


def sync_folder(path: Path) -> None:
    """Make a new file's name as durable as its content, if the file system supports that.

    Args:
        path: The file.
    """
    with suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def replace_file(path: Path, content: bytes | Iterable[bytes], *, mode: int = 0o666) -> None:
    """Replace a file's content atomically and sync it.

    A crash leaves the old content or the new, and perhaps a temporary file in the same folder.

    Args:
        path: The file; created if it does not exist. An existing file keeps its permissions.
        content: The whole new content, or its parts in order.
        mode: Permissions of a new file, before the umask.

    Raises:
        OSError: The file cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(descriptor, "wb") as file:  # noqa: PTH123 - pathlib cannot open a descriptor
            with suppress(FileNotFoundError):
                os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
            file.writelines([content] if isinstance(content, bytes) else content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
