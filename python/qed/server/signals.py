"""Handlers for SIGINT and SIGTERM."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["handle_signals"]


def handle_signals(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    """Call `handler` on SIGINT and on SIGTERM."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)
