"""Checking a whole log from its first entry on, by what it publishes and what it gave to clients."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from qed._qed import EntryAudit
from qed.monitoring.cross_check import CrossCheck
from qed.monitoring.findings import Finding, Kind
from qed.monitoring.published import PublishedTree
from qed.monitoring.receipts import ReceiptCheck
from qed.monitoring.replaying import replay
from qed.monitoring.sources import CHECKPOINT
from qed.policy import Level

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qed._client.client import Client
    from qed.monitoring.sources import Source
    from qed.policy import Policy
    from qed.proofs import Digest, Snapshot
    from qed.signed import Checkpoint, SignedReceipt

__all__ = ["AuditReport", "Receipts", "audit", "of_receipts", "standing"]

_SAMPLES: Final = 4
"""How many snapshots a server is asked for."""


@dataclass(frozen=True)
class Receipts:
    """What a log has given to clients.

    Attributes:
        signed: Receipts with a signature.
        unsigned: Snapshots without one.
    """

    signed: Sequence[SignedReceipt] = ()
    unsigned: Sequence[Snapshot] = ()

    def __len__(self) -> int:
        return len(self.signed) + len(self.unsigned)


@dataclass(frozen=True)
class AuditReport:
    """What an audit has found.

    Attributes:
        checkpoint: The checkpoint that was audited.
        entries: How many of its entries were replayed.
        end: The history root and the hyper root after them, or None if there are none.
        receipts: How many receipts were compared with it.
        newer_receipts: How many receipts are about more than it has.
        is_server_checked: Whether the answers of the server were compared, too.
        unchecked_answers: How many answers were about more than the checkpoint has, so that nothing verifies them.
        findings: What is wrong, the first entry first.
    """

    checkpoint: Checkpoint
    entries: int
    end: tuple[Digest, Digest] | None
    receipts: int
    newer_receipts: int
    is_server_checked: bool
    unchecked_answers: int
    findings: list[Finding]

    @property
    def level(self) -> Level:
        """On whose word the checkpoint rests."""
        return Level.WITNESSED if self.checkpoint.is_witnessed else Level.SIGNED


def audit(  # each by its name
    policy: Policy,
    source: Source,
    *,
    receipts: Receipts = Receipts(),
    client: Client | None = None,
    started: Callable[[int], Callable[[int], None]] = lambda _size: lambda _entries: None,
    now: int | None = None,
) -> AuditReport:
    """Check a log from its first entry on.

    1. Its checkpoint is verified by the policy.
    2. Its tiles lead to the root of the checkpoint, and its entries to the tiles.
    3. The entries are replayed, and lead to both roots at the end of each commit batch.
    4. Receipts are in the tree.
    5. The answers of the server are those that the entries give.

    Args:
        policy: Whom to trust.
        source: Where the log is published.
        receipts: What the log has given to clients.
        client: Asks the server of the log, or None to ask nothing.
        started: Called with the number of entries. What it returns is called with how many were replayed, step by step.
        now: The current time in seconds since 1970; by default that of the clock.

    Returns:
        What was found.

    Raises:
        VerificationError: The checkpoint does not verify, or its files are damaged.
        Unavailable: The source, or the server, cannot be reached.
        ProtocolError: It answers with something else.
    """
    seconds = int(time.time()) if now is None else now
    # 1.
    checkpoint = policy.trust.endorse(source.read(CHECKPOINT), now=seconds)
    # 2. and 3.
    tree, entries = PublishedTree(checkpoint, [source]), EntryAudit()
    wrong = replay(tree, entries, advance=started(checkpoint.size))
    findings = [] if wrong is None else [wrong]
    # 4.
    check = ReceiptCheck(tree, policy.trust, now=seconds)
    if wrong is None:
        findings += of_receipts(check, receipts)
    # 5.
    is_server_checked = client is not None and wrong is None and checkpoint.size > 0
    unchecked = 0
    if is_server_checked and client is not None:
        server = CrossCheck(tree, client)
        answer = server.run(_SAMPLES)
        findings += [] if answer is None else [answer]
        unchecked = server.skipped
    findings += standing(policy, checkpoint)
    return AuditReport(
        checkpoint, entries.replayed, entries.end, check.checked, check.newer, is_server_checked, unchecked, findings
    )


def of_receipts(check: ReceiptCheck, receipts: Receipts) -> list[Finding]:
    """Return what is wrong with receipts, by a check of theirs."""
    found = [*map(check.receipt, receipts.signed), *map(check.snapshot, receipts.unsigned)]
    return [finding for finding in found if finding is not None]


def standing(policy: Policy, checkpoint: Checkpoint) -> list[Finding]:
    """Return what is wrong with the cosignatures of a checkpoint."""
    log, size = checkpoint.origin, checkpoint.size
    if policy.required is Level.WITNESSED and not checkpoint.is_witnessed:
        found = ", ".join(checkpoint.witnesses) or "none"
        text = f"witnesses enough for the policy have not cosigned {log} at size {size}: found {found}"
        return [Finding(Kind.UNWITNESSED, text, about=log)]
    if not checkpoint.is_recent:
        limit, at = policy.trust.max_age_s, checkpoint.confirmed_at
        text = f"the cosignatures of {log} at size {size} are older than the {limit} s of MaxAge: the last is of {at}"
        return [Finding(Kind.STALE, text, about=log)]
    return []
