"""The benchmarks run, in small. What they measure is for a quiet machine, so no number is checked here."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from documents import ROOT

if TYPE_CHECKING:
    from pathlib import Path

# The load generator may have to be built first.
pytestmark = pytest.mark.timeout(300)

ROW: Final = re.compile(r"^ +(\S.*?) {2,}([\d.,]+) +(\S+)", re.MULTILINE)


def rows(script: str, *options: str) -> dict[str, tuple[float, str]]:
    """Run a benchmark, and return its numbers with their units, by what they measure."""
    command = [sys.executable, str(ROOT / "bench" / script), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {what: (float(number.replace(",", "")), unit) for what, number, unit in ROW.findall(done.stdout)}


def test_backup_is_measured_under_load_and_restored(tmp_path: Path) -> None:
    found = rows("backup.py", "--events", "3000", "--seconds", "0.5", "--to", str(tmp_path))
    assert found["adds, of those alone"][0] > 0
    assert any(what.startswith("backup while 16 connections add") and rate > 0 for what, (rate, _) in found.items())
    restored = next(what for what in found if what.startswith("restore of "))
    # The backup has the events that were added under load, too.
    assert int(restored.split()[2].replace(",", "")) > 3000


def test_a_witness_is_measured_with_one_key_and_with_two() -> None:
    found = rows("witness.py", "--seconds", "0.3", "--logs", "2")
    for what in ("1 log, Ed25519", "2 logs, Ed25519 and ML-DSA-44"):
        assert found[what][0] > 0
        assert found[f"{what}: median"][1] == "ms"


@pytest.mark.parametrize("part", ["key", "secure"])
def test_adds_with_a_key_are_compared_with_adds_without(part: str) -> None:
    found = rows("compare.py", ".", "--only", part, "--rounds", "1", "--events", "2000", "--seconds", "0.5")
    assert found["single adds, 64 connections"][0] > 0
    assert found["bulks of 1,000, 4 connections"][0] > 0


def test_a_stream_is_measured_beside_bulks() -> None:
    found = rows("stream.py", "--events", "3000", "--rounds", "1")
    for what in ("raw stream", "raw bulks of 1,000, one connection", "client stream", "client bulks of 1,000"):
        assert found[what][0] > 0
