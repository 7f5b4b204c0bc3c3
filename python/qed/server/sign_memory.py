"""The sign memory of this member, outside its data folder: which checkpoint of the log was signed last."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from qed._qed import SignMemory
from qed.errors import SigningError
from qed.server.config import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from qed._qed import Digest

__all__ = ["Memory", "open_memory"]


class Memory:
    """A sign memory. Only one call may write at a time.

    Attributes:
        newest: Size, root and time of the newest checkpoint that is remembered; None if there is none.
    """

    def __init__(self, memory: SignMemory) -> None:
        self._memory = memory
        self.newest = memory.newest

    def has(self, size: int, root: Digest) -> bool:
        """Return whether this is the newest checkpoint that is remembered."""
        return self.newest is not None and self.newest[:2] == (size, root)

    async def note(self, size: int, root: Digest, time_s: int) -> int:
        """Remember a checkpoint, synced.

        Returns:
            Its time, which is never before that of the one before.

        Raises:
            SigningError: It contradicts what is remembered, or the disk fails.
        """
        try:
            time_s = await asyncio.to_thread(self._memory.note, size, root, time_s)
        except OSError as exc:
            raise SigningError(f"the sign memory cannot be written: {exc.strerror or exc}") from exc
        self.newest = (size, root, time_s)
        return time_s

    def close(self) -> None:
        """Let another process use it."""
        self._memory.close()


def open_memory(path: Path, *, may_create: bool) -> Memory | None:
    """Return the memory in a file.

    Args:
        path: The file.
        may_create: Whether to create it if it does not exist.

    Returns:
        The memory; None if there is none and it must not be created.

    Raises:
        SettingsError: It cannot be read or created, is damaged, or another process uses it.
    """
    try:
        if path.exists():
            return Memory(SignMemory.open(str(path)))
        return Memory(SignMemory.create(str(path))) if may_create else None
    except (SigningError, OSError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else exc
        raise SettingsError(f"cannot use the sign memory {path}: {reason}") from exc
