"""The old names of `harness`."""

from __future__ import annotations

from harness.process import COMMAND, Server, StartFailed, run_to_exit, start_process
from harness.wait import LIMIT_S, wait_until

__all__ = ["COMMAND", "LIMIT_S", "RunningServer", "StartFailed", "run_to_exit", "start_process", "wait_until"]

RunningServer = Server
