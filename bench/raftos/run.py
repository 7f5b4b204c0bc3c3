"""Installs raftos 0.2.6 as far as possible, and shows which of Raft's promises it breaks and qed keeps.

`python bench/raftos/run.py [--json | --schedules]`. Needs Python >= 3.11, PyPI, and the requirements of building qed.
Only the compiled engine is kept outside temporary folders. The exit status is 0 if pip fails, raftos behaves exactly
as written down here, and qed breaks nothing; it is 1 otherwise.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drive_qed import drive_qed
from history import PROMISES
from schedules import SCHEDULES

if TYPE_CHECKING:
    from schedules import Schedule

RAFTOS = "raftos==0.2.6"
CRYPTOGRAPHY = "cryptography==1.5.3"
MSGPACK = "msgpack-python==0.4.8"

# Exactly what raftos 0.2.6 breaks in each schedule.
BREAKS = {
    "nothing wrong": set(),
    "forgotten vote": {"one vote", "one leader", "same order"},
    "vote after stepping down": {"one vote", "one leader"},
    "vote of an older term": {"majority elects", "one leader"},
    "duplicated vote": {"majority elects", "one leader"},
    "even split": {"majority holds", "majority elects", "one leader", "same order"},
    "late heartbeat": {"acknowledged stays", "same order"},
    "late acknowledgement": {"acknowledged stays", "majority holds", "same order", "applied once"},
    "overlapping writes": {"majority holds", "acknowledged stays"},
    "applied again": {"applied once"},
    "entry left behind": {"progress"},
    "restart after a write": {"starts again"},
}


@dataclass(frozen=True)
class Installation:
    """The result of `pip install`: whether it failed at the pinned cryptography, and the underlying error."""

    is_refused: bool
    reason: str


def main() -> int:
    """Print the table, or JSON, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print what was seen as JSON")
    parser.add_argument("--schedules", action="store_true", help="print the schedules as JSON and run nothing")
    options = parser.parse_args()
    if options.schedules:
        print(json.dumps([dataclasses.asdict(schedule) for schedule in SCHEDULES], indent=1))
        return 0
    with tempfile.TemporaryDirectory(prefix="raftos-") as folder:
        python = make_environment(Path(folder))
        installation = install_as_published(python)
        pip(python, "--no-deps", RAFTOS, MSGPACK).check_returncode()
        seen = drive(python)
    seen["qed"] = drive_qed()
    is_reproduced = installation.is_refused and {name: set(broken) for name, broken in seen["raftos"].items()} == BREAKS
    is_as_documented = is_reproduced and not any(seen["qed"].values())
    if options.json:
        print(json.dumps(as_json(installation, seen, is_as_documented=is_as_documented), indent=1))
    else:
        print_report(installation, seen, is_as_documented=is_as_documented)
    return 0 if is_as_documented else 1


def make_environment(folder: Path) -> Path:
    """Return the Python of a new virtual environment in `folder`."""
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    return folder / "venv" / "bin" / "python"


def pip(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Return the output of `pip install`; cached wheels of earlier builds are not used."""
    command = [python, "-m", "pip", "install", "--no-cache-dir", *arguments]
    return subprocess.run(command, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def install_as_published(python: Path) -> Installation:
    """Install raftos with the dependencies that it pins."""
    done = pip(python, RAFTOS)
    if done.returncode == 0:
        return Installation(is_refused=False, reason="pip installed it")
    # A missing network is also a failure, but not this one: pip must have reached the source of cryptography.
    is_refused = f"Collecting {CRYPTOGRAPHY}" in done.stdout and "cryptography-1.5.3.tar.gz" in done.stdout
    errors = re.findall(r"^\s*(\w+Error: .+|.*\berror: .+)$", done.stdout, re.MULTILINE)
    specific = [error for error in errors if "subprocess-exited-with-error" not in error]
    reason = (specific or errors or ["no error line in what pip said"])[0].strip()
    return Installation(is_refused, reason)


def drive(python: Path) -> dict[str, Any]:
    """Play the schedules on raftos and return the shims and the broken promises of each schedule."""
    # raftos sends to a set of addresses; the seed fixes the order of a set of strings.
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    command = [python, Path(__file__).with_name("drive.py")]
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, env=environment)
    return json.loads(done.stdout)


def as_json(installation: Installation, seen: dict[str, Any], *, is_as_documented: bool) -> dict[str, Any]:
    """Return all findings."""
    return {
        "python": sys.version.split()[0],
        "installation": dataclasses.asdict(installation),
        "shims": seen["shims"],
        "schedules": [
            {
                "name": schedule.name,
                "promise": schedule.promise,
                "raftos": seen["raftos"][schedule.name],
                "qed": seen["qed"][schedule.name],
            }
            for schedule in SCHEDULES
        ],
        "is_as_documented": is_as_documented,
    }


def print_report(installation: Installation, seen: dict[str, Any], *, is_as_documented: bool) -> None:
    """Print a line for each schedule, and a line for each further promise that it breaks."""
    print(f"Python {sys.version.split()[0]}\n\npip install {RAFTOS}")
    verdict = f"fails at {CRYPTOGRAPHY}" if installation.is_refused else "does not fail as expected"
    print(f"  {verdict}: {installation.reason}")
    print(f"\npip install --no-deps {RAFTOS} {MSGPACK}\n  no cryptography: raftos falls back to its DummyCryptor")
    for shim in seen["shims"]:
        print(f"  shim: {shim}")
    print(f"\n{'schedule':<26}{'what Raft promises':<50}{'what raftos did':<66}what qed did")
    for schedule in SCHEDULES:
        print_rows(schedule, seen["raftos"][schedule.name], seen["qed"][schedule.name])
    print("\nas documented" if is_as_documented else "\nNOT as documented: raftos breaks BREAKS in run.py, qed nothing")


def print_rows(schedule: Schedule, raftos: dict[str, str], qed: dict[str, str]) -> None:
    """Print the promise that the schedule tests, then the others that one of the two broke."""
    name = schedule.name
    for promise in dict.fromkeys([schedule.promise, *raftos, *qed]):
        print(f"{name:<26}{PROMISES[promise]:<50}{outcome(promise, raftos):<66}{outcome(promise, qed)}")
        name = ""


def outcome(promise: str, broken: dict[str, str]) -> str:
    """Return whether a promise was kept, and how it was broken."""
    return f"VIOLATED: {broken[promise]}" if promise in broken else "held"


if __name__ == "__main__":
    sys.exit(main())
