"""A short campaign on real processes; `python -m campaign` in this folder runs a long one."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from campaign.faults import FAULTS
from seeds import SEED

_LIMIT_S = 200.0

# Every fault is injected once, and the cluster needs a second or two to recover from each.
pytestmark = pytest.mark.timeout(_LIMIT_S + 20)


@dataclass(frozen=True)
class Report:
    """What a campaign printed.

    Attributes:
        exit_code: 0 if every promise was kept.
        counts: How often each action was done, by its name in the table.
        times: How often each fault was injected.
        skipped: Why a fault cannot be injected on this machine.
    """

    exit_code: int
    counts: dict[str, int]
    times: dict[str, int]
    skipped: dict[str, str]


@pytest.fixture(scope="module")
def report() -> Report:
    command = [sys.executable, "-m", "campaign", "--minutes", "0.4", "--seed", str(SEED)]
    ended = subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=_LIMIT_S, check=False
    )
    print(ended.stdout, ended.stderr)  # noqa: T201  # pytest shows it when the test fails
    skipped = dict(re.findall(r"^skipped: (.+?): (.+)$", ended.stdout, re.MULTILINE))
    counts = re.findall(r"^\| (.+?) \| (\d+)(?: in \d+ s)? \|$", ended.stdout, re.MULTILINE)
    times = re.findall(r"^\| (.+?) \| (\d+) \| .*\|$", ended.stdout, re.MULTILINE)
    return Report(
        ended.returncode,
        {what: int(count) for what, count in counts},
        {fault: int(count) for fault, count in times},
        skipped,
    )


def test_what_was_acknowledged_survives_faults(report: Report) -> None:
    assert report.exit_code == 0, f"seed {SEED}"


def test_much_was_acknowledged_read_and_proven(report: Report) -> None:
    events = report.counts["events acknowledged"]
    assert events >= 600
    assert report.counts["adds acknowledged (bulks counted once)"] >= 200
    assert report.counts["reads verified under faults"] >= 100
    # The membership of each event on each of three members, and its incremental proof to the next.
    assert report.counts["proofs verified in the audit"] >= 4 * events


def test_nobody_got_more_than_a_credential_allows(report: Report) -> None:
    assert report.counts["requests without the right credential, refused"] >= 50


@pytest.mark.parametrize("fault", [fault.name for fault in FAULTS])
def test_fault_was_done(report: Report, fault: str) -> None:
    if reason := report.skipped.get(fault):
        pytest.skip(f"{fault}: {reason}")
    assert report.times[fault] >= 1
