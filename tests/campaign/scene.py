"""What faults act on, and which members already suffer from a fault."""

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
    """The cluster and the possible faults.

    Attributes:
        cluster: The members.
        chance: The source of random choices.
        network: The network between them, if it can be cut.
        clocks: One for each member, if they can jump.
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
        """Return a member without a fault: the leader, or another one. Without a leader, return any."""
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
        """Reserve members, so that no other fault chooses them."""
        names = {member.name for member in members} - self.afflicted
        self.afflicted |= names
        try:
            yield
        finally:
            self.afflicted -= names
