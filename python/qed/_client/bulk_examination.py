"""Examination of many events: they are asked for in bulks, and each answer is verified as a whole."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from qed._client import calls
from qed._client.examination import is_trusted, link_if_writable
from qed._client.forks import diagnosed, landmarks
from qed._client.fresh_answers import incremental_between, snapshot_of
from qed._limits import BULK_KEYS_MAX
from qed.bulk_verification import verify_bulk
from qed.errors import StaleAnswer, UnknownVersion, VerificationError
from qed.questions import BulkMembership
from qed.receipts import Receipts
from qed.trust import Linked, TrustedBy, TrustedSnapshots
from qed.verification import require_anchor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qed._client.calls import Consistency
    from qed._client.steps import Calls, Steps
    from qed.proofs import BulkProof, Digest
    from qed.trust import Trusted
    from qed.verification import Absent, Present

__all__ = ["membership_many"]


def membership_many(
    events: Iterable[bytes | Digest], trusted: Trusted | None, consistency: Consistency | None = None
) -> Steps[list[Present | Absent]]:
    """Ask which events are in the log, 1,000 at a time, and verify each answer.

    As for single questions, a stale answer is asked for once more as a linearizable read, and the snapshot of a version
    without a trusted root is fetched and linked to the anchor.

    Args:
        events: The events, or their digests.
        trusted: The roots that the caller trusts, or None to accept the server's own word.
        consistency: Whether the answers must include everything acknowledged before.

    Yields:
        Calls, to be sent their values.

    Returns:
        A finding for each event, in their order.

    Raises:
        VerificationError: An answer does not verify. Nothing is found then, of no event.
        QedError: The server refused, or could not be reached.
    """
    remaining = iter(events)
    findings: list[Present | Absent] = []
    roots = trusted
    while bulk := list(islice(remaining, BULK_KEYS_MAX)):
        question = BulkMembership(bulk)
        try:
            answer = yield from _fresh_proof(question, trusted, consistency)
            roots = yield from _roots(answer, trusted, roots)
            findings += verify_bulk(question, answer, roots)
        except VerificationError as exc:
            known = () if trusted is None else landmarks(trusted)
            raise (yield from diagnosed(exc, *known)) from exc
    return findings


def _fresh_proof(
    question: BulkMembership, trusted: Trusted | None, consistency: Consistency | None
) -> Calls[BulkProof]:
    """Ask for a proof, and ask again if it is stale."""
    has_anchor = trusted is not None and trusted.anchor is not None
    try:
        answer: BulkProof = yield calls.membership_many(question, consistency=consistency)
        if trusted is not None:
            require_anchor(answer.current_version, trusted)
    except (StaleAnswer, UnknownVersion) as exc:
        # Only a log without events knows no version.
        if not has_anchor:
            raise
        reason = exc
    else:
        return answer
    try:
        answer = yield calls.membership_many(question, consistency="linearizable")
    except UnknownVersion as exc:
        raise StaleAnswer(
            f"expected a log that reaches the trusted snapshots, found one that does not: {exc}"
        ) from reason
    return answer


def _roots(answer: BulkProof, trusted: Trusted | None, known: Trusted | None) -> Steps[Trusted]:
    """Return roots of the version of an answer: `known`, if it has them, or those given and what is linked to them."""
    version = answer.current_version
    if isinstance(trusted, Receipts):
        yield from link_if_writable(trusted)
    if known is not None and is_trusted(known, version):
        return known
    if trusted is None:
        snapshot = yield from snapshot_of(version)
        return TrustedSnapshots(snapshot, by=TrustedBy.SERVER)
    anchor = trusted.anchor
    if anchor is None:
        return trusted
    require_anchor(version, trusted)
    snapshot = yield from snapshot_of(version)
    proof = yield from incremental_between(version, anchor.version)
    return Linked(trusted, snapshot, proof)
