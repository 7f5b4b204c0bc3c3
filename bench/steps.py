"""Where the time of an add goes, by the metrics of the servers: one server and three, one connection and 64.

`python bench/steps.py [--seconds N]`. Each row has the mean of a step in microseconds, over all adds of one load.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from cluster import three_servers
from run import build_load, fill, load, serving

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.process import Server

EVENTS = 100_000
STEPS = ("queue", "sync", "replicate", "apply", "answer", "/events")
"""The steps of an entry, and the handling of a request as a whole."""
SAMPLE = re.compile(
    r'^qed_(?:entry_step|http_request_duration)_seconds_(sum|count)\{(?:step|call)="([^"]+)".*\} (\S+)$', re.MULTILINE
)


def read(server: Server) -> dict[tuple[str, str], float]:
    """Return sum and count of each step since the start of a server."""
    with urllib.request.urlopen(f"http://{server.address('metrics')}/metrics") as answer:
        text: str = answer.read().decode()
    return {(found[2], found[1]): float(found[3]) for found in SAMPLE.finditer(text)}


def measure(what: str, servers: Sequence[Server], seconds: float) -> None:
    """Print the steps of adds at the first of these servers, which leads, and at the others."""
    address = servers[0].address("http")
    for connections in (1, 64):
        load(address, "add", connections, "--seconds", 1, "--prefix", f"warm {connections} ")
        before = [read(server) for server in servers]
        answered = load(address, "add", connections, "--seconds", seconds, "--prefix", f"step {connections} ")
        after = [read(server) for server in servers]
        print(f"{what}, {connections} connections: {answered['requests_per_s']:,.0f}/s, p50 {answered['p50_ms']} ms")
        for number, (old, new) in enumerate(zip(before, after, strict=True)):
            means = (mean(old, new, step) for step in STEPS)
            print(f"  {'follower' if number else 'leader':<9}", "".join(f"{cell:>18}" for cell in means))


def mean(old: dict[tuple[str, str], float], new: dict[tuple[str, str], float], step: str) -> str:
    """Return the name of a step, and its mean in microseconds."""
    count = new.get((step, "count"), 0) - old.get((step, "count"), 0)
    took_s = new.get((step, "sum"), 0) - old.get((step, "sum"), 0)
    return f"{step} {took_s / count * 1e6:,.0f}" if count else f"{step} -"


def main() -> None:
    """Measure one server, then three."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    build_load()
    with tempfile.TemporaryDirectory(prefix="qed-bench-") as folder, serving(Path(folder)) as server:
        fill(server, EVENTS)
        measure("one server", [server], options.seconds)
    with three_servers() as cluster:
        leader = cluster.leader()
        fill(leader, EVENTS)
        measure("three servers", [leader, *cluster.others(leader)], options.seconds)


if __name__ == "__main__":
    main()
