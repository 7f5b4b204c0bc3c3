"""Digests, snapshots, roots and proofs as values. Proofs are claims of a server until `qed.verify` checks them."""

from __future__ import annotations

import warnings

from qed import _qed
from qed._qed import (
    AbsenceProof,
    BulkProof,
    Digest,
    HistoryRoot,
    HyperRoot,
    IncrementalProof,
    MembershipProof,
    Neighbour,
    Snapshot,
    parse_answer,
)

__all__ = [
    "AbsenceProof",
    "BulkProof",
    "Digest",
    "HistoryRoot",
    "HyperRoot",
    "IncrementalProof",
    "MembershipProof",
    "Neighbour",
    "Snapshot",
    "digest_of",
    "parse_answer",
]

if not _qed.is_optimised:
    warnings.warn("qed was built without optimisation and is slow", RuntimeWarning, stacklevel=2)


def digest_of(event: bytes | Digest) -> Digest:
    """Return the digest of an event.

    Args:
        event: The event, or its digest, which is returned as it is.

    Returns:
        Its digest.
    """
    return event if isinstance(event, Digest) else Digest.of(event)
