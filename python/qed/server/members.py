"""The members of the cluster and their leader, as this member knows them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from qed._wire import Cluster, ClusterMember, Shard, Shards
from qed.server.config import SettingsError
from qed.server.lost_members import LostMembers
from qed.server.opening import description
from qed.server.pins import PIN_BYTES
from qed.server.ways import Ways

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qed._qed import MemberInfo, Replica, Status
    from qed.server.config import Settings

__all__ = ["NO_LEADER", "Members", "address_by", "url_by"]

NO_LEADER: Final = "no leader is known: a majority of the members must be up and reach each other"

_MAX_INTRODUCED: Final = 64
"""A cluster has at most 32 members. A member that was away while all were replaced once needs no more."""


class _Introduction(NamedTuple):
    """What a member has said about the keys of all.

    Attributes:
        pins: SHA-256 of the keys, by number.
        entry: The last entry that it had applied: once this member has, too, its own membership knows more.
        by: The number of the member that has said so, if it was known.
        witness: The pin of that member, if it was known. The introduction counts while the member has it.
    """

    pins: Mapping[int, bytes]
    entry: int
    by: int | None
    witness: bytes | None


class Members:
    """The members of the cluster, as this one knows them.

    Attributes:
        status: The replica's status when it was last read.
        by_number: The members in the order of their names, including this one once it is admitted.
        cluster: Name of the cluster; None while this member has none.
        own: The name and addresses that this member's settings describe, and its key.
        lost: Those that operators have given up.
    """

    def __init__(self, replica: Replica, settings: Settings, pin: bytes | None) -> None:
        self._replica = replica
        self._changed = asyncio.Event()
        self._introduction: _Introduction | None = None
        self.own = description(settings, pin)
        self.lost = LostMembers()
        self.status: Status = replica.status()
        self.by_number = _by_number(self.status)
        self.cluster = self.status.cluster

    def renew(self) -> Status:
        """Read the replica's status again; return the previous one."""
        before, self.status = self.status, self._replica.status()
        self.by_number = _by_number(self.status)
        self.cluster = self.status.cluster or self.cluster
        self._changed.set()
        return before

    def introduce(self, keys: Mapping[int, bytes], entry: int, *, by: int | None) -> bool:
        """Believe that these are the pins of the members, until this one has applied as much as who says so.

        A member that is joining has no membership. One that was away has an old one: others may have joined since, or
        may have new keys. It believes a member that it knows by its key, as long as it counts it as a member: such a
        member could also send it any entries. It believes nobody else, because a removed member keeps its certificate.

        Args:
            keys: The pins by number.
            entry: The last entry that the member which says so has applied.
            by: Its number, if it has shown the key that it has by the membership; None for whoever is at an address.

        Returns:
            Whether it is believed, and knows more.
        """
        if entry <= self._replica.status().applied_index or (by is None and self.others()):
            return False
        valid = [(number, pin) for number, pin in keys.items() if number and len(pin) == PIN_BYTES]
        witness = None if by is None else self._recorded_pin(by)
        self._introduction = _Introduction(dict(valid[:_MAX_INTRODUCED]), entry, by, witness)
        return True

    def pin_of(self, number: int) -> bytes | None:
        """Return the SHA-256 of a member's public key, or None if it is not known."""
        recorded, found = self._recorded_pin(number), self._introduction
        if found is None or number not in found.pins or found.entry <= self.status.applied_index:
            return recorded
        if found.by is not None and found.witness is None and recorded is not None:
            # A member whose key is not known, in a membership of an earlier version, is believed about strangers only.
            return recorded
        if found.by is not None and self._recorded_pin(found.by) != found.witness:
            return recorded
        return found.pins[number]

    def _recorded_pin(self, number: int) -> bytes | None:
        """Return the SHA-256 of a member's public key according to the membership."""
        known = self.by_number.get(number)
        return None if known is None else known.key

    def is_pin_of(self, number: int, pin: bytes) -> bool:
        """Return whether a public key is that of a member.

        A membership of an earlier version names no keys. Until each member has recorded its own, whoever has a
        certificate of the right authority can do so.
        """
        if number in self.status.removed:
            return False
        known = self.pin_of(number)
        return number in self.by_number if known is None else known == pin

    def is_member(self, pin: bytes) -> bool:
        """Return whether a public key may be that of a member.

        Any may, as long as this one knows no members, or not all of their keys.
        """
        keys = [member.key for member in self.others().values()]
        return not keys or None in keys or pin in keys

    @property
    def number(self) -> int:
        """The number of this member."""
        return self.status.id

    @property
    def is_leader(self) -> bool:
        """Whether this member accepts insertions."""
        return self.status.is_leader

    @property
    def leader(self) -> MemberInfo | None:
        """The leader, if one is known."""
        leader = self.status.leader
        return None if leader is None else self.by_number.get(leader)

    @property
    def leader_name(self) -> str | None:
        """The name of the leader, if one is known."""
        leader = self.leader
        return leader.name if leader else None

    @property
    def is_admitted(self) -> bool:
        """Whether the cluster has this member with its current addresses and its key."""
        return self.is_recorded(self.own)

    def is_recorded(self, own: MemberInfo) -> bool:
        """Return whether the cluster has this member with these addresses and this key."""
        known = self.by_number.get(self.number)
        if known is None:
            return False
        # A member that is alone needs no key, and keeps the one that it had.
        return known == own or (own.key is None and _addresses(known) == _addresses(own))

    def number_of(self, name: str) -> int | None:
        """Return the number of the member called `name`, if there is one."""
        return next((number for number, member in self.by_number.items() if member.name == name), None)

    def is_alive(self, number: int) -> bool:
        """Return whether this member, the leader, has heard of a member within the last election time-out."""
        followers = self._replica.status().followers
        return number == self.number or any(one.is_active for one in followers if one.number == number)

    def others(self) -> dict[int, MemberInfo]:
        """Return the other members by number."""
        return {number: member for number, member in self.by_number.items() if number != self.number}

    def name_of(self, number: int) -> str:
        """Return the name of a member, or its number if its name is not known yet."""
        member = self.by_number.get(number)
        return member.name if member else f"{number:016x}"

    def topology(self, way: str) -> Shards:
        """Return the members, including those that are down, and their leader, for those who came by `way`."""
        shards = {
            member.name: Shard(node_id=member.name, http_addr=address_by(way, member.http_addr))
            for member in self.by_number.values()
        }
        scheme = Ways.parse(self.own.http_addr).by_name(way).scheme
        return Shards(node_id=self.own.name, leader_id=self.leader_name or "", uri_scheme=scheme, shards=shards)

    def view(self, way: str, *, events: int) -> Cluster:
        """Return the current state of the cluster as this member sees it; a leader also knows the others' progress."""
        status = self._replica.status()
        followers = {follower.number: follower for follower in status.followers}
        members = []
        for number, member in _by_number(status).items():
            follower, is_self = followers.get(number), number == status.id
            members.append(
                ClusterMember(
                    node_id=member.name,
                    role=_role_of(status, number),
                    raft_addr=member.raft_addr,
                    http_addr=address_by(way, member.http_addr),
                    mgmt_addr=address_by(way, member.mgmt_addr),
                    is_reachable=True if is_self else follower and follower.is_active,
                    entry=status.applied_index if is_self else follower and follower.matched,
                )
            )
        return Cluster(
            node_id=self.own.name,
            cluster_id=self.cluster or "",
            leader_id=self.leader_name or "",
            term=status.term,
            commit_index=status.commit_index,
            applied_index=status.applied_index,
            events=events,
            members=members,
        )

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return once `condition()` is true, which is checked after every change of the status."""
        while not condition():
            await self.wait_until_changed()

    async def wait_until_changed(self) -> None:
        """Return once the status has changed, or may have."""
        self._changed.clear()
        await self._changed.wait()


def _addresses(member: MemberInfo) -> tuple[str, ...]:
    return member.name, member.raft_addr, member.http_addr, member.mgmt_addr, member.metrics_addr


def address_by(way: str, text: str) -> str:
    """Return the address, `host:port`, of a member for those who came by `way`.

    Args:
        way: Name of a way in.
        text: What the membership says: the text of `Ways`, which an earlier version did not check.

    Returns:
        The address.
    """
    try:
        return str(Ways.parse(text).by_name(way).address)
    except SettingsError:
        return text


def url_by(way: str, text: str) -> str | None:
    """Return the base URL of a member for those who came by `way`; None if the membership names no valid address.

    Args:
        way: Name of a way in.
        text: What the membership says, as for `address_by`.
    """
    try:
        return Ways.parse(text).by_name(way).url
    except SettingsError:
        return None


def _by_number(status: Status) -> dict[int, MemberInfo]:
    # Numbers are random; people look for names.
    return dict(sorted(status.members, key=lambda entry: entry[1].name))


def _role_of(status: Status, number: int) -> str:
    if number == status.leader:
        return "leader"
    return "follower" if number in status.voters else "learner"
