"""A receipts file: the snapshots of one's own events in one log, kept to check its servers by.

It is its owner's own record and trusted as such (FORMATS.md, "Receipts and bundles"). Its first line names the log;
each line after it is a snapshot. A line is *linked* once the server has proven that it belongs to the others' log.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from contextlib import contextmanager, suppress
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Self

import msgspec

from qed._fields import unique_fields
from qed._files import replace_file, sync_folder
from qed._printable import printable
from qed._receipt_index import ReceiptIndex
from qed.errors import ForkDetected, MalformedProof, NotTrusted, ReceiptsError
from qed.proofs import Digest, Snapshot
from qed.trust import TrustedBy, batch_start

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import TracebackType

    from qed.proofs import HistoryRoot, HyperRoot

__all__ = ["LOG_NAME_MAX", "Receipts", "runs"]

# A snapshot takes about 230 bytes. The limit keeps a file that is no receipts file from being read into memory whole.
_LINE_BYTES_MAX: Final = 4096
_FORMAT: Final = "qed-receipts-1"
_MODE: Final = 0o600
_READ_BYTES: Final = 1024 * 1024
LOG_NAME_MAX: Final = 256
"""A server chooses the name of its log. The first line of the file must not become longer than any line may be."""


class _Header(msgspec.Struct, rename="pascal", forbid_unknown_fields=True):
    format: Literal["qed-receipts-1"]
    log: str | None


class _Mark(msgspec.Struct, rename="pascal"):
    linked: bool = False


class _Probe(msgspec.Struct, rename="pascal"):
    format: str | None = None


_HEADER: Final = msgspec.json.Decoder(_Header)
_MARK: Final = msgspec.json.Decoder(_Mark)
_PROBE: Final = msgspec.json.Decoder(_Probe)
_LINKED: Final = b',"Linked":true}'
_LINKED_LINE: Final = _LINKED + b"\n"
# The quotes around the four names and three digests of a snapshot, which has no other text.
_QUOTES: Final = 14
_QUOTES_WITH_MARK: Final = _QUOTES + 2
# What reading a line as JSON can raise.
_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)


class Receipts:
    """The snapshots in a receipts file. They are trusted: `qed.verify` takes a `Receipts` as it is.

    Several processes may append to one file. One object belongs to one thread at a time.

    Attributes:
        path: The file.
        log: The name of the log that the receipts are of, or None while the file does not say.
        is_confirmed: Whether a server has given this name since the file was last read from its start.
    """

    def __init__(self, path: Path) -> None:
        """Prepare an empty record; use `open` or `load`."""
        self.path = path
        self._descriptor = -1
        self._forget()

    def _forget(self) -> None:
        self.log: str | None = None
        self.is_confirmed = False
        self._is_headed = False
        self._index = ReceiptIndex()
        self._anchor: Snapshot | None = None
        self._inode = (0, 0)
        self._size_bytes = 0

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a receipts file to append to; an empty one is made if there is none.

        Args:
            path: The file. A symbolic link is refused: what it points to can change under the lock.

        Returns:
            The receipts.

        Raises:
            OSError: It cannot be opened for reading and writing.
            ReceiptsError: It is no receipts file, of two logs, or ends in half a line.
            ForkDetected: It holds two different snapshots of one version.
        """
        receipts = cls(Path(path))
        with receipts._locked():
            pass
        return receipts

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a receipts file. Half a line at its end, which a crash can leave, is ignored.

        Args:
            path: The file.

        Returns:
            The receipts. Appending to them opens the file for writing.

        Raises:
            OSError: It cannot be read.
            ReceiptsError: It is no receipts file, or of two logs.
            ForkDetected: It holds two different snapshots of one version.
        """
        receipts = cls(Path(path))
        # Without O_NONBLOCK, opening a named pipe would block here, possibly without end.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            receipts._require_regular(descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            receipts._read(descriptor, is_whole=False)
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)
        return receipts

    def append(self, snapshots: Sequence[Snapshot], *, log: str | None = None) -> None:
        """Append snapshots unproven, synced, all of them or none. Those that are in the file already are skipped.

        `Client.keep` proves them first. These are proven at the next use with a server.

        Args:
            snapshots: What a server acknowledged, in its order.
            log: The name of the log they are of, where the caller knows it.

        Raises:
            OSError: They cannot be written or synced.
            ReceiptsError: The file is of another log.
            ForkDetected: The file has another snapshot of one of their versions.
        """
        with self._appending() as descriptor:
            self._append(descriptor, snapshots, log, is_linked=False)

    def append_proven(self, snapshots: Sequence[Snapshot], *, log: str | None, anchor: Snapshot | None) -> bool:
        """Append snapshots that are proven to extend the log of one receipt, if that is what they would extend.

        Others may have appended since the proof. What was proven against an empty file is tied to nothing that is in it
        by then, and may be of another log.

        Args:
            snapshots: What a server acknowledged, in its order.
            log: The name of the log they are of, if it has one.
            anchor: The receipt that they are tied to, or None for those that begin the file.

        Returns:
            Whether they were appended. If not, they are to be proven against the receipts that are there now.

        Raises:
            OSError: They cannot be written or synced.
            ReceiptsError: The file is of another log.
            ForkDetected: The file has another snapshot of one of their versions.
        """
        with self._appending() as descriptor:
            is_tied = len(self._index) == 0 if anchor is None else self.get(anchor.version) == anchor
            if is_tied:
                self._append(descriptor, snapshots, log, is_linked=True)
        return is_tied

    def mark_linked(self, log: str | None, proven: Sequence[Snapshot]) -> None:
        """Mark receipts as linked, and rewrite the file with the marks and a first line that names the log, atomically.

        `Client.keep` and `Client.verify` call this once they have proven these receipts. What others have appended
        meanwhile keeps its own mark.

        Args:
            log: The name of the log.
            proven: The receipts that are proven to belong to it.

        Raises:
            OSError: The file cannot be written. These receipts count as linked in this object nevertheless.
            ReceiptsError: It is of another log.
        """
        self._mark(proven)
        with self._locked() as descriptor:
            self.require_log(log)
            # Check again: the file may have been replaced meanwhile.
            self._mark(proven)
            lines = (
                _line(self._at(descriptor, offset), is_linked=is_linked) for offset, is_linked in self._index.lines()
            )
            replace_file(self.path, chain((self._header(log),), lines), mode=_MODE)
        with self._locked():
            pass

    def require_log(self, log: str | None) -> None:
        """Check that the receipts are of this log, as far as names can tell.

        Args:
            log: The name that a server gives, or None if it gives none.

        Raises:
            ReceiptsError: They are of another log.
        """
        if log and len(log) > LOG_NAME_MAX:
            raise ReceiptsError(f"expected a log name of at most {LOG_NAME_MAX} characters, found {len(log)}")
        if log and self.log and log != self.log:
            raise ReceiptsError(
                f"{self.path} holds receipts of log {printable(self.log)}, this is log {printable(log)}: "
                "keep a file for each log"
            )

    def unknown(self, snapshots: Iterable[Snapshot]) -> list[Snapshot]:
        """Return those snapshots that have no receipt yet.

        Args:
            snapshots: Any snapshots of the log.

        Returns:
            Those, each once, in their order.

        Raises:
            ForkDetected: There is a receipt for one of their versions that differs.
        """
        fresh: dict[int, Snapshot] = {}
        for snapshot in snapshots:
            known = fresh.get(snapshot.version) or self.get(snapshot.version)
            if known is None:
                fresh[snapshot.version] = snapshot
            elif known != snapshot:
                raise ForkDetected(known, snapshot)
        return list(fresh.values())

    def get(self, version: int) -> Snapshot | None:
        """Return the receipt of a version.

        Args:
            version: The version.

        Returns:
            Its snapshot, or None if there is none.

        Raises:
            ReceiptsError: The file was edited since it was read.
        """
        offset = self._index.offset_of(version)
        if offset is None:
            return None
        found = self._at(self._descriptor, offset)
        if found.version != version:
            raise ReceiptsError(f"{self.path} was edited while it was in use: run the command again")
        return found

    @property
    def unlinked(self) -> list[Snapshot]:
        """The receipts that are not proven to belong to the log of the others, by version."""
        if not self._index.has_unlinked:
            return []
        return [snapshot for version in self._index.unlinked() if (snapshot := self.get(version))]

    @property
    def by(self) -> TrustedBy:
        """On whose word: the owner's own receipts."""
        return TrustedBy.RECEIPTS

    @property
    def anchor(self) -> Snapshot | None:
        """The newest receipt."""
        return self._anchor

    @property
    def linked_anchor(self) -> Snapshot | None:
        """The newest receipt that is linked, which further ones are tied to."""
        if not self._index.has_unlinked:
            return self._anchor
        newest = self._index.newest_linked()
        return None if newest is None else self.get(newest)

    def history_root(self, version: int) -> HistoryRoot:
        """Return the history root of the receipt of a version.

        Args:
            version: The version.

        Returns:
            The root.

        Raises:
            NotTrusted: There is no receipt of it, or one that is not linked to the others.
        """
        return self._snapshot(version).history_root()

    def hyper_root(self, version: int) -> HyperRoot:
        """Return the hyper root of the receipt of a version.

        Args:
            version: The version.

        Returns:
            The root.

        Raises:
            NotTrusted: There is no receipt of it, or one that is not linked to the others.
        """
        return self._snapshot(version).hyper_root()

    def is_linked(self, version: int) -> bool:
        """Return True: a receipt's roots are those that were acknowledged to its owner.

        Args:
            version: Any version.

        Returns:
            True.
        """
        del version
        return True

    def occurrences_of(self, digest: Digest) -> Sequence[int]:
        """Return the versions at which an event is known to stand.

        Args:
            digest: Digest of the event.

        Returns:
            As `Trusted.occurrences_of`.
        """
        found = (self.get(version) for version in self._index.versions_about(hash(digest)))
        return sorted(snapshot.version for snapshot in found if snapshot and snapshot.event_digest == digest)

    def batch_start(self, version: int) -> int:
        """Return the first version that may have been committed together with a trusted one.

        Args:
            version: Version of a trusted snapshot.

        Returns:
            As `Trusted.batch_start`.
        """
        earlier = (self.get(known) for known in self._index.versions_before(version))
        own = self.get(version)
        return 0 if own is None else batch_start(own, (snapshot for snapshot in earlier if snapshot))

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __len__(self) -> int:
        return len(self._index)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _snapshot(self, version: int) -> Snapshot:
        """Return a receipt as a root. One alone is tied to nothing; of several, each must be tied to the others.

        A file of the earlier format may hold two logs, and then a denial from one verifies against the other.
        """
        found = self.get(version)
        if found is None:
            raise NotTrusted(version, f"no trusted snapshot of version {version}: {self.path} has none")
        if len(self._index) > 1 and not self._index.is_linked(version):
            raise NotTrusted(
                version,
                f"the snapshot of version {version} in {self.path} was never proven to belong to the log of the "
                "others: use the file once with a server, as in qed membership --receipts",
            )
        return found

    def _at(self, descriptor: int, offset: int) -> Snapshot:
        line = os.pread(descriptor, _LINE_BYTES_MAX, offset).partition(b"\n")[0]
        return self._parse(line, "a line that was read before")

    def _mark(self, proven: Sequence[Snapshot]) -> None:
        for snapshot in proven:
            if self.get(snapshot.version) == snapshot:
                self._index.mark(snapshot.version)

    @contextmanager
    def _appending(self) -> Iterator[int]:
        """Hold the file as `_locked` does, and name it in errors."""
        try:
            with self._locked() as descriptor:
                yield descriptor
        except OSError as exc:
            exc.filename = str(self.path)
            raise

    def _append(self, descriptor: int, snapshots: Sequence[Snapshot], log: str | None, *, is_linked: bool) -> None:
        self.require_log(log)
        fresh = self.unknown(snapshots)
        if fresh:
            header = b"" if self._is_headed or self._size_bytes else self._header(log)
            self._write(descriptor, header + b"".join(_line(snapshot, is_linked=is_linked) for snapshot in fresh))

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Hold the file exclusively, with everything read that others have appended since."""
        descriptor = self._acquire()
        try:
            self._read(descriptor, is_whole=True)
            yield descriptor
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

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
        """Read what was appended since the last time, or all of it if the file is another one by now."""
        status = os.fstat(descriptor)
        if _inode(status) != self._inode or status.st_size < self._size_bytes:
            self.close()
            self._forget()
            self._inode = _inode(status)
            self._descriptor = os.dup(descriptor)
        number = 0
        with open(descriptor, "rb", buffering=_READ_BYTES, closefd=False) as lines:
            lines.seek(self._size_bytes)
            while line := lines.readline(_LINE_BYTES_MAX):
                number += 1
                if not line.endswith(b"\n") and len(line) < _LINE_BYTES_MAX:
                    if is_whole:
                        raise ReceiptsError(f"{self.path} ends in half a line: complete or remove it before appending")
                    return
                self._note(line, number)
                self._size_bytes += len(line)

    def _note(self, line: bytes, number: int) -> None:
        where = f"line {number}" if not self._size_bytes or number > 1 else "a new line"
        if self._note_header(line, where):
            return
        snapshot = self._parse(line, where)
        version = snapshot.version
        is_linked = self._has_mark(line, where)
        known = None if self._index.is_beyond(version) else self.get(version)
        if known is not None:
            if known != snapshot:
                raise ForkDetected(known, snapshot)
            if is_linked:
                self._index.mark(version)
            return
        self._index.add(version, self._size_bytes, hash(snapshot.event_digest), is_linked=is_linked)
        if self._anchor is None or version > self._anchor.version:
            self._anchor = snapshot

    def _has_mark(self, line: bytes, where: str) -> bool:
        """Return whether the line of a snapshot, which has all its own fields once, is marked as linked."""
        quotes = line.count(b'"')
        if quotes == _QUOTES:
            return False
        if quotes == _QUOTES_WITH_MARK and line.endswith(_LINKED_LINE):
            return True
        try:
            if quotes > _QUOTES_WITH_MARK:
                json.loads(line, object_pairs_hook=unique_fields)
            return _MARK.decode(line).linked
        except _UNREADABLE as exc:
            raise self._refused(where, str(exc)) from exc

    def _note_header(self, line: bytes, where: str) -> bool:
        if b'"Format"' not in line:
            return False
        try:
            header = _HEADER.decode(line)
            json.loads(line, object_pairs_hook=unique_fields)
        except _UNREADABLE as exc:
            raise self._refused(where, _found_format(line) or str(exc)) from exc
        if self._is_headed and header.log != self.log:
            first, second = (printable(log or "one without a name") for log in (self.log, header.log))
            raise ReceiptsError(
                f"{self.path} holds receipts of two logs, {first} and {second}: keep a file for each log"
            )
        self._is_headed, self.log = True, header.log
        return True

    def _parse(self, line: bytes, where: str) -> Snapshot:
        try:
            return Snapshot.from_json(line)
        except MalformedProof as exc:
            raise self._refused(where, str(exc)) from exc

    def _refused(self, where: str, why: str) -> ReceiptsError:
        return ReceiptsError(f"{self.path} is not a receipts file: {where}: {why}")

    def _header(self, log: str | None) -> bytes:
        return msgspec.json.encode(_Header(_FORMAT, log or self.log)) + b"\n"

    def _write(self, descriptor: int, lines: bytes) -> None:
        end = os.fstat(descriptor).st_size
        rest = memoryview(lines)
        try:
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        except BaseException:
            # Half a line, by a full disk or Ctrl-C, would make the file unreadable from there on.
            with suppress(OSError):
                os.ftruncate(descriptor, end)
            raise
        self._read(descriptor, is_whole=True)


def runs(snapshots: Iterable[Snapshot]) -> list[list[Snapshot]]:
    """Return snapshots in groups of consecutive versions, which one proof can show to belong together.

    Args:
        snapshots: Snapshots of one log, each version once.

    Returns:
        The groups, by version.
    """
    ordered = sorted(snapshots, key=lambda snapshot: snapshot.version)
    numbered = groupby(enumerate(ordered), lambda pair: pair[1].version - pair[0])
    return [[snapshot for _, snapshot in group] for _, group in numbered]


def _line(snapshot: Snapshot, *, is_linked: bool) -> bytes:
    text = snapshot.to_json()
    return (text.removesuffix(b"}") + _LINKED if is_linked else text) + b"\n"


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _found_format(line: bytes) -> str | None:
    with suppress(*_UNREADABLE):
        found = _PROBE.decode(line).format
        if found is not None and found != _FORMAT:
            return f"expected format {_FORMAT}, found {found!r}; a newer qed may read it"
    return None
