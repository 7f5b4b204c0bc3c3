"""The walks of docs/trust.md, extracted from the page: their commands, and what each must print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from commands import environment
from documents import ROOT, blocks_in, section_of
from harness.wait import wait_while

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["Reader", "Step", "steps_of"]

_LIMIT_S: Final = 600.0
"""Time limit of one command, such as building an image."""
_PATIENCE_S: Final = 240.0
"""How long a command is repeated. On a busy machine, a container that starts needs a minute before it is healthy."""
_ANYTHING: Final = "…"
_REPEATED: Final = ("docker logs ", "docker inspect ", "curl ")
"""Commands that a reader repeats until they show what the page says."""
_CODES: Final = {"Verify: OK": 0, "Verify: FORK": 1, "Verify: INCONCLUSIVE": 5}
"""The exit codes of the verdicts that the page shows."""


@dataclass(frozen=True)
class Step:
    """One command of the page.

    Attributes:
        command: The command.
        expected: What it prints, as the page shows it; empty if the page does not show that.
    """

    command: str
    expected: str

    @property
    def is_repeated(self) -> bool:
        """Whether it may have to be repeated until it prints what the page shows."""
        return self.command.startswith(_REPEATED)

    @property
    def code(self) -> int:
        """Return the exit code that goes with what the page shows."""
        return next((code for verdict, code in _CODES.items() if verdict in self.expected), 0)

    def is_met_by(self, printed: str) -> bool:
        """Return whether this was printed: `…` is the rest of a line, or on a line of its own any lines.

        Spaces at the end of a line and empty lines at the end do not matter.
        """
        shown = re.sub(r" +$", "", printed, flags=re.MULTILINE).rstrip("\n") + "\n"
        lines = [
            "(?:.*\n)*?" if line.strip() == _ANYTHING else re.escape(line).replace(_ANYTHING, ".*") + "\n"
            for line in self.expected.splitlines()
        ]
        return not lines or re.fullmatch("".join(lines), shown) is not None


def steps_of(heading: str) -> Iterator[Step]:
    """Return the steps in the console blocks of one section of the page."""
    for block in blocks_in(section_of((ROOT / "docs" / "trust.md").read_text(), heading), "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, expected = part.partition("\n")
            yield Step(command, expected)


@dataclass
class Reader:
    """Somebody who follows the page in a shell.

    Attributes:
        folder: Where the commands are run.
        translate: Changes a command to what this machine has: ports, images, tools.
        changes: What is added to the environment.
    """

    folder: Path
    translate: Callable[[str], str]
    changes: Mapping[str, str] = field(default_factory=dict)
    _exports: list[str] = field(default_factory=list)

    def follow(self, step: Step) -> None:
        """Run a command, and check that it prints what the page shows."""
        command = self.translate(step.command)
        if command.startswith("export "):
            self._exports.append(f"{command}; ")
        elif step.is_repeated:
            wait_while(lambda: self._missing(step, command), step.command, limit_s=_PATIENCE_S)
        else:
            assert not (missing := self._missing(step, command)), missing

    def start(self, step: Step) -> subprocess.Popen[bytes]:
        """Start a command that goes on until it is stopped."""
        command = self._shell(f"exec {self.translate(step.command)}")
        with (self.folder / "services.log").open("ab") as log:
            return subprocess.Popen(command, cwd=self.folder, env=self._environment(), stdout=log, stderr=log)

    def _missing(self, step: Step, command: str) -> str:
        """Run the command, and return all about it if it did anything else than the page shows."""
        done = subprocess.run(
            self._shell(command),
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
        is_met = step.is_met_by(done.stdout) or step.is_met_by(done.stdout + done.stderr)
        if is_met and done.returncode == step.code:
            return ""
        return f"{command}\nended with {done.returncode}, not {step.code}:\n{done.stdout}\n{done.stderr}"

    def _shell(self, command: str) -> list[str]:
        return ["/bin/bash", "-c", "".join(self._exports) + command]

    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return environment(PATH=path, **self.changes)
