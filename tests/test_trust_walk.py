"""The set-up by hand of docs/trust.md, with processes, and the rules by which walks of that page are checked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.ports import free_ports
from harness.wait import LIMIT_S, wait_until
from test_readme import is_taken
from trust_walk import Reader, Step, steps_of

if TYPE_CHECKING:
    from pathlib import Path

BY_HAND = "By hand: two organisations watch each other"
PORT = re.compile(r"\b8[789]0[012]\b")


def test_what_is_printed_must_be_what_the_page_shows() -> None:
    step = Step("x", "First:\n …\n Size: 1\n Root: …\n")
    assert step.is_met_by("First:\n Size: 1\n Root: ab\n")
    assert step.is_met_by("First:\n\n A: 2\n Size: 1\n Root: ab\n")
    assert not step.is_met_by("First:\n A: 2\n Size: 12\n Root: ab\n")
    assert not step.is_met_by("First:\n Size: 1\n Root: ab\nmore\n")
    assert not step.is_met_by("")
    assert Step("x", "").is_met_by("anything\n")


def test_two_organisations_watch_each_other(tmp_path: Path) -> None:
    steps = list(steps_of(BY_HAND))
    named = sorted({port for step in steps for port in PORT.findall(step.command + step.expected)})
    assert len(named) == 6
    ports = dict(zip(named, map(str, free_ports(len(named))), strict=True))
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    reader = Reader(tmp_path, lambda text: PORT.sub(lambda found: ports[found[0]], text), state)
    services = []
    try:
        for step in steps:
            if " run " in step.command or step.command.startswith("qed-server "):
                services.append(reader.start(step))
                if len(services) == 4:
                    wait_until(lambda: all(is_taken(int(port)) for port in ports.values()), "all to listen")
                continue
            reader.follow(step)
    finally:
        for service in services:
            service.terminate()
        codes = [service.wait(LIMIT_S) for service in services]
    assert codes == [0] * 4, (tmp_path / "services.log").read_text()
