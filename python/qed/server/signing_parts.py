"""Puts together what signs for the log: signer, sign memory, guard and rhythm."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from qed._files import create_file
from qed.errors import MembershipRefused, PolicyError, SigningError, Unavailable
from qed.server.config import SettingsError
from qed.server.guard import ForkGuard, Guard
from qed.server.logs import Line
from qed.server.publishing import Publishing
from qed.server.remote_signer import RemoteSigner
from qed.server.sign_memory import open_memory
from qed.server.signers import open_signer
from qed.server.signing import Signing
from qed.server.witness_client import WitnessClient
from qed.server.witnessing import Witnessing

if TYPE_CHECKING:
    from pathlib import Path

    from qed._qed import Checkpoint, Replica
    from qed.server.config import Settings
    from qed.server.file_signer import Signer
    from qed.server.members import Members
    from qed.server.peers import Peers
    from qed.server.receipt_maker import ReceiptMaker
    from qed.server.sign_memory import Memory

__all__ = ["SigningParts", "open_signing"]

_log = logging.getLogger(__name__)

_USED: Final = ".used"
_PUBLIC: Final = 0o644


class SigningParts:
    """What signs for the log on this member.

    Attributes:
        signing: Signs checkpoints and makes receipts.
        publishing: Publishes checkpoints.
        guard: Decides whether this member may sign.
        witnessing: Has checkpoints cosigned; None if nobody does.
    """

    def __init__(
        self,
        signing: Signing,
        publishing: Publishing,
        guard: Guard,
        memory: Memory,
        witnessing: Witnessing | None,
        signer: Signer,
    ) -> None:
        self.signing = signing
        self.publishing = publishing
        self.guard = guard
        self._memory = memory
        self.witnessing = witnessing
        self._signer = signer

    @property
    def has_witnesses(self) -> bool:
        """Whether a checkpoint is published only once witnesses have cosigned it."""
        return self.witnessing is not None and self.witnessing.has_quorum

    async def require_addable(self) -> None:
        """Return once it is known that the log continues all that it has signed.

        Raises:
            ForkGuard: It does not.
            Unavailable: That cannot be found out now.
        """
        if self.guard.is_open:
            return
        try:
            await self.guard.require()
        except SigningError as exc:
            raise Unavailable(str(exc)) from exc

    async def require_growable(self) -> None:
        """Return once it is known that a new member may lead this log and sign it.

        Raises:
            MembershipRefused: The log lost entries that it had signed.
            Unavailable: That cannot be found out now.
        """
        try:
            await self.require_addable()
        except ForkGuard as exc:
            raise MembershipRefused(str(exc)) from exc

    async def remember(self, checkpoint: Checkpoint) -> None:
        """Remember a checkpoint that another member has signed: this one may be the only one left some day."""
        if self._memory.is_missing or self.guard.halted is not None:
            return
        newest = self._memory.newest
        if newest is not None and newest[0] >= checkpoint.size:
            return
        try:
            await self._memory.note(checkpoint.size, checkpoint.root, 0)
            self.guard.require_memory()
        except SigningError as exc:
            _log.error(Line("checkpoint not remembered", reason=exc))

    async def aclose(self) -> None:
        """Close the connections to witnesses and to a signer."""
        if self.witnessing is not None:
            await self.witnessing.aclose()
        if isinstance(self._signer, RemoteSigner):
            await self._signer.aclose()

    def close(self) -> None:
        """Let another process use the sign memory."""
        self._memory.close()


def open_signing(
    settings: Settings, replica: Replica, receipts: ReceiptMaker, members: Members, peers: Peers
) -> SigningParts | None:
    """Return what signs on this member, or None if its settings do not ask for that. Blocks.

    Raises:
        SettingsError: The keys or the sign memory cannot be used.
    """
    wanted = settings.signing
    if wanted is None:
        return None
    signer = open_signer(wanted)
    if len(replica) == 0 and wanted.key is not None and not settings.raft_join_addrs and not wanted.memory.exists():
        _note_use(wanted.key)
    memory = open_memory(wanted.memory, may_create=wanted.trusts_new_memory or len(replica) == 0)
    policy = peers.published.policy
    witnessing = None
    if policy is not None:
        trust = policy.trust
        try:
            client = WitnessClient(policy)
        except PolicyError as exc:
            raise SettingsError(f"cannot use the policy {wanted.policy}: {exc}") from exc
        witnessing = Witnessing(wanted.origin, replica, client, max_age_s=trust.max_age_s, has_quorum=trust.has_quorum)
    guard = Guard(
        wanted.origin,
        replica,
        members,
        memory=memory,
        vkeys=signer.vkeys,
        signers=peers.signers,
        catch_up=peers.leader_requests.catch_up,
        record=peers.leader_requests.record,
        renew=peers.renew_history,
        published=peers.published,
        witnessing=witnessing,
    )
    signing = Signing(
        wanted.origin, replica, receipts, signer=signer, memory=memory, guard=guard, signers=peers.signers
    )
    publishing = Publishing(
        replica, members, peers.transport, signing=signing, published=peers.published, witnessing=witnessing
    )
    parts = SigningParts(signing, publishing, guard, memory, witnessing, signer)
    peers.on_checkpoint = parts.remember
    peers.leader_requests.retire = signing.retire
    peers.leader_requests.require_growable = parts.require_growable
    return parts


def _note_use(key: Path) -> None:
    """Note beside the keys that a log signs with them, and warn if another one, or one that is lost, already did."""
    path = key.with_name(f"{key.name}{_USED}")
    try:
        create_file(path, b"A log has signed with these keys. A second one would be a fork of it.\n", mode=_PUBLIC)
    except FileExistsError:
        _log.warning(Line("these keys were used before, and this log is empty: is a disk not mounted?", note=path))
    except OSError:
        return  # The folder of mounted secrets cannot be written.
