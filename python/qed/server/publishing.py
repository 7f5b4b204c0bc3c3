"""The rhythm in which the leader publishes checkpoints, and gives them to the other members."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING, Final

from qed.errors import QedError
from qed.server.addresses import Address
from qed.server.frames import TransportError
from qed.server.handshake import LeaderRequest
from qed.server.logs import Line, OncePerMinute, where
from qed.server.waiting import delays

if TYPE_CHECKING:
    from qed._qed import MemberInfo, Replica
    from qed.server.members import Members
    from qed.server.published import Published
    from qed.server.signing import Signing
    from qed.server.transport import Transport
    from qed.server.witnessing import Witnessing

__all__ = ["Publishing"]

_log = logging.getLogger(__name__)

_INTERVAL_S: Final = 1.0
"""Between checkpoints: whoever waits for one waits this long, and witnesses need not see more."""
_ANSWER_S: Final = 3.0
"""How long a member may take to accept a checkpoint."""
_RETRY_S: Final = (1.0, 2.0, 5.0, 10.0)


class Publishing:
    """What publishes the newest checkpoint now and then, while this member leads."""

    def __init__(
        self,
        replica: Replica,
        members: Members,
        transport: Transport,
        *,
        signing: Signing,
        published: Published,
        witnessing: Witnessing | None,
    ) -> None:
        self._replica = replica
        self._members = members
        self._transport = transport
        self._signing = signing
        self._published = published
        self._witnessing = witnessing
        self._published_at = -math.inf
        """When this member has published something, by the clock of the event loop."""
        self._term: int | None = None
        """The last term in which this member has published something."""
        self._given: dict[int, bytes] = {}
        """The last note that each other member has accepted, by number."""
        self._giving: dict[int, asyncio.Task[None]] = {}
        self._once_per_minute = OncePerMinute()

    async def run(self) -> None:
        """Publish until this is cancelled. A bug must not end that without a word."""
        while True:
            try:
                await self._run()
            except Exception as exc:  # noqa: BLE001  # it is logged, and the next round begins anew
                _log.error(Line("no checkpoint", **where(exc)))
                await asyncio.sleep(_RETRY_S[-1])

    async def _run(self) -> None:
        retries = delays(*_RETRY_S)
        while True:
            pause = _INTERVAL_S
            if self._members.is_leader:
                try:
                    await self._publish()
                except (QedError, OSError) as exc:
                    if self._once_per_minute.is_due("checkpoint", str(exc)):
                        _log.error(Line("no checkpoint", reason=exc))
                    pause = next(retries)
                else:
                    retries = delays(*_RETRY_S)
                self._give()
            await asyncio.sleep(pause)

    async def _publish(self) -> None:
        known, term = self._published.checkpoint, self._members.status.term
        moment = asyncio.get_running_loop().time()
        is_fresh = moment - self._published_at < (self._witnessing.refresh_s if self._witnessing else math.inf)
        if known is not None and known.size == len(self._replica) and self._term == term and is_fresh:
            return
        note = await self._signing.published()
        if self._witnessing is not None:
            note = await self._witnessing.cosigned(note)
        await self._published.offer(note)
        self._term, self._published_at = term, moment

    def _give(self) -> None:
        """Give the newest checkpoint to the members that do not have it. One that is down delays nothing."""
        note = self._published.note
        if note is None:
            return
        for number, member in self._members.others().items():
            running = self._giving.get(number)
            if self._given.get(number) != note and (running is None or running.done()):
                self._giving[number] = asyncio.create_task(self._give_to(number, member, note))

    async def _give_to(self, number: int, member: MemberInfo, note: bytes) -> None:
        try:
            async with asyncio.timeout(_ANSWER_S):
                address = Address.parse(member.raft_addr)
                reply = await self._transport.ask(address, member.key, LeaderRequest("checkpoint", note=note))
        except (TransportError, TimeoutError) as exc:
            _log.debug(Line("checkpoint not given", to=member.name, reason=exc or "no answer in time"))
            return
        if reply.error:
            _log.debug(Line("checkpoint refused", by=member.name, reason=reply.message))
        else:
            self._given[number] = note
