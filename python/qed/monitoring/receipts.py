"""Whether what a log has given to clients is in the tree that it publishes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qed._qed import LogEntry
from qed.errors import MalformedProof, VerificationError
from qed.evidence import Evidence
from qed.monitoring.findings import Finding, Kind
from qed.monitoring.published import BUNDLE_ENTRIES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qed.monitoring.published import PublishedTree
    from qed.proofs import Snapshot
    from qed.signed import Shown, SignedReceipt, TrustFile

__all__ = ["ReceiptCheck", "batch_end"]

_BATCH_ENTRIES_MAX: Final = 1 << 20


class ReceiptCheck:
    """Compares receipts with a tree.

    Args:
        tree: The tree.
        trust: Verifies the receipts.
        now: The current time in seconds since 1970.

    Attributes:
        checked: Number of receipts that were compared.
        newer: Number of receipts that are about more than the tree has. Nothing can be said of them yet.
    """

    def __init__(self, tree: PublishedTree, trust: TrustFile, *, now: int) -> None:
        self._tree: Final = tree
        self._trust: Final = trust
        self._now: Final = now
        self.checked = 0
        self.newer = 0

    def receipt(self, receipt: SignedReceipt) -> Finding | None:
        """Compare a signed receipt with the tree.

        Args:
            receipt: The receipt.

        Returns:
            What is wrong, or None.

        Raises:
            DamagedFile: No source has the tiles of the tree.
            Unavailable: No source can be reached.
        """
        try:
            shown = receipt.verify(self._trust, now=self._now)
        except VerificationError as exc:
            versions = [snapshot.version for snapshot in receipt.snapshots[:1]]
            return Finding(Kind.RECEIPT_NOT_IN_LOG, f"the receipt of versions {versions} does not verify: {exc}")
        ours, theirs = self._tree.checkpoint, shown.checkpoint
        if theirs.origin != ours.origin:
            text = f"a receipt is of {theirs.origin}, which is another log than {ours.origin}"
            return Finding(Kind.RECEIPT_NOT_IN_LOG, text, about=theirs.root.hex())
        if theirs.size > ours.size:
            self.newer += 1
            return None
        self.checked += 1
        if self._tree.root_at(theirs.size) == theirs.root:
            return self._wrong_end(shown)
        return self._fork(receipt, shown)

    def snapshot(self, snapshot: Snapshot) -> Finding | None:
        """Compare a receipt that nobody has signed with the tree; see `receipt`."""
        if snapshot.version >= self._tree.checkpoint.size:
            self.newer += 1
            return None
        self.checked += 1
        entry = LogEntry.parse(self._tree.entry(snapshot.version))
        end = batch_end(self._tree, snapshot.version)
        of_end = end.snapshot
        is_same = entry.event_digest == snapshot.event_digest and of_end is not None
        if is_same and of_end is not None:
            is_same = of_end.hyper_digest == snapshot.hyper_digest
            is_same = is_same and (end.version != snapshot.version or of_end == snapshot)
        if is_same:
            return None
        text = f"the log has another event, or other roots, at version {snapshot.version} than a receipt says"
        return Finding(Kind.RECEIPT_NOT_IN_LOG, text, about=bytes(snapshot.to_json()).decode())

    def _fork(self, receipt: SignedReceipt, shown: Shown) -> Finding:
        """Return two trees as a finding: the receipt is on another one than that of the checkpoint."""
        ours, theirs = self._tree.checkpoint, shown.checkpoint
        text = f"{ours.origin} has signed a receipt at size {theirs.size} that is not on its tree of size {ours.size}"
        if theirs.size == ours.size:
            evidence = Evidence.same_size(theirs, ours, found_at=self._now, sources=self._tree.names)
            return Finding(Kind.FORK, text, evidence, evidence.name.hex())
        for version in _versions(shown):
            self._tree.hashes(0, version // BUNDLE_ENTRIES)
            evidence = self._tree.tiles.other_entry(
                receipt, version, self._trust, now=self._now, sources=self._tree.names
            )
            if evidence.judge(self._trust).verdict == "convicted":
                return Finding(Kind.FORK, text, evidence, evidence.name.hex())
        suspicion = Evidence.suspicion(theirs, ours, found_at=self._now, sources=self._tree.names)
        return Finding(Kind.FORK, f"{text}; which entry differs is not known", suspicion, suspicion.name.hex())

    def _wrong_end(self, shown: Shown) -> Finding | None:
        """Check that the batch of the events ends where the receipt claims, and not before."""
        if not shown.is_end_claimed:
            return None
        last = shown.events[-1][0]
        end = batch_end(self._tree, last).version
        if end == shown.batch_end:
            return None
        text = f"the receipt of version {last} says that its batch ends at {shown.batch_end}, but it ends at {end}"
        return Finding(Kind.RECEIPT_NOT_IN_LOG, text, about=f"{shown.checkpoint.root.hex()} {last}")


def _versions(shown: Shown) -> Iterable[int]:
    yield from (version for version, _ in shown.events)
    if shown.batch_end is not None:
        yield shown.batch_end


def batch_end(tree: PublishedTree, version: int) -> LogEntry:
    """Return the last entry of the commit batch of a version.

    Args:
        tree: The tree.
        version: A version in it.

    Returns:
        The entry.

    Raises:
        MalformedProof: There is no end, or an entry is malformed.
        DamagedFile: No source has the entries of the tree.
        Unavailable: No source can be reached.
    """
    for index in range(version, min(tree.checkpoint.size, version + _BATCH_ENTRIES_MAX)):
        if index == version or index % BUNDLE_ENTRIES == 0:
            entries = tree.entries(index // BUNDLE_ENTRIES)
        entry = LogEntry.parse(entries[index % BUNDLE_ENTRIES])
        if entry.snapshot is not None:
            return entry
    raise MalformedProof(f"expected the end of the batch of version {version}, found none")
