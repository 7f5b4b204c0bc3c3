"""Every Python block of README and docs type-checks strictly; those without a server also run."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from documents import ROOT, blocks_in
from harness.wait import LIMIT_S

if TYPE_CHECKING:
    from pathlib import Path

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = {
    f"{page.stem.lower()}_{number}": block
    for page in PAGES
    for number, block in enumerate(blocks_in(page.read_text(), "python"))
}
# The README's own test runs its block beside a server.
ALONE = [name for name in BLOCKS if not name.startswith("readme")]


def test_the_pages_have_examples() -> None:
    assert {name.rpartition("_")[0] for name in BLOCKS} >= {"readme", "python"}
    assert any("qed.Absent" in block for block in BLOCKS.values())


def test_every_example_type_checks(tmp_path: Path) -> None:
    for name, block in BLOCKS.items():
        (tmp_path / f"{name}.py").write_text(block)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull, "--cache-dir", str(tmp_path), "."]
    environment = os.environ | {"MYPYPATH": str(ROOT / "python")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ALONE)
def test_every_example_runs(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCKS[name]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
