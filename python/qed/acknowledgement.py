"""What a server answers to an insertion that asked for a signed receipt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qed.proofs import Snapshot
    from qed.signed import SignedReceipt

__all__ = ["Acknowledgement"]


@dataclass(frozen=True)
class Acknowledgement:
    """The snapshots of events that are in the log, and what the log has signed about them.

    Attributes:
        snapshots: One per event, in their order.
        receipt: The receipt for the events that were added, not verified: `qed.Policy` verifies it. None if nothing was
            added, or if there is none.
        reason: Why there is no receipt, or why it is less than was asked for; None if all is well.
    """

    snapshots: Sequence[Snapshot]
    receipt: SignedReceipt | None
    reason: str | None

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot of the last event."""
        return self.snapshots[-1]
