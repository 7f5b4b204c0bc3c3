"""What can be asked of a log, what it answers, and how an answer is checked against trusted roots."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

import click

from qed.errors import MalformedProof, VerificationError
from qed.proofs import (
    AbsenceProof,
    Digest,
    IncrementalProof,
    MembershipProof,
    Snapshot,
    verify_absence,
    verify_incremental,
    verify_membership,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "Answer",
    "IncrementalQuestion",
    "MembershipQuestion",
    "Question",
    "Root",
    "Trusted",
    "trusted_digests",
    "versions_of",
]

Answer: TypeAlias = MembershipProof | AbsenceProof | IncrementalProof

Root: TypeAlias = Literal["hyper", "history", "start", "end"]
"""Which of the two roots of which snapshot: of the current and the asked version, or of both ends of a range."""
ROOTS: Final[tuple[Root, ...]] = get_args(Root)


def trusted_digests(**digests: Digest | None) -> dict[Root, Digest]:
    """Return the roots that were given one by one.

    Args:
        digests: Each by the name of its `Root`, None where it was not given.

    Returns:
        Those that were.
    """
    return {root: digest for root in ROOTS if (digest := digests.get(root)) is not None}


@dataclass(frozen=True)
class Trusted:
    """The roots that answers are checked against, and where they come from.

    Attributes:
        digests: Roots given one by one; they come first.
        snapshots: Snapshots to take the others from, by version.
        origin: What the snapshots are called in messages, or None when there are none.
        ask: Asks a person for a root of a version, or None when nobody is there.
    """

    digests: Mapping[Root, Digest] = field(default_factory=dict)
    snapshots: Mapping[int, Snapshot] = field(default_factory=dict)
    origin: str | None = None
    ask: Callable[[Root, int], Digest] | None = None

    def root(self, root: Root, version: int) -> Digest:
        """Return a trusted root.

        Args:
            root: Which one.
            version: Of which version.

        Returns:
            The root.

        Raises:
            VerificationError: The trusted snapshots do not go that far, so nothing shows that the answer is true.
            click.UsageError: No snapshots were given at all, and nobody is there to ask.
        """
        if root in self.digests:
            return self.digests[root]
        if self.origin is not None:
            return self._of_snapshot(root, version)
        if self.ask is not None:
            return self.ask(root, version)
        raise click.UsageError(f"verifying needs --{root}-digest, of version {version}, or --receipts")

    def _of_snapshot(self, root: Root, version: int) -> Digest:
        snapshot = self.snapshots.get(version)
        if snapshot is None:
            raise VerificationError(f"no snapshot of version {version} to verify with: {self.origin} has none")
        return snapshot.hyper_digest if root == "hyper" else snapshot.history_digest


@dataclass(frozen=True)
class MembershipQuestion:
    """Is this event in the log, as of this version?

    Attributes:
        digest: Digest of the event.
        version: As of which version, or None for the latest.
    """

    digest: Digest
    version: int | None

    def check(self, answer: Answer, trusted: Trusted) -> list[tuple[str, object]]:
        """Check an answer to this question.

        Args:
            answer: What a server said.
            trusted: The roots to check it against: `hyper` and, unless it is not needed, `history`.

        Returns:
            What it was checked against, as labels with their values.

        Raises:
            VerificationError: The answer is not shown to be true.
        """
        if isinstance(answer, IncrementalProof):
            raise MalformedProof("an incremental proof does not answer a membership question")
        hyper = trusted.root("hyper", answer.current_version)
        fields: list[tuple[str, object]] = [("EventDigest", self.digest.hex()), ("HyperDigest", hyper.hex())]
        if isinstance(answer, AbsenceProof):
            # An empty subtree speaks for itself; only another key's leaf has to be shown in the history tree.
            history = hyper if answer.neighbour is None else trusted.root("history", answer.current_version)
            current = _roots(answer.current_version, hyper=hyper, history=history)
            verify_absence(self.digest, answer, version=self.version, current_snapshot=current)
            shown = [] if answer.neighbour is None else [("HistoryDigest", history.hex())]
            return [*fields, *shown, ("Version", answer.current_version)]
        history = trusted.root("history", answer.query_version)
        verify_membership(
            self.digest,
            answer,
            version=self.version,
            query_snapshot=_roots(answer.query_version, hyper=hyper, history=history),
            current_snapshot=_roots(answer.current_version, hyper=hyper, history=history),
        )
        return [*fields, ("HistoryDigest", history.hex()), ("Version", answer.query_version)]


@dataclass(frozen=True)
class IncrementalQuestion:
    """Does the log at one version extend the log at another?

    Attributes:
        start: The earlier version.
        end: The later version.
    """

    start: int
    end: int

    def check(self, answer: Answer, trusted: Trusted) -> list[tuple[str, object]]:
        """Check an answer to this question.

        Args:
            answer: What a server said.
            trusted: The roots to check it against: `start` and `end`.

        Returns:
            What it was checked against, as labels with their values.

        Raises:
            VerificationError: The answer is not shown to be true.
        """
        if not isinstance(answer, IncrementalProof):
            raise MalformedProof("a membership proof does not answer an incremental question")
        start, end = trusted.root("start", self.start), trusted.root("end", self.end)
        verify_incremental(
            answer,
            start_snapshot=_roots(self.start, hyper=start, history=start),
            end_snapshot=_roots(self.end, hyper=end, history=end),
        )
        return [
            ("Version", self.start),
            ("HistoryDigest", start.hex()),
            ("Version", self.end),
            ("HistoryDigest", end.hex()),
        ]


Question: TypeAlias = MembershipQuestion | IncrementalQuestion


def versions_of(answer: Answer) -> frozenset[int]:
    """Return the versions whose snapshots belong to an answer.

    Args:
        answer: What a server said.

    Returns:
        The queried and the current version, or both ends of the range.
    """
    if isinstance(answer, IncrementalProof):
        return frozenset({answer.start, answer.end})
    return frozenset({answer.query_version, answer.current_version})


def _roots(version: int, *, hyper: Digest, history: Digest) -> Snapshot:
    """Return a snapshot that stands for roots given one by one. A verifier reads no event digest from it."""
    return Snapshot(event_digest=hyper, history_digest=history, hyper_digest=hyper, version=version)
