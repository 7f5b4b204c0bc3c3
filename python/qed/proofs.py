"""Proofs and their verification, which needs no server, no network and no clock.

Every `verify_*` function returns nothing or raises `VerificationError`. What is asked and which snapshots are trusted
are arguments without defaults: nothing is ever taken from the proof where the caller has its own.
"""

from __future__ import annotations

import warnings

from qed import _qed
from qed._qed import (
    AbsenceProof,
    Added,
    Digest,
    IncrementalProof,
    MembershipProof,
    Neighbour,
    Snapshot,
    parse_answer,
)

__all__ = [
    "AbsenceProof",
    "Added",
    "Digest",
    "IncrementalProof",
    "MembershipProof",
    "Neighbour",
    "Snapshot",
    "parse_answer",
    "verify_absence",
    "verify_incremental",
    "verify_membership",
]

if not _qed.is_optimised:
    warnings.warn("qed was built without optimisation and is slow", RuntimeWarning, stacklevel=2)


def verify_membership(
    event: bytes | Digest,
    proof: MembershipProof,
    *,
    version: int | None,
    query_snapshot: Snapshot,
    current_snapshot: Snapshot,
) -> None:
    """Check that the event is in the log, at or below the version asked.

    1. The proof is about the event.
    2. Its versions are those of the question and of the snapshots.
    3. Its hyper path leads to the hyper digest of `current_snapshot`.
    4. Its history path leads from the event to the history digest of `query_snapshot`.

    A `latest_version` after the version asked is only where the hyper path ends: that the event stands there too is not
    shown, nor that it does not stand again between `actual_version` and the version asked.

    Args:
        event: The event, or its digest.
        proof: What the server answered.
        version: The version that was asked, or None for the latest.
        query_snapshot: A trusted snapshot of the proof's `query_version`: the version asked, or the current one.
        current_snapshot: A trusted snapshot of the proof's `current_version`, the last one of the log that answered.

    Raises:
        VerificationError: A check failed; the message names it.
    """
    _qed.verify_membership(
        _digest_of(event), proof, version=version, query_snapshot=query_snapshot, current_snapshot=current_snapshot
    )


def verify_absence(
    event: bytes | Digest, proof: AbsenceProof, *, version: int | None, current_snapshot: Snapshot
) -> None:
    """Check that the event is not in the log of `current_snapshot`, so not at any version up to it either.

    1. The proof is about the event, and its versions are those of the question and of the snapshot.
    2. Its hyper path leads to the hyper digest, from an empty subtree or from a neighbour's leaf.
    3. The neighbour is another event, and its history path leads to the history digest.

    Args:
        event: The event, or its digest.
        proof: What the server answered.
        version: The version that was asked, or None for the latest.
        current_snapshot: A trusted snapshot of the proof's `current_version`, the last one of the log that answered.

    Raises:
        VerificationError: A check failed; the message names it.
    """
    _qed.verify_absence(_digest_of(event), proof, version=version, current_snapshot=current_snapshot)


def verify_incremental(proof: IncrementalProof, *, start_snapshot: Snapshot, end_snapshot: Snapshot) -> None:
    """Check that the log of `end_snapshot` extends the log of `start_snapshot`: nothing before it was changed.

    1. The proof is about the versions of the two snapshots.
    2. Its path gives the history digest of `start_snapshot`.
    3. The same path gives the history digest of `end_snapshot`.

    Args:
        proof: What the server answered.
        start_snapshot: A trusted snapshot of the earlier version.
        end_snapshot: A trusted snapshot of the later version.

    Raises:
        VerificationError: A check failed; the message names it.
    """
    _qed.verify_incremental(proof, start_snapshot=start_snapshot, end_snapshot=end_snapshot)


def _digest_of(event: bytes | Digest) -> Digest:
    return event if isinstance(event, Digest) else Digest.of(event)
