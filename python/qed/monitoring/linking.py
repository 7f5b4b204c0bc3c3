"""What a log has published last, and whether what it has signed before is a part of that."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from qed.errors import CheckpointFork, Inconclusive, VerificationError
from qed.evidence import save_evidence
from qed.monitoring.auditing import standing
from qed.monitoring.comparison import contradiction
from qed.monitoring.findings import Kind
from qed.monitoring.published import BUNDLE_ENTRIES, PublishedTree
from qed.monitoring.receipts import ReceiptCheck
from qed.monitoring.sources import CHECKPOINT
from qed.signed import SignedReceipt

if TYPE_CHECKING:
    from qed.memory import Memory
    from qed.monitoring.findings import Finding
    from qed.monitoring.sources import Source
    from qed.policy import Policy
    from qed.proofs import Snapshot
    from qed.signed import Checkpoint, Signed, TlogProof

__all__ = ["PublishedLog"]


class PublishedLog:
    """The newest checkpoint that a log has published, and its tree.

    Args:
        policy: Whom to trust.
        source: Where the log is published.
        memory: What was seen of the log before. Evidence is saved beside it.

    Attributes:
        newest: The checkpoint.

    Raises:
        Inconclusive: Too few witnesses have cosigned, or too long ago.
        VerificationError: It does not verify, or its tiles are damaged.
        Unavailable: The source cannot be reached, or lacks a file.
        ProtocolError: It refuses.
    """

    def __init__(self, policy: Policy, source: Source, memory: Memory) -> None:
        self._policy: Final = policy
        self._now: Final = int(time.time())
        self._memory: Final = memory
        self._name: Final = source.name
        self.newest: Final = policy.trust.endorse(source.read(CHECKPOINT), now=self._now)
        for doubt in standing(policy, self.newest):
            raise Inconclusive(doubt.text)
        self._tree: Final = PublishedTree(self.newest, [source])
        self._receipts: Final = ReceiptCheck(self._tree, policy.trust, now=self._now)

    def follow(self) -> None:
        """Check that all that is remembered of the log is a part of it, then remember the newest checkpoint.

        Raises:
            Inconclusive: More is remembered than is published here.
            CheckpointFork: The log has rewritten what is remembered. The evidence was saved.
            VerificationError: As for `Memory.compare`.
            Unavailable: The source cannot be reached.
            OSError: The memory cannot be read or written.
        """
        trust, now = self._policy.trust, self._now
        for known in self._memory.remembered(self.newest.origin, trust, now=now):
            self._link(known, "was seen before")
        self._memory.remember(self.newest, trust, now=now)

    def link(self, signed: Signed, checkpoint: Checkpoint) -> None:
        """Check that what a log has signed is a part of what it has published.

        Args:
            signed: The file. It was verified.
            checkpoint: Its checkpoint.

        Raises:
            Inconclusive: It is newer than what is published here.
            CheckpointFork: The log has published another history. The evidence was saved.
            VerificationError: The file is of another log, or claims another end of its commit batch.
            Unavailable: The source cannot be reached.
        """
        self._require_published(checkpoint, "is that of the file")
        if isinstance(signed, SignedReceipt):
            self._require_none(self._receipts.receipt(signed), checkpoint)
        else:
            self._link(checkpoint, "is that of the file")

    def require_snapshot(self, snapshot: Snapshot) -> None:
        """Check that a receipt that nobody has signed is a part of what the log has published; errors as for `link`."""
        self._require_version(snapshot.version)
        self._require_none(self._receipts.snapshot(snapshot), self.newest)

    def proof(self, version: int) -> TlogProof:
        """Return the proof of an entry in the newest tree, as a file that needs no tiles.

        Args:
            version: The version that the entry is about.

        Returns:
            The proof.

        Raises:
            Inconclusive: The tree is smaller.
            VerificationError: A file of the tree is damaged.
            Unavailable: The source cannot be reached, or lacks a file.
        """
        self._require_version(version)
        entry = self._tree.entry(version)
        self._tree.hashes(0, version // BUNDLE_ENTRIES)
        return self._tree.tiles.proof(version, entry)

    def _require_version(self, version: int) -> None:
        size = self.newest.size
        if version >= size:
            raise Inconclusive(f"{self._name} has {size} entries, so it cannot tell about version {version}")

    def _link(self, known: Checkpoint, which: str) -> None:
        self._require_published(known, which)
        self._require_none(contradiction(known, self.newest, self._tree_of, now=self._now), known)

    def _require_published(self, checkpoint: Checkpoint, which: str) -> None:
        if checkpoint.origin != self.newest.origin:
            raise VerificationError("origin", self.newest.origin, checkpoint.origin)
        if checkpoint.size > self.newest.size:
            raise Inconclusive(
                f"{self._name} has {self.newest.size} entries, but a checkpoint of size {checkpoint.size} {which}: "
                "ask a copy that is newer"
            )

    def _tree_of(self, checkpoint: Checkpoint) -> PublishedTree:
        if checkpoint is self.newest:
            return self._tree
        raise VerificationError(f"the tiles of size {checkpoint.size} are not published")

    def _require_none(self, finding: Finding | None, known: Checkpoint) -> None:
        if finding is None:
            return
        error: VerificationError
        if finding.kind is Kind.FORK:
            error = CheckpointFork(known, self.newest, f"fork: {finding.text}")
        else:
            error = VerificationError(finding.text)
        if finding.evidence is not None:
            folder = self._memory.path_of(self.newest.origin).absolute().parent
            try:
                folder.mkdir(parents=True, exist_ok=True)
                error.add_note(f"the evidence was saved to {save_evidence(finding.evidence, folder)}")
            except OSError as exc:
                error.add_note(f"the evidence could not be saved in {folder}: {exc.strerror}")
        raise error
