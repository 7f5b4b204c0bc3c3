"""Examination of an answer: a question is asked, its answer verified, and what is not trusted yet is linked first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qed._client.forks import diagnosed, landmarks
from qed._client.fresh_answers import fresh_answer, incremental_between, snapshot_of
from qed._client.linking import link
from qed.errors import ReceiptsError, VerificationError
from qed.proofs import IncrementalProof
from qed.questions import Membership
from qed.receipts import Receipts
from qed.trust import Linked, TrustedBy, TrustedSnapshots
from qed.verification import require_fresh, verify, versions_of

if TYPE_CHECKING:
    from qed._client.calls import Consistency
    from qed._client.steps import Calls, Steps
    from qed.proofs import Snapshot
    from qed.questions import Answer, Question
    from qed.trust import Trusted
    from qed.verification import Finding

__all__ = ["Examination", "examine", "finding_of", "is_trusted", "link_if_writable"]


@dataclass(frozen=True, slots=True)
class Examination:
    """The outcome of one question: the answer, and what it proves.

    Attributes:
        question: The question.
        answer: The server's last answer; None if it refused to answer.
        finding: What the answer proves, or None.
        error: Why it proves nothing, or None.
        trusted: The roots that the answer was checked against: those given, and those linked to them meanwhile.
        snapshots: The snapshots of versions in the answer that were fetched, by version, on the server's word.
    """

    question: Question
    answer: Answer | None
    finding: Finding | None = None
    error: VerificationError | None = None
    trusted: Trusted | None = None
    snapshots: dict[int, Snapshot] = field(default_factory=dict)


def finding_of(examined: Examination) -> Finding:
    """Return what an answer proves.

    Args:
        examined: The outcome of a question.

    Returns:
        The finding.

    Raises:
        VerificationError: There is none.
    """
    if examined.finding is None:
        raise examined.error or VerificationError("nothing was shown")
    return examined.finding


def examine(question: Question, trusted: Trusted | None, consistency: Consistency | None = None) -> Steps[Examination]:
    """Ask a question and verify the answer.

    If the answer is stale, the question is asked once more as a linearizable read; if that answer is stale too, the log
    itself is. Snapshots of versions without a trusted root are fetched, and linked to the anchor by incremental proofs.

    Args:
        question: The question.
        trusted: The roots that the caller trusts, or None to accept the server's own word.
        consistency: Whether the answer must include everything acknowledged before.

    Yields:
        Calls, to be sent their values.

    Returns:
        The outcome.

    Raises:
        QedError: The server refused, or could not be reached. Not raised for an answer that does not verify.
    """
    snapshots: dict[int, Snapshot] = {}
    answer: Answer | None = None
    try:
        answer = yield from fresh_answer(question, trusted, consistency)
        if isinstance(trusted, Receipts):
            yield from link_if_writable(trusted)
        if trusted is None:
            for version in versions_of(answer):
                snapshots[version] = yield from snapshot_of(version)
            trusted = TrustedSnapshots(*snapshots.values(), by=TrustedBy.SERVER)
        else:
            trusted = yield from _linked(question, answer, trusted, snapshots)
        finding = verify(question, answer, trusted)
    except VerificationError as exc:
        found = exc if trusted is None else (yield from diagnosed(exc, *landmarks(trusted)))
        return Examination(question, answer, error=found, trusted=trusted, snapshots=snapshots)
    return Examination(question, answer, finding, trusted=trusted, snapshots=snapshots)


def _linked(question: Question, answer: Answer, trusted: Trusted, snapshots: dict[int, Snapshot]) -> Calls[Trusted]:
    """Return the trusted roots together with those of the further snapshots that the answer needs."""
    anchor = trusted.anchor
    if anchor is None:
        return trusted
    if isinstance(question, Membership) and not isinstance(answer, IncrementalProof):
        require_fresh(question, answer, trusted)
    for version in sorted(versions_of(answer)):
        if is_trusted(trusted, version):
            continue
        snapshots[version] = yield from snapshot_of(version)
        proof = yield from incremental_between(version, anchor.version)
        trusted = Linked(trusted, snapshots[version], proof)
    return trusted


def is_trusted(trusted: Trusted, version: int) -> bool:
    """Return whether both roots of a version are trusted.

    Args:
        trusted: The roots that the caller trusts.
        version: The version.

    Returns:
        Whether an answer about the version can be verified.
    """
    try:
        trusted.history_root(version)
        trusted.hyper_root(version)
    except VerificationError:
        return False
    return True


def link_if_writable(receipts: Receipts) -> Steps[None]:
    """Link receipts before they are used. If their file cannot be written, they are linked again at the next use.

    Args:
        receipts: The receipts.

    Yields:
        Calls, to be sent their values.

    Raises:
        VerificationError: They do not belong to one log, or not to this one.
        QedError: The server gave no proofs.
    """
    try:
        yield from link(receipts)
    except (OSError, ReceiptsError):
        # They were proven first, so the file is a symbolic link, is read-only, or ends in an incomplete line.
        if receipts.unlinked:
            raise
