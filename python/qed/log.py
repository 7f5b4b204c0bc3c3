"""A log in this process: the same log that the server serves, without the server."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Self

from qed import _qed
from qed.proofs import AbsenceProof, BulkProof, Digest, IncrementalProof, MembershipProof, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

__all__ = ["Log"]


class Log:
    """A tamper-evident log in a data folder, or in memory.

    Any number of threads may use it. One process at a time may have a data folder open. In a child that was forked from
    that process, `close` does nothing, and every other call raises `LogError`.

    Example:
        >>> with Log() as log:
        ...     snapshot = log.add(b"event 0")
        ...     snapshot.version, log.membership(b"event 0").actual_version
        (0, 0)
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        """Open the log, which builds both trees from the stored digests and compares their root with the stored one.

        Args:
            path: The data folder, created if it does not exist; None for a log in memory, which ends with the process.

        Raises:
            StoreLocked: Another process has it open.
            CorruptLog: Its files contradict themselves.
            UnsupportedFormat: It was written by a later version of qed.
            LogError: It cannot be created, read or written.
        """
        self._log = _qed.Log.open(None if path is None else os.fspath(path))

    def add(self, event: bytes | Digest, *, if_absent: bool = False) -> Snapshot:
        """Add an event and return its snapshot. The event is on disk when this returns.

        Args:
            event: The event, any bytes, may be empty; or its digest. The log keeps the digest only.
            if_absent: If the event is in the log already, add nothing and return its first snapshot.

        Raises:
            WriteRefused: An earlier write or sync failed.
            LogFull: The log has no room for another event.
            LogError: This write or sync failed; open the log again to see whether the event is in it.
        """
        return self._log.add([event], if_absent=if_absent).snapshots[0]

    def add_bulk(self, events: Iterable[bytes | Digest], *, if_absent: bool = False) -> list[Snapshot]:
        """Add events as one batch, all of them or none, and return one snapshot an event, in their order.

        Args:
            events: At least one event or digest of an event, in the order of their versions.
            if_absent: As for `add`, for each event on its own.

        Returns:
            One snapshot an event, in their order; those of added events share one hyper digest.

        Raises:
            WriteRefused: An earlier write or sync failed.
            LogFull: As for `add`.
            LogError: `events` is empty, or this write or sync failed, as for `add`.
        """
        return self._log.add(list(events), if_absent=if_absent).snapshots

    def membership(self, event: bytes | Digest, *, version: int | None = None) -> MembershipProof | AbsenceProof:
        """Return the proof that the event is in the log, or that it is not.

        Args:
            event: The event, or its digest.
            version: The version to prove it at; None, or one beyond the log, for the last.

        Raises:
            AddedLater: The event was first added after `version`.
            UnknownVersion: The log holds no events.
        """
        digest = event if isinstance(event, Digest) else Digest.of(event)
        return self._log.membership(digest, version=version)

    def membership_many(self, events: Iterable[bytes | Digest]) -> BulkProof:
        """Return one proof which of many events are in the log, as of its last version.

        Args:
            events: The events, or their digests: 1 to 1,000 different ones, in any order.

        Raises:
            UnknownVersion: The log holds no events.
            ValueError: There are no events, or too many.
        """
        return self._log.bulk_membership(_qed.BulkMembership(list(events)))

    def incremental(self, start: int, end: int) -> IncrementalProof:
        """Return the proof that the log at version `end` extends the log at version `start`.

        Raises:
            UnknownVersion: `start` is above `end`, or `end` is beyond the log.
        """
        return self._log.incremental(start, end)

    def snapshot(self, version: int) -> Snapshot:
        """Return the snapshot of a version exactly as it was acknowledged.

        Raises:
            UnknownVersion: The version is beyond the log.
        """
        return self._log.snapshot(version)

    def tile(self, path: str) -> bytes:
        """Return a file of the log as a transparency log, in the form of C2SP tlog-tiles.

        Args:
            path: `tile/<level>/<number>` for a tile of hashes, `tile/entries/<number>` for a bundle of entries, either
                with `.p/<width>` for the first of 256. A number is in groups of three digits, as in `x001/067`.

        Raises:
            UnknownVersion: The log does not have that many entries yet.
            ValueError: There is no such path.
        """
        return self._log.tile(_qed.TilePath(path))

    def tree_head(self) -> tuple[int, Digest]:
        """Return the number of entries of the log as a transparency log, and the root of the Merkle tree over them.

        The root is that of RFC 6962. It commits to all entries, and the last entry to the roots of both other trees.
        """
        return self._log.tree_head()

    def check(self, *, progress: Callable[[int], object] | None = None) -> None:
        """Build all trees again from the log, batch by batch, and compare the stored roots and occurrences with them.

        Args:
            progress: Called now and then, in this thread, with the number of events checked. An exception from it ends
                the check, as does Ctrl-C.

        Raises:
            CorruptLog: Something differs; the message names the first place.
        """
        self._log.check(progress=progress)

    def close(self) -> None:
        """Close the log. Closing twice does nothing; any other call on a closed log raises `LogError`."""
        self._log.close()

    def __len__(self) -> int:
        return len(self._log)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
