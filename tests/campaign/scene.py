"""What faults act on, and which of its members suffer one already."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence

    from campaign.clock import Clock
    from campaign.disk import SmallDisk
    from campaign.member import Member
    from campaign.network import Network
    from harness.cluster import Cluster

__all__ = ["Part", "Scene"]

Part = Literal["leader", "follower"]


@dataclass
class Scene:
    """The cluster and what can be done to it.

    Attributes:
        cluster: The members.
        chance: What faults draw from.
        network: Between them, if it can be cut.
        clocks: One a member, if they can jump.
        disk: The small disk of the last member, if there is one.
        afflicted: Names of members that suffer a fault.
    """

    cluster: Cluster[Member]
    chance: random.Random
    network: Network | None = None
    clocks: Sequence[Clock] = ()
    disk: SmallDisk | None = None
    afflicted: set[str] = field(default_factory=set)

    @contextmanager
    def victim(self, part: Part) -> Iterator[Member]:
        """Give a member that suffers nothing yet: the leader, or another. Without a leader it is any."""
        leader = self.cluster.known_leader()
        free = [member for member in self.cluster.members if member.name not in self.afflicted]
        if part == "leader" and leader in free:
            free = [leader]
        elif part == "follower":
            free = [member for member in free if member is not leader] or free
        member = self.chance.choice(free)
        with self.claim([member]):
            yield member

    @contextmanager
    def claim(self, members: Sequence[Member]) -> Iterator[None]:
        """Keep other faults away from members."""
        names = {member.name for member in members} - self.afflicted
        self.afflicted |= names
        try:
            yield
        finally:
            self.afflicted -= names
