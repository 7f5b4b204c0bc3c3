"""Files that are written completely or not at all."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "PRIVATE",
    "create_file",
    "is_exposed",
    "open_at_once",
    "open_regular",
    "read_regular",
    "replace_file",
    "require_regular",
    "save_file",
    "sync_folder",
]

PRIVATE: Final = 0o600
"""Permissions of a file that only its owner may read."""
_EXPOSED: Final = stat.S_IWGRP | stat.S_IRWXO


def is_exposed(mode: int) -> bool:
    """Return whether a file with this mode is unfit for a secret: others can read it, or its group can write it.

    Its group may read it, because orchestrators mount secrets that way.
    """
    return bool(mode & _EXPOSED)


def open_at_once(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file for reading. A named pipe that nobody writes to is empty; `open` would wait for a writer.

    Raises:
        OSError: It cannot be opened.
    """

    def opened(name: str, flags: int) -> int:
        descriptor = os.open(name, flags | os.O_NONBLOCK)
        os.set_blocking(descriptor, True)
        return descriptor

    return open(path, "rb", opener=opened)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading. A pipe or a device could block, or never end; links are followed.

    Raises:
        OSError: It cannot be opened, or is something else.
    """
    file = open_at_once(path)
    try:
        _require_regular(os.fstat(file.fileno()), path)
    except BaseException:
        file.close()
        raise
    return file


def read_regular(path: str | os.PathLike[str], limit_bytes: int) -> bytes:
    """Return the content of a regular file; of a longer one, one byte more than the limit.

    Raises:
        OSError: It cannot be read, or is something else.
    """
    with open_regular(path) as file:
        return file.read(limit_bytes + 1)


def require_regular(path: Path) -> None:
    """Check that a file can be opened without waiting, for libraries that open it themselves.

    Raises:
        OSError: It is a named pipe, a device or a folder, or is missing.
    """
    _require_regular(path.stat(), path)


def _require_regular(status: os.stat_result, path: str | os.PathLike[str]) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "expected a regular file, found something else", os.fspath(path))


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


def replace_file(path: Path, content: bytes | Iterable[bytes], *, mode: int = 0o666, keep_mode: bool = True) -> None:
    """Replace a file's content atomically and sync it.

    A crash leaves the old content or the new, and perhaps a temporary file in the same folder.

    Args:
        path: The file; created if it does not exist.
        content: The whole new content, or its parts in order.
        mode: Permissions of a new file, before the umask.
        keep_mode: Whether an existing file keeps its permissions. If not, it gets those of a new one.

    Raises:
        OSError: The file cannot be written.
    """
    with _written_beside(path, content, mode, like=path if keep_mode else None) as beside:
        beside.replace(path)


def save_file(path: Path, content: bytes) -> None:
    """Write what somebody asked to have in a file, whatever the file is.

    Links are followed. A regular file is replaced atomically; a pipe or a device is written to, and stays.

    Args:
        path: The file; created if it does not exist.
        content: The whole new content.

    Raises:
        OSError: It cannot be written. The error names `path`.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
        else:
            # Unlike `resolve`, this does not raise for a loop of links; opening the file does.
            replace_file(Path(os.path.realpath(path)), content)
    except OSError as exc:
        exc.filename = str(path)
        raise


def create_file(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Create a file with its whole content, and sync it.

    A crash leaves no file or the whole one, and perhaps a temporary file in the same folder.

    Args:
        path: The file.
        content: Its content.
        mode: Its permissions, before the umask.

    Raises:
        FileExistsError: It exists; it was not changed.
        OSError: It cannot be written.
    """
    with _written_beside(path, content, mode) as beside:
        # Unlike a renaming, a link never replaces a file.
        try:
            path.hardlink_to(beside)
        except FileExistsError as exc:
            raise FileExistsError(exc.errno, exc.strerror, str(path)) from exc
        beside.unlink()


@contextmanager
def _written_beside(
    path: Path, content: bytes | Iterable[bytes], mode: int, *, like: Path | None = None
) -> Iterator[Path]:
    """Give a synced temporary file with the content, to be put in the place of `path`."""
    beside = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(descriptor, "wb") as file:  # noqa: PTH123 - pathlib cannot open a descriptor
            if like is not None:
                with suppress(FileNotFoundError):
                    os.fchmod(file.fileno(), stat.S_IMODE(like.stat().st_mode))
            file.writelines([content] if isinstance(content, bytes) else content)
            file.flush()
            os.fsync(file.fileno())
        yield beside
        sync_folder(path)
    except BaseException as exc:
        beside.unlink(missing_ok=True)
        # A failed write, as on a full disk, does not say of which file.
        if isinstance(exc, OSError) and exc.filename is None:
            exc.filename = str(path)
        raise
