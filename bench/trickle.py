"""Strangers who trickle requests: the latency of adds with a key, beside those on a server without strangers.

`python bench/trickle.py [--strangers N] [--every SECONDS] [--rounds N]`. Each stranger opens a connection, and sends
the head of a request, without a key, one byte at a time; if the server closes its connection, it opens another. Rounds
without and with strangers alternate. The machine should be quiet: server, client and strangers share its cores.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import http.client
import itertools
import json
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import qed
from run import row, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS: Final = 8.0
SETTLE_S: Final = 3.0
HEAD: Final = b"POST /events HTTP/1.1\r\nHost: log\r\nX-Padding: " + b"x" * 4000


def raise_file_limit() -> None:
    """Allow this process as many sockets as the system does."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def trickle(host: str, port: int, every_s: float, phase: float) -> None:
    """Be one stranger, until cancelled."""
    await asyncio.sleep(phase * every_s)
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(host, port)
            try:
                for index in range(len(HEAD)):
                    writer.write(HEAD[index : index + 1])
                    await writer.drain()
                    await asyncio.sleep(every_s)
            finally:
                writer.close()
        await asyncio.sleep(every_s)


def be_strangers(address: tuple[str, int], count: int, every_s: float) -> None:
    """Trickle on many connections at once, until this process is killed."""

    async def all_of_them() -> None:
        await asyncio.gather(*(trickle(*address, every_s, index / count) for index in range(count)))

    raise_file_limit()
    asyncio.run(all_of_them())


@contextlib.contextmanager
def strangers(address: tuple[str, int], count: int, every_s: float) -> Iterator[None]:
    """Have strangers at work until the block ends."""
    process = multiprocessing.get_context("spawn").Process(target=be_strangers, args=(address, count, every_s))
    process.start()
    try:
        time.sleep(every_s + SETTLE_S)
        yield
    finally:
        process.kill()
        process.join()


class Adder:
    """A client with a key that adds one event after the other."""

    def __init__(self, address: tuple[str, int], key: str) -> None:
        self._headers = {"Api-Key": key}
        self._connection = http.client.HTTPConnection(*address, timeout=60)
        self._numbers = itertools.count()

    def add(self) -> None:
        """Add an event on the kept connection."""
        event = base64.b64encode(b"event %d" % next(self._numbers)).decode()
        self._connection.request("POST", "/events", json.dumps({"Event": event}), self._headers)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != http.HTTPStatus.CREATED:
            raise SystemExit(f"expected 201, found {answer.status}: {body!r}")

    def add_anew(self) -> None:
        """Add an event on a new connection."""
        self._connection.close()
        self.add()


def latencies_ms(call: Callable[[], None]) -> list[float]:
    """Return how long each of the calls took that fit into the time of a round."""
    call()
    found, ends = [], time.perf_counter() + SECONDS
    while (begun := time.perf_counter()) < ends:
        call()
        found.append((time.perf_counter() - begun) * 1000)
    return found


def p99(found: list[float]) -> float:
    """Return the 99th percentile."""
    return statistics.quantiles(found, n=100)[98]


def main() -> None:
    """Measure both, in alternating rounds, and print the ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--strangers", type=int, default=2000)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between the bytes of each")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    raise_file_limit()
    with tempfile.TemporaryDirectory(prefix="qed-bench-") as folder, serving(Path(folder)) as server:
        with qed.Client([server.url]) as client:
            adder = Adder(server.http_address, client.create_key(["append"]).key)
        calls = {"kept connection": adder.add, "new connection for each": adder.add_anew}
        idle: dict[str, list[list[float]]] = {name: [] for name in calls}
        busy: dict[str, list[list[float]]] = {name: [] for name in calls}
        for _ in range(options.rounds):
            for name, call in calls.items():
                idle[name].append(latencies_ms(call))
            with strangers(server.http_address, options.strangers, options.every):
                for name, call in calls.items():
                    busy[name].append(latencies_ms(call))
    print(f"load average {os.getloadavg()[0]:.1f}")
    for name in calls:
        at_rest = statistics.median(map(p99, idle[name]))
        beside = statistics.median(map(p99, busy[name]))
        row(f"add with a key, {name}, p99, idle", at_rest, "ms")
        row(f"    beside {options.strangers} strangers", beside, "ms")
        ratios = [p99(after) / p99(before) for before, after in zip(idle[name], busy[name], strict=True)]
        shown = f"<= 3 ({min(ratios):.2f} to {max(ratios):.2f})"
        row("    ratio of the medians (least to most)", beside / at_rest, "", shown)


if __name__ == "__main__":
    main()
