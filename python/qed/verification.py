"""The one place where an answer becomes a fact: `verify`. It needs no server, no network and no clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, overload

from qed import _qed
from qed._qed import Absent, Extends, Present
from qed.errors import ContradictsReceipt, MalformedProof, StaleAnswer, VerificationError
from qed.proofs import AbsenceProof, IncrementalProof, MembershipProof
from qed.questions import Extension, Membership

if TYPE_CHECKING:
    from qed.proofs import Digest
    from qed.questions import Answer, Question
    from qed.trust import Trusted

__all__ = ["Absent", "Extends", "Finding", "Present", "verify", "versions_of"]

Finding: TypeAlias = Present | Absent | Extends


@overload
def verify(question: Membership, answer: Answer, trusted: Trusted, *, is_kept: bool = False) -> Present | Absent: ...
@overload
def verify(question: Extension, answer: Answer, trusted: Trusted, *, is_kept: bool = False) -> Extends: ...
@overload
def verify(question: Question, answer: Answer, trusted: Trusted, *, is_kept: bool = False) -> Finding: ...
def verify(question: Question, answer: Answer, trusted: Trusted, *, is_kept: bool = False) -> Finding:
    """Check an answer against trusted roots and return what it proves.

    1. The answer is of a kind that can answer the question.
    2. It is not stale: its log reaches the newest trusted snapshot, and the version asked. Only a question about the
       latest version accepts an answer at whatever version it names.
    3. It does not contradict a trusted snapshot of the event, whatever its roots are.
    4. Its proof leads to the trusted roots of exactly the versions that it names.

    Args:
        question: The question.
        answer: Any answer, from any server.
        trusted: The roots that the caller trusts.
        is_kept: The answer was saved earlier, and the log may have grown since. An event that was in the log then is
            in it still, so a membership need not reach the newest trusted snapshot; an absence must all the same.

    Returns:
        The finding; nothing else in the answer is proven.

    Raises:
        StaleAnswer: The log that answered ends too early. Another member may have more.
        ContradictsReceipt: The answer denies what a trusted snapshot states.
        NotTrusted: No root is trusted of a version that the answer names.
        VerificationError: A check failed; the message names it.
        TypeError: An argument is of another type.
    """
    require_trusted(trusted)
    # 1.
    if isinstance(question, Membership):
        if isinstance(answer, MembershipProof):
            return _verify_membership(question, answer, trusted, is_kept=is_kept)
        if isinstance(answer, AbsenceProof):
            return _verify_absence(question, answer, trusted)
    elif isinstance(question, Extension) and isinstance(answer, IncrementalProof):
        return _verify_extension(question, answer, trusted)
    raise _another_kind(question, answer)


def _another_kind(question: Question, answer: Answer) -> MalformedProof:
    """Return the error for an answer to another kind of question; raise a TypeError if it is no answer at all."""
    require_types(question, answer)
    if isinstance(question, Extension):
        return MalformedProof("expected an incremental proof, found one of membership or absence")
    return MalformedProof("expected a proof of membership or absence, found an incremental proof")


def require_types(question: object, answer: object) -> None:
    """Check that these are a question and an answer.

    Args:
        question: What a caller gave as the question.
        answer: What a caller gave as the answer.

    Raises:
        TypeError: One of them is of another type.
    """
    if not isinstance(question, (Membership, Extension)):
        raise TypeError(f"expected a question, qed.Membership or qed.Extension, found {type(question).__name__}")
    if not isinstance(answer, (MembershipProof, AbsenceProof, IncrementalProof)):
        raise TypeError(f"expected an answer, as qed.parse_answer returns it, found {type(answer).__name__}")


def require_trusted(trusted: object) -> None:
    """Check that these are trusted roots.

    Args:
        trusted: What a caller gave as trusted roots.

    Raises:
        TypeError: It is something else, such as a snapshot on its own.
    """
    # A test against the whole protocol would take longer than many a proof.
    if not hasattr(trusted, "occurrences_of"):
        raise TypeError(f"expected trusted roots, such as qed.TrustedSnapshots, found {type(trusted).__name__}")


def _verify_membership(question: Membership, answer: MembershipProof, trusted: Trusted, *, is_kept: bool) -> Present:
    # 2.
    require_fresh(question, answer, trusted, is_kept=is_kept)
    # 3.
    require_consistent(question, answer, trusted)
    # 4.
    current = answer.current_version
    is_readded = answer.latest_version != answer.actual_version
    return _qed.verify_membership(
        question,
        answer,
        hyper_root=trusted.hyper_root(current),
        history_root=trusted.history_root(answer.query_version),
        latest_root=trusted.history_root(current) if is_readded else None,
        trusted_by=trusted.by,
        is_linked=trusted.is_linked(current),
    )


def _verify_absence(question: Membership, answer: AbsenceProof, trusted: Trusted) -> Absent:
    # 2.
    require_fresh(question, answer, trusted)
    # 3.
    require_consistent(question, answer, trusted)
    # 4.
    current = answer.current_version
    return _qed.verify_absence(
        question,
        answer,
        hyper_root=trusted.hyper_root(current),
        # A path that ends at an empty subtree needs none.
        history_root=None if answer.neighbour is None else trusted.history_root(current),
        trusted_by=trusted.by,
        is_linked=trusted.is_linked(current),
    )


def versions_of(answer: Answer) -> frozenset[int]:
    """Return the versions whose snapshots an answer is checked against.

    Args:
        answer: What a server said.

    Returns:
        One or two versions.
    """
    if isinstance(answer, IncrementalProof):
        return frozenset({answer.start, answer.end})
    if isinstance(answer, AbsenceProof):
        return frozenset({answer.current_version})
    return frozenset({answer.query_version, answer.current_version})


def require_fresh(
    question: Membership, answer: MembershipProof | AbsenceProof, trusted: Trusted, *, is_kept: bool = False
) -> None:
    """Check that the log that answered reaches the anchor and the version asked.

    Args:
        question: The question.
        answer: The server's answer.
        trusted: The roots that the caller trusts.
        is_kept: The answer is a membership that was saved earlier, so it need not reach the anchor.

    Raises:
        StaleAnswer: It ends too early.
        VerificationError: It is an answer at another version than the one asked.
    """
    current, asked = answer.current_version, question.version
    if not is_kept:
        require_anchor(current, trusted)
    if asked is not None and current < asked:
        raise StaleAnswer(f"expected an answer at version {asked}, found a log that ends at {current}")
    expected = current if asked is None else asked
    if answer.query_version != expected:
        raise VerificationError("query version", str(expected), str(answer.query_version))


def require_anchor(current: int, trusted: Trusted) -> None:
    """Check that the log that answered reaches the anchor.

    Args:
        current: The last version of that log.
        trusted: The roots that the caller trusts.

    Raises:
        StaleAnswer: It ends too early.
    """
    anchor = trusted.anchor
    if anchor is not None and current < anchor.version:
        raise StaleAnswer(f"expected a log that reaches version {anchor.version}, found one that ends at {current}")


def require_consistent(question: Membership, answer: MembershipProof | AbsenceProof, trusted: Trusted) -> None:
    """Check that an answer does not deny what a trusted snapshot states about the event.

    Args:
        question: The question.
        answer: The server's answer.
        trusted: The roots that the caller trusts.

    Raises:
        ContradictsReceipt: The answer denies a trusted snapshot.
    """
    latest = None if isinstance(answer, AbsenceProof) else answer.latest_version
    require_stated(question.digest, answer.current_version, latest, trusted)


def require_stated(digest: Digest, current: int, latest: int | None, trusted: Trusted) -> None:
    """Check that a claim about an event does not deny what a trusted snapshot states about it.

    Args:
        digest: Digest of the event.
        current: The last version of the log that answered.
        latest: The last version that the event is claimed to be at; None if it is claimed to be absent.
        trusted: The roots that the caller trusts.

    Raises:
        ContradictsReceipt: The claim denies a trusted snapshot.
    """
    stated = trusted.occurrences_of(digest)
    if not stated:
        return
    # What a kept answer could not know of yet, it does not deny.
    known = [version for version in stated if version <= current]
    if not known:
        return
    newest = known[-1]
    if latest is None:
        raise ContradictsReceipt(digest, newest, f"is absent up to version {current}")
    # Of equal events in one commit batch, the hyper tree shows the first.
    if latest < newest and latest < trusted.batch_start(newest):
        raise ContradictsReceipt(digest, newest, f"was last added at version {latest}")


def _verify_extension(question: Extension, answer: IncrementalProof, trusted: Trusted) -> Extends:
    if (answer.start, answer.end) != (question.start, question.end):
        asked, found = f"{question.start} to {question.end}", f"{answer.start} to {answer.end}"
        raise VerificationError("range", asked, found)
    start, end = trusted.history_root(question.start), trusted.history_root(question.end)
    return _qed.verify_incremental(answer, start_root=start, end_root=end, trusted_by=trusted.by)
