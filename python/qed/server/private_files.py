"""Files that hold secrets: small, whole, and readable by nobody but their owner and group."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from qed._files import is_exposed, open_regular
from qed.server.config import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_private"]

_MAX_BYTES: Final = 64 * 1024


def read_private(path: Path, what: str) -> bytes:
    """Return the content of a file that must be kept secret.

    Args:
        path: The file.
        what: What the file should hold, for messages, such as `the cluster secret`.

    Returns:
        Its content, of at most 64 KiB.

    Raises:
        SettingsError: It cannot be read, is not a regular file, is too large, or others may read or change it.
    """
    try:
        with open_regular(path) as file:
            found = os.fstat(file.fileno())
            if is_exposed(found.st_mode):
                mode = stat.S_IMODE(found.st_mode)
                raise SettingsError(f"others can read or change {what} in {path} (mode {mode:04o}): chmod 600 {path}")
            content = file.read(_MAX_BYTES + 1)
    except OSError as exc:
        raise SettingsError(f"cannot read {what} from {path}: {exc.strerror or exc}") from exc
    if len(content) > _MAX_BYTES:
        raise SettingsError(f"expected {what} of at most {_MAX_BYTES} bytes, but {path} is larger")
    return content
