"""The one place where an answer about many events becomes facts: `verify_bulk`. It needs no server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qed import _qed
from qed.proofs import BulkProof
from qed.questions import BulkMembership
from qed.verification import require_anchor, require_stated, require_trusted

if TYPE_CHECKING:
    from qed.trust import Trusted
    from qed.verification import Absent, Present

__all__ = ["verify_bulk"]


def verify_bulk(question: BulkMembership, answer: BulkProof, trusted: Trusted) -> list[Present | Absent]:
    """Check an answer about many events against trusted roots and return what it proves of each.

    Each finding is what `verify` finds from a proof of that event alone, at the same version.

    1. The answer is not stale: its log reaches the newest trusted snapshot.
    2. It does not contradict a trusted snapshot of any of the events, whatever its roots are.
    3. Its proof leads to the trusted roots of the version that it names. All of it is checked, or nothing is found.

    Args:
        question: The events.
        answer: Any answer, from any server.
        trusted: The roots that the caller trusts.

    Returns:
        The findings, in the order of the events in the question. All have the same `as_of`.

    Raises:
        StaleAnswer: The log that answered ends too early. Another member may have more.
        ContradictsReceipt: The answer denies what a trusted snapshot states.
        NotTrusted: No root is trusted of the version that the answer names.
        VerificationError: A check failed; the message names it.
        TypeError: An argument is of another type.
    """
    _require_types(question, answer)
    require_trusted(trusted)
    current = answer.current_version
    # 1.
    require_anchor(current, trusted)
    # 2. An answer with too many or too few ends fails in the next step.
    for digest, latest in zip(question.keys, answer.versions, strict=False):
        require_stated(digest, current, latest, trusted)
    # 3.
    return _qed.verify_bulk_membership(
        question,
        answer,
        hyper_root=trusted.hyper_root(current),
        # Paths that all end at empty subtrees need none.
        history_root=trusted.history_root(current) if answer.needs_history else None,
        trusted_by=trusted.by,
        is_linked=trusted.is_linked(current),
    )


def _require_types(question: object, answer: object) -> None:
    if not isinstance(question, BulkMembership):
        raise TypeError(f"expected a question, qed.BulkMembership, found {type(question).__name__}")
    if not isinstance(answer, BulkProof):
        raise TypeError(f"expected an answer, qed.BulkProof, found {type(answer).__name__}")
