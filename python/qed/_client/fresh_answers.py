"""Answers that are stale only if the log itself is: a member that lags is asked again, as a linearizable read.

After that read a member has everything that was acknowledged before, so a log that still ends too early was rolled
back, or was never that long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qed._client import calls
from qed.errors import AddedLater, ContradictsReceipt, QedError, StaleAnswer, UnknownVersion, VerificationError
from qed.proofs import IncrementalProof, Snapshot
from qed.questions import Extension, Membership
from qed.verification import require_fresh

if TYPE_CHECKING:
    from qed._client.calls import Call, Consistency
    from qed._client.steps import Calls
    from qed.questions import Answer, Question
    from qed.trust import Trusted

__all__ = ["fresh_answer", "incremental_between", "snapshot_of"]


def fresh_answer(question: Question, trusted: Trusted | None, consistency: Consistency | None) -> Calls[Answer]:
    """Ask a question, and ask again if the answer is stale.

    Args:
        question: What to ask.
        trusted: The roots that the caller trusts, or None.
        consistency: Whether the first answer must include everything acknowledged before.

    Yields:
        Calls, to be sent their values.

    Returns:
        The answer. It is not verified, and the second one may still be stale.

    Raises:
        StaleAnswer: The log does not reach the trusted snapshots.
        ContradictsReceipt: The server refuses with a reason that denies a trusted snapshot.
        QedError: The server refused, or could not be reached.
    """
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


def _linearizable_answer(question: Question, trusted: Trusted | None) -> Calls[Answer]:
    try:
        answer: Answer = yield calls.ask(question, consistency="linearizable")
    except AddedLater as exc:
        raise _denial(question, trusted, exc) from exc
    except UnknownVersion as exc:
        raise StaleAnswer(f"expected a log that reaches the trusted snapshots, found one that does not: {exc}") from exc
    return answer


def _must_reach(question: Question, trusted: Trusted | None) -> bool:
    """Return whether every log that extends the trusted snapshots can answer a question."""
    anchor = None if trusted is None else trusted.anchor
    if anchor is None:
        return False
    return isinstance(question, Membership) or question.start <= question.end <= anchor.version


def _denial(question: Question, trusted: Trusted | None, refusal: AddedLater) -> QedError:
    """Return the error for a refusal that says the event was first added after the version asked."""
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


def snapshot_of(version: int) -> Calls[Snapshot]:
    """Fetch the snapshot of a version that the server itself has named.

    Args:
        version: The version.

    Yields:
        Calls, to be sent their values.

    Returns:
        The snapshot, on the server's word.

    Raises:
        StaleAnswer: The log does not reach the version.
        QedError: The server refused, or could not be reached.
    """
    try:
        found: Snapshot = yield calls.snapshot(version)
    except UnknownVersion:
        found = yield from _reaching(calls.snapshot(version, consistency="linearizable"))
    return found


def incremental_between(one: int, other: int) -> Calls[IncrementalProof]:
    """Fetch the incremental proof between two versions that the server itself has named or acknowledged.

    Args:
        one: A version.
        other: Another one, lower or higher, or the same.

    Yields:
        Calls, to be sent their values.

    Returns:
        The proof, not verified yet.

    Raises:
        StaleAnswer: The log does not reach the versions.
        QedError: The server refused, or could not be reached.
    """
    start, end = sorted((one, other))
    try:
        proof: IncrementalProof = yield calls.incremental(start, end)
    except UnknownVersion:
        proof = yield from _reaching(calls.incremental(start, end, consistency="linearizable"))
    return proof


def _reaching(call: Call[Any]) -> Calls[Any]:
    try:
        return (yield call)
    except UnknownVersion as exc:
        raise StaleAnswer(
            f"expected a log that reaches the versions it has named, found one that does not: {exc}"
        ) from exc
