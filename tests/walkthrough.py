"""The walk-through of docs/cluster.md, extracted from the page and run command by command."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx

from commands import environment
from harness.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["CONTAINERS", "NAMES", "ROOT", "commands_of", "events_at", "is_whole", "run", "walk"]

ROOT: Final = Path(__file__).parent.parent
NAMES: Final = ("server0", "server1", "server2")
"""The node ids of the members."""
CONTAINERS: Final = {"qed_server_0": "server0", "qed_server_1": "server1", "qed_server_2": "server2"}
"""The member in each container."""
_LIMIT_S: Final = 300.0
"""Time limit of one command, such as building an image."""


def commands_of(heading: str) -> list[str]:
    """Return the commands in the console blocks of one section of docs/cluster.md."""
    text = (ROOT / "docs" / "cluster.md").read_text()
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```console\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def run(command: str, folder: Path, **changes: str) -> str:
    """Run a command of the documentation in a shell and return what it printed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["/bin/bash", "-c", command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
        env=environment(PATH=path, **changes),
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def is_whole(ports: Sequence[int], among: Sequence[str] = NAMES) -> bool:
    """Return whether the members at these ports agree on the leader and on the list of members."""
    try:
        views = [httpx.get(f"http://127.0.0.1:{port}/info/shards").json() for port in ports]
    except httpx.TransportError:
        return False
    leaders = {view["leaderId"] for view in views}
    return len(leaders) == 1 and "" not in leaders and all(set(view["shards"]) == set(among) for view in views)


def events_at(port: int) -> int:
    """Return how many events the log at a port holds."""
    events = httpx.get(f"http://127.0.0.1:{port}/info").json()["events"]
    assert isinstance(events, int)
    return events


def walk(run_one: Callable[[str], str], *, wait: Callable[[set[str]], None], ports: Sequence[int]) -> None:
    """Follow the walk-through, and check that everything happens as it says.

    Args:
        run_one: Runs a command, or its equivalent, and returns its output.
        wait: Returns once these members serve, as a reader would wait.
        ports: The HTTP ports of the three members.
    """
    living, added = set(NAMES), 0
    for command in commands_of("Walk through it"):
        printed = run_one(command)
        if command.startswith("docker "):
            word, _, name = command.removeprefix("docker ").partition(" ")
            member = CONTAINERS.get(name, name)
            living = living - {member} if word == "stop" else living | {member} if word == "start" else living
            wait(living)
        elif "/info/shards" in command:
            shards = json.loads(printed)
            addresses = zip(NAMES, ports, strict=True)
            assert shards["shards"] == {
                name: {"nodeId": name, "httpAddr": f"127.0.0.1:{port}"} for name, port in addresses
            }
            assert shards["leaderId"] in living
        elif " add " in command:
            added += 1
            assert f" Version: {added - 1}\n" in printed
            # A reader needs longer to reach the next command than the change needs to reach the other members.
            heard = [port for name, port in zip(NAMES, ports, strict=True) if name in living]
            wait_until(lambda heard=heard, added=added: all(events_at(port) == added for port in heard), "the event")  # type: ignore[misc]  # mypy infers no lambda with defaults
        else:
            assert printed.endswith("Verify: OK\n")
            assert "Exists: false" not in printed
    assert (living, added) == (set(NAMES), 4)
