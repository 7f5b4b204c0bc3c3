"""The numbers of three servers on this machine, each beside its target: adds, failover, a new member.

`python bench/cluster.py [--events N] [--kills N]`. The machine should be quiet: three servers and the load generator
share its cores.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from run import LOAD, load, resident_mb, row

if TYPE_CHECKING:
    from collections.abc import Callable

SERVER = Path(sys.executable).with_name("qed-server")
SECONDS = 8
PATIENCE_S = 60


class Member:
    """One server process."""

    def __init__(self, folder: Path, number: int, join: str | None) -> None:
        self.name = f"server{number}"
        self.http, self.mgmt, self.raft = free_address(), free_address(), free_address()
        self._command = [str(SERVER), "--node-id", self.name, "--http-addr", self.http, "--mgmt-addr", self.mgmt]
        self._command += ["--raft-addr", self.raft, "--data-dir", str(folder / self.name), "--log", "error"]
        if join is not None:
            self._command += ["--raft-join-addr", join]
        self.process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)

    def restart(self) -> None:
        """Start it again once it has ended."""
        self.process.wait(timeout=PATIENCE_S)
        self.process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)

    def get(self, path: str, *, is_management: bool = False) -> dict[str, Any] | None:
        """Return the JSON of a path, or None if nobody answers."""
        connection = http.client.HTTPConnection(self.mgmt if is_management else self.http, timeout=1)
        try:
            connection.request("GET", path)
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
        except (OSError, ValueError):
            return None
        finally:
            connection.close()
        return answer

    def add(self, event: bytes) -> bool:
        """Add one event; return whether it was acknowledged by this very member."""
        connection = http.client.HTTPConnection(self.http, timeout=5)
        try:
            connection.request("POST", "/events", json.dumps({"Event": base64.b64encode(event).decode()}))
            return connection.getresponse().status == http.HTTPStatus.CREATED
        except OSError:
            return False
        finally:
            connection.close()


def free_address() -> str:
    """Return an address on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def wait_until(what: str, is_true: Callable[[], bool]) -> None:
    """Wait for a condition, at most a minute."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_true():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited in vain until {what}")
        time.sleep(0.01)


def leader_of(members: list[Member]) -> Member:
    """Return the leader once all members agree on one."""
    names: set[str] = set()

    def agree() -> bool:
        answers = [member.get("/info/shards") for member in members]
        names.clear()
        names.update(answer["leaderId"] if answer else "" for answer in answers)
        return len(names) == 1 and names != {""}

    wait_until("the members agree on a leader", agree)
    return next(member for member in members if member.name in names)


def bench_adds(members: list[Member], events: int) -> None:
    """Fill the log, then load it with single adds and bulks."""
    leader = leader_of(members)
    filled = load(leader.http, "bulk", 4, "--bulk", 1000, "--count", events // 1000, "--prefix", "event ")
    row("bulks of 1,000, 4 connections, while filling", filled["events_per_s"], "events/s", ">= 50,000/s")
    single = load(leader.http, "add", 64, "--seconds", SECONDS, "--prefix", "a")
    row("single adds, 64 connections", single["requests_per_s"], "adds/s", ">= 4,000/s")
    row("    p50 / p99 ms", single["p50_ms"], f"/ {single['p99_ms']:.1f}")
    lone = load(leader.http, "add", 1, "--seconds", SECONDS, "--prefix", "b")
    row("add, 1 connection, p50", lone["p50_ms"], "ms", "<= 5 ms")
    bulks = load(leader.http, "bulk", 4, "--bulk", 1000, "--seconds", SECONDS, "--prefix", "c")
    row("bulks of 1,000, 4 connections", bulks["events_per_s"], "events/s", ">= 50,000/s")
    row("resident memory of the largest member", max(resident_mb(m.process.pid) for m in members), "MB", "<= 300 MB")


def outage_s(members: list[Member], number: signal.Signals) -> float:
    """Return how long no add is acknowledged after a signal to the leader; then wait until all are well."""
    leader = leader_of(members)
    others = [member for member in members if member is not leader]
    wait_until("the leader takes adds", lambda: leader.add(b"before"))
    started = time.monotonic()
    os.kill(leader.process.pid, number)
    wait_until("another member takes adds", lambda: any(member.add(b"after") for member in others))
    elapsed = time.monotonic() - started
    leader.restart()
    leader_of(members)
    return elapsed


def bench_failover(members: list[Member], kills: int) -> None:
    """Kill and stop leaders."""
    killed = [outage_s(members, signal.SIGKILL) for _ in range(kills)]
    row("adds again after kill -9 of the leader, median", statistics.median(killed), "s", "<= 1.5 s")
    row("    worst", max(killed), "s", f"<= 3 s of {kills}")
    stopped = [outage_s(members, signal.SIGTERM) for _ in range(max(kills // 2, 1))]
    row("adds again after SIGTERM to the leader, worst", max(stopped), "s", f"<= 0.3 s of {len(stopped)}")


def bench_join(folder: Path, members: list[Member]) -> None:
    """Let a new member join under load."""
    leader = leader_of(members)
    info = leader.get("/info") or {}
    stop, waits = threading.Event(), [0.0]

    def write() -> None:
        last, count = time.monotonic(), 0
        while not stop.is_set():
            count += 1
            if leader.add(b"join %d" % count):
                now = time.monotonic()
                waits.append(now - last)
                last = now

    writer = threading.Thread(target=write)
    crowd = subprocess.Popen(
        [str(LOAD), "add", "--address", leader.http, "--connections", "16", "--seconds", "30", "--prefix", "j"],
        stdout=subprocess.DEVNULL,
    )
    writer.start()
    started = time.monotonic()
    fourth = Member(folder, len(members), leader.raft)

    def votes() -> bool:
        cluster = leader.get("/cluster", is_management=True) or {"members": []}
        return any(m["node_id"] == fourth.name and m["role"] == "follower" for m in cluster["members"])

    wait_until("the new member votes", votes)
    row(f"a new member joins {info['events']:,} events and votes", time.monotonic() - started, "s", "<= 30 s")
    stop.set()
    writer.join()
    crowd.wait()
    row("    longest wait for an add meanwhile", max(waits), "s", "<= 1 s")
    row("    its resident memory", resident_mb(fourth.process.pid), "MB", "<= 300 MB")
    members.append(fourth)


def main() -> None:
    """Start three servers, run everything, stop them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=LOAD.parents[2], check=True)
    with tempfile.TemporaryDirectory(prefix="qed-bench-") as name:
        folder = Path(name)
        members = [Member(folder, 0, None)]
        leader_of(members)
        members += [Member(folder, number, members[0].raft) for number in (1, 2)]
        try:
            leader_of(members)
            wait_until("all three vote", lambda: roles(members[0]) == ["follower", "follower", "leader"])
            bench_adds(members, options.events)
            bench_failover(members, options.kills)
            bench_join(folder, members)
        finally:
            for member in members:
                member.process.terminate()
            for member in members:
                member.process.wait(timeout=PATIENCE_S)


def roles(member: Member) -> list[str]:
    """Return the roles of all members, sorted."""
    cluster = member.get("/cluster", is_management=True) or {"members": []}
    return sorted(entry["role"] for entry in cluster["members"])


if __name__ == "__main__":
    main()
