"""The faults: each is a context manager that causes harm on entry and undoes it on exit."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from campaign.network import Shape
    from campaign.scene import Part, Scene

__all__ = ["FAULTS", "Fault", "Need"]

Need = Literal["nothing", "network", "filter", "loss", "narrow", "late", "disk", "clock"]

_JUMPS_S: Final = (-10 * 365 * 86_400, -86_400, -3600, -30, 30, 3600, 86_400, 10 * 365 * 86_400)


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        name: Its name in the table.
        begin: Returns the context manager.
        need: What the machine must support.
        is_alone: Whether it is never combined with another fault.
        needs_whole: Whether all members must be healthy before: it destroys one copy, so the others must have theirs.
    """

    name: str
    begin: Callable[[Scene], AbstractContextManager[None]]
    need: Need = "nothing"
    is_alone: bool = False
    needs_whole: bool = False


@contextmanager
def _kill(scene: Scene, part: Part) -> Iterator[None]:
    with scene.victim(part) as member:
        member.kill()
        yield
        member.start()


@contextmanager
def _kill_all(scene: Scene) -> Iterator[None]:
    members = [member for member in scene.cluster.members if member.name not in scene.afflicted]
    with scene.claim(members):
        for member in members:
            member.kill()
        yield
        for member in members:
            member.launch()
        for member in members:
            member.wait_listening()


@contextmanager
def _pause(scene: Scene, part: Part) -> Iterator[None]:
    with scene.victim(part) as member:
        member.pause()
        try:
            yield
        finally:
            member.resume()


@contextmanager
def _stop(scene: Scene, part: Part) -> Iterator[None]:
    with scene.victim(part) as member:
        member.stop()
        yield
        member.start()


@contextmanager
def _wipe(scene: Scene, part: Part) -> Iterator[None]:
    """Lose a disk: the member comes back empty, under its old id."""
    with scene.victim(part) as member:
        member.kill()
        member.wipe()
        yield
        member.join = tuple(other.address("raft") for other in scene.cluster.others(member))
        scene.cluster.give_up(member)
        member.start()


@contextmanager
def _unplug(scene: Scene, part: Part) -> Iterator[None]:
    """Take a member off the network; clients cannot reach it either."""
    assert scene.network is not None
    with scene.victim(part) as member:
        scene.network.unplug(member.index)
        try:
            yield
        finally:
            scene.network.plug(member.index)


@contextmanager
def _partition(scene: Scene) -> Iterator[None]:
    """Cut the members into two sides; clients reach both. The leader is on the smaller side."""
    network, members = scene.network, scene.cluster.members
    assert network is not None
    with scene.victim("leader") as leader:
        others = [member.index for member in members if member is not leader]
        scene.chance.shuffle(others)
        size = (len(members) - 1) // 2
        small, large = [leader.index, *others[: size - 1]], others[size - 1 :]
        for index in small:
            network.cut(large, index)
        for index in large:
            network.cut(small, index)
        try:
            yield
        finally:
            network.mend()


@contextmanager
def _deafen(scene: Scene, part: Part) -> Iterator[None]:
    """Let a member receive nothing, while all others receive its messages."""
    assert scene.network is not None
    with scene.victim(part) as member:
        scene.network.cut([other.index for other in scene.cluster.others(member)], member.index)
        try:
            yield
        finally:
            scene.network.mend()


@contextmanager
def _mute(scene: Scene) -> Iterator[None]:
    """Drop everything from the leader to one follower, and nothing else."""
    assert scene.network is not None
    with scene.victim("leader") as leader, scene.victim("follower") as follower:
        scene.network.cut([leader.index], follower.index)
        try:
            yield
        finally:
            scene.network.mend()


@contextmanager
def _lose(scene: Scene) -> Iterator[None]:
    assert scene.network is not None
    scene.network.lose()
    try:
        yield
    finally:
        scene.network.find()


@contextmanager
def _shape(scene: Scene, shape: Shape) -> Iterator[None]:
    assert scene.network is not None
    scene.network.shape(shape)
    try:
        yield
    finally:
        scene.network.reshape(shape)


@contextmanager
def _fill_disk(scene: Scene, part: Part) -> Iterator[None]:
    """Fill the disk of the member with the small disk, as the leader or not. It is restarted later."""
    assert scene.disk is not None
    member = scene.cluster.members[-1]
    if part == "leader":
        member.transfer()
    with scene.claim([member]), ExitStack() as cleaning:
        member.may_fail = True
        cleaning.callback(scene.disk.relieve)
        scene.disk.fill()
        yield
    # The process may be about to end, or may not have noticed.
    member.stop()
    member.may_fail = False
    member.start()


@contextmanager
def _jump_clock(scene: Scene) -> Iterator[None]:
    """Set wall clocks forward or back, each independently."""
    jumping = scene.chance.sample(scene.clocks, scene.chance.randint(1, len(scene.clocks)))
    for clock in jumping:
        clock.jump(scene.chance.choice(_JUMPS_S))
    try:
        yield
    finally:
        for clock in jumping:
            clock.jump(0)


FAULTS: Final = (
    Fault("kill -9 of the leader", partial(_kill, part="leader")),
    Fault("kill -9 of a follower", partial(_kill, part="follower")),
    Fault("kill -9 of all at once", _kill_all, is_alone=True),
    Fault("SIGSTOP of the leader", partial(_pause, part="leader")),
    Fault("SIGSTOP of a follower", partial(_pause, part="follower")),
    Fault("SIGTERM to the leader", partial(_stop, part="leader")),
    Fault("SIGTERM to a follower", partial(_stop, part="follower")),
    Fault("leader's disk lost", partial(_wipe, part="leader"), is_alone=True, needs_whole=True),
    Fault("follower's disk lost", partial(_wipe, part="follower"), is_alone=True, needs_whole=True),
    Fault("leader unplugged", partial(_unplug, part="leader"), need="network"),
    Fault("follower unplugged", partial(_unplug, part="follower"), need="network"),
    Fault("partition, leader with the minority", _partition, need="filter"),
    Fault("leader deaf", partial(_deafen, part="leader"), need="filter"),
    Fault("follower deaf", partial(_deafen, part="follower"), need="filter"),
    Fault("one follower does not hear the leader", _mute, need="filter"),
    Fault("packets lost", _lose, need="loss"),
    # A link can have only one shape at a time.
    Fault("links narrow", partial(_shape, shape="narrow"), need="narrow", is_alone=True),
    Fault("packets late, lost, reordered", partial(_shape, shape="late"), need="late", is_alone=True),
    Fault("full disk of the leader", partial(_fill_disk, part="leader"), need="disk", is_alone=True, needs_whole=True),
    Fault(
        "full disk of a follower", partial(_fill_disk, part="follower"), need="disk", is_alone=True, needs_whole=True
    ),
    Fault("wall clocks jump", _jump_clock, need="clock"),
)
"""Every fault, in no order that matters."""
