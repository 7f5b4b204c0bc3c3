"""Real `qed-server` processes for tests."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["COMMAND", "LIMIT_S", "RunningServer", "StartFailed", "run_to_exit", "start_process", "wait_until"]

COMMAND = str(Path(sys.executable).with_name("qed-server"))

LIMIT_S = 30.0
"""How long anything may take before a test gives up on it."""

_LISTENING = re.compile(r"listening on (http://\S+), data in (.+), (\d+) events")


class StartFailed(AssertionError):
    """The server ended before it listened."""

    def __init__(self, returncode: int, stderr: str) -> None:
        super().__init__(f"qed-server exited with {returncode}: {stderr}")
        self.returncode = returncode
        self.stderr = stderr


def wait_until(is_done: Callable[[], bool], what: str, *, limit_s: float = LIMIT_S) -> None:
    """Return once `is_done` says so; fail with `what` when it does not within the limit."""
    deadline = time.monotonic() + limit_s
    while not is_done():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {limit_s:g} s in vain for {what}")
        time.sleep(0.01)


@dataclass
class RunningServer:
    """A server process that listens.

    Attributes:
        process: The process.
        url: Base URL, such as `http://127.0.0.1:40123`.
        data_dir: The folder of its log.
        events: How many events it said to hold when it started.
    """

    process: subprocess.Popen[bytes]
    url: str
    data_dir: Path
    events: int
    _stderr: Path

    @property
    def address(self) -> tuple[str, int]:
        """Host and port for a plain socket."""
        url = httpx.URL(self.url)
        assert url.port is not None
        return url.host, url.port

    @property
    def stderr(self) -> str:
        """Everything the process has written to stderr so far."""
        return self._stderr.read_text()

    def wait(self) -> int:
        """Return the exit code once the process ends by itself."""
        return self.process.wait(LIMIT_S)

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """Send SIGKILL, unless the process has ended, and wait for the end."""
        if self.process.poll() is None:
            self.process.kill()
        self.wait()

    def forget(self) -> None:
        """Remove what the process wrote to stderr."""
        self._stderr.unlink(missing_ok=True)

    def resident_bytes(self) -> int:
        """Return the largest resident size so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    def count(self) -> int:
        """Return how many events the log holds."""
        events = json.loads(httpx.get(f"{self.url}/info").content)["events"]
        assert isinstance(events, int)
        return events


def _command(data_dir: Path, extra: tuple[str, ...]) -> list[str]:
    addresses = [word for name in ("http", "mgmt", "raft") for word in (f"--{name}-addr", "127.0.0.1:0")]
    return [COMMAND, *addresses, "--data-dir", str(data_dir), *extra]


def start_process(data_dir: Path, *extra: str) -> RunningServer:
    """Start `qed-server` on a free port of 127.0.0.1 and return once it is healthy.

    Args:
        data_dir: The folder of its log.
        *extra: Further options.

    Returns:
        The running server. Whoever started it stops it.
    """
    descriptor, name = tempfile.mkstemp(prefix="qed-server-", suffix=".stderr")
    stderr = Path(name)
    try:
        process = subprocess.Popen(_command(data_dir, extra), stdout=subprocess.DEVNULL, stderr=descriptor)
    finally:
        os.close(descriptor)

    def has_started() -> bool:
        if process.poll() is not None:
            raise StartFailed(process.returncode, stderr.read_text())
        return _LISTENING.search(stderr.read_text()) is not None

    wait_until(has_started, "the server to listen")
    found = _LISTENING.search(stderr.read_text())
    assert found is not None
    server = RunningServer(process, found[1], data_dir, int(found[3]), stderr)
    assert httpx.head(f"{server.url}/healthcheck").status_code == 204
    return server


def run_to_exit(data_dir: Path, *extra: str) -> subprocess.CompletedProcess[str]:
    """Run a `qed-server` that is expected to end by itself."""
    return subprocess.run(_command(data_dir, extra), capture_output=True, text=True, timeout=LIMIT_S, check=False)
