"""Questions that need several calls: verified answers, and receipts that extend what is trusted.

Each is a generator that yields calls and is sent their values, so that both clients carry out the same steps.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qed import _qed
from qed._client import calls
from qed.errors import AddedLater, ContradictsReceipt, ForkDetected, QedError, StaleAnswer, VerificationError
from qed.proofs import IncrementalProof, Snapshot
from qed.questions import Extension, Membership
from qed.receipts import Receipts, batches
from qed.trust import Linked, TrustedBy, TrustedSnapshots
from qed.verification import Finding, require_fresh, verify, versions_of

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from qed._client.calls import Call, Consistency
    from qed.questions import Answer, Question
    from qed.trust import Trusted

__all__ = ["Examination", "examine", "finding_of", "keep", "link"]


@dataclass(frozen=True, slots=True)
class Examination:
    """How one question ended: what was answered, and what that shows.

    Attributes:
        question: What was asked.
        answer: What a server said last; None if it refused to answer.
        finding: What the answer shows, or None.
        error: Why it shows nothing, or None.
        trusted: What the answer was checked against: what was given, and what was tied to it on the way.
        snapshots: Snapshots of the versions that the answer names, as far as they were fetched on the way. They are the
            server's word.
    """

    question: Question
    answer: Answer | None
    finding: Finding | None = None
    error: VerificationError | None = None
    trusted: Trusted | None = None
    snapshots: dict[int, Snapshot] = field(default_factory=dict)


def finding_of(examined: Examination) -> Finding:
    """Return what an answer shows.

    Args:
        examined: How the question ended.

    Returns:
        The finding.

    Raises:
        VerificationError: There is none.
    """
    if examined.finding is None:
        raise examined.error or VerificationError("nothing was shown")
    return examined.finding


def examine(
    question: Question, trusted: Trusted | None, consistency: Consistency | None = None
) -> Generator[Call[Any], Any, Examination]:
    """Ask a question and verify the answer.

    A stale answer is asked again once, of a member that first learns of everything acknowledged: if that is stale too,
    the log itself is. Where the answer names versions of which no root is trusted, their snapshots are fetched and tied
    to the anchor by incremental proofs.

    Args:
        question: What to ask.
        trusted: What the caller knows of the log, or None to take the server's own word.
        consistency: Whether everything acknowledged before counts.

    Yields:
        Calls, to be sent their values.

    Returns:
        How it ended.

    Raises:
        QedError: The server refused, or could not be reached. Never for an answer that does not verify.
    """
    snapshots: dict[int, Snapshot] = {}
    answer: Answer | None = None
    try:
        answer = yield from _fresh_answer(question, trusted, consistency)
        if isinstance(trusted, Receipts):
            yield from _link_if_writable(trusted)
        if trusted is None:
            for version in versions_of(answer):
                snapshots[version] = yield calls.snapshot(version)
            trusted = TrustedSnapshots(*snapshots.values(), by=TrustedBy.SERVER)
        else:
            trusted = yield from _linked(question, answer, trusted, snapshots)
        finding = verify(question, answer, trusted)
    except VerificationError as exc:
        found = exc if trusted is None else (yield from _diagnosed(exc, trusted))
        return Examination(question, answer, error=found, trusted=trusted, snapshots=snapshots)
    return Examination(question, answer, finding, trusted=trusted, snapshots=snapshots)


def _fresh_answer(
    question: Question, trusted: Trusted | None, consistency: Consistency | None
) -> Generator[Call[Any], Any, Answer]:
    try:
        answer: Answer = yield calls.ask(question, consistency=consistency)
    except AddedLater as exc:
        raise _denial(question, trusted, exc) from exc
    if trusted is None or isinstance(answer, IncrementalProof) or isinstance(question, Extension):
        return answer
    try:
        require_fresh(question, answer, trusted)
    except StaleAnswer:
        answer = yield calls.ask(question, consistency="linearizable")
    return answer


def _denial(question: Question, trusted: Trusted | None, refusal: AddedLater) -> QedError:
    """Return what a refusal amounts to that says the event was added after the version asked."""
    if isinstance(question, Membership) and trusted is not None:
        known = trusted.newest_of(question.digest)
        if known is not None and known < refusal.first_version:
            claim = f"was first added at version {refusal.first_version}"
            return ContradictsReceipt(question.digest, known, claim)
    return refusal


def _linked(
    question: Question, answer: Answer, trusted: Trusted, snapshots: dict[int, Snapshot]
) -> Generator[Call[Any], Any, Trusted]:
    """Return what is trusted, with the snapshots that the answer needs beyond it."""
    anchor = trusted.anchor
    if anchor is None:
        return trusted
    if isinstance(question, Membership) and not isinstance(answer, IncrementalProof):
        require_fresh(question, answer, trusted)
    for version in sorted(versions_of(answer)):
        if _is_trusted(trusted, version):
            continue
        snapshots[version] = yield calls.snapshot(version)
        proof = yield calls.incremental(*sorted((version, anchor.version)))
        trusted = Linked(trusted, snapshots[version], proof)
    return trusted


def _is_trusted(trusted: Trusted, version: int) -> bool:
    try:
        trusted.history_root(version)
        trusted.hyper_root(version)
    except VerificationError:
        return False
    return True


def _diagnosed(error: VerificationError, trusted: Trusted) -> Generator[Call[Any], Any, VerificationError]:
    """Return why an answer failed: a fork, if the server has another snapshot of the anchor's version."""
    anchor = trusted.anchor
    if anchor is None or isinstance(error, ForkDetected):
        return error
    try:
        other = yield calls.snapshot(anchor.version)
    except QedError:
        return error
    if other == anchor:
        return error
    fork = ForkDetected(anchor, other)
    fork.add_note(f"found after: {error}")
    return fork


def keep(receipts: Receipts, snapshots: Sequence[Snapshot]) -> Generator[Call[Any], Any, None]:
    """Prove that acknowledged snapshots extend the log of the receipts, then append them.

    The log's name is compared, an incremental proof ties the newest to the anchor and shows its event at its version,
    and a membership proof shows it in the hyper tree, unless others have added since. Of a bulk every history digest is
    computed again. Receipts that were never linked are linked first.

    Args:
        receipts: The receipts, open for appending.
        snapshots: What a server acknowledged, in its order.

    Yields:
        Calls, to be sent their values.

    Raises:
        VerificationError: They do not belong to the log of the receipts; nothing was appended.
        ReceiptsError: The file is of another log; nothing was appended.
        OSError: The file cannot be written.
        QedError: The proofs could not be had; nothing was appended.
    """
    log = yield from _log_name(receipts)
    yield from link(receipts, log)
    try:
        fresh = receipts.unknown(snapshots)
        yield from _prove(receipts.linked_anchor, fresh)
    except VerificationError as exc:
        raise (yield from _diagnosed(exc, receipts)) from exc
    receipts.append(fresh, log=log, is_linked=True)


def link(receipts: Receipts, log: str | None = None) -> Generator[Call[Any], Any, None]:
    """Prove that receipts which were never linked all belong to one log, and mark them so in their file.

    Those are the receipts of files of the earlier format, and those that were appended unverified.

    Args:
        receipts: The receipts.
        log: The log's name, if it is known already.

    Yields:
        Calls, to be sent their values.

    Raises:
        VerificationError: They do not belong to one log, or not to this one.
        ReceiptsError: The file is of another log.
        QedError: The proofs could not be had.
    """
    pending = receipts.unlinked
    if not pending:
        return
    log = log or (yield from _log_name(receipts))
    yield from _prove(receipts.linked_anchor, pending)
    receipts.mark_linked(log)


def _link_if_writable(receipts: Receipts) -> Generator[Call[Any], Any, None]:
    """Link receipts to verify with them; a file that cannot be written is linked again the next time."""
    with suppress(OSError):
        yield from link(receipts)


def _log_name(receipts: Receipts) -> Generator[Call[Any], Any, str | None]:
    info = yield calls.info()
    receipts.require_log(info.log or None)
    return info.log or None


def _prove(anchor: Snapshot | None, added: Sequence[Snapshot]) -> Generator[Call[Any], Any, None]:
    """Prove that snapshots belong to one log, that of the anchor if there is one."""
    batch: Sequence[Snapshot] = ()
    for batch in batches(added):
        newest = batch[-1]
        if len(batch) > 1:
            proof = yield calls.incremental(batch[0].version, newest.version)
            _qed.verify_bulk(proof, batch)
        if anchor is None and len(batch) > 1:
            anchor = newest
            continue
        tied_to = anchor or newest
        proof = yield calls.incremental(*sorted((tied_to.version, newest.version)))
        _qed.verify_addition(proof, trusted=tied_to.history_root(), added=newest)
        anchor = newest if anchor is None or newest.version > anchor.version else anchor
    if batch:
        yield from _prove_in_hyper_tree(batch)


def _prove_in_hyper_tree(batch: Sequence[Snapshot]) -> Generator[Call[Any], Any, None]:
    """Prove that the hyper root of a new batch holds its last event, unless the log has grown beyond it already.

    All of the batch is needed: of events that are equal, the hyper tree shows the first.
    """
    added = batch[-1]
    question = Membership(added.event_digest, added.version)
    answer: Answer = yield calls.ask(question)
    if not isinstance(answer, IncrementalProof) and answer.current_version > added.version:
        return
    verify(question, answer, TrustedSnapshots(*batch))
