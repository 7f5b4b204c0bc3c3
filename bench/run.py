"""Every number of bench/README.md: what was measured, beside its target and beside the limit.

`make bench`, or `python bench/run.py [--events N] [--only core|http|python|bulk]`. The default log has a million
events; the targets for ten million are measured with `--events 10000000`. The machine should be quiet: server and load
generator share its cores.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qed

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from harness.process import COMMAND, Server
from signing import NOW, membership_bundle, policy_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parent.parent
LOAD = ROOT / "bench" / "load" / "target" / "release" / "qed-load"
SECONDS = 8
QUIET_S = 60
STARTS = 7


def main() -> None:
    """Run the parts that were asked for and print one line per number."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--only", choices=["core", "http", "python", "bulk"])
    options = parser.parse_args()
    parts = {"core": bench_core, "python": bench_python, "http": bench_http, "bulk": bench_bulk}
    for name, part in parts.items():
        if options.only in {None, name}:
            print(f"\n{name}")
            part(options.events)


def row(what: str, measured: float, unit: str, target: str = "") -> None:
    """Print one number, with one decimal; too few for a ratio, or for a proof that verifies in two microseconds."""
    shown = f"{measured:,.2f}" if unit in {"us", "times"} else f"{measured:,.1f}"
    print(f"  {what:<50} {shown:>12} {unit:<10} {target}", flush=True)


def bench_core(events: int) -> None:
    """Run the benchmark of the Rust core."""
    command = ["cargo", "bench", "--quiet", "-p", "qed-core", "--bench", "core", "--", str(events)]
    subprocess.run(command, cwd=ROOT, check=True)


def bench_python(_events: int) -> None:
    """Measure verification as a Python program calls it."""
    with qed.Log() as log:
        current = log.add_bulk(b"event %d" % i for i in range(100_000))[-1]
        member = log.membership(b"event 7")
        absent = log.membership(b"nothing of the kind")
        increment = log.incremental(7, len(log) - 1)
        start = log.snapshot(7)
    if not isinstance(member, qed.MembershipProof) or not isinstance(absent, qed.AbsenceProof):
        raise SystemExit("the log answered nonsense")
    text = member.to_json()
    trusted = qed.TrustedSnapshots(start, current)
    calls: dict[str, tuple[Callable[[], object], str]] = {
        "verify membership, decoded": (
            lambda: qed.verify(qed.Membership(b"event 7"), member, trusted),
            "<= 20 us",
        ),
        "verify absence, decoded": (
            lambda: qed.verify(qed.Membership(b"nothing of the kind"), absent, trusted),
            "",
        ),
        "verify incremental, decoded": (
            lambda: qed.verify(qed.Extension(start.version, current.version), increment, trusted),
            "",
        ),
        "decode membership JSON": (lambda: qed.MembershipProof.from_json(text), ""),
        **witnessed(),
    }
    for what, (call, target) in calls.items():
        row(what, per_call_us(call), "us", target)


def witnessed() -> dict[str, tuple[Callable[[], object], str]]:
    """Return calls that decode and verify a bundle that a log and two witnesses have signed, with Ed25519."""
    with qed.Log() as log:
        log.add_bulk(b"event %d" % i for i in range(200))
        bundle = membership_bundle(log, b"event 7")
    policy, text = qed.Policy(policy_of().encode()), json.dumps(bundle).encode()
    signed = qed.SignedBundle.from_json(text)
    return {
        "decode a witnessed bundle": (lambda: qed.SignedBundle.from_json(text), ""),
        "verify a witnessed bundle, decoded": (lambda: policy.verify(signed, now=NOW), "<= 150 us"),
    }


def per_call_us(call: Callable[[], object]) -> float:
    """Return the best of 300 rounds, in microseconds a call. Short rounds, because other load misses some of them."""
    rounds = []
    for _ in range(300):
        start = time.perf_counter()
        for _ in range(200):
            call()
        rounds.append((time.perf_counter() - start) / 200 * 1e6)
    return min(rounds)


def bench_http(events: int) -> None:
    """Fill a server over HTTP, restart it, then load each call."""
    build_load()
    with tempfile.TemporaryDirectory(prefix="qed-bench-") as name:
        folder = Path(name)
        with serving(folder) as server:
            filled = fill(server, events)
            row("bulks of 1,000, 4 connections, while filling", filled["events_per_s"], "events/s", ">= 130,000/s")
            row("resident", resident_mb(server), "MB", "<= 250 MB at 1 M, <= 1 GB at 10 M")
            time.sleep(QUIET_S)
            row("disk an event, after a quiet minute", disk_bytes(folder) / events, "B", "<= 200 B")
        bench_starts(folder)
        with serving(folder) as server:
            http_calls(server.address("http"), events)


def bench_bulk(events: int) -> None:
    """Prove a thousand events over HTTP, each alone and all at once, on one connection."""
    with tempfile.TemporaryDirectory(prefix="qed-bench-") as name, serving(Path(name)) as server:
        client = qed.Client(server.url)
        for first in range(0, events, 10_000):
            last = client.add_bulk(b"event %d" % i for i in range(first, min(first + 10_000, events)))[-1]
        trusted = qed.TrustedSnapshots(last)

        def alone(asked: list[bytes]) -> None:
            for event in asked:
                qed.verify(qed.Membership(event), client.membership(event), trusted)

        spread = [b"event %d" % (i * 2_654_435_761 % events) for i in range(1000)]
        together = [b"event %d" % (events // 3 + i) for i in range(1000)]
        for what, asked in (("any 1,000 events", spread), ("1,000 events that were added together", together)):
            single = best_ms(functools.partial(alone, asked))
            bulk = best_ms(functools.partial(client.membership_many, asked, trusted))
            row(f"{what}, one by one", single, "ms")
            row(f"{what}, in one proof", bulk, "ms")
            row("    faster", single / bulk, "times")
        client.close()


def best_ms(call: Callable[[], object]) -> float:
    """Return the best of five rounds, in milliseconds."""
    rounds = []
    for _ in range(5):
        start = time.perf_counter()
        call()
        rounds.append((time.perf_counter() - start) * 1e3)
    return min(rounds)


def bench_starts(folder: Path) -> None:
    """Start a server on a log several times."""
    starts = []
    for _ in range(STARTS):
        started = time.perf_counter()
        with serving(folder) as server:
            server.info()
            starts.append((time.perf_counter() - started) * 1e3)
            resident = resident_mb(server)
    median, worst = statistics.median(starts), max(starts)
    row("start, until it answers, median", median, "ms", "<= 1 s at 1 M, <= 5 s at 10 M")
    row("start, worst", worst, "ms")
    row("resident after a start", resident, "MB", "<= 250 MB at 1 M, <= 1 GB at 10 M")


def http_calls(address: str, events: int) -> None:
    """Load each call for a few seconds."""
    known = ["--prefix", "event ", "--events", events]
    runs = [
        ("single adds, 64 connections", ["add", 64, "--prefix", "a"], "requests_per_s", ">= 9,000/s"),
        ("single adds, 1 connection", ["add", 1, "--prefix", "b"], "requests_per_s", ">= 2,000/s"),
        ("bulks of 1,000, 4 connections", ["bulk", 4, "--bulk", 1000, "--prefix", "c"], "events_per_s", ">= 130,000/s"),
        ("membership, 16 connections", ["membership", 16, *known], "requests_per_s", ">= 10,000/s"),
        ("incremental, 16 connections", ["incremental", 16, *known], "requests_per_s", ">= 13,000/s"),
        ("tiles, 16 connections", ["tile", 16, "--events", events], "requests_per_s", ">= 15,000/s"),
    ]
    for what, (mode, connections, *rest), field, target in runs:
        answer = load(address, str(mode), int(str(connections)), "--seconds", SECONDS, *rest)
        row(what, answer[field], field.replace("_per_s", "/s"), target)
        row("    p50 / p99 ms", answer["p50_ms"], f"/ {answer['p99_ms']:.1f}")


def build_load() -> None:
    """Compile the load generator."""
    subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=LOAD.parents[2], check=True)


def fill(server: Server, events: int, *rest: object) -> dict[str, float]:
    """Add events in bulks, and return what the load generator counted."""
    bulks = ("--bulk", 1000, "--count", events // 1000, "--prefix", "event ")
    return load(server.address("http"), "bulk", 4, *bulks, *rest)


def load(address: str, mode: str, connections: int, *rest: object) -> dict[str, float]:
    """Run the load generator and return what it counted; any error ends the benchmark."""
    command = [str(LOAD), mode, "--address", address, "--connections", str(connections), *map(str, rest)]
    answer: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    if answer.get("errors"):
        raise SystemExit(f"{mode}: {answer['errors']}")
    latency = answer.get("latency_ms", answer)
    return {
        **{name: float(answer[name]) for name in ("requests_per_s", "events_per_s") if name in answer},
        "p50_ms": float(latency.get("p50", latency.get("p50_ms", 0))),
        "p99_ms": float(latency.get("p99", latency.get("p99_ms", 0))),
    }


@contextmanager
def serving(folder: Path, command: str = COMMAND, *options: str) -> Iterator[Server]:
    """Serve the data in a folder until the block ends."""
    server = Server("bench", folder / "data", command=(command,), extra=("--log", "error", *options))
    try:
        server.start()
        yield server
        server.stop()
    finally:
        server.forget()


def resident_mb(server: Server) -> float:
    """Return the resident memory of a server."""
    return server.resident_bytes("VmRSS") / 2**20


def disk_bytes(folder: Path) -> int:
    """Return the disk blocks below a folder: a journal is sparse, so file lengths would be too large."""
    return sum((Path(parent) / name).stat().st_blocks * 512 for parent, _, names in os.walk(folder) for name in names)


if __name__ == "__main__":
    main()
