"""Receipts: the snapshots of one's own events in one log, kept in a file to check its servers by.

They are their owner's own record and trusted as such (FORMATS.md, "Receipts and bundles"). A receipt is *linked* once
the server has proven that it belongs to the same log as the others.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from qed._printable import printable
from qed._receipt_lines import LOG_NAME_MAX
from qed._receipts_file import ReceiptsFile
from qed.errors import ForkDetected, NotTrusted, ReceiptsError
from qed.trust import TrustedBy, batch_start

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence
    from types import TracebackType

    from qed.proofs import Digest, HistoryRoot, HyperRoot, Snapshot
    from qed.signed import SignedReceipt

__all__ = ["LOG_NAME_MAX", "Receipts"]


class Receipts:
    """The snapshots in a receipts file. They are trusted: `qed.verify` accepts a `Receipts` as trusted roots.

    Several processes may append to one file. One object belongs to one thread at a time.
    """

    def __init__(self, path: Path) -> None:
        """Prepare an empty record; use `open` or `load`."""
        self._file = ReceiptsFile(path)
        self._at_opening: tuple[int, int | None] = (time.monotonic_ns(), None)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a receipts file to append to it; an empty one is created if it is missing.

        Args:
            path: The file. A symbolic link is refused: its target can change while the file is locked.

        Returns:
            The receipts.

        Raises:
            OSError: It cannot be opened for reading and writing.
            ReceiptsError: It is not a receipts file, is of two logs, or ends in an incomplete line.
            ForkDetected: It holds two different snapshots of one version.
        """
        receipts = cls(Path(path))
        with receipts._file.held():
            pass
        receipts._note_opening()
        return receipts

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a receipts file.

        Args:
            path: The file.

        Returns:
            The receipts. Appending to them opens the file for writing.

        Raises:
            OSError: It cannot be read.
            ReceiptsError: It is not a receipts file, is of two logs, or ends in half a line, which a crash can leave.
            ForkDetected: It holds two different snapshots of one version.
        """
        receipts = cls(Path(path))
        receipts._file.load()
        receipts._note_opening()
        return receipts

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    @property
    def log(self) -> str | None:
        """The name of the log of these receipts, or None if the file does not say."""
        return self._file.log

    @property
    def is_signed(self) -> bool:
        """Whether a log has signed some of them."""
        return self._file.is_signed

    @property
    def is_confirmed(self) -> bool:
        """Whether a server has given a name that fits since the file was last read from its start."""
        return self._file.is_confirmed

    def append(self, snapshots: Sequence[Snapshot], *, log: str | None = None) -> None:
        """Append snapshots without proof and sync them, all or none. Those already in the file are skipped.

        They are proven at the next use with a server. `Client.keep` proves snapshots before it appends them.

        Args:
            snapshots: What a server acknowledged, in its order.
            log: The name of their log, if the caller knows it.

        Raises:
            OSError: They cannot be written or synced.
            ReceiptsError: The file is of another log.
            ForkDetected: The file has another snapshot of one of their versions.
        """
        with self._appending() as descriptor:
            self._append(descriptor, snapshots, log, is_linked=False)

    def append_signed(self, receipt: SignedReceipt) -> None:
        """Append what the log has signed about snapshots that are in the file, and sync it.

        Args:
            receipt: The receipt, which `qed verify` checks by a policy.

        Raises:
            OSError: It cannot be written or synced.
            ReceiptsError: The file does not have its snapshots.
            ForkDetected: The file has another snapshot of one of its versions.
        """
        with self._appending() as descriptor:
            missing = self.unknown(receipt.snapshots)
            if missing:
                raise ReceiptsError(f"{self.path} lacks version {missing[0].version} of the receipt: append it first")
            self._file.append_signed(descriptor, receipt)

    def append_proven(self, snapshots: Sequence[Snapshot], *, log: str | None, anchor: Snapshot | None) -> bool:
        """Append snapshots that are proven to extend the log of one receipt, if the file still has that receipt.

        Other processes may have appended since the proof. Snapshots that begin a file have no link to receipts that are
        in it by then, which may be of another log.

        Args:
            snapshots: What a server acknowledged, in its order.
            log: The name of their log, if it has one.
            anchor: The receipt that they are linked to, or None if they begin the file.

        Returns:
            Whether they were appended. If not, prove them against the receipts that are in the file now.

        Raises:
            OSError: They cannot be written or synced.
            ReceiptsError: The file is of another log.
            ForkDetected: The file has another snapshot of one of their versions.
        """
        with self._appending() as descriptor:
            is_linked = len(self) == 0 if anchor is None else self.get(anchor.version) == anchor
            if is_linked:
                self._append(descriptor, snapshots, log, is_linked=True)
        return is_linked

    def mark_linked(self, log: str | None, proven: Sequence[Snapshot]) -> None:
        """Mark receipts as linked, and replace the file by one with these marks and a first line, atomically.

        `Client.keep` and `Client.verify` call this after they have proven these receipts. Lines that other processes
        have appended meanwhile keep their own marks.

        Args:
            log: The name of the log.
            proven: The receipts that are proven to belong to it.

        Raises:
            OSError: The file cannot be written. These receipts count as linked in this object nevertheless.
            ReceiptsError: It is of another log.
        """
        self._mark(proven)
        with self._file.held() as descriptor:
            self.require_log(log)
            # Again, because the file may have been replaced meanwhile.
            self._mark(proven)
            self._file.rewrite(descriptor, log)
        with self._file.held():
            pass

    def rename_log(self, log: str) -> None:
        """Replace the name of the log in the first line, atomically: the log was restored or recovered.

        `Client.prepare` and `Client.keep` call this after they have proven that the renamed log holds these receipts.

        Args:
            log: The new name of the log.

        Raises:
            OSError: The file cannot be written.
        """
        with self._file.held() as descriptor:
            self._file.rewrite(descriptor, log)
        with self._file.held():
            pass

    def require_log(self, log: str | None) -> None:
        """Check by its name that the receipts belong to this log. Two logs may have one name.

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

    def confirm_log(self, log: str | None) -> None:
        """Check the name that a server gives, as `require_log` does, and remember that it was checked.

        Args:
            log: The name, or None if the server gives none.

        Raises:
            ReceiptsError: The receipts are of another log.
        """
        self.require_log(log)
        self._file.is_confirmed = True

    def unknown(self, snapshots: Iterable[Snapshot]) -> list[Snapshot]:
        """Return the snapshots that are not in the file yet.

        Args:
            snapshots: Any snapshots of the log.

        Returns:
            The new ones, each once, in their order.

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
        return self._file.get(version)

    @property
    def unlinked(self) -> list[Snapshot]:
        """The receipts that are not proven to belong to the log of the others, in the order of their versions."""
        if not self._file.index.has_unlinked:
            return []
        return [snapshot for version in self._file.index.unlinked() if (snapshot := self.get(version))]

    @property
    def by(self) -> TrustedBy:
        """The source of these roots: the owner's own receipts."""
        return TrustedBy.RECEIPTS

    @property
    def anchor(self) -> Snapshot | None:
        """The newest receipt."""
        return self._file.newest

    @property
    def at_opening(self) -> tuple[int, int | None]:
        """When the file had been read (`time.monotonic_ns`), and the version of its newest receipt then, if any."""
        return self._at_opening

    @property
    def linked_anchor(self) -> Snapshot | None:
        """The newest receipt that is linked. New snapshots are linked to it."""
        if not self._file.index.has_unlinked:
            return self._file.newest
        newest = self._file.index.newest_linked()
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
        """Return the versions at which an event is known to be in the log.

        Args:
            digest: Digest of the event.

        Returns:
            As `Trusted.occurrences_of`.
        """
        found = (self.get(version) for version in self._file.index.versions_about(hash(digest)))
        return sorted(snapshot.version for snapshot in found if snapshot and snapshot.event_digest == digest)

    def batch_start(self, version: int) -> int:
        """Return the first version that may have been committed together with a trusted one.

        Args:
            version: Version of a trusted snapshot.

        Returns:
            As `Trusted.batch_start`.
        """
        earlier = (self.get(known) for known in self._file.index.versions_before(version))
        own = self.get(version)
        return 0 if own is None else batch_start(own, (snapshot for snapshot in earlier if snapshot))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __len__(self) -> int:
        return len(self._file.index)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _snapshot(self, version: int) -> Snapshot:
        """Return a receipt to use as a root. If there are several, it must be linked to the others.

        A file of the earlier format may hold two logs, and then a denial from one would verify against the other.
        """
        found = self.get(version)
        if found is None:
            raise NotTrusted(version, f"no trusted snapshot of version {version}: {self.path} has none")
        if len(self._file.index) > 1 and not self._file.index.is_linked(version):
            raise NotTrusted(
                version,
                f"the snapshot of version {version} in {self.path} was never proven to belong to the log of the "
                "others: use the file once with a server, as in qed membership --receipts",
            )
        return found

    def _note_opening(self) -> None:
        newest = self._file.newest
        self._at_opening = (time.monotonic_ns(), None if newest is None else newest.version)

    def _mark(self, proven: Sequence[Snapshot]) -> None:
        for snapshot in proven:
            if self.get(snapshot.version) == snapshot:
                self._file.index.mark(snapshot.version)

    @contextmanager
    def _appending(self) -> Iterator[int]:
        """Hold the file exclusively, and name it in errors."""
        try:
            with self._file.held() as descriptor:
                yield descriptor
        except OSError as exc:
            exc.filename = str(self.path)
            raise

    def _append(self, descriptor: int, snapshots: Sequence[Snapshot], log: str | None, *, is_linked: bool) -> None:
        self.require_log(log)
        fresh = self.unknown(snapshots)
        if fresh:
            self._file.append(descriptor, fresh, log, is_linked=is_linked)
