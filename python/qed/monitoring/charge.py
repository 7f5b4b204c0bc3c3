"""Whether a log has done what a file of evidence says, where only a replay of its entries can tell."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from qed._qed import EntryAudit
from qed.errors import Unavailable, VerificationError
from qed.evidence import Verdict
from qed.monitoring.comparison import contradiction
from qed.monitoring.published import BUNDLE_ENTRIES, PublishedTree
from qed.monitoring.replaying import replay
from qed.monitoring.sources import CHECKPOINT
from qed.signed import trust_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from qed.evidence import Evidence, Judgement
    from qed.monitoring.findings import Finding
    from qed.monitoring.sources import Source
    from qed.signed import Checkpoint, TrustFile

__all__ = ["Outcome", "Ruling", "hear"]


class Outcome(StrEnum):
    """What became known about a charge."""

    CONFIRMED = "confirmed"
    """The log has done it."""
    REFUTED = "refuted"
    """The log has not done it."""
    OPEN = "open"
    """Nobody can tell: the file is only a suspicion, or the log contradicts itself before the entry."""


@dataclass(frozen=True)
class Ruling:
    """What became known about a charge.

    Attributes:
        outcome: Whether the log has done it.
        replayed: How many entries were replayed; None if the file needs no replay.
        finding: The first entry that is wrong, or a fork; None if nothing was found.
        reason: The same for people.
    """

    outcome: Outcome
    replayed: int | None
    finding: Finding | None
    reason: str


def hear(
    evidence: Evidence,
    trust: TrustFile,
    source: Source,
    *,
    started: Callable[[int], Callable[[int], None]] = lambda _size: lambda _entries: None,
    now: int | None = None,
) -> Ruling:
    """Check a file of evidence against the entries of the log.

    1. A key of the policy has signed its checkpoint, whose tree has the entry.
    2. The source has this tree, or one that extends it.
    3. The entries up to the end of the batch are replayed. The file is right if the first wrong one is in the batch.

    Args:
        evidence: The file.
        trust: Has the keys of the log.
        source: Where the log is published.
        started: Called with the number of entries. What it returns is called with how many were replayed, step by step.
        now: The current time in seconds since 1970; by default that of the clock.

    Returns:
        What became known.

    Raises:
        VerificationError: The file shows nothing, or no source has the entries.
        Unavailable: The source cannot be reached.
        ProtocolError: It answers with something else.
        LogFull: There is no room for so many events.
    """
    seconds = int(time.time()) if now is None else now
    # 1.
    judgement = evidence.judge(trust)
    verdict, batch = Verdict(judgement.verdict), evidence.replay
    if verdict is not Verdict.UNREPLAYED or batch is None:
        return _without_replay(verdict)
    # 2.
    accused = _accused(evidence, judgement, now=seconds)
    tree = _tree_with(accused, trust, source, now=seconds)
    if not isinstance(tree, PublishedTree):
        return Ruling(Outcome.OPEN, 0, tree, "the source has another history than the one that the file is about")
    # 3.
    first, last = batch
    until = min(last + 1, accused.size)
    entries = EntryAudit()
    whole = min(-(-until // BUNDLE_ENTRIES) * BUNDLE_ENTRIES, tree.checkpoint.size)
    wrong = replay(tree, entries, advance=started(whole), with_tiles=False, until=until)
    outcome, reason = _compared(wrong, first, until - 1)
    return Ruling(outcome, entries.replayed, wrong, reason)


def _without_replay(verdict: Verdict) -> Ruling:
    match verdict:
        case Verdict.CONVICTED:
            return Ruling(Outcome.CONFIRMED, None, None, "the signatures in the file prove it without a replay")
        case Verdict.INNOCENT:
            return Ruling(Outcome.REFUTED, None, None, "what the file shows is as it should be")
        case _:
            return Ruling(Outcome.OPEN, None, None, "it is a suspicion, and has no entries to replay")


def _compared(wrong: Finding | None, first: int, last: int) -> tuple[Outcome, str]:
    """Return whether the first wrong entry is in the batch of the charge."""
    index = None if wrong is None or wrong.evidence is None else wrong.evidence.index
    if index is None or index > last:
        return Outcome.REFUTED, f"the entries up to version {last} lead to the roots that they claim"
    if index < first:
        return Outcome.OPEN, f"entry {index} is wrong, so the batch from version {first} on cannot be replayed"
    return Outcome.CONFIRMED, f"a replay of the entries up to version {last} finds that entry {index} is wrong"


def _accused(evidence: Evidence, judgement: Judgement, *, now: int) -> Checkpoint:
    """Return the checkpoint of a file that was judged.

    The keys are those that the judgement has found in the policy. The policy itself may have retired them since.
    """
    [(_size, _root, vkeys)] = judgement.signed
    note: str = json.loads(evidence.to_json())["A"]["Checkpoint"]
    return trust_in(vkeys).endorse(note.encode(), now=now)


def _tree_with(accused: Checkpoint, trust: TrustFile, source: Source, *, now: int) -> PublishedTree | Finding:
    """Return the tree of a checkpoint, or a larger one that begins with it; a fork if the source has another one.

    A copy may lack the partial tiles of a checkpoint that was not published there.
    """
    try:
        return PublishedTree(accused, [source], is_published=False)
    except (VerificationError, Unavailable):
        newest = trust.endorse(source.read(CHECKPOINT), now=now)
        if newest.origin != accused.origin or newest.size < accused.size:
            raise
    tree = PublishedTree(newest, [source])
    return contradiction(accused, newest, lambda _larger: tree, now=now) or tree
