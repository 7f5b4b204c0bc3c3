"""The numbers of three servers on this machine, each beside its target: adds, failover, a new member.

`python bench/cluster.py [--events N] [--kills N] [--only adds|failover|join]`. The machine should be
quiet: three servers and the load generator share its cores.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from run import LOAD, build_load, fill, load, resident_mb, row

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from harness.cluster import Cluster, new_secret
from harness.process import COMMAND, Server
from harness.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 8
PATIENCE_S = 60.0


def member_in(folder: Path, number: int, secret: Path, command: str = COMMAND) -> Server:
    """Return a member of a cluster with its data in a folder."""
    name = f"server{number}"
    return Server(name, folder / name, command=(command,), extra=("--log", "error"), secret=secret)


@contextmanager
def three_servers(command: str = COMMAND) -> Iterator[Cluster]:
    """Run a cluster in a temporary folder until the block ends."""
    with tempfile.TemporaryDirectory(prefix="qed-bench-") as folder:
        secret = new_secret(Path(folder))
        cluster = Cluster(member_in(Path(folder), number, secret, command) for number in range(3))
        try:
            cluster.start()
            yield cluster
            for member in cluster.members:
                member.stop()
        finally:
            cluster.forget()


def is_added(member: Server, event: bytes) -> bool:
    """Add one event; return whether this member itself acknowledged it."""
    connection = http.client.HTTPConnection(*member.http_address, timeout=5)
    try:
        connection.request("POST", "/events", json.dumps({"Event": base64.b64encode(event).decode()}))
        return connection.getresponse().status == http.HTTPStatus.CREATED
    except OSError:
        return False
    finally:
        connection.close()


def bench_adds(cluster: Cluster, events: int) -> None:
    """Fill the log, then load it with single adds and bulks."""
    leader = cluster.leader()
    address = leader.address("http")
    filled = fill(leader, events)
    row("bulks of 1,000, 4 connections, while filling", filled["events_per_s"], "events/s", ">= 50,000/s")
    single = load(address, "add", 64, "--seconds", SECONDS, "--prefix", "a")
    row("single adds, 64 connections", single["requests_per_s"], "adds/s", ">= 4,000/s")
    row("    p50 / p99 ms", single["p50_ms"], f"/ {single['p99_ms']:.1f}")
    lone = load(address, "add", 1, "--seconds", SECONDS, "--prefix", "b")
    row("add, 1 connection, p50", lone["p50_ms"], "ms", "<= 5 ms")
    bulks = load(address, "bulk", 4, "--bulk", 1000, "--seconds", SECONDS, "--prefix", "c")
    row("bulks of 1,000, 4 connections", bulks["events_per_s"], "events/s", ">= 50,000/s")
    row("resident memory of the largest member", max(map(resident_mb, cluster.members)), "MB", "<= 300 MB")


def outage_s(cluster: Cluster, number: signal.Signals) -> float:
    """Return how long no add is acknowledged after a signal to the leader; then wait until all members are healthy."""
    leader = cluster.leader()
    others = cluster.others(leader)
    wait_until(lambda: is_added(leader, b"before"), "the leader to take adds", limit_s=PATIENCE_S)
    started = time.monotonic()
    leader.process.send_signal(number)
    wait_until(
        lambda: any(is_added(member, b"after") for member in others), "another member to take adds", limit_s=PATIENCE_S
    )
    elapsed = time.monotonic() - started
    leader.wait()
    cluster.heal()
    return elapsed


def bench_failover(cluster: Cluster, kills: int) -> None:
    """Kill and stop leaders."""
    killed = [outage_s(cluster, signal.SIGKILL) for _ in range(kills)]
    row("adds again after kill -9 of the leader, median", statistics.median(killed), "s", "<= 1.5 s")
    row("    worst", max(killed), "s", f"<= 3 s of {kills}")
    stopped = [outage_s(cluster, signal.SIGTERM) for _ in range(max(kills // 2, 1))]
    row("adds again after SIGTERM to the leader, worst", max(stopped), "s", f"<= 0.3 s of {len(stopped)}")


def bench_join(cluster: Cluster) -> None:
    """Let a new member join under load."""
    leader = cluster.leader()
    events = leader.count()
    stop, waits = threading.Event(), [0.0]

    def write() -> None:
        last, count = time.monotonic(), 0
        while not stop.is_set():
            count += 1
            if is_added(leader, b"join %d" % count):
                now = time.monotonic()
                waits.append(now - last)
                last = now

    writer = threading.Thread(target=write)
    crowd = subprocess.Popen(
        [
            str(LOAD),
            "add",
            "--address",
            leader.address("http"),
            "--connections",
            "16",
            "--seconds",
            "30",
            "--prefix",
            "j",
        ],
        stdout=subprocess.DEVNULL,
    )
    writer.start()
    started = time.monotonic()
    fourth = member_in(leader.folder.parent, len(cluster.members), leader.folder.parent / "cluster-secret")
    fourth.join = (leader.address("raft"),)
    cluster.members.append(fourth)
    fourth.start()
    cluster.wait_whole(limit_s=PATIENCE_S)
    row(f"a new member joins {events:,} events and votes", time.monotonic() - started, "s", "<= 30 s")
    stop.set()
    writer.join()
    crowd.wait()
    row("    longest wait for an add meanwhile", max(waits), "s", "<= 1 s")
    row("    its resident memory", resident_mb(fourth), "MB", "<= 300 MB")


def main() -> None:
    """Start three servers, run everything, stop them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--only", choices=("adds", "failover", "join"))
    options = parser.parse_args()
    build_load()
    parts = {
        "adds": lambda cluster: bench_adds(cluster, options.events),
        "failover": lambda cluster: bench_failover(cluster, options.kills),
        "join": bench_join,
    }
    with three_servers() as cluster:
        for name, part in parts.items():
            if options.only in {None, name}:
                part(cluster)


if __name__ == "__main__":
    main()
