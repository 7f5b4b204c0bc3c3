"""Examination of many events: they are asked for in bulks, and each answer is verified as a whole."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from qed._client import calls
from qed._client.examination import is_trusted, link_if_writable
from qed._client.forks import diagnosed, landmarks
from qed._client.fresh_answers import incremental_between, snapshot_of
from qed._limits import BULK_KEYS_MAX
from qed.bulk_verification import verify_bulk
from qed.errors import Inconclusive, SigningError, StaleAnswer, UnknownVersion, VerificationError
from qed.policy import Level, Policy
from qed.questions import BulkMembership
from qed.receipts import Receipts
from qed.trust import Linked, TrustedBy, TrustedSnapshots
from qed.verification import Absent, require_anchor, require_trusted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qed._client.calls import Consistency
    from qed._client.steps import Calls, Steps
    from qed._wire import ReceiptLevel
    from qed.memory import Memory
    from qed.policy import Verified
    from qed.proofs import BulkProof, Digest
    from qed.trust import Trusted
    from qed.verification import Present

__all__ = ["membership_many"]

_TRIES: Final = 4
"""How often to ask until answer and checkpoint fit together. A log that is in use grows between two calls."""


def membership_many(
    events: Iterable[bytes | Digest],
    trusted: Trusted | Policy | None,
    consistency: Consistency | None = None,
    memory: Memory | None = None,
) -> Steps[list[Present | Absent]]:
    """Ask which events are in the log, 1,000 at a time, and verify each answer.

    As for single questions, a stale answer is asked for once more as a linearizable read, and the snapshot of a version
    without a trusted root is fetched and linked to the anchor. With a policy, the log must sign that version.

    Args:
        events: The events, or their digests.
        trusted: The roots that the caller trusts, or whose signatures on them; None accepts the server's own word.
        consistency: Whether the answers must include everything acknowledged before.
        memory: With a policy, where the newest checkpoint is remembered.

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
    signed = _Signed(trusted, memory, consistency) if isinstance(trusted, Policy) else None
    if trusted is not None and signed is None:
        require_trusted(trusted)
    linked = _Linked(None if isinstance(trusted, Policy) else trusted, consistency)
    while bulk := list(islice(remaining, BULK_KEYS_MAX)):
        findings += yield from (signed or linked).findings(BulkMembership(bulk))
    return findings


class _Linked:
    """Bulks that are verified by trusted roots, and by newer ones that are linked to them.

    Args:
        trusted: The roots that the caller trusts, or None.
        consistency: Whether the answers must include everything acknowledged before.
    """

    def __init__(self, trusted: Trusted | None, consistency: Consistency | None) -> None:
        self._trusted = trusted
        self._consistency = consistency
        # The roots of the last bulk: the next one is often about the same version.
        self._known = trusted

    def findings(self, question: BulkMembership) -> Steps[list[Present | Absent]]:
        """Ask for one bulk and verify the answer."""
        try:
            answer = yield from _fresh_proof(question, self._trusted, self._consistency)
            if isinstance(self._trusted, Receipts):
                yield from link_if_writable(self._trusted)
            if self._known is None or not is_trusted(self._known, answer.current_version):
                self._known = yield from self._roots(answer.current_version)
            return verify_bulk(question, answer, self._known)
        except VerificationError as exc:
            known = () if self._trusted is None else landmarks(self._trusted)
            raise (yield from diagnosed(exc, *known)) from exc

    def _roots(self, version: int) -> Calls[Trusted]:
        """Return the trusted roots together with those of a version."""
        trusted = self._trusted
        if trusted is None:
            return TrustedSnapshots((yield from snapshot_of(version)), by=TrustedBy.SERVER)
        if trusted.anchor is None or is_trusted(trusted, version):
            return trusted
        snapshot = yield from snapshot_of(version)
        proof = yield from incremental_between(version, trusted.anchor.version)
        return Linked(trusted, snapshot, proof)


class _Signed:
    """Bulks that are verified by what the log has signed about their versions.

    Args:
        policy: Whose signatures are trusted.
        memory: Where the newest checkpoint is remembered, or None.
        consistency: Whether the answers must include everything acknowledged before.
    """

    def __init__(self, policy: Policy, memory: Memory | None, consistency: Consistency | None) -> None:
        self._policy = policy
        self._memory = memory
        self._consistency = consistency
        # The last version, and what was signed about it.
        self._known: tuple[int, Verified] | None = None

    def findings(self, question: BulkMembership) -> Calls[list[Present | Absent]]:
        """Ask for one bulk and the checkpoint that ends with it, and verify both.

        If the log grew meanwhile, both are asked for again: an absence is about the newest state that was signed.
        """
        for _ in range(_TRIES):
            answer = yield from _fresh_proof(question, None, self._consistency)
            verified = yield from self._verified(answer.current_version)
            if verified.checkpoint.size == answer.current_version + 1:
                found = verify_bulk(question, answer, verified.trusted)
                if any(isinstance(finding, Absent) for finding in found):
                    _require_newest(verified)
                return found
        raise SigningError("the log grows while it is asked, so no checkpoint ends with its answer: ask again later")

    def _verified(self, version: int) -> Calls[Verified]:
        if self._known is None or self._known[0] != version:
            level: ReceiptLevel = "witnessed" if self._policy.required is Level.WITNESSED else "committed"
            receipt = yield calls.receipt(version, last=None, level=level)
            self._known = version, self._policy.verify(receipt, memory=self._memory)
        return self._known[1]


def _require_newest(verified: Verified) -> None:
    """Check that no newer state is known, for an absence. What was once in the log stays in it."""
    recollection, size = verified.recollection, verified.checkpoint.size
    known = 0 if recollection is None or recollection.size is None else recollection.size
    if known > size:
        raise StaleAnswer(f"expected a checkpoint of at least size {known}, which was seen before, found {size}")
    if not verified.checkpoint.is_recent:
        raise Inconclusive("the cosignatures are older than the policy allows for an absence: ask for a new answer")


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
