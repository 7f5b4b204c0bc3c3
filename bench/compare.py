"""Two builds in one run: the ratio of every number that must not get worse.

`python bench/compare.py OLD_CHECKOUT [--rounds N] [--events N] [--seconds S] [--only PART]`. The old checkout must be
built: `git worktree add /tmp/qed-before COMMIT && make -C /tmp/qed-before .venv/.installed`.

The servers of both builds run all the time, and each number is measured for a few seconds on one and then on the other,
so that whatever else the machine does affects both alike. A round gives one ratio; the table has their median, and
between which two values half of them are. A ratio compares new with old, and above 1 is better. The machine should
still be quiet.

Two parts are about API keys. `secure` is `three`, and the new build gets a key with every request. `key` compares one
server of the new build with itself: without a key, and with a key in every request. `receipts` does the same with a
server that signs, and a committed receipt for every addition.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from cluster import three_servers
from run import ROOT, build_load, fill, load, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from harness.process import Server

STARTS = 10
BULK = ("--bulk", 1000, "--prefix", "c")


@dataclass(frozen=True)
class Number:
    """One measurement.

    Attributes:
        what: Its name in the table.
        value: The number.
        unit: Ends in `/s` for a rate, where more is better; otherwise less is better.
    """

    what: str
    value: float
    unit: str

    def ratio(self, old: Number) -> float:
        """Return how much better this is than `old`; 1 is equally good."""
        return self.value / old.value if self.unit.endswith("/s") else old.value / self.value


@dataclass(frozen=True)
class Build:
    """A checkout with its own environment.

    Attributes:
        root: Its folder.
        sends_key: Whether its servers have an API key, and each request brings it.
        wants_receipts: Whether its servers sign, and each addition asks for a committed receipt.
    """

    root: Path
    sends_key: bool = False
    wants_receipts: bool = False

    def command(self, name: str) -> str:
        """Return the path of one of its commands."""
        return str(self.root / ".venv" / "bin" / name)

    def signing_options(self, folder: Path) -> tuple[str, ...]:
        """Return the options of a server that signs, with keys and a sign memory in a folder."""
        if not self.wants_receipts:
            return ()
        key, origin = folder / "log.key", "log.example.com/bench"
        command = [self.command("qed"), "log-key", "generate", "--origin", origin, "--out", str(key)]
        subprocess.run(command, check=True, capture_output=True)
        return ("--origin", origin, "--signing-key", str(key), "--sign-memory", str(folder / "memory"))

    def key_options(self, server: Server) -> tuple[str, ...]:
        """Return the options of the load generator for the API key, which is made on the server."""
        if not self.sends_key:
            return ()
        roles = ("--role", "append", "--role", "prove")
        command = [self.command("qed"), "--endpoints", server.url, "keys", "create", *roles, "--json"]
        return ("--api-key", json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["Key"])


@dataclass(frozen=True)
class Size:
    """How much is measured: events that fill a log, and seconds that each load lasts."""

    events: int
    seconds: float


def core_numbers(build: Build, size: Size) -> Iterator[Number]:
    """Measure appends, proofs and verification in Rust with the build's own benchmark."""
    command = ["cargo", "bench", "--quiet", "-p", "qed-core", "--bench", "core", "--", str(size.events)]
    printed = subprocess.run(command, cwd=build.root, check=True, capture_output=True, text=True).stdout
    for what, value, unit in re.findall(r"^(\S.*?) +([\d.]+) (events/s|us|ms)$", printed, re.MULTILINE):
        if what != "limit of two cores":
            yield Number(what, float(value), unit)


def start_numbers(build: Build, _size: Size) -> Iterator[Number]:
    """Measure how long the command line takes to print its version."""
    took_ms = []
    for _ in range(STARTS):
        started = time.perf_counter()
        subprocess.run([build.command("qed"), "--version"], check=True, capture_output=True)
        took_ms.append((time.perf_counter() - started) * 1e3)
    yield Number("qed --version", statistics.median(took_ms), "ms")


def add_numbers(address: str, size: Size, key: tuple[str, ...]) -> Iterator[Number]:
    """Add single events on one connection and on many, then bulks."""
    common = ("--seconds", size.seconds, *key)
    lone = load(address, "add", 1, *common, "--prefix", "l")
    yield Number("single adds, 1 connection", lone["requests_per_s"], "adds/s")
    yield Number("99 of 100 of them within", lone["p99_ms"], "ms")
    single = load(address, "add", 64, *common, "--prefix", "a")
    yield Number("single adds, 64 connections", single["requests_per_s"], "adds/s")
    yield Number("half of them within", single["p50_ms"], "ms")
    bulks = load(address, "bulk", 4, *common, *BULK)
    yield Number("bulks of 1,000, 4 connections", bulks["events_per_s"], "events/s")


Side: TypeAlias = "Callable[[], Iterator[Number]]"
"""Measures one of two builds, number by number."""


@contextmanager
def core(build: Build, size: Size) -> Iterator[Side]:
    """Prepare the measurement of the trees alone."""
    yield lambda: core_numbers(build, size)


@contextmanager
def start(build: Build, size: Size) -> Iterator[Side]:
    """Prepare the measurement of a start."""
    yield lambda: start_numbers(build, size)


@contextmanager
def http(build: Build, size: Size) -> Iterator[Side]:
    """Run one server with a filled log until the block ends."""
    with (
        tempfile.TemporaryDirectory(prefix="qed-bench-") as folder,
        serving(Path(folder), build.command("qed-server"), *build.signing_options(Path(folder))) as server,
    ):
        address, key = server.address("http"), build.key_options(server)
        fill(server, size.events, *key)
        key += ("--receipt", "committed") if build.wants_receipts else ()
        known = ("--prefix", "event ", "--events", size.events)

        def numbers() -> Iterator[Number]:
            yield from add_numbers(address, size, key)
            answer = load(address, "membership", 16, "--seconds", size.seconds, *known, *key)
            yield Number("membership, 16 connections", answer["requests_per_s"], "requests/s")

        yield numbers


@contextmanager
def three(build: Build, size: Size) -> Iterator[Side]:
    """Run three servers with a filled log until the block ends."""
    with three_servers(build.command("qed-server")) as cluster:
        leader = cluster.leader()
        key = build.key_options(leader)
        fill(leader, size.events, *key)
        yield lambda: add_numbers(cluster.leader().address("http"), size, key)


@dataclass(frozen=True)
class Part:
    """What is measured, and of which two builds.

    Attributes:
        open: Prepares the measurement of one build.
        sides: Returns the two that are compared, given the old and the new one.
    """

    open: Callable[[Build, Size], AbstractContextManager[Side]]
    sides: Callable[[Build, Build], tuple[Build, Build]] = lambda old, new: (old, new)


PARTS: dict[str, Part] = {
    "core": Part(core),
    "http": Part(http),
    "three": Part(three),
    "start": Part(start),
    "secure": Part(three, lambda old, new: (old, replace(new, sends_key=True))),
    "key": Part(http, lambda _, new: (new, replace(new, sends_key=True))),
    "receipts": Part(http, lambda _, new: (new, replace(new, wants_receipts=True))),
}


def alternating(sides: tuple[Side, Side]) -> tuple[dict[str, Number], dict[str, Number]]:
    """Measure each number of one side and then of the other, and return the numbers of both by what they measure."""
    found: tuple[dict[str, Number], dict[str, Number]] = ({}, {})
    for step in zip_longest(*(side() for side in sides)):
        for numbers, measured in zip(found, step, strict=True):
            if measured is not None:
                numbers[measured.what] = measured
    return found


def compare(name: str, part: Part, builds: tuple[Build, Build], size: Size, rounds: int) -> None:
    """Measure one part, alternating between the builds with each number, and print its table."""
    print(f"\n{name:<42} {'old':>12} {'new':>12} {'':<10} ratio (middle half)")
    pairs: dict[str, list[tuple[Number, Number]]] = {}
    with ExitStack() as stack:
        old, new = (stack.enter_context(part.open(build, size)) for build in part.sides(*builds))
        for number in range(rounds):
            # Who is first changes, because the second one finds the machine as the first left it.
            is_old_first = number % 2 == 0
            found = alternating((old, new) if is_old_first else (new, old))
            before, after = found if is_old_first else reversed(found)
            for what in before.keys() & after.keys():
                pairs.setdefault(what, []).append((before[what], after[what]))
    for what, measured in sorted(pairs.items()):
        print_ratio(what, measured)


def print_ratio(what: str, measured: list[tuple[Number, Number]]) -> None:
    """Print the medians of both builds, and their ratios."""
    before, after = (statistics.median(number.value for number in side) for side in zip(*measured, strict=True))
    ratios = [new.ratio(old) for old, new in measured]
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    spread = f"{statistics.median(ratios):.3f} ({low:.3f} to {high:.3f})"
    print(f"  {what:<40} {before:>12,.1f} {after:>12,.1f} {measured[0][0].unit:<10} {spread}", flush=True)


def main() -> None:
    """Compare the parts that were asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("old", type=Path, help="the checkout to compare this one with")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--only", choices=PARTS)
    options = parser.parse_args()
    old, new = Build(options.old.resolve()), Build(ROOT)
    if not Path(old.command("qed-server")).exists():
        sys.exit(f"expected a built checkout, found no {old.command('qed-server')}: run `make .venv/.installed` there")
    build_load()
    for name, part in PARTS.items():
        if options.only in {None, name}:
            compare(name, part, (old, new), Size(options.events, options.seconds), options.rounds)


if __name__ == "__main__":
    main()
