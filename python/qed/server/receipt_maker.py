"""Makes receipts that rest on a checkpoint of this log, in the threads that make proofs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qed._qed import UnsignedCheckpoint
from qed.errors import SigningError
from qed.server.waiting import PROOF

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qed._qed import Checkpoint, Replica
    from qed.server.waiting import Waiting

__all__ = ["MOST_IN_RECEIPT", "ReceiptMaker"]

MOST_IN_RECEIPT: Final = 65_536
"""Entries that one receipt may have."""


class ReceiptMaker:
    """Makes receipts of one member's log."""

    def __init__(self, replica: Replica, waiting: Waiting) -> None:
        self._replica = replica
        self._waiting = waiting

    async def make(
        self, versions: Sequence[tuple[int, int]], checkpoint: UnsignedCheckpoint, lines: Sequence[str]
    ) -> list[bytes]:
        """Return a receipt, as JSON, for each range of versions.

        Args:
            versions: For each receipt, the first version and the one after the last.
            checkpoint: A checkpoint of this log.
            lines: The lines that sign it.

        Returns:
            The receipts; an empty one where the versions are not of one commit batch in the checkpoint.

        Raises:
            Overloaded: Too many proofs wait already.
            LogError: This log cannot be read.
        """
        ticket, answer = self._waiting.enter(PROOF)
        self._replica.ask_receipts(ticket, versions, checkpoint, lines)
        return (await answer).split(b"\n")[:-1]

    async def of_published(self, first: int, end: int, checkpoint: Checkpoint) -> bytes:
        """Return the receipt for a range of versions that rests on a published checkpoint.

        Raises:
            SigningError: The versions are not of one commit batch, or too many.
        """
        if end - first > MOST_IN_RECEIPT:
            raise SigningError(f"a receipt has at most {MOST_IN_RECEIPT} events")
        unsigned = UnsignedCheckpoint(checkpoint.origin, checkpoint.size, checkpoint.root)
        _, _, lines = checkpoint.note.partition("\n\n")
        (receipt,) = await self.make([(first, end)], unsigned, lines.splitlines())
        if not receipt:
            raise SigningError("the versions are not of one commit batch")
        return receipt
