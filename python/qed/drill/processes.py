"""The product as its users run it: commands and servers in processes of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

__all__ = ["Done", "DrillFailed", "Processes", "Server", "wait_until"]

_LIMIT_S: Final = 120.0
"""How long something may take that takes about a second, on a machine that is busy with other work."""
_POLL_S: Final = 0.02
_OUTPUTS: Final = "processes"
_PROGRAMS: Final = {
    "qed": "from qed_command import main; main()",
    "qed-server": "from qed.server.command import main; main()",
}
_LISTENING: Final = re.compile(r"listen(?:ing|s) on (http://\S+?),? ")


class DrillFailed(Exception):
    """Something that a drill needs did not work, so it says nothing about a guard."""


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Return once a condition holds.

    Args:
        condition: The condition.
        what: What is waited for, for people.

    Raises:
        DrillFailed: It does not hold in time.
    """
    deadline = time.monotonic() + _LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise DrillFailed(f"waited {_LIMIT_S:.0f} s for {what}")
        time.sleep(_POLL_S)


@dataclass(frozen=True)
class Done:
    """A process that has ended.

    Attributes:
        command: What was run, for people.
        code: Its exit code.
        lines: What it printed, on stdout and then on stderr, without empty lines.
    """

    command: str
    code: int
    lines: Sequence[str]

    @property
    def last_line(self) -> str:
        """The last line that it printed."""
        return self.lines[-1] if self.lines else "it printed nothing"

    def require(self) -> None:
        """Check that it has succeeded.

        Raises:
            DrillFailed: It has not.
        """
        if self.code != 0:
            raise DrillFailed(f"expected `{self.command}` to end with 0, found {self.code}: {self.last_line}")


@dataclass
class Server:
    """A server or a witness that has begun to listen, or has ended.

    Attributes:
        command: What was run, for people.
        url: Where it listens; empty if it has ended instead.
    """

    command: str
    url: str
    _process: subprocess.Popen[bytes]
    _log: Path

    @property
    def output(self) -> str:
        """What it has printed by now."""
        return self._log.read_text(errors="replace")

    def ended(self) -> Done:
        """Return how it has ended. If it is running, it is first stopped as its operator would do it."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        return Done(self.command, self._process.returncode, _lines(self.output))


@dataclass
class Processes:
    """Runs commands and servers, from any thread, and ends those that are left.

    Attributes:
        folder: The working folder of commands. What processes print is kept in its folder `processes`.
        environment: Variables for all of them, in place of those of this process that are about qed.
    """

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _is_closed: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        (self.folder / _OUTPUTS).mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill all that is running. Nothing more is started."""
        with self._lock:
            self._is_closed = True
            for process in self._started:
                process.kill()
        for process in self._started:
            process.wait()

    def qed(self, *args: str | Path) -> Done:
        """Run a `qed` command to its end.

        Raises:
            DrillFailed: It does not end in time. It was killed.
        """
        command = f"qed {args[0]}"
        number, process = self._launched("qed", args)
        try:
            process.wait(_LIMIT_S)
        except subprocess.TimeoutExpired as exc:
            process.kill()
            process.wait()
            raise DrillFailed(f"`{command}` did not end within {_LIMIT_S:.0f} s") from exc
        outputs = [self._output(number, name).read_text(errors="replace") for name in ("out", "err")]
        return Done(command, process.returncode, [line for output in outputs for line in _lines(output)])

    def start(self, program: str, *args: str | Path) -> Server:
        """Start a server or a witness, and return once it listens or has ended.

        Args:
            program: `qed` or `qed-server`.
            *args: Its arguments.

        Returns:
            The server.

        Raises:
            DrillFailed: It does neither in time.
        """
        name = program if program == "qed-server" else f"qed {args[0]}"
        number, process = self._launched(program, args, has_one_output=True)
        server = Server(name, "", process, self._output(number, "out"))
        wait_until(lambda: process.poll() is not None or _LISTENING.search(server.output), f"{name} to listen")
        found = _LISTENING.search(server.output)
        if found is not None and process.poll() is None:
            server.url = found[1]
        return server

    def listening(self, program: str, *args: str | Path) -> Server:
        """Start a server or a witness that is needed; otherwise as `start`.

        Raises:
            DrillFailed: It does not listen.
        """
        server = self.start(program, *args)
        if not server.url:
            done = server.ended()
            raise DrillFailed(f"expected `{done.command}` to listen, but it ended with {done.code}: {done.last_line}")
        return server

    def _launched(
        self, program: str, args: Sequence[str | Path], *, has_one_output: bool = False
    ) -> tuple[int, subprocess.Popen[bytes]]:
        """Start a process, and return its number and itself. It prints to files, which no full pipe can hold up."""
        # Without -P, a file in the working folder could take the place of a module.
        command = [sys.executable, "-P", "-c", _PROGRAMS[program], *map(str, args)]
        with self._lock:
            if self._is_closed:
                raise DrillFailed("the drill was interrupted")
            number = len(self._started)
            with self._output(number, "out").open("wb") as out, self._output(number, "err").open("wb") as err:
                process = subprocess.Popen(  # noqa: S603  # this interpreter, with commands of this package
                    command,
                    cwd=self.folder,
                    env=self._environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT if has_one_output else err,
                    # Ctrl-C is for the drill alone, which then ends them.
                    start_new_session=True,
                )
            self._started.append(process)
            return number, process

    def _output(self, number: int, name: str) -> Path:
        return self.folder / _OUTPUTS / f"{number}.{name}"

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("QED_")}
        # What clients remember of other logs stays out of it.
        return kept | {"XDG_STATE_HOME": str(self.folder), "NO_COLOR": "1"} | dict(self.environment)


def _lines(output: str) -> list[str]:
    return [line for line in output.splitlines() if line]
