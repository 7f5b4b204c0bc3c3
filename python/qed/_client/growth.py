"""Growth: an event that is added anew gets a version above every receipt held before it was sent.

A server that answers an insertion with the snapshot of an earlier, equal event acknowledges what it did not add. That
snapshot is true, so no proof can expose it: only the receipts from before tell that the log has not grown.
"""

from __future__ import annotations

import time
from collections import deque
from threading import Lock
from typing import TYPE_CHECKING, Final, TypeVar
from weakref import WeakSet

from qed.acknowledgement import Acknowledgement
from qed.errors import VerificationError
from qed.proofs import Snapshot

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from qed._client.attempts import Send
    from qed._client.failures import Outcome
    from qed.receipts import Receipts

__all__ = ["Growth", "require_above"]

# Insertions are remembered until their snapshots are kept, which usually follows at once.
_REMEMBERED: Final = 4096

_Added = TypeVar("_Added", Snapshot, list[Snapshot], Acknowledgement)


def require_above(newest: int | None, added: Sequence[Snapshot]) -> None:
    """Check that events were added after the newest receipt that was held when they were sent.

    Args:
        newest: Version of that receipt, or None if there was none.
        added: The snapshots of the events, at least one.

    Raises:
        VerificationError: One has the version of that receipt, or an earlier one.
    """
    lowest = min(snapshot.version for snapshot in added)
    if newest is not None and lowest <= newest:
        raise VerificationError(
            "an event was acknowledged at a version that the log had before", f"one above {newest}", str(lowest)
        )


def _snapshots_of(added: Snapshot | Sequence[Snapshot] | Acknowledgement) -> Sequence[Snapshot]:
    if isinstance(added, Acknowledgement):
        return added.snapshots
    return [added] if isinstance(added, Snapshot) else added


class Growth:
    """What one client knows of its log before each insertion. Threads may share it."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._lock = Lock()
        self._known: WeakSet[Receipts] = WeakSet()
        # When each of the last insertions began, and its lowest version: its receipts may become known later.
        self._insertions: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED)

    def note(self, receipts: Receipts) -> None:
        """Note receipts that are proven to be of this log."""
        with self._lock:
            self._known.add(receipts)

    def begin(self) -> tuple[int | None, int]:
        """Return what is known before an insertion is sent, for `require`."""
        # Read before anything is sent: other processes append receipts of later events meanwhile.
        return self._newest(), time.monotonic_ns()

    def require(self, begun: tuple[int | None, int], snapshots: Sequence[Snapshot]) -> None:
        """Check what was added against the receipts known before, and remember it.

        Args:
            begun: What `begin` returned before the insertion.
            snapshots: The snapshots of its events, at least one.

        Raises:
            VerificationError: The server acknowledged an event at a version that the log had before.
        """
        newest, begun_ns = begun
        require_above(newest, snapshots)
        with self._lock:
            self._insertions.append((begun_ns, min(snapshot.version for snapshot in snapshots)))

    def watched(
        self, insertion: Generator[Send, Outcome, _Added], *, is_if_absent: bool
    ) -> Generator[Send, Outcome, _Added]:
        """Carry out an insertion, and check what was added against the receipts known before.

        Args:
            insertion: Sends the events.
            is_if_absent: An event may have been in the log before, so nothing is checked.

        Yields:
            As the insertion.

        Returns:
            As the insertion.

        Raises:
            VerificationError: The server acknowledged an event at a version that the log had before.
            QedError: As the insertion.
        """
        begun = self.begin()
        added = yield from insertion
        if not is_if_absent:
            self.require(begun, _snapshots_of(added))
        return added

    def require_new(self, receipts: Receipts, snapshots: Sequence[Snapshot]) -> None:
        """Check what was added before the receipts became known, but after their file was opened.

        Args:
            receipts: The receipts.
            snapshots: What was acknowledged. Snapshots of insertions with `if_absent` may be among them.

        Raises:
            VerificationError: One was acknowledged at a version that the log had before.
        """
        opened_ns, newest = receipts.at_opening
        with self._lock:
            lowest = {version for begun_ns, version in self._insertions if begun_ns > opened_ns}
        added = [snapshot for snapshot in snapshots if snapshot.version in lowest]
        if added:
            require_above(newest, added)

    def _newest(self) -> int | None:
        with self._lock:
            anchors = [receipts.anchor for receipts in self._known]
        return max((anchor.version for anchor in anchors if anchor is not None), default=None)
