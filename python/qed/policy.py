"""Whom somebody trusts: the keys of logs and witnesses, and how many of them must have signed.

`Policy.verify` checks a signed receipt, bundle or proof file, without any server. What it returns gives trusted roots
for `qed.verify`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from qed._files import open_at_once
from qed.errors import Inconclusive, PolicyError, VerificationError
from qed.proofs import AbsenceProof, Digest, IncrementalProof
from qed.questions import Membership
from qed.signed import SignedBundle, TrustFile
from qed.trust import TrustedBy, TrustedSnapshots
from qed.verification import verify

if TYPE_CHECKING:
    import os

    from qed.memory import Memory, Recollection
    from qed.questions import Question
    from qed.signed import Checkpoint, Shown, Signed
    from qed.verification import Finding

__all__ = ["Level", "Policy", "Verified"]

_POLICY_BYTES_MAX: Final = 2 * 1024 * 1024


class Level(StrEnum):
    """On whose word something rests."""

    WITNESSED = "witnessed"
    """Witnesses enough for the policy have cosigned."""
    SIGNED = "signed"
    """Only the log has signed: it can be held to its word, but may give others another one."""


@dataclass(frozen=True)
class Verified:
    """What a signed file has shown.

    Attributes:
        shown: The events, the roots and the checkpoint.
        level: On whose word.
        finding: What the answer of a bundle proves, or None if there is no answer.
        recollection: How the checkpoint compares with what was seen before, or None without a memory.
    """

    shown: Shown
    level: Level
    finding: Finding | None
    recollection: Recollection | None

    @property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint."""
        return self.shown.checkpoint

    @property
    def trusted(self) -> TrustedSnapshots:
        """The roots that were shown, to verify other answers with."""
        return _trusted(self.shown, self.level)


class Policy:
    """The keys of logs and witnesses that somebody trusts, and what else is demanded of a log.

    Args:
        content: A file as FORMATS.md, "Trust files" describes it, or a policy of C2SP.

    Attributes:
        trust: The same in its parsed form.

    Raises:
        PolicyError: It is neither. The message names the line.
    """

    def __init__(self, content: bytes) -> None:
        self.trust: Final = TrustFile.parse(content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Policy:
        """Return the policy in a file.

        Args:
            path: The file.

        Returns:
            The policy.

        Raises:
            OSError: It cannot be read.
            PolicyError: It is not a policy. The message names the file and the line.
        """
        with open_at_once(path) as file:
            content = file.read(_POLICY_BYTES_MAX + 1)
        try:
            return cls(content)
        except PolicyError as exc:
            raise PolicyError(f"{path}: {exc}") from exc

    @property
    def required(self) -> Level:
        """The level that `verify` requires by default: witnessed, if the policy has a quorum."""
        return Level.WITNESSED if self.trust.has_quorum else Level.SIGNED

    def verify(
        self,
        signed: Signed,
        event: bytes | Digest | None = None,
        *,
        question: Question | None = None,
        require: Level | None = None,
        memory: Memory | None = None,
        now: int | None = None,
    ) -> Verified:
        """Verify a signed file and return what it shows.

        Args:
            signed: The file.
            event: The event that a receipt or a proof file must be about.
            question: The question that a bundle must answer; by default its own.
            require: The level to require; by default `required`.
            memory: Where the newest checkpoint is remembered, or None to compare it with nothing.
            now: The current time in seconds since 1970; by default that of the clock.

        Returns:
            What was shown.

        Raises:
            Inconclusive: Cosignatures are missing, or too old for what the answer claims.
            CheckpointFork: The memory has another checkpoint of the same size.
            VerificationError: A check failed; the message names it.
            PolicyError: The memory is about another log.
            OSError: The memory cannot be read or written.
            TypeError: An event was given for a bundle, or a question for another file.
        """
        seconds = int(time.time()) if now is None else now
        if isinstance(signed, SignedBundle):
            if event is not None:
                raise TypeError("expected a question for a bundle, found an event")
            shown = signed.verify(self.trust, now=seconds)
        else:
            if question is not None:
                raise TypeError("expected an event for a receipt or a proof file, found a question")
            digest = Digest.of(event) if isinstance(event, bytes) else event
            shown = signed.verify(self.trust, now=seconds, event=digest)
        level = Level.WITNESSED if shown.checkpoint.is_witnessed else Level.SIGNED
        finding = _finding(signed, shown, level, question) if isinstance(signed, SignedBundle) else None
        recollection = None if memory is None else memory.compare(shown.checkpoint, self.trust, now=seconds)
        self._require(signed, shown, level, require)
        if memory is not None:
            recollection = memory.remember(shown.checkpoint, self.trust, now=seconds)
        return Verified(shown, level, finding, recollection)

    def _require(self, signed: Signed, shown: Shown, level: Level, require: Level | None) -> None:
        wanted = self.required if require is None else require
        found = ", ".join(shown.checkpoint.witnesses) or "none"
        if wanted is Level.WITNESSED and level is not Level.WITNESSED:
            raise Inconclusive(f"the log has signed, but witnesses enough for the policy have not: found {found}")
        # That something was in the log stays true. What is absent, or how far the log has grown, does not.
        is_past = not isinstance(signed, SignedBundle) or not isinstance(
            signed.answer, (AbsenceProof, IncrementalProof)
        )
        if wanted is Level.WITNESSED and not is_past and not shown.checkpoint.is_recent:
            limit = self.trust.max_age_s
            raise Inconclusive(f"the cosignatures are older than the {limit} s of MaxAge: ask the log for a new answer")


def _trusted(shown: Shown, level: Level) -> TrustedSnapshots:
    by = TrustedBy.WITNESSES if level is Level.WITNESSED else TrustedBy.LOG
    return TrustedSnapshots(*shown.snapshots, by=by)


def _finding(bundle: SignedBundle, shown: Shown, level: Level, question: Question | None) -> Finding | None:
    asked = bundle.question if question is None else question
    if bundle.answer is not None:
        return verify(asked, bundle.answer, _trusted(shown, level), is_kept=True)
    if not isinstance(asked, Membership) or (asked.version, asked.digest) not in shown.events:
        raise VerificationError("the bundle shows another event, or the event at another version")
    return None
