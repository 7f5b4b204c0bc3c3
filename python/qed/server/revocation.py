"""Revoking API keys: a leader never revokes the last key that can make others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qed.errors import MembershipRefused, NotLeader
from qed.server.acts import KeyRevoked, encode
from qed.server.members import NO_LEADER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from qed.server.keys import KeyTable
    from qed.server.members import Members

__all__ = ["Revocation"]


class Revocation:
    """The API keys of the cluster, as one member revokes them."""

    def __init__(self, members: Members, keys: KeyTable, renew: Callable[[], None]) -> None:
        self._members = members
        self._keys = keys
        self._renew = renew

    async def revoke(self, act: KeyRevoked, record: Callable[[bytes], Awaitable[None]]) -> None:
        """Record, as the leader, that a key is revoked.

        Raises:
            MembershipRefused: There is no such key, or it is the last one with which others can be made.
            NotLeader: This member does not lead.
            ClusterError: It could not be recorded now.
        """
        if not self._members.is_leader:
            raise NotLeader(NO_LEADER)
        self._renew()
        if (reason := self._keys.refusal(act)) is not None:
            raise MembershipRefused(reason)
        if (known := self._keys.find(act.id)) is not None and known.is_revoked:
            return  # A caller that got no answer asks again, perhaps through another member.
        await record(encode(act))
        self._renew()
        # The revocation of another key may have been recorded first. Then this one was without effect.
        key = self._keys.find(act.id)
        if key is None or not key.is_revoked:
            raise MembershipRefused(self._keys.refusal(act) or "the key was not revoked: try again")
