"""Log lines: an event with its fields on one line, the origin of an exception, and a limit on repeated lines."""

from __future__ import annotations

import logging
import re
import time
import traceback
from pathlib import Path
from typing import Final

from qed._printable import printable

__all__ = ["KeyValueFormatter", "Line", "OncePerMinute", "where"]

_PLAIN: Final = re.compile(r"[\w.:/\[\]@+,-]+")
_SECRET: Final = re.compile(r"(qed_(?:join_)?[0-9a-f]{16}_)[0-9a-f_]+")
"""An API key, or a token to join with, of which lines show the public part only: people put keys into paths, too."""
_INTERVAL_S: Final = 60.0
_MOST_KEPT: Final = 64
"""Lines a minute. A stranger can use any number of addresses."""


class Line:
    """A message for a logger: an event, and fields that are kept separate until they are written."""

    def __init__(self, event: str, /, **fields: object) -> None:
        self.event = event
        self.fields = fields

    def __str__(self) -> str:
        return self.event + self.spelt_fields()

    def spelt_fields(self) -> str:
        """Return ` key=value` for each field; a value that is not one plain word is quoted, with escapes."""
        return "".join(f" {name}={_spelt(value)}" for name, value in self.fields.items())


def _spelt(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) and text.isprintable() else repr(text)


class KeyValueFormatter(logging.Formatter):
    """`time=… level=… logger=… event="…"`, then the fields of a `Line` and the origin of an exception, on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for a record. The messages of other libraries are events without fields."""
        line = record.msg if isinstance(record.msg, Line) else Line(record.getMessage())
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        event = printable(line.event).replace('"', "'")
        fields = line.spelt_fields()
        if record.exc_info and record.exc_info[1] is not None:
            fields += Line("", **where(record.exc_info[1])).spelt_fields()
        text = (
            f"time={moment}.{record.msecs:03.0f}Z level={record.levelname.lower()} "
            f'logger={record.name} event="{event}"{fields}'
        )
        return _SECRET.sub(r"\1…", text)


def where(exc: BaseException) -> dict[str, str]:
    """Return the type and the source lines of `exc`, innermost first, as fields of a line.

    Its message is left out: it may quote what a client sent.
    """
    frames = traceback.extract_tb(exc.__traceback__)
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
    return {"type": type(exc).__name__, "at": places}


class OncePerMinute:
    """Allows each line about one peer once a minute, so that a stranger who connects often cannot fill the disk."""

    def __init__(self) -> None:
        self._logged: dict[tuple[str, str], float] = {}

    def is_due(self, who: str, reason: str) -> bool:
        """Return whether to log `reason` about `who`, and note that it was logged if so."""
        moment = time.monotonic()
        self._logged = {key: logged for key, logged in self._logged.items() if moment - logged < _INTERVAL_S}
        if (who, reason) in self._logged or len(self._logged) >= _MOST_KEPT:
            return False
        self._logged[who, reason] = moment
        return True
