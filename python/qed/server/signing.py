"""Signing for the log: after an entry is committed and applied here, never before, and never against the sign memory.

The leader signs. It first makes sure, once in each term, that its log continues all that is known to be signed
(`Guard`). Every size that is signed was noted before, synced, outside the data folder. Two members may sign one size:
then they sign the same root, because both have the entries that were committed up to there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from typing import TYPE_CHECKING

from qed._qed import UnsignedCheckpoint
from qed.errors import LogError, QedError, SigningError, Unavailable
from qed.server.acts import Author
from qed.server.guard import ForkGuard
from qed.server.logs import Line, OncePerMinute, where
from qed.server.receipt_maker import MOST_IN_RECEIPT
from qed.server.remote_signer import SignerAhead

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from qed._qed import Digest, Replica
    from qed.server.file_signer import Signer
    from qed.server.guard import Guard
    from qed.server.handshake import LeaderRequest
    from qed.server.receipt_maker import ReceiptMaker
    from qed.server.sign_memory import Memory
    from qed.server.signer_set import SignerSet

    _Wanted: TypeAlias = tuple[tuple[int, int], Callable[[bytes | QedError], None]]
    """The first version of a receipt and the one after the last, and what takes it."""

__all__ = ["Signing"]

_log = logging.getLogger(__name__)


class _Contradiction(SigningError):
    """The tree in memory is not that of the store, so this member must not sign."""


class Signing:
    """What signs checkpoints and makes receipts of them.

    Attributes:
        signed: How many checkpoints were signed, for receipts and for publication.
    """

    def __init__(  # noqa: PLR0913  # each has a part of its own
        self,
        origin: str,
        replica: Replica,
        receipts: ReceiptMaker,
        *,
        signer: Signer,
        memory: Memory,
        guard: Guard,
        signers: SignerSet,
    ) -> None:
        self._origin = origin
        self._replica = replica
        self._receipts = receipts
        self._signer = signer
        self._memory = memory
        self._guard = guard
        self._signers = signers
        # Sizes are noted in order, so one checkpoint is signed after another.
        self._turn = asyncio.Lock()
        self._wanted: list[_Wanted] = []
        self._round: asyncio.Task[None] | None = None
        self._deliveries: set[asyncio.Task[None]] = set()
        self._once_per_minute = OncePerMinute()
        self.signed: Counter[str] = Counter()

    def ask_receipt(self, first: int, end: int, deliver: Callable[[bytes | QedError], None]) -> None:
        """Have a receipt, as JSON, made for versions of one commit batch that this member has applied.

        Receipts that are asked for at the same time rest on one checkpoint.

        Args:
            first: The first version.
            end: The one after the last.
            deliver: Takes the receipt, once; or why there is none: this member cannot sign now, or must not
                (`ForkGuard`), or the versions are not of one batch, or too many.
        """
        if end - first > MOST_IN_RECEIPT:
            deliver(SigningError(f"a receipt has at most {MOST_IN_RECEIPT} events: ask for ranges of versions"))
            return
        self._wanted.append(((first, end), deliver))
        if self._round is None or self._round.done():
            self._round = asyncio.create_task(self._serve())

    async def published(self) -> bytes:
        """Return the note of the newest checkpoint with all kinds of signatures.

        Raises:
            SigningError: This member cannot sign now.
        """
        await self._guard.require()
        async with self._turn:
            checkpoint = self._checkpoint()
            return checkpoint.to_note(await self._sign(checkpoint, is_published=True))

    async def retire(self, request: LeaderRequest) -> None:
        """Retire a key of the log, as the leader: it signs no size above the present one.

        Raises:
            MembershipRefused: There is no such key, or no other would sign.
            Unavailable: This member cannot sign now.
            ClusterError: It could not be recorded now.
        """
        try:
            await self._guard.require()
        except SigningError as exc:
            raise Unavailable(str(exc)) from exc
        # Nothing is signed until the act is applied here, so the size is the last one of the key.
        async with self._turn:
            size, _ = self._replica.tree_head()
            signers = self._signers.without(request.name, size)
            if signers is not None:
                await self._guard.record_keys(signers, Author(request.who, request.origin))

    async def _serve(self) -> None:
        """Make the receipts that are wanted. While those of one checkpoint are made, the next is noted and signed."""
        while self._wanted:
            wanted, self._wanted = self._wanted, []
            try:
                await self._guard.require()
                async with self._turn:
                    checkpoint = self._checkpoint()
                    lines = await self._sign(checkpoint, is_published=False)
            except Exception as exc:  # noqa: BLE001  # every event waits for an answer, also after a bug in a signer
                self._refuse(wanted, exc)
                continue
            delivery = asyncio.create_task(self._deliver(wanted, checkpoint, lines))
            self._deliveries.add(delivery)
            delivery.add_done_callback(self._deliveries.discard)

    async def _deliver(self, wanted: Sequence[_Wanted], checkpoint: UnsignedCheckpoint, lines: Sequence[str]) -> None:
        try:
            receipts = await self._receipts.make([versions for versions, _ in wanted], checkpoint, lines)
        except Exception as exc:  # noqa: BLE001  # as in `_serve`
            self._refuse(wanted, exc)
            return
        for (_, deliver), receipt in zip(wanted, receipts, strict=True):
            deliver(receipt or SigningError("the versions are not of one commit batch"))

    def _refuse(self, wanted: Sequence[_Wanted], exc: Exception) -> None:
        if self._once_per_minute.is_due("receipts", str(exc)):
            _log.error(Line("no receipts", **_reason(exc)))
        kind, reason = ForkGuard if isinstance(exc, ForkGuard) else SigningError, str(exc)
        for _, deliver in wanted:
            deliver(kind(reason))

    def _checkpoint(self) -> UnsignedCheckpoint:
        return UnsignedCheckpoint(self._origin, *self._replica.tree_head())

    async def _sign(self, checkpoint: UnsignedCheckpoint, *, is_published: bool) -> list[str]:
        """Return the lines that sign a checkpoint, once it is checked and noted.

        Raises:
            SigningError: The signer or the sign memory fails, or the stored tiles give another root.
        """
        size, root = checkpoint.size, checkpoint.root
        if is_published or not self._memory.has(size, root):
            try:
                # A wrong root in the sign memory would keep this log from signing for good, so it is checked before.
                time_s = await self._memory.note(size, root, int(time.time()), lambda: self._check(checkpoint))
            except _Contradiction as exc:
                self._guard.halt(str(exc))
                raise
        else:
            time_s = 0  # An Ed25519 signature has no time.
        # Either may have become known while this waited for its turn or for the disk.
        self._guard.require_not_halted()
        self._guard.require_memory()

        async def consistency(old: int) -> Sequence[Digest]:
            return await asyncio.to_thread(self._replica.consistency, old, size)

        active = self._signers.active
        try:
            lines = await self._signer.sign(
                checkpoint, is_published=is_published, time_s=time_s, consistency=consistency, among=active
            )
        except SignerAhead as exc:
            if self._guard.is_open:
                self._guard.halt(str(exc))
            raise
        if not lines:
            raise SigningError("all keys of this member are retired")
        self.signed["publication" if is_published else "receipts"] += 1
        return lines

    def _check(self, checkpoint: UnsignedCheckpoint) -> None:
        """Compare the root with the one that the stored tiles give. Blocks.

        Raises:
            SigningError: They differ, or cannot be read.
        """
        try:
            stored = self._replica.stored_tree_root_at(checkpoint.size)
        except LogError as exc:
            raise SigningError(f"the stored tiles cannot be read: {exc}") from exc
        if stored != checkpoint.root:
            raise _Contradiction(
                f"the tree in memory has the root {checkpoint.root.hex()} at {checkpoint.size} entries, but the stored "
                f"tiles give {stored.hex()}"
            )


def _reason(exc: Exception) -> dict[str, str]:
    return {"reason": str(exc)} if isinstance(exc, (QedError, OSError)) else where(exc)
