"""The one place where an answer becomes a fact: `verify`. It needs no server, no network and no clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, overload

from qed import _qed
from qed.errors import ContradictsReceipt, MalformedProof, StaleAnswer, VerificationError
from qed.proofs import AbsenceProof, Digest, IncrementalProof, MembershipProof
from qed.questions import Extension, Membership

if TYPE_CHECKING:
    from qed.questions import Answer, Question
    from qed.trust import Trusted, TrustedBy

__all__ = ["Absent", "Extends", "Finding", "Present", "verify", "versions_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """The event is in the log. Every field is proven.

    Attributes:
        digest: Digest of the event.
        version: A version it stands at, at or below the one that was asked.
        latest_version: A later version it stands at as well, or `version` where the answer shows no other.
        as_of: The version whose history root shows it: the one asked, or the last of the log.
        trusted_by: On whose word the roots are trusted.
        is_linked: Whether the hyper root is. The event's place rests on history roots alone, which always are.
    """

    digest: Digest
    version: int
    latest_version: int
    as_of: int
    trusted_by: TrustedBy
    is_linked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """The event is not in the log. Every field is proven.

    Attributes:
        digest: Digest of the event.
        as_of: It stands at no version up to this one.
        trusted_by: On whose word the roots are trusted.
        is_linked: Whether the hyper root is. If not, the absence is the word of the server that answered.
    """

    digest: Digest
    as_of: int
    trusted_by: TrustedBy
    is_linked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Extends:
    """The log at `end` begins with the log at `start`, unchanged.

    Attributes:
        start: The earlier version.
        end: The later version.
        trusted_by: On whose word the roots are trusted.
    """

    start: int
    end: int
    trusted_by: TrustedBy


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
    require_types(question, answer)
    require_trusted(trusted)
    # 1.
    if isinstance(question, Extension):
        if not isinstance(answer, IncrementalProof):
            raise MalformedProof("expected an incremental proof, found one of membership or absence")
        return _verify_extension(question, answer, trusted)
    if isinstance(answer, IncrementalProof):
        raise MalformedProof("expected a proof of membership or absence, found an incremental proof")
    # 2.
    if not (is_kept and isinstance(answer, MembershipProof)):
        require_anchor(answer, trusted)
    return _verify_membership(question, answer, trusted)


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


def _verify_membership(
    question: Membership, answer: MembershipProof | AbsenceProof, trusted: Trusted
) -> Present | Absent:
    require_asked(question, answer)
    # 3.
    require_consistent(question, answer, trusted)
    # 4.
    digest, version = question.digest, question.version
    current = answer.current_version
    hyper, is_linked = trusted.hyper_root(current), trusted.is_linked(current)
    history = [trusted.history_root(needed) for needed in _history_versions(answer)]
    if isinstance(answer, AbsenceProof):
        as_of = _qed.verify_absence(digest, answer, version=version, hyper_root=hyper, history_roots=history)
        return Absent(digest=digest, as_of=as_of, trusted_by=trusted.by, is_linked=is_linked)
    shown = _qed.verify_membership(digest, answer, version=version, hyper_root=hyper, history_roots=history)
    found, latest, as_of = shown
    return Present(
        digest=digest, version=found, latest_version=latest, as_of=as_of, trusted_by=trusted.by, is_linked=is_linked
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


def _history_versions(answer: MembershipProof | AbsenceProof) -> tuple[int, ...]:
    """Return the versions whose history roots count; none of an absence that ends at an empty subtree."""
    if isinstance(answer, AbsenceProof):
        return () if answer.neighbour is None else (answer.current_version,)
    query = answer.query_version
    return (query,) if answer.latest_version == answer.actual_version else (query, answer.current_version)


def require_fresh(question: Membership, answer: MembershipProof | AbsenceProof, trusted: Trusted) -> None:
    """Check that the log that answered reaches the anchor and the version asked.

    Args:
        question: The question.
        answer: The server's answer.
        trusted: The roots that the caller trusts.

    Raises:
        StaleAnswer: It ends too early.
        VerificationError: It is an answer at another version than the one asked.
    """
    require_anchor(answer, trusted)
    require_asked(question, answer)


def require_anchor(answer: MembershipProof | AbsenceProof, trusted: Trusted) -> None:
    """Check that the log that answered reaches the newest trusted snapshot.

    Args:
        answer: The server's answer.
        trusted: The roots that the caller trusts.

    Raises:
        StaleAnswer: It ends before.
    """
    current, anchor = answer.current_version, trusted.anchor
    if anchor is not None and current < anchor.version:
        raise StaleAnswer(f"expected a log that reaches version {anchor.version}, found one that ends at {current}")


def require_asked(question: Membership, answer: MembershipProof | AbsenceProof) -> None:
    """Check that an answer is one at the version asked.

    Args:
        question: The question.
        answer: The server's answer.

    Raises:
        StaleAnswer: The log that answered ends before that version.
        VerificationError: The answer is at another version.
    """
    current, asked = answer.current_version, question.version
    if asked is not None and current < asked:
        raise StaleAnswer(f"expected an answer at version {asked}, found a log that ends at {current}")
    expected = current if asked is None else asked
    if answer.query_version != expected:
        raise VerificationError("query version", str(expected), str(answer.query_version))


def require_consistent(question: Membership, answer: MembershipProof | AbsenceProof, trusted: Trusted) -> None:
    """Check that an answer does not deny what a trusted snapshot states about the event.

    Args:
        question: The question.
        answer: The server's answer.
        trusted: The roots that the caller trusts.

    Raises:
        ContradictsReceipt: The answer denies a trusted snapshot.
    """
    # What a kept answer could not know of yet, it does not deny.
    known = [version for version in trusted.occurrences_of(question.digest) if version <= answer.current_version]
    if not known:
        return
    newest = known[-1]
    if isinstance(answer, AbsenceProof):
        raise ContradictsReceipt(question.digest, newest, f"is absent up to version {answer.current_version}")
    latest = answer.latest_version
    # Of equal events in one commit batch, the hyper tree shows the first.
    if latest < newest and latest < trusted.batch_start(newest):
        raise ContradictsReceipt(question.digest, newest, f"was last added at version {latest}")


def _verify_extension(question: Extension, answer: IncrementalProof, trusted: Trusted) -> Extends:
    if (answer.start, answer.end) != (question.start, question.end):
        asked, found = f"{question.start} to {question.end}", f"{answer.start} to {answer.end}"
        raise VerificationError("range", asked, found)
    start, end = trusted.history_root(question.start), trusted.history_root(question.end)
    _qed.verify_incremental(answer, start_root=start, end_root=end)
    return Extends(start=question.start, end=question.end, trusted_by=trusted.by)
