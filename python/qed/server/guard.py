"""The fork guard: a log that does not continue all that is known to be signed signs nothing and accepts nothing.

Such a log has lost entries: it was restored from an old backup, or is an old copy. New entries in their place would be
a fork, and each of them would make it worse. What it holds can still be read.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from qed.errors import ClusterError, SigningError, WriteRefused
from qed.server.acts import Author, SignersChanged, encode, now
from qed.server.logs import Line

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from qed._qed import Checkpoint, Replica
    from qed.server.acts import Signer
    from qed.server.members import Members
    from qed.server.published import Published
    from qed.server.sign_memory import Memory
    from qed.server.signer_set import SignerSet
    from qed.server.witnessing import Witnessing

__all__ = ["ForkGuard", "Guard"]

_log = logging.getLogger(__name__)

_WAYS_ON = (
    "reads go on. Put the lost entries back, from another member or a backup, or give the log a new name: "
    "docs/recovery.md, A signed log that lost entries"
)
_WAYS_BACK = (
    "reads go on. Put the file back that this member has written to, then restart it: docs/signing.md, A sign memory "
    "that is lost or damaged"
)


class ForkGuard(WriteRefused):
    """The log lost entries that it had signed, so it accepts no others in their place."""


class Guard:
    """Decides, once in each term that this member leads, whether it may sign."""

    def __init__(  # noqa: PLR0913  # each has a part of its own
        self,
        origin: str,
        replica: Replica,
        members: Members,
        *,
        memory: Memory,
        vkeys: Sequence[str],
        signers: SignerSet,
        catch_up: Callable[[], Awaitable[None]],
        record: Callable[[bytes], Awaitable[None]],
        renew: Callable[[], None],
        witnessing: Witnessing | None,
        published: Published,
    ) -> None:
        self._origin = origin
        self._replica = replica
        self._members = members
        self._memory = memory
        self._vkeys = vkeys
        self._signers = signers
        self._catch_up = catch_up
        self._record = record
        self._renew = renew
        self._witnessing = witnessing
        self._published = published
        if witnessing is not None:
            witnessing.halt = self._halt_as_leader
            witnessing.compare = self._continues_as_leader
        self._term: int | None = None
        """The last term in which the log was found to continue what was signed."""
        self._checking: asyncio.Task[None] | None = None
        self.halted: str | None = None
        """Why this member signs nothing and accepts nothing any more; None if it does."""

    @property
    def is_open(self) -> bool:
        """Whether this member leads and may sign."""
        status = self._members.status
        return self.halted is None and status.is_leader and status.term == self._term

    async def require(self) -> None:
        """Return once this member may sign.

        Raises:
            ForkGuard: It must not.
            SigningError: It does not lead, or could not find out.
        """
        if not self.is_open:
            # Requests at the same time share one check.
            if self._checking is None or self._checking.done():
                self._checking = asyncio.create_task(self._check())
            await asyncio.shield(self._checking)

    def halt(self, reason: str, ways_on: str = _WAYS_ON) -> None:
        """Sign nothing and accept nothing until the next start."""
        if self.halted is None:
            self.halted = f"this member does not sign: {reason}; {ways_on}"
            _log.error(Line("sign-halted", reason=reason))

    def _halt_as_leader(self, reason: str) -> None:
        """Halt, unless another member leads by now: a witness may know what that one has signed since."""
        if self.is_open:
            self.halt(reason)

    async def _continues_as_leader(self, signed: Checkpoint, said: str) -> bool:
        return not self.is_open or await self._continues(signed, said)

    def require_memory(self) -> None:
        """Check that what was noted is in the file that the next start will find.

        Raises:
            SigningError: It is not. This member signs nothing from then on.
        """
        if not self._memory.is_in_place:
            reason = f"its sign memory {self._memory.path} was removed or replaced while this member ran"
            self.halt(reason, _WAYS_BACK)
            raise SigningError(reason)

    def require_not_halted(self) -> None:
        """Check that nothing forbids additions for good.

        Raises:
            ForkGuard: Something does.
        """
        if self.halted is not None:
            raise ForkGuard(self.halted)

    async def _check(self) -> None:
        self.require_not_halted()
        if not self._members.is_leader:
            raise SigningError("this member does not lead")
        term = self._members.status.term
        try:
            # All that was committed in earlier terms is applied after this.
            await self._catch_up()
            await self._compare()
            await self._compare_kept()
            await self._ask_witnesses()
            await self._record_own_keys()
        except ClusterError as exc:
            raise SigningError(str(exc)) from exc
        self.require_not_halted()
        self._term = term

    async def _compare(self) -> None:
        """Compare the log with what is remembered of its checkpoints."""
        if self._memory.is_missing:
            await self._make_memory()
        if self.halted is not None or self._memory.newest is None:
            return
        size, root, _ = self._memory.newest
        length, _ = self._replica.tree_head()
        if size > length:
            self.halt(f"the log has {length} entries, but {size} were signed")
        elif (found := await asyncio.to_thread(self._replica.tree_root_at, size)) != root:
            self.halt(f"the log has the root {found.hex()} at {size} entries, but {root.hex()} was signed")

    async def _make_memory(self) -> None:
        """Make a new sign memory if witnesses have cosigned nothing that the log lacks.

        Raises:
            SigningError: Too few of them answer now.
        """
        lost = (
            f"its sign memory is missing, and the log has {len(self._replica)} events, so it may have signed more. "
            "If you are sure that it has not, restart with --trust-new-memory"
        )
        if self._witnessing is None:
            self.halt(lost)
            return
        try:
            seen = await self._witnessing.newest_of_enough()
        except SigningError as exc:
            raise SigningError(f"{lost}, or wait until more witnesses can be reached: {exc}") from exc
        for checkpoint in seen:
            await self._continues(checkpoint, "a witness has cosigned")
        if self.halted is not None:
            return
        try:
            await asyncio.to_thread(self._memory.create)
        except OSError as exc:
            raise SigningError(f"a sign memory cannot be made in {self._memory.path}: {exc.strerror}") from exc
        newest = max(seen, key=lambda checkpoint: checkpoint.size)
        await self._memory.note(newest.size, newest.root, 0)
        _log.warning(Line("new sign memory, as witnesses agree", path=self._memory.path, size=newest.size))

    async def _compare_kept(self) -> None:
        """Compare the log with the signed checkpoint in its own folder, and remember that one."""
        kept = self._published.kept
        if self.halted is not None or kept is None or kept.origin != self._origin:
            return
        await self._continues(kept, "the checkpoint in its folder has")
        if self.halted is None and (self._memory.newest is None or self._memory.newest[0] < kept.size):
            await self._memory.note(kept.size, kept.root, 0)

    async def _ask_witnesses(self) -> None:
        """Compare the log with what its witnesses have cosigned last, as far as they can be reached."""
        if self._witnessing is None or self.halted is not None:
            return
        for seen in await self._witnessing.newest():
            await self._continues(seen, "a witness has cosigned")

    async def _continues(self, signed: Checkpoint, said: str) -> bool:
        """Return whether the log has the tree of a signed checkpoint; if not, halt.

        Args:
            signed: The checkpoint.
            said: Who claims it, with a verb.
        """
        size, root = signed.size, signed.root
        length, _ = self._replica.tree_head()
        if size > length:
            self.halt(f"the log has {length} entries, but {said} {size}")
            return False
        found = await asyncio.to_thread(self._replica.tree_root_at, size)
        if found != root:
            self.halt(f"the log has the root {found.hex()} at {size} entries, but {said} {root.hex()}")
        return found == root

    async def _record_own_keys(self) -> None:
        """Record the name of the log and the keys of this member, unless that is done.

        Raises:
            ClusterError: They could not be recorded now.
        """
        # The acts of earlier terms are applied by now, and are to be read.
        self._renew()
        known, members = self._signers, self._members
        if known.log not in {None, self._origin} and not known.may_be_renamed:
            self.halt(f"the log signs as {known.log}, which cannot change, but --origin is {self._origin}")
        if self.halted is not None:
            return
        is_new_name = known.log != self._origin
        if not is_new_name and (missing := [vkey for vkey in known.active if vkey not in self._vkeys]):
            # Policies may know only those.
            ids = ",".join(vkey.split("+", 2)[1] for vkey in missing)
            _log.warning(Line("this member does not have all keys of the log", missing=ids))
        signers = known.with_keys(self._vkeys, len(self._replica), is_new_name=is_new_name)
        if signers is None:
            return
        await self.record_keys(signers, Author(members.own.name, members.own.raft_addr))

    async def record_keys(self, signers: Sequence[Signer], author: Author) -> None:
        """Record, as the leader, all keys that the log has from here on.

        Raises:
            ClusterError: They could not be recorded now.
        """
        who, origin = author.who, author.origin
        act = SignersChanged(who=who, origin=origin, when=now(), log=self._origin, signers=list(signers))
        await self._record(encode(act))
        self._renew()
