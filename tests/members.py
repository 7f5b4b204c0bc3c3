"""Clusters of real `qed-server` processes for tests."""

from __future__ import annotations

import base64
import random
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import httpx

from servers import RunningServer, run_to_exit, start_process, wait_until

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

__all__ = ["Cluster", "Process", "free_ports"]

# Below those that the system gives to connections, so that none takes the port of a server that is stopped.
_PORTS: Final = range(20_000, 32_000)
_ADDRESSES: Final = ("http", "mgmt", "metrics", "raft")


def free_ports(count: int) -> list[int]:
    """Return different ports of 127.0.0.1 that nothing listens on."""
    found: list[int] = []
    while len(found) < count:
        port = random.choice(_PORTS)  # noqa: S311  # nobody is kept from guessing it
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


@dataclass
class Process:
    """One member, running or not, which keeps its folder and its addresses.

    Attributes:
        name: Its node id.
        folder: Its data folder.
        join: Addresses of members that it asks for admission.
        extra: Further options.
        ports: Where it listens, by the name of the address.
        running: Its process, if it was started.
    """

    name: str
    folder: Path
    join: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    ports: dict[str, int] = field(default_factory=lambda: dict(zip(_ADDRESSES, free_ports(4), strict=True)))
    running: RunningServer | None = None

    def address(self, name: str) -> str:
        """Return the address `http`, `mgmt`, `metrics` or `raft`."""
        return f"127.0.0.1:{self.ports[name]}"

    @property
    def url(self) -> str:
        return f"http://{self.address('http')}"

    @property
    def options(self) -> tuple[str, ...]:
        """What it is started with beside its folder."""
        listening = [word for name in _ADDRESSES for word in (f"--{name}-addr", self.address(name))]
        joining = [word for address in self.join for word in ("--raft-join-addr", address)]
        return ("--node-id", self.name, *listening, *joining, *self.extra)

    @property
    def server(self) -> RunningServer:
        assert self.running is not None
        return self.running

    def start(self) -> None:
        self.forget()
        self.running = start_process(self.folder, *self.options)

    def run_to_exit(self) -> subprocess.CompletedProcess[str]:
        """Start it, though it is expected to end by itself."""
        return run_to_exit(self.folder, *self.options)

    def forget(self) -> None:
        """Kill it if it runs."""
        if self.running is not None:
            self.running.kill()
            self.running.forget()
            self.running = None

    def shards(self) -> tuple[set[str], str]:
        """Return the names of all members and that of the leader, as it knows them."""
        shards = httpx.get(f"{self.url}/info/shards").json()
        return set(shards["shards"]), shards["leaderId"]

    def events(self) -> int:
        return self.server.count()

    def add(self, event: bytes) -> httpx.Response:
        """Add an event through it; it may send to the leader."""
        body = {"Event": base64.b64encode(event).decode()}
        return httpx.post(f"{self.url}/events", json=body, follow_redirects=True, timeout=30)


class Cluster:
    """Members that find each other."""

    def __init__(self, folder: Path, size: int, *extra: str) -> None:
        self.folder = folder
        self.members = [Process(f"server{number}", folder / f"server{number}", extra=extra) for number in range(size)]
        for member in self.members[1:]:
            member.join = (self.members[0].address("raft"),)

    def start(self) -> None:
        """Start all, and return once each knows all of them, and all have a vote."""
        for member in self.members:
            member.start()
        self.wait_until_whole()

    def running(self) -> list[Process]:
        return [member for member in self.members if member.running is not None]

    def names(self) -> set[str]:
        return {member.name for member in self.members}

    def wait_until_whole(self) -> None:
        """Return once all that run agree on who the members are and who leads, and none still catches up."""

        def is_whole() -> bool:
            try:
                views = [member.shards() for member in self.running()]
                roles = {entry["role"] for entry in self.view(self.running()[0])["members"]}
            except httpx.TransportError:
                return False
            agreed = {(frozenset(names), leader) for names, leader in views}
            return agreed == {(frozenset(self.names()), views[0][1])} and views[0][1] != "" and "learner" not in roles

        wait_until(is_whole, f"{self.names()} to agree")

    # What the server answers is this test's subject: its fields are used without checks, and miss with a KeyError.
    @staticmethod
    def view(member: Process) -> dict[str, list[dict[str, str]]]:
        """Return the cluster as its operator sees it at one member."""
        view: dict[str, list[dict[str, str]]] = httpx.get(f"http://{member.address('mgmt')}/cluster").json()
        return view

    def leader(self) -> Process:
        """Return the member that leads, once there is one."""
        found: list[Process] = []

        def is_led() -> bool:
            names = {member.shards()[1] for member in self.running()}
            found[:] = [member for member in self.running() if names == {member.name}]
            return bool(found)

        wait_until(is_led, "a leader")
        return found[0]

    def follower(self) -> Process:
        """Return a member that does not lead."""
        leader = self.leader()
        return next(member for member in self.running() if member is not leader)

    def forget(self) -> None:
        for member in self.members:
            member.forget()
