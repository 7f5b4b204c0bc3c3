"""How a round of asking witnesses ended, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qed.signed import Checkpoint

__all__ = ["Outcome", "OutcomeKind", "Round", "Sighting", "SightingKind"]


class OutcomeKind(StrEnum):
    """How asking one witness ended."""

    COSIGNED = "cosigned"
    """It has cosigned."""
    AHEAD = "ahead"
    """It has cosigned a larger size than this log has: the log has lost entries, or there are two. Stop signing."""
    CONFLICT = "conflict"
    """It answers 409 without another size to start from: likely it has cosigned another root of the same size."""
    DISAGREES = "disagrees"
    """It answers 422 to a proof: it has cosigned a tree that this one does not extend, or it is faulty."""
    BEHIND = "behind"
    """Its last size was another one twice in a row. The next round tries again."""
    MISCONFIGURED = "misconfigured"
    """It does not know the log or its keys, or refuses the request: somebody has to change a configuration."""
    BUSY = "busy"
    """It asks to come again later."""
    UNREACHABLE = "unreachable"
    """It gave no answer, or not in time, or reported an error of its own."""
    INVALID = "invalid"
    """Its answer has no cosignature of a key that the policy has for it, or is not an answer at all."""
    NO_PROOF = "no-proof"
    """It was not asked, or not again, because this log could not prove that it extends what the witness has."""
    WAITING = "waiting"
    """It was not asked, because it failed before."""
    NO_URL = "no-url"
    """It was not asked, because the policy has no URL for it."""


@dataclass(frozen=True)
class Outcome:
    """How asking one witness ended.

    Attributes:
        url: Where it is, without a slash at the end; empty for `NO_URL`.
        names: Its names in the policy. A witness with two keys has two.
        kind: How it ended.
        detail: What happened, for people; empty if it has cosigned.
        cosigned: Those of its names that have cosigned.
        time: The newest time of its cosignatures in seconds since 1970, or None if there is none.
        size: The size that it says it has cosigned last, or None if it does not say.
        newest: If it is ahead or disagrees: the checkpoint that it has cosigned last, verified. It is evidence.
        wait_s: After how many seconds it may be asked again; 0 for the next round.
    """

    url: str
    names: tuple[str, ...]
    kind: OutcomeKind
    detail: str = ""
    cosigned: tuple[str, ...] = ()
    time: int | None = None
    size: int | None = None
    newest: Checkpoint | None = None
    wait_s: float = 0.0


@dataclass(frozen=True)
class Round:
    """What came of asking all witnesses to cosign one checkpoint.

    Attributes:
        note: The note with the lines of the log, then one verified line of each witness in the order of the policy.
        checkpoint: The same, as the policy sees it.
        is_quorum_met: Whether it has as many cosignatures as the policy asks for, which may be none.
        outcomes: How asking each witness ended, in the order of the policy.
    """

    note: str
    checkpoint: Checkpoint
    is_quorum_met: bool
    outcomes: tuple[Outcome, ...]

    @property
    def ahead(self) -> tuple[Outcome, ...]:
        """The witnesses that have cosigned a larger size than this log has. If there is one, the log must not sign."""
        return tuple(outcome for outcome in self.outcomes if outcome.kind is OutcomeKind.AHEAD)

    @property
    def disagreeing(self) -> tuple[Outcome, ...]:
        """The witnesses that may have cosigned another history. Each is worth an alert with both notes."""
        kinds = (OutcomeKind.DISAGREES, OutcomeKind.CONFLICT)
        return tuple(outcome for outcome in self.outcomes if outcome.kind in kinds)


class SightingKind(StrEnum):
    """How asking one witness for its newest checkpoint of the log ended."""

    FOUND = "found"
    """It has one, which the log has signed."""
    NONE = "none"
    """It answers 404: it has none, or serves none."""
    INVALID = "invalid"
    """It answers with something that is not a checkpoint that the log has signed."""
    UNREACHABLE = "unreachable"
    """It gave no answer, or not in time, or an error."""


@dataclass(frozen=True)
class Sighting:
    """What one witness has cosigned last of the log.

    Attributes:
        url: Where it is.
        names: Its names in the policy.
        kind: How asking it ended.
        checkpoint: The checkpoint for `FOUND`, else None. `size`, `root` and `note` are verified.
        detail: What happened, for people; empty for `FOUND`.
    """

    url: str
    names: tuple[str, ...]
    kind: SightingKind
    checkpoint: Checkpoint | None = None
    detail: str = ""

    @property
    def is_cosigned(self) -> bool:
        """Whether the checkpoint has a cosignature of this witness itself."""
        return self.checkpoint is not None and not set(self.names).isdisjoint(self.checkpoint.witnesses)
