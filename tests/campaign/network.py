"""A network of real interfaces: each member in a namespace of its own, all of them and the clients on one bridge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from campaign.sandbox import run

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Network"]

_SUBNET: Final = "10.99.0"
_BRIDGE: Final = "qed"


class Network:
    """Where members live, and what is between them."""

    def __init__(self, members: int) -> None:
        self._members = members

    @staticmethod
    def host(index: int) -> str:
        """Return the address of a member."""
        return f"{_SUBNET}.{index + 1}"

    @staticmethod
    def prefix(index: int) -> tuple[str, ...]:
        """Return the beginning of a command that is to run where the member lives."""
        return ("nsenter", f"--net=/run/netns/m{index}")

    def build(self) -> str | None:
        """Return why there cannot be such a network here, or None once there is."""
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

    def delay_failure(self) -> str | None:
        """Return why packets cannot be delayed, if they cannot."""
        return self._shape("add", 0) or self._shape("del", 0)

    def unplug(self, index: int) -> None:
        """Take a member off the network, for members and clients alike."""
        _require(run("ip", "link", "set", f"v{index}", "down"))

    def plug(self, index: int) -> None:
        """Put a member back."""
        _require(run("ip", "link", "set", f"v{index}", "up"))

    def cut(self, sources: Iterable[int], target: int) -> None:
        """Let `target` hear nothing from `sources`. They still hear it."""
        for source in sources:
            _require(run(*self.prefix(target), "iptables", "-A", "INPUT", "-s", self.host(source), "-j", "DROP"))

    def mend(self) -> None:
        """Undo every cut."""
        for index in range(self._members):
            _require(run(*self.prefix(index), "iptables", "-F", "INPUT"))

    def slow(self) -> None:
        """Delay, reorder and lose packets of all members."""
        for index in range(self._members):
            _require(self._shape("add", index))

    def quicken(self) -> None:
        """Undo `slow`."""
        for index in range(self._members):
            _require(self._shape("del", index))

    @staticmethod
    def _shape(action: str, index: int) -> str | None:
        shape = ("netem", "delay", "40ms", "30ms", "loss", "5%")
        return run("tc", "-n", f"m{index}", "qdisc", action, "dev", "eth0", "root", *shape)


def _require(failure: str | None) -> None:
    if failure is not None:
        raise RuntimeError(f"the network does not obey: {failure}")
