"""Clusters of real `qed-server` processes for tests."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx

from qed._wire import CLUSTER, INFO, SHARDS, Cluster
from servers import RunningServer, start_process, wait_until

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["RunningCluster", "start_cluster"]


@dataclass
class RunningCluster:
    """Members by name, `server0` and so on; they may be down.

    Attributes:
        folder: Holds a data folder for each member.
        members: The processes.
    """

    folder: Path
    members: dict[str, RunningServer] = field(default_factory=dict)
    _addresses: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def urls(self) -> list[str]:
        """Base URLs of all members, also of those that are down."""
        return [member.url for member in self.members.values()]

    def start(self, name: str, *extra: str) -> RunningServer:
        """Start a member: the first alone, others to join it, one that was there before on its old addresses."""
        known = self._addresses.get(name, {})
        flags = [word for option in known.items() for word in option]
        if not known and self.members:
            flags = ["--raft-join-addr", next(iter(self._addresses.values()))["--raft-addr"]]
        member = start_process(self.folder / name, "--node-id", name, *flags, *extra)
        if not known:
            info = INFO.decode(httpx.get(f"{member.url}/info").content)
            self._addresses[name] = {
                "--http-addr": member.url.removeprefix("http://"),
                "--mgmt-addr": info.mgmt_addr,
                "--raft-addr": info.raft_addr,
            }
        self.members[name] = member
        return member

    def living(self) -> list[RunningServer]:
        return [member for member in self.members.values() if member.process.poll() is None]

    def leader(self) -> str:
        """Return the name of the leader that all living members agree on, once there is one."""
        found: list[str] = []

        def is_agreed() -> bool:
            answers = (SHARDS.decode(httpx.get(f"{member.url}/info/shards").content) for member in self.living())
            found[:] = {answer.leader_id for answer in answers}
            return len(found) == 1 and found[0] in self.members and self.members[found[0]] in self.living()

        wait_until(is_agreed, "a leader")
        return found[0]

    def followers(self) -> list[str]:
        leader = self.leader()
        return [name for name, member in self.members.items() if name != leader and member in self.living()]

    def view(self, name: str) -> Cluster:
        """Return the cluster as the member called `name` sees it."""
        return CLUSTER.decode(httpx.get(f"http://{self._addresses[name]['--mgmt-addr']}/cluster").content)

    def wait_until_whole(self) -> None:
        """Return once every member that lives votes."""
        names = {name for name, member in self.members.items() if member in self.living()}

        def is_whole() -> bool:
            votes = {member.node_id for member in self.view(self.leader()).members if member.role != "learner"}
            return names <= votes

        wait_until(is_whole, "every member to vote")

    def heal(self) -> None:
        """Start every member that is down, and return once all of them vote."""
        for name, member in list(self.members.items()):
            if member.process.poll() is not None:
                member.forget()
                self.start(name)
        self.wait_until_whole()

    def forget(self, name: str) -> None:
        """Forget a member that was removed."""
        self.members.pop(name).forget()

    def stop(self) -> None:
        """End all processes."""
        for member in self.members.values():
            if member.process.poll() is None:
                member.process.send_signal(signal.SIGCONT)
            member.kill()
            member.forget()


def start_cluster(folder: Path, size: int = 3) -> RunningCluster:
    """Return a cluster whose members all vote. Whoever started it stops it."""
    cluster = RunningCluster(folder)
    try:
        for number in range(size):
            cluster.start(f"server{number}")
        cluster.wait_until_whole()
    except BaseException:
        cluster.stop()
        raise
    return cluster
