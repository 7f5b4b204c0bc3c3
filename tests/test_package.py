"""The wheel installs and works on a machine without a toolchain."""

from __future__ import annotations

import subprocess
import sys
import venv
from typing import TYPE_CHECKING

import pytest

from wheels import build_wheel

if TYPE_CHECKING:
    from pathlib import Path

# The first build compiles the extension.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the command folder of an environment with only the wheel and its dependencies."""
    folder = tmp_path_factory.mktemp("package")
    wheel = build_wheel(folder / "dist")
    environment = folder / "environment"
    venv.create(environment)
    pip = [sys.executable, "-m", "pip", "--python", str(environment), "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--only-binary", ":all:", str(wheel)], check=True, timeout=300)
    return environment / "bin"


def run(bin_folder: Path, *command: str) -> str:
    """Run a command of the environment, with nothing else on the path."""
    words = [str(bin_folder / command[0]), *command[1:]]
    done = subprocess.run(
        words, env={"PATH": str(bin_folder)}, cwd=bin_folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_commands_start(installed: Path) -> None:
    assert run(installed, "qed", "--version").startswith("qed ")
    assert "--raft-join-addr" in run(installed, "qed-server", "--help")


def test_library_makes_a_log_and_proves(installed: Path, tmp_path: Path) -> None:
    code = f"""
import qed
with qed.Log({str(tmp_path / "log")!r}) as log:
    snapshot = log.add(b"event 0")
print(snapshot.version, snapshot.event_digest.hex())
"""
    digest = "5beeaf427ee0bfcd1a7b6f63010f2745110cf23ae088b859275cd0aad369561b"
    assert run(installed, "python", "-W", "error", "-c", code).split() == ["0", digest]


def test_log_in_memory_needs_no_folder(installed: Path) -> None:
    assert run(installed, "python", "-c", "import qed; print(len(qed.Log()))") == "0\n"
