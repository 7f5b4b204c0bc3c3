"""Whom a leader may admit: tokens are redeemed once, and certificates of former members are worth nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qed.errors import MembershipRefused, NotLeader, Unavailable
from qed.server.acts import TokenUsed, encode, now, number_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from qed.server.former_keys import FormerKeys
    from qed.server.handshake import LeaderRequest
    from qed.server.members import Members
    from qed.server.token_table import TokenTable

__all__ = ["Admissions"]


class Admissions:
    """The tokens of the cluster and the keys of its former members, as one member knows them."""

    def __init__(
        self, members: Members, table: TokenTable, former_keys: FormerKeys, *, renew: Callable[[], None]
    ) -> None:
        self._members = members
        self._table = table
        self._former_keys = former_keys
        self._renew = renew

    def knows(self, token: str) -> bool:
        """Return whether this member knows that a token was made."""
        self._renew()
        return self._table.knows(token)

    def is_redeemed(self, request: LeaderRequest) -> bool:
        """Return whether a new server has used its token already. It may ask again for its certificate.

        Raises:
            MembershipRefused: The token is not valid, or not for this server.
        """
        self._renew()
        use = _use_of(request)
        if (reason := self._table.refusal(use, request.asked, request.proof)) is not None:
            raise MembershipRefused(reason)
        return self._table.is_used_by(use)

    async def redeem(self, request: LeaderRequest, record: Callable[[bytes], Awaitable[None]]) -> None:
        """Record, as the leader, that a new server uses a token, if it has one.

        Args:
            request: The request of the new server, with its key.
            record: Records an act as the leader.

        Raises:
            MembershipRefused: The token is not valid, or not for this server, or has expired.
            NotLeader: This member does not lead.
            ClusterError: It could not be recorded now.
        """
        if not self._members.is_leader:
            raise NotLeader("this member does not lead")
        if self.is_redeemed(request):
            return
        if (reason := self._table.lapse(request.token)) is not None:
            raise MembershipRefused(reason)
        await record(encode(_use_of(request)))
        # Another leader may have recorded another use first.
        if not self.is_redeemed(request):
            raise Unavailable("the use of the token is not recorded yet; try again")

    def require_admissible(self, request: LeaderRequest) -> None:
        """Check that the certificate of a server still admits it. This member has applied everything that is committed.

        Args:
            request: The request for admission, with the server's key.

        Raises:
            MembershipRefused: It came with a token, and was removed or copied, or did not join in time: its certificate
                lets nobody in any more. Or its key is that of a member that was removed.
        """
        self._renew()
        # A member announces a change. The one that founded a new cluster on its log has a new number.
        if request.id not in self._members.by_number:
            reason = self._table.admission_refusal(request.key, number_text(request.id), request.name)
            if reason is not None:
                raise MembershipRefused(reason)
        if request.key in self._former_keys:
            raise MembershipRefused(
                "its key is that of a member that was removed: join with a new key, and a certificate for it"
            )


def _use_of(request: LeaderRequest) -> TokenUsed:
    return TokenUsed(
        who=request.name,
        origin=request.origin,
        when=now(),
        id=request.token,
        name=request.name,
        member=number_text(request.id),
        key=request.key,
    )
