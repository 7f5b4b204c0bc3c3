"""A Unix socket to listen on, which only its owner can connect to."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from typing import TYPE_CHECKING, Final

from qed.server.addresses import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["bound_unix"]

_PRIVATE_UMASK: Final = 0o177


def bound_unix(path: Path) -> socket.socket:
    """Return a socket bound to `path` with mode 0600, which does not listen yet. One that nobody serves is replaced.

    Raises:
        SettingsError: Somebody serves it, something else is there, or it cannot be made.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(_PRIVATE_UMASK)
    try:
        _remove_stale(path)
        listener.bind(str(path))
    except OSError as exc:
        listener.close()
        raise SettingsError(f"cannot listen on {path}: {exc.strerror or exc}") from exc
    finally:
        os.umask(before)
    return listener


def _remove_stale(path: Path) -> None:
    """Remove a socket that a process has left behind."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "expected a socket or nothing, found something else")
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise OSError(errno.EADDRINUSE, "another process listens on it")
