"""What is wrong with a log: the kinds of trouble, how bad they are, and what proves them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from qed.evidence import Evidence

__all__ = [
    "EXIT_INCONCLUSIVE",
    "EXIT_MISBEHAVIOUR",
    "EXIT_OK",
    "EXIT_UNREACHABLE",
    "Finding",
    "Kind",
    "Severity",
    "exit_code",
]

EXIT_OK: Final = 0
EXIT_MISBEHAVIOUR: Final = 1
EXIT_UNREACHABLE: Final = 3
EXIT_INCONCLUSIVE: Final = 5


class Severity(StrEnum):
    """How bad something is."""

    CRITICAL = "critical"
    """The log, or a witness, misbehaves."""
    ERROR = "error"
    """Something is not as it should be, and somebody must look."""
    INFO = "info"
    """Something to know."""


class Kind(StrEnum):
    """What is wrong."""

    FORK = "fork"
    """The log has signed two histories."""
    ROLLBACK = "rollback"
    """The log has signed a history that does not have what it had before."""
    INVALID_ENTRY = "invalid-entry"
    """An entry is not one of a log of qed."""
    REPLAY_MISMATCH = "replay-mismatch"
    """The entries do not lead to the roots that the log has signed."""
    WITNESS_DISAGREES = "witness-disagrees"
    """A witness has cosigned another history."""
    SIGN_HALTED = "sign-halted"
    """The log has stopped signing."""
    STALE = "stale"
    """The newest cosignatures are older than the policy allows."""
    UNWITNESSED = "unwitnessed"
    """Too few witnesses have cosigned."""
    RECEIPT_NOT_IN_LOG = "receipt-not-in-log"
    """What a receipt says is not in the log."""
    ANSWER_MISMATCH = "answer-mismatch"
    """The server of the log answers otherwise than its entries say."""
    DAMAGED = "damaged"
    """No source has a file that the checkpoint requires."""
    SOURCE_UNREACHABLE = "source-unreachable"
    """A source does not answer."""
    STALE_SOURCE = "stale-source"
    """A source has an older checkpoint than was seen."""
    WATCH_HIT = "watch-hit"
    """An event that is looked for is in the log."""
    RECOVERED = "recovered"
    """What was wrong is no longer."""
    TEST = "test"
    """Nothing is wrong."""

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        if self in _CRITICAL:
            return Severity.CRITICAL
        return Severity.INFO if self in _INFO else Severity.ERROR

    @property
    def exit_code(self) -> int:
        """The exit code of a command that finds it."""
        if self in _NOT_CONCLUDED:
            return EXIT_INCONCLUSIVE
        if self is Kind.SOURCE_UNREACHABLE:
            return EXIT_UNREACHABLE
        return EXIT_OK if self in _HARMLESS else EXIT_MISBEHAVIOUR


_CRITICAL: Final = frozenset(
    {Kind.FORK, Kind.ROLLBACK, Kind.INVALID_ENTRY, Kind.REPLAY_MISMATCH, Kind.WITNESS_DISAGREES}
)
_INFO: Final = frozenset({Kind.SOURCE_UNREACHABLE, Kind.STALE_SOURCE, Kind.WATCH_HIT, Kind.RECOVERED, Kind.TEST})
_NOT_CONCLUDED: Final = frozenset({Kind.STALE, Kind.UNWITNESSED, Kind.SIGN_HALTED, Kind.STALE_SOURCE})
_HARMLESS: Final = frozenset({Kind.WATCH_HIT, Kind.RECOVERED, Kind.TEST})


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes:
        kind: What it is.
        text: What was expected and what was found, for people.
        evidence: What proves it, or None if nothing does.
        about: What distinguishes it from others of its kind, such as roots: the same finding has the same.
    """

    kind: Kind
    text: str
    evidence: Evidence | None = None
    about: str = ""


def exit_code(findings: list[Finding]) -> int:
    """Return the exit code for findings. The worst one wins: misbehaviour, then what is inconclusive or unreachable."""
    codes = {finding.kind.exit_code for finding in findings}
    worst = (EXIT_MISBEHAVIOUR, EXIT_INCONCLUSIVE, EXIT_UNREACHABLE)
    return next((code for code in worst if code in codes), EXIT_OK)
