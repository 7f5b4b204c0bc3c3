"""The acts of the cluster as one member follows them: it logs them if it leads, and records those that are missing."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import msgspec

from qed.errors import ClusterError, LogError
from qed.server.acts import (
    Act,
    Admitted,
    Author,
    Founded,
    Promoted,
    Removed,
    Replaced,
    acts_after,
    encode,
    now,
    number_text,
)
from qed.server.logs import Line

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from qed._qed import Replica
    from qed.server.authorities import Authorities
    from qed.server.members import Members

__all__ = ["History"]

_log = logging.getLogger(__name__)

_NOT_LOGGED: Final = frozenset({"hash", "key", "replaced_key", "public_key", "authorities", "signers", "when"})
"""Fields of acts that log lines omit: the line has a time of its own, and hashes and keys help nobody there."""


class History:
    """The acts that this member has applied."""

    def __init__(
        self,
        replica: Replica,
        members: Members,
        record: Callable[[bytes], Awaitable[None]],
        *,
        catch_up: Callable[[], Awaitable[None]],
        authorities: Authorities,
        folds: Sequence[Callable[[Act | None], None]],
    ) -> None:
        self._replica = replica
        self._authorities = authorities
        self._folds = (authorities.fold, *folds)
        self._members = members
        self._record = record
        self._catch_up = catch_up
        self._index = 0
        self._awaited: set[str] = set()
        """Members that were admitted, and not promoted yet."""
        self._read(is_logged=False)

    def renew(self) -> None:
        """Read the acts that were applied since the last call; a leader logs each."""
        self._read(is_logged=self._members.is_leader)

    async def record_missing(self) -> None:
        """As the leader, record what no request asked for: that the history begins, and who votes from now on."""
        while self._missing() is not None:
            try:
                # The leader before this one may have recorded it, and this one not applied it yet.
                await self._catch_up()
                self.renew()
                if (act := self._missing()) is None:
                    return
                await self._record(encode(act))
            except (ClusterError, LogError) as exc:
                # This member, or the next leader, records it after another change of the status.
                _log.debug(Line("act not recorded", reason=exc))
                return
            self.renew()

    def _missing(self) -> Act | None:
        members = self._members
        if not members.is_leader:
            return None
        author = Author(members.own.name, members.own.raft_addr)
        if self._index == 0 and list(members.by_number) == [members.number]:
            return Founded(
                who=author.who,
                origin=author.origin,
                when=now(),
                name=members.own.name,
                member=number_text(members.number),
                cluster=members.cluster or "",
                events=len(self._replica),
                key=members.own.key,
                authorities=self._authorities.own(),
            )
        for number, member in members.by_number.items():
            if number_text(number) in self._awaited and number in members.status.voters:
                name, text = member.name, number_text(number)
                return Promoted(who=author.who, origin=author.origin, when=now(), name=name, member=text)
        return None

    def _read(self, *, is_logged: bool) -> None:
        for index, act in acts_after(self._replica, self._index):
            self._index = index
            for fold in self._folds:
                fold(act)
            if is_logged:
                _log.info(_line(index, act))
            match act:
                case Admitted() | Replaced():
                    self._awaited.add(act.member)
                case Promoted() | Removed():
                    self._awaited.discard(act.member)


def _line(index: int, act: Act | None) -> Line:
    if act is None:
        return Line("act", entry=index, deed="unknown to this version")
    fields = {
        name: ",".join(value) if isinstance(value, list) else value
        for name, value in msgspec.to_builtins(act).items()
        if name not in _NOT_LOGGED
    }
    return Line("act", entry=index, **fields)
