"""Namespaces for one run: however it ends, no process, network or mount of it is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

__all__ = ["enter", "run"]

_MARK: Final = "QED_CAMPAIGN_SANDBOX"
_UNSHARE: Final = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def run(*command: str) -> str | None:
    """Run a short command, and return what went wrong, if anything."""
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError as exc:
        return f"{command[0]}: {exc.strerror}"
    return (ended.stderr.strip() or f"{command[0]} exited with {ended.returncode}") if ended.returncode else None


def enter(arguments: list[str]) -> str | None:
    """Replace this process by the same program in its sandbox, unless it is there already.

    Args:
        arguments: The arguments of `python` that start the program.

    Returns:
        None in the sandbox; otherwise why this machine cannot have one.
    """
    unshare = _UNSHARE if os.geteuid() == 0 else (*_UNSHARE, "--user", "--map-root-user")
    if not os.environ.get(_MARK):
        if reason := run(*unshare, "true"):
            return reason
        os.environ[_MARK] = "1"
        command = [*unshare, sys.executable, *arguments]
        os.execvp(command[0], command)  # noqa: S606  # no shell is the point
    return _prepare()


def _prepare() -> str | None:
    # `ip netns` keeps its names in /run, libfaketime its semaphores in /dev/shm: other processes must not see them.
    for mount_point in ("/run", "/dev/shm"):  # noqa: S108  # a mount of this sandbox's own
        if reason := run("mount", "-t", "tmpfs", "tmpfs", mount_point):
            return reason
    return run("ip", "link", "set", "lo", "up")
