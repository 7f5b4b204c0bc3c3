"""A network of real interfaces: each member in its own namespace, all members and the clients on one bridge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from campaign.sandbox import run

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Network", "Shape"]

_SUBNET: Final = "10.99.0"
_BRIDGE: Final = "qed"

Shape = Literal["late", "narrow"]
"""Delayed, sometimes lost, and reordered; or narrow, so that packets queue."""
_SHAPES: Final[dict[Shape, tuple[str, ...]]] = {
    "late": ("netem", "delay", "40ms", "30ms", "loss", "5%"),
    "narrow": ("tbf", "rate", "2mbit", "burst", "16kb", "latency", "300ms"),
}


class Network:
    """The namespaces of the members, and the links between them."""

    def __init__(self, members: int) -> None:
        self._members = members

    @staticmethod
    def host(index: int) -> str:
        """Return the address of a member."""
        return f"{_SUBNET}.{index + 1}"

    @staticmethod
    def prefix(index: int) -> tuple[str, ...]:
        """Return the prefix of a command that must run in the member's namespace."""
        return ("nsenter", f"--net=/run/netns/m{index}")

    def build(self) -> str | None:
        """Create the network and return None, or return why this machine cannot have one."""
        steps = [
            f"ip link add {_BRIDGE} type bridge",
            f"ip addr add {_SUBNET}.254/24 dev {_BRIDGE}",
            f"ip link set {_BRIDGE} up",
        ]
        for index in range(self._members):
            steps += [
                f"ip netns add m{index}",
                f"ip link add v{index} type veth peer name eth0 netns m{index}",
                f"ip link set v{index} master {_BRIDGE} up",
                f"ip -n m{index} addr add {self.host(index)}/24 dev eth0",
                f"ip -n m{index} link set eth0 up",
                f"ip -n m{index} link set lo up",
            ]
        return next((reason for step in steps if (reason := run(*step.split()))), None)

    def filter_failure(self) -> str | None:
        """Return why packets cannot be dropped one way, if they cannot."""
        return run(*self.prefix(0), "iptables", "-L", "INPUT", "-n")

    def loss_failure(self) -> str | None:
        """Return why packets cannot be lost at random, if they cannot."""
        return self._lose("-A", 0) or self._lose("-D", 0)

    def failure_of(self, shape: Shape) -> str | None:
        """Return why links cannot be of this shape, if they cannot."""
        return self._shape("add", shape, 0) or self._shape("del", shape, 0)

    def unplug(self, index: int) -> None:
        """Take a member off the network, for members and clients alike."""
        _require(run("ip", "link", "set", f"v{index}", "down"))

    def plug(self, index: int) -> None:
        """Put a member back."""
        _require(run("ip", "link", "set", f"v{index}", "up"))

    def cut(self, sources: Iterable[int], target: int) -> None:
        """Drop everything from `sources` to `target`, but nothing in the other direction."""
        for source in sources:
            _require(run(*self.prefix(target), "iptables", "-A", "INPUT", "-s", self.host(source), "-j", "DROP"))

    def mend(self) -> None:
        """Undo every cut."""
        for index in range(self._members):
            _require(run(*self.prefix(index), "iptables", "-F", "INPUT"))

    def lose(self) -> None:
        """Drop a tenth of the packets to each member."""
        for index in range(self._members):
            _require(self._lose("-A", index))

    def find(self) -> None:
        """Undo `lose`."""
        for index in range(self._members):
            _require(self._lose("-D", index))

    def shape(self, shape: Shape) -> None:
        """Give the links of all members a shape."""
        for index in range(self._members):
            _require(self._shape("add", shape, index))

    def reshape(self, shape: Shape) -> None:
        """Undo `shape`."""
        for index in range(self._members):
            _require(self._shape("del", shape, index))

    def _lose(self, action: str, index: int) -> str | None:
        # In a separate table, so that undoing a cut does not undo this.
        rule = ("PREROUTING", "-i", "eth0", "-m", "statistic", "--mode", "random", "--probability", "0.1", "-j", "DROP")
        return run(*self.prefix(index), "iptables", "-t", "mangle", action, *rule)

    @staticmethod
    def _shape(action: str, shape: Shape, index: int) -> str | None:
        return run("tc", "-n", f"m{index}", "qdisc", action, "dev", "eth0", "root", *_SHAPES[shape])


def _require(failure: str | None) -> None:
    if failure is not None:
        raise RuntimeError(f"the network does not obey: {failure}")
