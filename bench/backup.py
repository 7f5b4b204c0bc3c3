"""The numbers of a backup, each beside its target: making one while clients add, restoring it, starting on it.

`python bench/backup.py [--events N] [--seconds S] [--to DIR]`. The machine should be quiet: the server, the load
generator and the two commands share its cores. The backups are written to the disk of the server unless `--to` names
another folder, such as one in memory. For a quick look, 200,000 events and two seconds are enough; the targets are for
10 M.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from run import build_load, fill, load, resident_mb, row, serving

if TYPE_CHECKING:
    from concurrent.futures import Future

    from harness.process import Server

QED = str(Path(__file__).parent.parent / ".venv" / "bin" / "qed")
CONNECTIONS = 16


def back_up(server: Server, folder: Path) -> float:
    """Make a backup of everything, and return how many events it brought in a second, the start of `qed` included."""
    started = time.perf_counter()
    command = [QED, "--endpoints", server.url, "backup", "create", "--to", str(folder), "--json"]
    made = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    rate = made["Events"] / (time.perf_counter() - started)
    for path in folder.iterdir():
        # Each one begins anew, and the disk need hold only the last.
        if path.name.isdecimal() and int(path.name) < made["Id"]:
            path.unlink()
    return float(rate)


def under_load(server: Server, seconds: float, prefix: str) -> dict[str, float]:
    """Add single events, and return what the load generator counted."""
    return load(server.address("http"), "add", CONNECTIONS, "--seconds", seconds, "--prefix", prefix)


def backups_during(server: Server, folder: Path, load_run: Future[dict[str, float]]) -> list[float]:
    """Make one backup after the other until the load ends, and return the rates of those that ended before it."""
    rates = []
    while not load_run.done():
        rate = back_up(server, folder)
        if not load_run.done() or not rates:
            rates.append(rate)
    return rates


def bench_backups(server: Server, folder: Path, seconds: float) -> None:
    """Compare adds alone with adds beside backups."""
    alone = under_load(server, seconds, "a")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(under_load, server, seconds, "b")
        rates = backups_during(server, folder, running)
        beside = running.result()
    what = f"backup while {CONNECTIONS} connections add, median of {len(rates)}"
    row(what, statistics.median(rates), "events/s", ">= 1,000,000/s")
    row("single adds, alone", alone["requests_per_s"], "adds/s")
    row("    p50 / p99 ms", alone["p50_ms"], f"/ {alone['p99_ms']:.1f}")
    row("single adds, beside backups", beside["requests_per_s"], "adds/s")
    row("    p50 / p99 ms", beside["p50_ms"], f"/ {beside['p99_ms']:.1f}")
    row("    adds, of those alone", beside["requests_per_s"] / alone["requests_per_s"], "times", ">= 0.8")
    row("    p99, of that alone", beside["p99_ms"] / alone["p99_ms"], "times", "<= 2")


def bench_restore(backup: Path, folder: Path) -> None:
    """Restore a backup, and start a server on it."""
    started = time.perf_counter()
    subprocess.run([QED, "restore", str(backup), "--data-dir", str(folder / "data")], check=True, capture_output=True)
    restored = time.perf_counter()
    with serving(folder) as server:
        events = server.info().events
        answered = time.perf_counter()
        row(f"restore of {events:,} events", restored - started, "s")
        row("    first start after it, until it answers", answered - restored, "s")
        row("    both", answered - started, "s", "<= 15 s at 10 M")
        row("    resident", resident_mb(server), "MB")


def main() -> None:
    """Fill a server, back it up under load, restore the last backup."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--seconds", type=float, default=40.0, help="how long each load lasts: several backups")
    parser.add_argument(
        "--to", type=Path, help="folder for the backups, on another disk or in memory; by default the server's disk"
    )
    options = parser.parse_args()
    build_load()
    with (
        tempfile.TemporaryDirectory(prefix="qed-bench-") as name,
        tempfile.TemporaryDirectory(prefix="qed-bench-", dir=options.to) as other,
    ):
        folder, backups = Path(name), Path(other) / "backups"
        with serving(folder) as server:
            fill(server, options.events)
            bench_backups(server, backups, options.seconds)
            back_up(server, backups)
        (backup,) = backups.iterdir()
        bench_restore(backup, folder / "restored")


if __name__ == "__main__":
    main()
