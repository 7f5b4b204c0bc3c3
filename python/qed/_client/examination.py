"""Questions that need several calls: verified answers, and receipts that extend what is trusted.

Each is a generator that yields calls and is sent their values, so that both clients carry out the same steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qed import _qed
from qed._client import calls
from qed.errors import (
    AddedLater,
    ContradictsReceipt,
    ForkDetected,
    QedError,
    ReceiptsError,
    StaleAnswer,
    UnknownVersion,
    VerificationError,
)
from qed.proofs import IncrementalProof, Snapshot
from qed.questions import Extension, Membership
from qed.receipts import LOG_NAME_MAX, Receipts, runs
from qed.trust import Linked, TrustedBy, TrustedSnapshots
from qed.verification import Finding, require_consistent, require_fresh, verify, versions_of

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from qed._client.calls import Call, Consistency
    from qed.questions import Answer, Question
    from qed.trust import Trusted

__all__ = ["Examination", "examine", "finding_of", "keep", "link", "prepare"]


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
                snapshots[version] = yield from _snapshot(version)
            trusted = TrustedSnapshots(*snapshots.values(), by=TrustedBy.SERVER)
        else:
            trusted = yield from _linked(question, answer, trusted, snapshots)
        finding = verify(question, answer, trusted)
    except VerificationError as exc:
        found = exc if trusted is None else (yield from _diagnosed(exc, *_landmarks(trusted)))
        return Examination(question, answer, error=found, trusted=trusted, snapshots=snapshots)
    return Examination(question, answer, finding, trusted=trusted, snapshots=snapshots)


def _fresh_answer(
    question: Question, trusted: Trusted | None, consistency: Consistency | None
) -> Generator[Call[Any], Any, Answer]:
    try:
        answer: Answer = yield calls.ask(question, consistency=consistency)
        if trusted is None or isinstance(answer, IncrementalProof) or isinstance(question, Extension):
            return answer
        require_fresh(question, answer, trusted)
    except AddedLater as exc:
        raise _denial(question, trusted, exc) from exc
    except (StaleAnswer, UnknownVersion) as exc:
        if isinstance(exc, UnknownVersion) and not _must_reach(question, trusted):
            raise
    else:
        return answer
    return (yield from _linearizable_answer(question, trusted))


def _linearizable_answer(question: Question, trusted: Trusted | None) -> Generator[Call[Any], Any, Answer]:
    """Ask again, of a member that first learns of everything acknowledged. An answer that is stale now is final."""
    try:
        answer: Answer = yield calls.ask(question, consistency="linearizable")
    except AddedLater as exc:
        raise _denial(question, trusted, exc) from exc
    except UnknownVersion as exc:
        raise StaleAnswer(f"expected a log that reaches what is trusted of it, found one that does not: {exc}") from exc
    return answer


def _must_reach(question: Question, trusted: Trusted | None) -> bool:
    """Return whether a log that extends what is trusted can answer a question."""
    anchor = None if trusted is None else trusted.anchor
    if anchor is None:
        return False
    return isinstance(question, Membership) or question.start <= question.end <= anchor.version


def _denial(question: Question, trusted: Trusted | None, refusal: AddedLater) -> QedError:
    """Return what a refusal amounts to that says the event was first added after the version asked."""
    if not isinstance(question, Membership) or trusted is None:
        return refusal
    asked, first = question.version, refusal.first_version
    known = trusted.occurrences_of(question.digest)
    if known and (known[0] < first or (asked is not None and known[0] <= asked)):
        return ContradictsReceipt(question.digest, known[0], f"was first added at version {first}")
    if asked is None or first <= asked:
        found = f"a refusal, because the event was first added at version {first}"
        return VerificationError(f"expected an answer at {_as_of(asked)}, found {found}")
    return refusal


def _as_of(asked: int | None) -> str:
    return "the latest version" if asked is None else f"version {asked}"


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
        snapshots[version] = yield from _snapshot(version)
        proof = yield from _range(version, anchor.version)
        trusted = Linked(trusted, snapshots[version], proof)
    return trusted


def _is_trusted(trusted: Trusted, version: int) -> bool:
    try:
        trusted.history_root(version)
        trusted.hyper_root(version)
    except VerificationError:
        return False
    return True


def _snapshot(version: int) -> Generator[Call[Any], Any, Snapshot]:
    """Fetch a snapshot that the log must have, for it has named the version. Members that lag are asked again."""
    try:
        found: Snapshot = yield calls.snapshot(version)
    except UnknownVersion:
        found = yield from _surely(calls.snapshot(version, consistency="linearizable"))
    return found


def _range(one: int, other: int) -> Generator[Call[Any], Any, IncrementalProof]:
    """Fetch the incremental proof between two versions that the log must have, whichever comes first."""
    start, end = sorted((one, other))
    try:
        proof: IncrementalProof = yield calls.incremental(start, end)
    except UnknownVersion:
        proof = yield from _surely(calls.incremental(start, end, consistency="linearizable"))
    return proof


def _surely(call: Call[Any]) -> Generator[Call[Any], Any, Any]:
    try:
        return (yield call)
    except UnknownVersion as exc:
        raise StaleAnswer(
            f"expected a log that reaches the versions it has named, found one that does not: {exc}"
        ) from exc


def _diagnosed(error: VerificationError, *known: Snapshot | None) -> Generator[Call[Any], Any, VerificationError]:
    """Return why an answer failed: a fork, if the server has another snapshot of a version that is known."""
    if isinstance(error, ForkDetected):
        return error
    for snapshot in known:
        if snapshot is None:
            continue
        try:
            other: Snapshot = yield calls.snapshot(snapshot.version)
        except QedError:
            continue
        if other != snapshot:
            fork = ForkDetected(snapshot, other)
            fork.add_note(f"found after: {error}")
            return fork
    return error


def _landmarks(trusted: Trusted) -> list[Snapshot | None]:
    """Return the snapshots by which a fork shows: the newest, and the newest that is linked."""
    linked = trusted.linked_anchor if isinstance(trusted, Receipts) else None
    return [trusted.anchor, None if linked == trusted.anchor else linked]


def prepare(receipts: Receipts) -> Generator[Call[Any], Any, None]:
    """Check that the receipts are of the server's log, before anything is added to it.

    The log's name is compared, and receipts that were never linked are linked.

    Args:
        receipts: The receipts, open for appending.

    Yields:
        Calls, to be sent their values.

    Raises:
        VerificationError: The receipts do not belong to the server's log.
        ReceiptsError: The file is of another log.
        OSError: The file cannot be written.
        QedError: The proofs could not be had.
    """
    try:
        log = yield from _log_name(receipts)
        yield from link(receipts, log)
    except VerificationError as exc:
        raise (yield from _diagnosed(exc, *_landmarks(receipts))) from exc


def keep(receipts: Receipts, snapshots: Sequence[Snapshot]) -> Generator[Call[Any], Any, None]:
    """Prove that acknowledged snapshots extend the log of the receipts, then append them.

    The log's name is compared, unless it was before. An incremental proof ties the newest to the anchor and shows its
    event at its version, and a membership proof shows it in the hyper tree, unless others have added since. Of a bulk
    every history digest is computed again. Receipts that were never linked are linked first.

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
    # A receipt ties the snapshots to its log whatever its name; the first one has only the name.
    is_known = receipts.is_confirmed and receipts.anchor is not None
    log = receipts.log if is_known else (yield from _log_name(receipts))
    is_appended = False
    while not is_appended:
        try:
            yield from link(receipts, log)
            fresh = receipts.unknown(snapshots)
            anchor = receipts.linked_anchor
            yield from _prove(anchor, fresh)
        except VerificationError as exc:
            # Another log is a mistake to report as such, not a fork.
            refused = yield from _refused_by_name(receipts)
            # What was acknowledged is compared too: a server may show one log to writers and another to readers.
            known = [*_landmarks(receipts), *snapshots[-1:]]
            raise (refused or (yield from _diagnosed(exc, *known))) from exc
        is_appended = receipts.append_proven(fresh, log=log, anchor=anchor)


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
    receipts.mark_linked(log, pending)


def _link_if_writable(receipts: Receipts) -> Generator[Call[Any], Any, None]:
    """Link receipts to verify with them; a file that cannot be written is linked again the next time."""
    try:
        yield from link(receipts)
    except (OSError, ReceiptsError):
        # Whether it is of this log was settled first, so this file is a link, read-only, or ends in half a line.
        if receipts.unlinked:
            raise


def _log_name(receipts: Receipts) -> Generator[Call[Any], Any, str | None]:
    info = yield calls.info()
    if len(info.log) > LOG_NAME_MAX:
        raise VerificationError(f"expected a log name of at most {LOG_NAME_MAX} characters, found {len(info.log)}")
    receipts.require_log(info.log or None)
    receipts.is_confirmed = True
    return info.log or None


def _refused_by_name(receipts: Receipts) -> Generator[Call[Any], Any, ReceiptsError | None]:
    """Return the error that says that the server has another log, if its name shows that."""
    try:
        yield from _log_name(receipts)
    except ReceiptsError as exc:
        return exc
    except QedError:
        return None
    return None


def _prove(anchor: Snapshot | None, added: Sequence[Snapshot]) -> Generator[Call[Any], Any, None]:
    """Prove that snapshots belong to one log, that of the anchor if there is one."""
    run: Sequence[Snapshot] = ()
    for run in runs(added):
        newest = run[-1]
        if len(run) > 1:
            proof = yield from _range(run[0].version, newest.version)
            _qed.verify_bulk(proof, run)
        if anchor is None and len(run) > 1:
            anchor = newest
            continue
        tied_to = anchor or newest
        proof = yield from _range(tied_to.version, newest.version)
        _qed.verify_addition(proof, trusted=tied_to.history_root(), added=newest)
        anchor = newest if anchor is None or newest.version > anchor.version else anchor
    if run:
        yield from _prove_in_hyper_tree(run)


def _prove_in_hyper_tree(run: Sequence[Snapshot]) -> Generator[Call[Any], Any, None]:
    """Prove that the hyper root of the newest snapshot holds its event, unless the log has grown beyond it already.

    Of a log that has grown, the answer must still be that the event is there. The others of the run tell how far back
    its commit batch may reach: of events that are equal, the hyper tree shows the first.
    """
    added, trusted = run[-1], TrustedSnapshots(*run)
    question = Membership(added.event_digest, added.version)
    answer = yield from _fresh_answer(question, trusted, None)
    if isinstance(answer, IncrementalProof) or answer.current_version == added.version:
        verify(question, answer, trusted)
        return
    require_fresh(question, answer, trusted)
    require_consistent(question, answer, trusted)
