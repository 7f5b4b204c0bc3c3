"""A short campaign on real processes; `python -m campaign` in this folder runs a long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from seeds import SEED

_LIMIT_S = 110.0


def test_what_was_acknowledged_survives_faults() -> None:
    command = [sys.executable, "-m", "campaign", "--minutes", "0.4", "--seed", str(SEED)]
    ended = subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=_LIMIT_S, check=False
    )
    print(ended.stdout, ended.stderr)  # noqa: T201  # pytest shows it when the test fails
    assert ended.returncode == 0, f"seed {SEED}"
