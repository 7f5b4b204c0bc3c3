"""From a request to the leader to the act that records it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import asdict

from qed.server import acts

if TYPE_CHECKING:
    from qed.server.handshake import LeaderRequest
    from qed.server.members import Members

__all__ = ["deed_of"]


def deed_of(request: LeaderRequest, members: Members) -> acts.Act | None:
    """Return the act that a request is, or None if there is nothing to record.

    Args:
        request: A request for an admission, a removal, a replacement, or a transfer of leadership.
        members: The members as the leader knows them.
    """
    if request.kind == "admit":
        return _admission(request, members)
    number = members.number_of(request.name)
    if request.kind in {"remove", "replace"} and number is not None:
        who, origin, name = request.who, request.origin, request.name
        member, when = acts.number_text(number), acts.now()
        if request.kind == "replace":
            return acts.GivenUp(who=who, origin=origin, when=when, name=name, member=member)
        key = members.by_number[number].key
        return acts.Removed(who=who, origin=origin, when=when, name=name, member=member, key=key)
    is_possible = request.name != members.own.name and (number is not None or not request.name)
    if request.kind == "transfer" and is_possible:
        successor, leader = request.name or None, members.own.name
        return acts.Transferred(who=request.who, origin=request.origin, when=acts.now(), name=successor, leader=leader)
    return None


def _admission(request: LeaderRequest, members: Members) -> acts.Act:
    """Return the act that an admission is: of a new member, in the place of a dead one, or of new addresses or keys."""
    admitted = acts.Admitted(
        who=request.who,
        origin=request.origin,
        when=acts.now(),
        name=request.name,
        member=acts.number_text(request.id),
        raft_addr=request.raft_addr,
        http_addr=request.http_addr,
        mgmt_addr=request.mgmt_addr,
        key=request.key or None,
    )
    if request.id in members.by_number:
        return acts.Announced(**asdict(admitted))
    replaced = members.number_of(request.name)
    if replaced is None:
        return admitted
    key = members.by_number[replaced].key
    return acts.Replaced(replaced=acts.number_text(replaced), replaced_key=key, **asdict(admitted))
