"""Waiting for a condition, with a limit."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LIMIT_S", "TimedOut", "wait_until", "wait_while"]

LIMIT_S: Final = 30.0
"""How long any step may take before a test fails."""

_POLL_S: Final = 0.01


class TimedOut(AssertionError):
    """A condition did not become true within its limit."""


def wait_while(missing: Callable[[], str], what: str, *, limit_s: float = LIMIT_S) -> None:
    """Return once nothing is missing any more.

    Args:
        missing: Returns what is still missing, or an empty text.
        what: The condition, for the message.
        limit_s: The longest wait.

    Raises:
        TimedOut: Something is still missing after the limit. The message has the last observation.
    """
    deadline = time.monotonic() + limit_s
    while seen := missing():
        if time.monotonic() > deadline:
            raise TimedOut(f"waited {limit_s:g} s for {what}, and saw last: {seen}")
        time.sleep(_POLL_S)


def wait_until(is_done: Callable[[], bool], what: str, *, limit_s: float = LIMIT_S) -> None:
    """Return once `is_done` returns True.

    Raises:
        TimedOut: It still returns False after the limit.
    """
    wait_while(lambda: "" if is_done() else "not yet", what, limit_s=limit_s)
