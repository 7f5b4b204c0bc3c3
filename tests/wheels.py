"""The wheel, as `make build` makes it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

__all__ = ["build_wheel"]

_ROOT: Final = Path(__file__).parent.parent


def build_wheel(folder: Path) -> Path:
    """Return the path of a wheel that was built into an empty folder. It is quick after `make`, which compiled it."""
    maturin = str(Path(sys.executable).with_name("maturin"))
    command = [maturin, "build", "--release", "--quiet", "--interpreter", sys.executable, "--out", str(folder)]
    subprocess.run(command, check=True, timeout=900, cwd=_ROOT)
    (built,) = folder.glob("*.whl")
    return built
