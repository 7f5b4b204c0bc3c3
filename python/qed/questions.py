"""The questions that a log answers, and the kinds of answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from qed._limits import VERSION_LIMIT
from qed.proofs import AbsenceProof, Digest, IncrementalProof, MembershipProof, digest_of

__all__ = ["Answer", "Extension", "Membership", "Question"]


@dataclass(frozen=True, slots=True, init=False)
class Membership:
    """Is this event in the log, as of this version?

    Attributes:
        digest: Digest of the event.
        version: The version to ask at, or None for the latest that the answering member has.
    """

    digest: Digest
    version: int | None

    def __init__(self, event: bytes | Digest, version: int | None = None) -> None:
        """Ask about an event.

        Args:
            event: The event, or its digest.
            version: The version to ask at, `0 <= version < 2**64`, or None for the latest.

        Raises:
            ValueError: The version is outside that range.
        """
        object.__setattr__(self, "digest", digest_of(event))
        object.__setattr__(self, "version", None if version is None else _version(version))


@dataclass(frozen=True, slots=True)
class Extension:
    """Does the log at one version extend the log at another, with nothing changed or removed?

    Attributes:
        start: The earlier version.
        end: The later version.

    Raises:
        ValueError: A version is outside `0 <= version < 2**64`. The server refuses a start after the end.
    """

    start: int
    end: int

    def __post_init__(self) -> None:
        _version(self.start)
        _version(self.end)


Question: TypeAlias = Membership | Extension

Answer: TypeAlias = MembershipProof | AbsenceProof | IncrementalProof
"""A server's answer to a question: a claim with its proof. Only `qed.verify` turns it into a fact."""


def _version(version: int) -> int:
    if 0 <= version < VERSION_LIMIT:
        return version
    raise ValueError(f"expected a version of 0 to 2**64 - 1, found {version}")
