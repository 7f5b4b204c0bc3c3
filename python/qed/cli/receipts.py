"""A receipts file: the snapshots of one's own events, one JSON object a line, kept to check the servers by.

It is the reader's own record and trusted as such. A crash can leave half a line at its end; reading passes over that,
appending refuses to go on before a person has looked.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

import click

from qed.errors import MalformedProof, VerificationError
from qed.proofs import Snapshot

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

__all__ = ["ReceiptsWriter", "lines_of", "read_receipts", "sync_folder"]

# A snapshot takes about 230 bytes. The limit keeps a file that is no receipts file from being read into memory whole.
_LINE_BYTES_MAX: Final = 4096


class ReceiptsWriter:
    """Appends snapshots to a receipts file; what `append` has returned from is on disk.

    Args:
        path: The file; created when there is none.

    Raises:
        OSError: The file cannot be opened for reading and writing.
        click.UsageError: It ends in half a line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            sync_folder(path)
            self._check_end()
        except BaseException:
            self.close()
            raise

    def append(self, snapshots: Sequence[Snapshot]) -> None:
        """Append the snapshots, synced, all of them or none.

        Args:
            snapshots: What a server acknowledged, in its order.

        Raises:
            OSError: They cannot be written or synced.
        """
        try:
            lines = lines_of(snapshots)
            # The lock keeps another qed from appending between this file's end being read and being cut back to.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            self._write(lines)
            os.fsync(self._descriptor)
        except BaseException as exc:
            if isinstance(exc, OSError):
                exc.filename = str(self._path)
            exc.add_note(f"versions {snapshots[0].version} to {snapshots[-1].version} may have no receipt")
            raise
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_end(self) -> None:
        # The lock waits for another qed that is in the middle of its lines; closing the file would give it back too.
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        size_bytes = os.fstat(self._descriptor).st_size
        if size_bytes and os.pread(self._descriptor, 1, size_bytes - 1) != b"\n":
            raise click.UsageError(f"{self._path} ends in half a line: complete or remove it before appending")
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _write(self, lines: bytes) -> None:
        end = os.fstat(self._descriptor).st_size
        rest = memoryview(lines)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except BaseException:
            # Half a line, by a full disk or Ctrl-C, would make the file unreadable from there on.
            with suppress(OSError):
                os.ftruncate(self._descriptor, end)
            raise


def sync_folder(path: Path) -> None:
    """Make a new file's name as durable as its content will be, where the file system can."""
    with suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def lines_of(snapshots: Iterable[Snapshot]) -> bytes:
    """Return snapshots as the lines of a receipts file."""
    return b"".join(snapshot.to_json() + b"\n" for snapshot in snapshots)


def read_receipts(path: Path, versions: Collection[int]) -> dict[int, Snapshot]:
    """Return the receipts of some versions.

    Args:
        path: The receipts file.
        versions: The versions wanted.

    Returns:
        The snapshots found, by version; a version without a receipt is missing.

    Raises:
        OSError: The file cannot be read.
        click.UsageError: A line of it is not a snapshot.
        VerificationError: It holds two different snapshots of one wanted version, so one of them is false.
    """
    found: dict[int, Snapshot] = {}
    for snapshot in _snapshots(path):
        if snapshot.version not in versions:
            continue
        if found.setdefault(snapshot.version, snapshot) != snapshot:
            raise VerificationError(f"{path} holds two different snapshots of version {snapshot.version}")
    return found


def _snapshots(path: Path) -> Iterator[Snapshot]:
    with path.open("rb") as lines:
        number = 0
        while line := lines.readline(_LINE_BYTES_MAX):
            number += 1
            try:
                yield Snapshot.from_json(line)
            except MalformedProof as exc:
                if not line.endswith(b"\n") and len(line) < _LINE_BYTES_MAX:
                    return
                raise click.UsageError(f"{path} is not a receipts file: line {number}: {exc}") from exc
