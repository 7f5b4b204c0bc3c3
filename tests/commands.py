"""Real `qed` processes for tests."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pty
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.wait import LIMIT_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["QED", "environment", "hex_of", "one_line", "qed", "qed_on_terminal", "qed_with_bar", "read_lines", "values"]

QED = str(Path(sys.executable).with_name("qed"))


def environment(**changes: str) -> dict[str, str]:
    """Return this process's environment without anything that changes what qed does, and with `changes`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("QED_", "_QED", "NO_COLOR"))}
    return kept | {"TERM": "xterm", "COLUMNS": "80"} | changes


def qed(*args: str | bytes, stdin: bytes = b"", **changes: str) -> subprocess.CompletedProcess[str]:
    """Run `qed` away from any terminal; keywords are environment variables."""
    done = subprocess.run(
        [QED, *args], input=stdin, capture_output=True, timeout=LIMIT_S, env=environment(**changes), check=False
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def qed_on_terminal(*args: str, typed: Iterable[str] = (), **changes: str) -> tuple[int, str]:
    """Run `qed` with a terminal for everything, type a line after each question; return exit code and screen."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [QED, *args], stdin=theirs, stdout=theirs, stderr=theirs, env=environment(**changes), start_new_session=True
    )
    os.close(theirs)
    lines, screen, asked = list(typed), b"", 0
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                part = os.read(ours, 65536)
            except OSError:  # how Linux reports that the other end is closed
                break
            screen += part
        if lines and screen.count(b"]: ") > asked:
            asked = screen.count(b"]: ")
            os.write(ours, os.fsencode(lines.pop(0)) + b"\n")
    os.close(ours)
    return process.wait(LIMIT_S), screen.decode(errors="replace").replace("\r\n", "\n")


def qed_with_bar(*args: str, **changes: str) -> tuple[int, str, str]:
    """Run `qed` with a terminal for stderr only; return exit code, what it printed for programs, and the screen."""
    ours, theirs = pty.openpty()
    with tempfile.TemporaryFile() as stdout:
        process = subprocess.Popen(
            [QED, *args], stdin=subprocess.DEVNULL, stdout=stdout, stderr=theirs, env=environment(**changes)
        )
        os.close(theirs)
        screen = _read_to_end(ours)
        code = process.wait(LIMIT_S)
        stdout.seek(0)
        return code, stdout.read().decode(), screen.decode()


def _read_to_end(descriptor: int) -> bytes:
    """Return all that is written to a terminal until its other end is closed."""
    screen = b""
    with os.fdopen(descriptor, "rb", buffering=0) as ours, contextlib.suppress(OSError):
        while part := ours.read(65536):
            screen += part
    return screen


def values(text: str) -> dict[str, str]:
    """Return the labelled values that a command printed; the last one if a label is repeated."""
    pairs = (line.split(": ", 1) for line in text.splitlines() if line.startswith(" ") and ": " in line)
    return {label.strip(): value for label, value in pairs}


def one_line(stderr: str) -> str:
    """Return the only line of stderr, which must be qed's."""
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("qed: "), stderr
    return lines[0].removeprefix("qed: ")


def hex_of(text: object) -> str:
    """Return the hex digits of a base64 string."""
    assert isinstance(text, str)
    return base64.b64decode(text, validate=True).hex()


# What qed prints for programs is under test, so its fields are used without checks: a missing one is a KeyError.
def read_lines(text: str) -> list[dict[str, Any]]:
    """Return the JSON objects in `text`, one a line."""
    return [cast("dict[str, Any]", json.loads(line)) for line in text.splitlines()]


def wait_for_lines(path: Path, count: int, wait: Callable[[Callable[[], bool], str], None]) -> None:
    """Wait until a file has that many lines."""
    wait(lambda: path.exists() and path.read_bytes().count(b"\n") >= count, f"{count} lines in {path}")
