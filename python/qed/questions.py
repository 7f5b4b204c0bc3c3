"""The questions that a log answers, and the kinds of answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from qed._limits import VERSION_LIMIT
from qed.proofs import AbsenceProof, Digest, IncrementalProof, MembershipProof, digest_of

__all__ = ["Answer", "Extension", "Membership", "Question", "require_version"]


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
            TypeError: The event is neither bytes nor a digest, or the version is not an int.
        """
        object.__setattr__(self, "digest", digest_of(event))
        object.__setattr__(self, "version", None if version is None else require_version(version))


@dataclass(frozen=True, slots=True)
class Extension:
    """Does the log at one version extend the log at another, with nothing changed or removed?

    Attributes:
        start: The earlier version.
        end: The later version.

    Raises:
        ValueError: A version is outside `0 <= version < 2**64`. The server refuses a start after the end.
        TypeError: A version is not an int.
    """

    start: int
    end: int

    def __post_init__(self) -> None:
        require_version(self.start)
        require_version(self.end)


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
