"""The sign memory of this member, outside its data folder: which checkpoint of the log was signed last."""

from __future__ import annotations

import asyncio
import os
import stat
from typing import TYPE_CHECKING, Final

from qed._files import require_regular
from qed._qed import Digest, SignMemory
from qed.errors import SigningError
from qed.server.config import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Memory", "open_memory"]

_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
_EMPTY: Final = Digest.of(b"")
"""The root of the tree without entries."""
_WAYS_ON: Final = "docs/signing.md, A sign memory that is lost or damaged"


class Memory:
    """A sign memory. Only one call may write at a time.

    Attributes:
        path: The file.
        newest: Size, root and time of the newest checkpoint that is remembered; None if there is none.
    """

    def __init__(self, path: Path) -> None:
        """Make one whose file is missing, and which remembers nothing until it is opened or created."""
        self.path: Final = path
        self._memory: SignMemory | None = None
        self._status: os.stat_result | None = None
        self.newest: tuple[int, Digest, int] | None = None

    @property
    def is_missing(self) -> bool:
        """Whether there was no file."""
        return self._memory is None

    @property
    def is_in_place(self) -> bool:
        """Whether the file that is open is still the one at the path: a restart would find no other."""
        try:
            return self._status is not None and os.path.samestat(self._status, self.path.stat())
        except OSError:
            return False

    def open(self, *, may_be_empty: bool) -> None:
        """Open the file. Blocks.

        Args:
            may_be_empty: Whether a crash may have come between the file and its first row.

        Raises:
            SigningError: It is damaged or emptied, or another process uses it.
            OSError: It cannot be read, is not a regular file, or others may change it.
        """
        require_regular(self.path)
        before = self.path.stat()
        if before.st_mode & _WRITABLE_BY_OTHERS:
            mode = stat.S_IMODE(before.st_mode)
            raise SigningError(f"others can change it (mode {mode:04o}): check who has, then chmod 600 {self.path}")
        self._use(SignMemory.open(str(self.path)))
        if self._status is None or not os.path.samestat(before, self._status):
            self.close()
            raise SigningError("it was replaced while it was opened")
        if self.newest is None and not may_be_empty:
            self.close()
            raise SigningError("it remembers nothing: somebody has emptied it")
        self._begin()

    def create(self) -> None:
        """Create the file, which remembers that nothing was signed. Blocks.

        Raises:
            SigningError: The disk has failed.
            OSError: It exists, or cannot be written.
        """
        self._use(SignMemory.create(str(self.path)))
        self._begin()

    def _begin(self) -> None:
        """Remember the empty tree, if there is nothing else: a file without any row is one that was emptied."""
        if self._memory is not None and self.newest is None:
            self._memory.note(0, _EMPTY, 0)
            self.newest = self._memory.newest

    def _use(self, memory: SignMemory) -> None:
        self._memory, self._status, self.newest = memory, self.path.stat(), memory.newest

    def has(self, size: int, root: Digest) -> bool:
        """Return whether this is the newest checkpoint that is remembered."""
        return self.newest is not None and self.newest[:2] == (size, root)

    async def note(self, size: int, root: Digest, time_s: int, check: Callable[[], None] = lambda: None) -> int:
        """Remember a checkpoint, synced.

        Args:
            size: Its size.
            root: Its root.
            time_s: When this is, in seconds since 1970.
            check: Called before, in the thread that writes. If it raises, nothing is remembered.

        Returns:
            Its time, which is never before that of the one before.

        Raises:
            SigningError: It contradicts what is remembered, the file is missing, or the disk fails.
            Exception: What `check` raises.
        """
        memory = self._memory
        if memory is None:
            raise SigningError("the sign memory is missing")

        def checked() -> int:
            check()
            return memory.note(size, root, time_s)

        try:
            time_s = await asyncio.to_thread(checked)
        except OSError as exc:
            raise SigningError(f"the sign memory cannot be written: {exc.strerror or exc}") from exc
        self.newest = (size, root, time_s)
        return time_s

    def close(self) -> None:
        """Let another process use it."""
        if self._memory is not None:
            self._memory.close()


def open_memory(path: Path, *, may_create: bool) -> Memory:
    """Return the memory in a file.

    Args:
        path: The file.
        may_create: Whether to create it if it does not exist.

    Returns:
        The memory, which `is_missing` if there is none and it must not be created.

    Raises:
        SettingsError: It cannot be read or created, is damaged, or another process uses it.
    """
    memory = Memory(path)
    try:
        if path.exists():
            memory.open(may_be_empty=may_create)
        elif may_create:
            memory.create()
    except (SigningError, OSError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else exc
        raise SettingsError(f"cannot use the sign memory {path}: {reason} ({_WAYS_ON})") from exc
    return memory
