"""The questions that a log answers, and the kinds of answers."""

from __future__ import annotations

from typing import TypeAlias

from qed._limits import VERSION_LIMIT
from qed._qed import AbsenceProof, BulkMembership, Extension, IncrementalProof, Membership, MembershipProof

__all__ = ["Answer", "BulkMembership", "Extension", "Membership", "Question", "require_version"]

Question: TypeAlias = Membership | Extension

Answer: TypeAlias = MembershipProof | AbsenceProof | IncrementalProof
"""A server's answer to a question: a claim with its proof. Only `qed.verify` turns it into a fact."""


def require_version(version: object) -> int:
    """Return a version.

    Args:
        version: What a caller gave as one.

    Returns:
        The same.

    Raises:
        TypeError: It is not an int. A bool is refused too: it is a flag in the wrong place.
        ValueError: It is outside `0 <= version < 2**64`.
    """
    if isinstance(version, bool) or not isinstance(version, int):
        raise TypeError(f"expected a version as an int, found {type(version).__name__}")
    if 0 <= version < VERSION_LIMIT:
        return version
    raise ValueError(f"expected a version of 0 to 2**64 - 1, found {version}")
