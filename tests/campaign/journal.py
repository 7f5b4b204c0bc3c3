"""The answers that clients got: the only facts that the audit trusts."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from campaign.violation import Violation

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from qed import Snapshot

__all__ = ["Acknowledged", "Journal", "Submission"]


@dataclass(frozen=True)
class Acknowledged:
    """One event with its snapshot."""

    event: bytes
    snapshot: Snapshot


@dataclass
class Submission:
    """Events that are added together, and the outcome of every attempt.

    Attributes:
        events: One, or a bulk.
        is_if_absent: Whether they may be retried and still occur once.
        acknowledged: The snapshots of each successful attempt.
        refused: Attempts that were refused with the promise that nothing was added, or that reached no member.
        unknown: Attempts with an unknown outcome.
    """

    events: Sequence[bytes]
    is_if_absent: bool
    acknowledged: list[Sequence[Snapshot]] = field(default_factory=list)
    refused: int = 0
    unknown: int = 0


class Journal:
    """Shared by all clients."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.submissions: list[Submission] = []
        self.acknowledged: list[Acknowledged] = []
        self.violations: list[BaseException] = []
        self.reads = 0
        self.intrusions = 0
        self._highest = -1
        self._moments = [time.monotonic()]
        self._stop = threading.Event()

    @property
    def highest(self) -> int:
        """Return the highest version acknowledged so far, or -1."""
        return self._highest

    @property
    def last_acknowledgement(self) -> float:
        """Return when an add was last acknowledged."""
        return self._moments[-1]

    def begin(self, events: Sequence[bytes], *, is_if_absent: bool) -> Submission:
        """Record events that are about to be added."""
        submission = Submission(events, is_if_absent)
        with self._lock:
            self.submissions.append(submission)
        return submission

    def acknowledge(self, submission: Submission, snapshots: Sequence[Snapshot], *, highest_before: int) -> None:
        """Record a success.

        Args:
            submission: What was added.
            snapshots: Its snapshots.
            highest_before: The highest version that was acknowledged when this attempt was sent.

        Raises:
            Violation: The snapshots are not what they must be.
        """
        if len(snapshots) != len(submission.events):
            raise Violation(f"{len(submission.events)} events were given {len(snapshots)} snapshots")
        versions = [snapshot.version for snapshot in snapshots]
        if not submission.is_if_absent:
            if versions[0] <= highest_before:
                raise Violation(f"version {versions[0]} was given when {highest_before} was acknowledged before")
            if versions != list(range(versions[0], versions[0] + len(versions))):
                raise Violation(f"a bulk was given the versions {versions}")
        elif submission.acknowledged and list(submission.acknowledged[0]) != list(snapshots):
            raise Violation(f"a retry was given other snapshots than before: {versions}")
        with self._lock:
            submission.acknowledged.append(snapshots)
            self._highest = max(self._highest, *versions)
            self._moments.append(time.monotonic())
            if len(submission.acknowledged) == 1 or not submission.is_if_absent:
                self.acknowledged += map(Acknowledged, submission.events, snapshots)

    def draw(self, chance: random.Random) -> Acknowledged | None:
        """Return one acknowledged event, preferably a recent one, or None if there are no events yet."""
        known = self.acknowledged
        if not known:
            return None
        return known[-1 - int(len(known) * chance.random() ** 3)]

    def count_read(self) -> None:
        """Record a read whose answer was verified."""
        with self._lock:
            self.reads += 1

    def count_intrusion(self) -> None:
        """Record a request that was refused because its sender may not do what it asked for."""
        with self._lock:
            self.intrusions += 1

    def blame(self, exc: BaseException) -> None:
        """Record a broken promise, and stop everything."""
        self.violations.append(exc)
        self._stop.set()

    def stop(self) -> None:
        """Tell all clients to stop."""
        self._stop.set()

    def wait(self, seconds: float) -> bool:
        """Wait, and return whether clients must stop; return at once when they must."""
        return self._stop.wait(seconds)

    def longest_silence_s(self, start: float, end: float) -> float:
        """Return the longest time without an acknowledged add between two moments."""
        moments = [start, *(moment for moment in self._moments if start < moment < end), end]
        return max(later - earlier for earlier, later in itertools.pairwise(moments))
