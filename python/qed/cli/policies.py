"""The options about a policy, and verifying by them what a log has signed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import click
from click.core import ParameterSource

from qed.cli.options import FILE, policy_option
from qed.errors import CheckpointFork
from qed.evidence import Evidence
from qed.memory import Known, Memory
from qed.policy import Level, Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from qed.cli.terminal import Terminal
    from qed.policy import Verified
    from qed.proofs import Digest
    from qed.questions import Question
    from qed.signed import Checkpoint, Signed

__all__ = ["Demand", "PolicyOptions", "is_policy_chosen", "policy_options"]


class PolicyOptions(TypedDict):
    """The options about a policy."""

    policy: str | None
    require: str | None
    memory: str | None


def policy_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of `PolicyOptions`, in the order of the help page."""
    for option in (
        click.option(
            "--memory", type=FILE, metavar="PATH", help="Where the newest checkpoint of the log is remembered."
        ),
        click.option(
            "--require",
            type=click.Choice([level.value for level in Level]),
            help="Who must have signed. Default: witnesses, if the policy has a quorum.",
        ),
        policy_option("Verify signatures with the keys of logs and witnesses in this file.", is_required=False),
    ):
        function = option(function)
    return function


def is_policy_chosen() -> bool:
    """Return whether the policy was named on the command line, not in the environment."""
    return click.get_current_context().get_parameter_source("policy") is ParameterSource.COMMANDLINE


@dataclass(frozen=True)
class Demand:
    """What is demanded of a log.

    Attributes:
        policy: The keys that are trusted.
        level: Who must have signed.
        memory: Where the newest checkpoint is remembered.
    """

    policy: Policy
    level: Level
    memory: Memory

    @classmethod
    def of(cls, path: str, given: PolicyOptions, terminal: Terminal) -> Demand:
        """Return what the options demand, and warn about what is odd in the policy.

        Args:
            path: The file of the policy.
            given: The options.
            terminal: Where to warn.

        Returns:
            What is demanded.

        Raises:
            click.UsageError: The policy cannot meet it.
            PolicyError: The policy cannot be used.
            OSError: It cannot be read.
        """
        policy = Policy.load(path)
        level = policy.required if given["require"] is None else Level(given["require"])
        if level is Level.WITNESSED and policy.required is Level.SIGNED:
            raise click.UsageError("--require witnessed cannot be met: the policy has no quorum of witnesses")
        for warning in _warnings(policy):
            terminal.note(f"warning: {warning}")
        return cls(policy, level, Memory(given["memory"]))

    def verify(self, signed: Signed, event: Digest | None = None, *, question: Question | None = None) -> Verified:
        """Verify a signed file; arguments and errors are those of `Policy.verify`."""
        return self.policy.verify(signed, event, question=question, require=self.level, memory=self.memory)

    def remembered(self) -> list[Checkpoint]:
        """Return the checkpoints that are remembered of the logs of the policy; errors as of `Memory.remembered`."""
        trust, now = self.policy.trust, int(time.time())
        return [
            checkpoint
            for origin in trust.origins
            for checkpoint in self.memory.remembered(origin, trust, now=now)
            if checkpoint.origin == origin
        ]

    def require_growth(self, before: Sequence[Checkpoint], verified: Verified) -> None:
        """Check that events were added behind all that was known of their log.

        Args:
            before: What was remembered before they were sent.
            verified: Their receipt.

        Raises:
            CheckpointFork: One was not. That was remembered.
        """
        checkpoint, (first, _) = verified.checkpoint, verified.shown.events[0]
        for known in before:
            if known.origin == checkpoint.origin and first < known.size:
                text = f"fork: {known.origin} had {known.size} entries before, and now adds an event at version {first}"
                fork = CheckpointFork(known, checkpoint, text)
                self.memory.convict(fork, Evidence.suspicion(known, checkpoint))
                raise fork

    def note_memory(self, verified: Verified, terminal: Terminal) -> None:
        """Say where a checkpoint is remembered, if it is the first one, and if it could not be remembered."""
        recollection, origin = verified.recollection, verified.checkpoint.origin
        if recollection is None:
            return
        path = self.memory.path_of(origin)
        if not recollection.is_kept:
            terminal.note(f"warning: the checkpoint could not be remembered in {path}")
        elif recollection.known is Known.FIRST:
            terminal.note(f"first checkpoint of {origin} seen here: it is remembered in {path}")


def _warnings(policy: Policy) -> Iterator[str]:
    """Yield what is odd about the witnesses of a policy."""
    for name in policy.trust.doubtful_witnesses:
        yield f"witness {name} has a name under that of the log: is it run by someone else?"
    for name in policy.trust.counted_twice:
        yield f"the keys of witness {name} count as several witnesses: put them into a group any"
    for name in policy.trust.witnesses_of_themselves:
        yield f"witness {name} has the key of a log: nobody else has seen what it signs"
