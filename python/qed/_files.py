"""Files that are written as a whole or not at all."""

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
    """Make a new file's name as durable as its content, where the file system can.

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
    """Give a file new content in one step, synced: a crash leaves the old or the new one, and perhaps a file beside it.

    Args:
        path: The file; created if there is none. It keeps its permissions.
        content: All of it, or its parts in order.
        mode: Permissions of a new file, before the umask.

    Raises:
        OSError: It cannot be written.
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
