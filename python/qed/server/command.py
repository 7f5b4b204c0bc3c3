"""The entry of `qed-server`: handles signals before it imports the server, which takes most of a start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qed.server.signals import handle_signals

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["main"]


def main() -> None:
    """Run `qed-server`. A signal before it serves ends it with 0: there is nothing to finish."""
    handle_signals(_stop)
    from qed.server.main import main as serve  # noqa: PLC0415  # signals are handled first

    serve()


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)
