"""Who is on the other end of a stream: the public keys of the members, and what their owners may ask.

A certificate shows that the operator let its owner in: to ask for admission. Everything else is for members, which are
known by their keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from qed.errors import MembershipRefused
from qed.server.handshake import Reply
from qed.server.members import NO_LEADER
from qed.server.pins import PIN_BYTES

if TYPE_CHECKING:
    from qed.server.handshake import Hello, LeaderRequest
    from qed.server.members import Members
    from qed.server.pins import Peer

__all__ = ["STRANGER", "Recognition"]

STRANGER: Final = Reply("stranger", "this key is not that of a member")
"""The same words for every reason: strangers learn neither names nor numbers."""


class Recognition:
    """Judges streams and requests by the keys of those who make them."""

    def __init__(self, members: Members) -> None:
        self._members = members

    def introduction(self) -> Reply:
        """Return the name of the cluster and the pins of all members, for another member."""
        members = self._members.by_number.items()
        keys = {number: member.key for number, member in members if member.key is not None}
        return Reply(cluster=self._members.cluster or "", keys=keys, applied=self._members.status.applied_index)

    def refusal(self, hello: Hello, peer: Peer) -> Reply | None:
        """Return why a stream is refused; None if it is not.

        Args:
            hello: A hello that names the right protocol.
            peer: The other side, which has a certificate of the right authority.
        """
        members, is_question = self._members, hello.kind == "question"
        if hello.sender in members.status.removed:
            name = members.own.name
            message = f"according to {name}, this member was removed from the cluster; empty its data folder to rejoin"
            return Reply("removed", message)
        if members.cluster and hello.cluster != members.cluster and (hello.cluster or not is_question):
            return Reply("cluster", f"cluster {hello.cluster} is not that of this member")
        known = self._members.pin_of(hello.sender)
        is_taken = known is not None and known != peer.pin
        if is_taken or not (is_question or self._members.is_pin_of(hello.sender, peer.pin)):
            return STRANGER
        if not is_question and hello.receiver != members.number:
            return Reply("receiver", "another member was expected here")
        return None

    def direction(self) -> Reply:
        """Return where the leader is, for the sender of a request to the leader: this member does not lead."""
        leader = self._members.leader
        if leader is None:
            return Reply("unavailable", NO_LEADER)
        return Reply("elsewhere", f"{leader.name} leads", leader=leader.raft_addr)

    def permitted(self, request: LeaderRequest, hello: Hello, peer: Peer, *, is_named: bool) -> LeaderRequest | None:
        """Return a request as it may be carried out; None if the peer may not make it.

        A member may pass any request on, and `PassedOn` checks for whom. Anyone else may only ask to become a member.
        Nobody passes an admission on: the stream itself must show the key of the member that is admitted.

        Args:
            request: The request.
            hello: The hello of its stream.
            peer: The other side.
            is_named: Whether the peer's certificate must name it.

        Returns:
            The request, with the key of the member to admit.

        Raises:
            MembershipRefused: It would admit another than the peer, or a member without a key.
        """
        is_member = self._members.is_pin_of(hello.sender, peer.pin)
        if request.kind != "admit":
            return request if is_member else None
        if request.id != hello.sender:
            raise MembershipRefused("a member can only ask for its own admission")
        if is_named and request.name not in peer.names:
            raise MembershipRefused(f"the certificate does not name {request.name} (subjectAltName=DNS:{request.name})")
        # A member that has shown its old key may announce a new one.
        key = request.key if is_member and request.key else peer.pin
        if len(key) != PIN_BYTES:
            raise MembershipRefused(f"expected the SHA-256 of a public key, {PIN_BYTES} bytes, found {len(key)}")
        # A server with the key of a dead member takes its place, so nobody may announce a key that another has.
        if key != peer.pin and any(member.key == key for member in self._members.by_number.values()):
            raise MembershipRefused("this is the key of another member")
        return msgspec.structs.replace(request, key=key, who=request.name, origin=peer.address)
