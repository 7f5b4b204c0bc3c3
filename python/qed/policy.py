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
from qed.errors import Inconclusive, PolicyError, StaleAnswer, VerificationError
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
        require: Level | str | None = None,
        memory: Memory | None = None,
        now: int | None = None,
    ) -> Verified:
        """Verify a signed file and return what it shows.

        Args:
            signed: The file.
            event: The event that a receipt or a proof file must be about.
            question: The question that a bundle must answer; by default its own.
            require: The level to require, or its name; by default `required`.
            memory: Where the newest checkpoint is remembered, or None to compare it with nothing.
            now: The current time in seconds since 1970; by default that of the clock.

        Returns:
            What was shown.

        Raises:
            Inconclusive: Cosignatures are missing, or too old for what the answer claims.
            StaleAnswer: The question is about the newest state of the log, and the answer is about an earlier one.
            CheckpointFork: The memory has another checkpoint of the same size.
            VerificationError: A check failed; the message names it.
            PolicyError: The memory is about another log.
            OSError: The memory cannot be read or written.
            ValueError: No level has the name `require`.
            TypeError: An event was given for a bundle, or a question for another file.
        """
        seconds = int(time.time()) if now is None else now
        wanted = self.required if require is None else Level(require)
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
        claim = _Claim(signed, shown, question)
        finding = claim.finding(level)
        recollection = None if memory is None else memory.compare(shown.checkpoint, self.trust, now=seconds)
        claim.require_current(recollection, self.trust.max_age_s)
        self._require(claim, level, wanted)
        if memory is not None:
            recollection = memory.remember(shown.checkpoint, self.trust, now=seconds)
            # Another process may have remembered a larger one since.
            claim.require_current(recollection, self.trust.max_age_s)
        return Verified(shown, level, finding, recollection)

    def _require(self, claim: _Claim, level: Level, wanted: Level) -> None:
        checkpoint = claim.shown.checkpoint
        if wanted is Level.WITNESSED and level is not Level.WITNESSED:
            if not self.trust.has_quorum:
                raise Inconclusive("expected witnesses to have signed, but the policy has no quorum of witnesses")
            found = ", ".join(checkpoint.witnesses) or "none"
            raise Inconclusive(f"the log has signed, but witnesses enough for the policy have not: found {found}")
        if claim.may_change and not checkpoint.is_recent:
            limit = self.trust.max_age_s
            raise Inconclusive(f"the cosignatures are older than the {limit} s of MaxAge: ask the log for a new answer")


class _Claim:
    """What a signed file says about the log.

    Args:
        signed: The file.
        shown: What the file shows without its answer.
        question: The question to answer, or None for that of the file.
    """

    def __init__(self, signed: Signed, shown: Shown, question: Question | None) -> None:
        self.shown: Final = shown
        self._bundle: Final = signed if isinstance(signed, SignedBundle) else None
        self._answer: Final = None if self._bundle is None else self._bundle.answer
        self._question: Final = self._bundle.question if question is None and self._bundle is not None else question

    @property
    def may_change(self) -> bool:
        """Whether a later state of the log may have another answer. What was once in the log stays in it."""
        return isinstance(self._answer, (AbsenceProof, IncrementalProof))

    def finding(self, level: Level) -> Finding | None:
        """Verify the answer of a bundle, and return what it proves, or None if there is no answer."""
        if self._bundle is None or self._question is None:
            return None
        if self._answer is not None:
            return verify(self._question, self._answer, _trusted(self.shown, level), is_kept=True)
        asked = self._question
        if not isinstance(asked, Membership) or (asked.version, asked.digest) not in self.shown.events:
            raise VerificationError("the bundle shows another event, or the event at another version")
        return None

    def require_current(self, recollection: Recollection | None, max_age_s: int | None) -> None:
        """Check that an answer about the newest state is about that of the checkpoint, and that none newer is known.

        The cosignatures of a checkpoint say how old its tree is, and nothing about when an earlier tree was the newest.
        """
        size, answer = self.shown.checkpoint.size, self._answer
        if isinstance(answer, IncrementalProof):
            if max_age_s is not None and answer.end + 1 != size:
                raise StaleAnswer(
                    f"expected an answer up to version {size - 1}, the last of the checkpoint, because the "
                    f"trust file has a MaxAge, found one up to {answer.end}"
                )
            return
        if answer is None or not isinstance(self._question, Membership) or self._question.version is not None:
            return
        if answer.current_version + 1 != size:
            raise StaleAnswer(
                f"expected an answer about the newest state, which is version {size - 1} of the checkpoint, found one "
                f"about version {answer.current_version}"
            )
        known = 0 if recollection is None or recollection.size is None else recollection.size
        if isinstance(answer, AbsenceProof) and known > size:
            raise StaleAnswer(f"expected a checkpoint of at least size {known}, which was seen before, found {size}")


def _trusted(shown: Shown, level: Level) -> TrustedSnapshots:
    by = TrustedBy.WITNESSES if level is Level.WITNESSED else TrustedBy.LOG
    return TrustedSnapshots(*shown.snapshots, by=by)
