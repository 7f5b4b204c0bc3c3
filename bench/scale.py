"""How a log grows: `python bench/scale.py [MILLIONS ...] [--folder FOLDER]`.

One log grows from each size to the next, in processes of their own (`bench/growth.rs`). At each size the process is
killed, and the log is started twice: once after that, and once after an orderly end. Backup and join are measured up to
`COPIED` events. The numbers go to `bench/scale.json`, from which `bench/plots.py` draws. A hundred million events take
13 GB of disk and half an hour.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from run import ROOT

MILLION: Final = 1_000_000
SIZES: Final = (1, 10, 20, 30, 100)
COPIED: Final = 30 * MILLION
RESULTS: Final = Path(__file__).parent / "scale.json"


def main() -> None:
    """Measure each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("millions", type=int, nargs="*", default=SIZES)
    parser.add_argument(
        "--folder", type=Path, help="where the log is made; by default in the system's temporary folder"
    )
    given = parser.parse_args()
    program = build()
    folder = Path(tempfile.mkdtemp(prefix="qed-scale-", dir=given.folder))
    results: dict[str, dict[str, tuple[float, str]]] = {}
    try:
        for millions in sorted(given.millions):
            events = millions * MILLION
            found = run(program, "grow", folder / "log", str(events), is_killed=True)
            killed = run(program, "start", folder / "log")
            found |= {f"{name}, after kill": value for name, value in killed.items() if name.startswith("start")}
            found |= run(program, "start", folder / "log")
            if events <= COPIED:
                found |= run(program, "copy", folder / "log")
            results[str(events)] = found
            # After each size, so that what was measured is there if a later one fails.
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    finally:
        shutil.rmtree(folder)


def build() -> Path:
    """Return the program that measures."""
    command = [
        "cargo",
        "bench",
        "--quiet",
        "-p",
        "qed-core",
        "--bench",
        "growth",
        "--no-run",
        "--message-format",
        "json",
    ]
    lines = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    made = [json.loads(line).get("executable") for line in lines]
    return Path(next(path for path in made if path and Path(path).name.startswith("growth")))


def run(program: Path, what: str, *arguments: str | Path, is_killed: bool = False) -> dict[str, tuple[float, str]]:
    """Print and return the numbers that a call of the program prints, with their units."""
    done = subprocess.run([program, what, *arguments], check=not is_killed, stdout=subprocess.PIPE, text=True)
    found = {}
    for line in done.stdout.splitlines():
        name, number, unit = line.split("\t")
        print(f"{what:<6} {name:<32} {float(number):>14,.2f} {unit}", flush=True)
        found[name] = (float(number), unit)
    return found


if __name__ == "__main__":
    main()
