"""When the members last accepted each API key. Each member knows its own uses, and asks the others for theirs."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from qed.server.addresses import Address
from qed.server.frames import TransportError
from qed.server.handshake import LeaderRequest, Reply
from qed.server.logs import Line

if TYPE_CHECKING:
    from qed._qed import MemberInfo
    from qed.server.keys import KeyTable
    from qed.server.members import Members
    from qed.server.transport import Transport

__all__ = ["KeyUses"]

_log = logging.getLogger(__name__)

_MOST: Final = 1500
"""Uses in one reply: each takes 30 of its 64 KiB."""
_ANSWER_S: Final = 3.0
"""How long each member may take to answer. An operator waits for the slowest."""


class KeyUses:
    """The last uses of the keys, of this member and of the others."""

    def __init__(self, keys: KeyTable, members: Members, transport: Transport) -> None:
        self._keys = keys
        self._members = members
        self._transport = transport
        self._asking: asyncio.Task[list[str]] | None = None

    def reply(self) -> Reply:
        """Return the uses that this member knows of, for another member."""
        return Reply(uses=self._keys.uses(_MOST))

    async def gather(self) -> list[str]:
        """Note the uses that the other members know of. Requests at the same time share one round of questions.

        Returns:
            The names of the members that did not answer in time, sorted.
        """
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_all())
        return await asyncio.shield(self._asking)

    async def _ask_all(self) -> list[str]:
        others = list(self._members.others().values())
        answered = await asyncio.gather(*map(self._ask, others))
        return sorted(other.name for other, has_answered in zip(others, answered, strict=True) if not has_answered)

    async def _ask(self, other: MemberInfo) -> bool:
        try:
            async with asyncio.timeout(_ANSWER_S):
                address = Address.parse(other.raft_addr)
                reply = await self._transport.ask(address, other.key, LeaderRequest("uses"))
        except (TransportError, TimeoutError) as exc:
            _log.debug(Line("no uses of keys", by=other.name, reason=exc or "no answer in time"))
            return False
        if not reply.error:
            self._keys.note_uses(reply.uses)
        return not reply.error
