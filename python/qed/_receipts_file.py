"""A receipts file: it is locked, read from where the last reading ended, appended to, and replaced as a whole."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import contextmanager, suppress
from itertools import chain
from typing import TYPE_CHECKING, Final

from qed._files import replace_file, sync_folder
from qed._printable import printable
from qed._receipt_index import ReceiptIndex
from qed._receipt_lines import (
    LINE_BYTES_MAX,
    SIGNED_START,
    MalformedLine,
    header_line,
    is_marked,
    parse_header,
    parse_snapshot,
    snapshot_line,
)
from qed.errors import ForkDetected, MalformedProof, ReceiptsError
from qed.signed import SIGNED_BYTES_MAX, SignedReceipt

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from qed.proofs import Snapshot

__all__ = ["ReceiptsFile"]

_MODE: Final = 0o600
_READ_BYTES: Final = 1024 * 1024


class ReceiptsFile:
    """A receipts file, as it was last read. Only the position of each snapshot is kept in memory.

    Attributes:
        path: The file.
        index: The position of each snapshot.
        newest: The snapshot with the highest version.
        log: The name of the log in the first line, or None if there is none.
        is_confirmed: Whether a server has given this name since the file was last read from its start.
    """

    def __init__(self, path: Path) -> None:
        """Prepare an empty record; `load` and `held` read the file."""
        self.path = path
        self._descriptor = -1
        self._forget()

    def _forget(self) -> None:
        self.index = ReceiptIndex()
        self.newest: Snapshot | None = None
        self.log: str | None = None
        self.is_confirmed = False
        self._is_headed = False
        self._signed: list[tuple[int, int]] = []
        self._inode = (0, 0)
        self._size_bytes = 0

    @property
    def is_signed(self) -> bool:
        """Whether it has signed receipts."""
        return bool(self._signed)

    def load(self) -> None:
        """Read the file. Its last line may lack its end.

        Raises:
            OSError: It cannot be read.
            ReceiptsError: It is not a receipts file, is of two logs, or ends in half a line.
            ForkDetected: It holds two different snapshots of one version.
        """
        # Without O_NONBLOCK, opening a named pipe would block here, possibly without end.
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self._require_regular(descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            self._read(descriptor, is_whole=False)
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    @contextmanager
    def held(self) -> Iterator[int]:
        """Hold the file exclusively, after reading what others have appended. It is created if it is missing.

        Yields:
            A descriptor of it, for `append`.

        Raises:
            OSError: It cannot be opened for reading and writing.
            ReceiptsError: It is not a receipts file, is of two logs, or ends in an incomplete line.
            ForkDetected: It holds two different snapshots of one version.
        """
        descriptor = self._acquire()
        try:
            self._read(descriptor, is_whole=True)
            yield descriptor
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def append(self, descriptor: int, snapshots: Iterable[Snapshot], log: str | None, *, is_linked: bool) -> None:
        """Append snapshots and sync them, all or none; an empty file gets its first line too.

        Args:
            descriptor: As `held` has yielded it.
            snapshots: Snapshots of versions that are not in the file.
            log: The log's name, if it is known.
            is_linked: Whether they are proven to belong to the log of the others.

        Raises:
            OSError: They cannot be written or synced.
        """
        header = b"" if self._is_headed or self._size_bytes else header_line(log or self.log)
        self._append(descriptor, header + b"".join(snapshot_line(one, is_linked=is_linked) for one in snapshots))

    def append_signed(self, descriptor: int, receipt: SignedReceipt) -> None:
        """Append a signed receipt, whose snapshots are in the file, and sync it.

        Args:
            descriptor: As `held` has yielded it.
            receipt: The receipt.

        Raises:
            OSError: It cannot be written or synced.
        """
        self._append(descriptor, receipt.to_json() + b"\n")

    def _append(self, descriptor: int, lines: bytes) -> None:
        end = os.fstat(descriptor).st_size
        rest = memoryview(lines)
        try:
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        except BaseException:
            # An incomplete line, left by a full disk or Ctrl-C, would make the file unreadable from there on.
            with suppress(OSError):
                os.ftruncate(descriptor, end)
            raise
        self._read(descriptor, is_whole=True)

    def rewrite(self, descriptor: int, log: str | None) -> None:
        """Replace the file, atomically, by one with the marks of the index and a first line.

        Args:
            descriptor: As `held` has yielded it. It is of the old file, so `held` must be entered again.
            log: The log's name, if it is known.

        Raises:
            OSError: The new file cannot be written.
        """
        lines = (
            snapshot_line(self._at(descriptor, offset), is_linked=is_linked) for offset, is_linked in self.index.lines()
        )
        signed = (os.pread(descriptor, length, offset) for offset, length in self._signed)
        replace_file(self.path, chain((header_line(log or self.log),), lines, signed), mode=_MODE)

    def get(self, version: int) -> Snapshot | None:
        """Return the snapshot of a version, or None if there is none.

        Args:
            version: The version.

        Raises:
            ReceiptsError: The file was edited since it was read.
        """
        offset = self.index.offset_of(version)
        if offset is None:
            return None
        found = self._at(self._descriptor, offset)
        if found.version != version:
            raise ReceiptsError(f"{self.path} was edited while it was in use: run the command again")
        return found

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _acquire(self) -> int:
        """Return a descriptor of the file that holds its lock."""
        while True:
            descriptor = self._open_for_writing()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                # Another process may have replaced the file while this one waited for the lock of the old one.
                with suppress(FileNotFoundError):
                    if _inode(os.fstat(descriptor)) == _inode(self.path.stat()):
                        return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _open_for_writing(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(self.path, flags, _MODE)
        except OSError as exc:
            if exc.errno == errno.ELOOP:
                raise ReceiptsError(f"{self.path} is a symbolic link: give the receipts file itself") from exc
            raise
        try:
            self._require_regular(descriptor)
            sync_folder(self.path)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _require_regular(self, descriptor: int) -> None:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(self.path))
        if not stat.S_ISREG(mode):
            raise ReceiptsError(f"{self.path}: expected a regular file for receipts, found another kind of file")

    def _read(self, descriptor: int, *, is_whole: bool) -> None:
        """Read what was appended since the last time, or everything if the file was replaced."""
        status = os.fstat(descriptor)
        if _inode(status) != self._inode or status.st_size < self._size_bytes:
            self.close()
            self._forget()
            self._inode = _inode(status)
            self._descriptor = os.dup(descriptor)
        number = 0
        with open(descriptor, "rb", buffering=_READ_BYTES, closefd=False) as lines:
            lines.seek(self._size_bytes)
            while line := lines.readline(LINE_BYTES_MAX):
                number += 1
                if line.startswith(SIGNED_START) and not line.endswith(b"\n"):
                    line += lines.readline(SIGNED_BYTES_MAX)
                is_open = not line.endswith(b"\n") and (len(line) < LINE_BYTES_MAX or line.startswith(SIGNED_START))
                if is_open and is_whole:
                    raise self._half_a_line()
                try:
                    self._note(line)
                except MalformedLine as exc:
                    # It may be of the newest receipt. Without that one, older answers would pass for fresh ones.
                    if is_open:
                        raise self._half_a_line() from exc
                    where = f"line {number}" if not self._size_bytes or number > 1 else "a new line"
                    raise self._refused(where, exc) from exc
                if not is_open:  # Otherwise it is read again, with what has been appended to it.
                    self._size_bytes += len(line)

    def _half_a_line(self) -> ReceiptsError:
        return ReceiptsError(f"{self.path} ends in half a line: complete it, or remove it")

    def _note(self, line: bytes) -> None:
        if line.startswith(SIGNED_START):
            self._note_signed(line)
            return
        header = parse_header(line)
        if header is not None:
            self._note_log(header.log)
            return
        snapshot = parse_snapshot(line)
        version, is_linked = snapshot.version, is_marked(line)
        known = None if self.index.is_beyond(version) else self.get(version)
        if known is not None:
            if known != snapshot:
                raise ForkDetected(known, snapshot)
            if is_linked:
                self.index.mark(version)
            return
        self.index.add(version, self._size_bytes, hash(snapshot.event_digest), is_linked=is_linked)
        if self.newest is None or version > self.newest.version:
            self.newest = snapshot

    def _note_signed(self, line: bytes) -> None:
        """Note a signed receipt. It follows the snapshots that it is about: those are what is trusted."""
        try:
            receipt = SignedReceipt.from_json(line)
        except MalformedProof as exc:
            raise MalformedLine(str(exc)) from exc
        for snapshot in receipt.snapshots:
            known = self.get(snapshot.version)
            if known is None:
                raise MalformedLine(f"a signed receipt of version {snapshot.version}, whose snapshot is not before it")
            if known != snapshot:
                raise ForkDetected(known, snapshot)
        self._signed.append((self._size_bytes, len(line)))

    def _note_log(self, log: str | None) -> None:
        if self._is_headed and log != self.log:
            first, second = (printable(name or "one without a name") for name in (self.log, log))
            raise ReceiptsError(
                f"{self.path} holds receipts of two logs, {first} and {second}: keep a file for each log"
            )
        self._is_headed, self.log = True, log

    def _at(self, descriptor: int, offset: int) -> Snapshot:
        line = os.pread(descriptor, LINE_BYTES_MAX, offset).partition(b"\n")[0]
        try:
            return parse_snapshot(line)
        except MalformedLine as exc:
            raise self._refused("a line that was read before", exc) from exc

    def _refused(self, where: str, why: MalformedLine) -> ReceiptsError:
        return ReceiptsError(f"{self.path} is not a receipts file: {where}: {why}")


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
