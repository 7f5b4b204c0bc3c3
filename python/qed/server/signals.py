"""Handlers for SIGINT and SIGTERM, and SIGHUP while a server starts."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["handle_signals", "hold_hangups", "release_hangups"]


def handle_signals(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    """Call `handler` on SIGINT and on SIGTERM."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def hold_hangups() -> None:
    """Let SIGHUP wait, in this thread and those that it starts from here on, until `release_hangups`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


def release_hangups() -> None:
    """Handle SIGHUP from here on, also one that came before."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
