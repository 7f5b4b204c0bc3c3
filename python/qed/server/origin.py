"""Where an exception came from, for the log."""

from __future__ import annotations

import traceback
from pathlib import Path

__all__ = ["origin"]


def origin(exc: BaseException) -> str:
    """Return the type and the places of `exc`, innermost first, as fields of a log line.

    Its message is left out: it may quote what a client sent.
    """
    frames = traceback.extract_tb(exc.__traceback__)
    where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
    return f"type={type(exc).__name__} at={where!r}"
