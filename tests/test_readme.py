"""The README's commands and its example, word for word, in an empty folder."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Final

import pytest

from commands import environment
from documents import ROOT, blocks_in, section_of
from harness.process import start_process
from harness.wait import LIMIT_S
from walkthrough import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

README: Final = (ROOT / "README.md").read_text()
USE: Final = section_of(README, "Use it")
PORTS: Final = (8800, 8700, 8500)


def is_taken(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve on the README's ports, or on others if those are in use; give the address."""
    # Where tests run side by side, those in containers need these ports.
    is_alone = "PYTEST_XDIST_WORKER" not in os.environ
    addresses = [] if not is_alone or any(map(is_taken, PORTS)) else [f"127.0.0.1:{port}" for port in PORTS]
    options = zip(("--http-addr", "--mgmt-addr", "--raft-addr"), addresses, strict=bool(addresses))
    with ExitStack() as ending:
        server = start_process(folder / "qed-data", *(word for option in options for word in option))
        ending.callback(server.forget)
        ending.callback(server.kill)
        yield server.url


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """Give a folder that holds only the file that the README adds."""
    shutil.copy(ROOT / "README.md", tmp_path)
    return tmp_path


def test_commands_do_what_they_say(empty: Path) -> None:
    started, commands = [block.splitlines() for block in blocks_in(USE)]
    assert started[-1] == "qed-server --data-dir ./qed-data"
    assert len(commands) == 6
    with served(empty) as url:
        printed = [run(command, empty, QED_ENDPOINTS=url) for command in commands[:-1]]
    # Without a server.
    printed.append(run(commands[-1], empty))
    for command, shown in zip(commands, printed, strict=True):
        assert ("Verify: OK" in shown) == (" add " not in command), command
    assert "Exists: true" in printed[2]
    assert "Exists: false" in printed[3]


def test_first_example_is_what_is_printed(empty: Path) -> None:
    (shown,) = blocks_in(README.partition("\n## ")[0])
    examples = re.findall(r"^\$ (.+)\n((?:(?!\$ ).+\n?)+)", shown, re.MULTILINE)
    assert len(examples) == 2
    with served(empty) as url:
        for command, expected in examples:
            receipts = " --receipts receipts.jsonl" if " add " in command else ""
            printed = run(command + receipts, empty, QED_ENDPOINTS=url).splitlines()
            assert set(expected.splitlines()) - {" …"} <= set(printed)


def test_python_example_runs(empty: Path) -> None:
    (example,) = blocks_in(USE, "python")
    with served(empty) as url:
        code = example.replace("http://127.0.0.1:8800", url)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            cwd=empty,
            env=environment(PATH=os.environ["PATH"]),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "in the log, at version 0\n", "")
