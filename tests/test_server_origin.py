"""What the log says of an exception that nobody expected."""

from __future__ import annotations

import logging
import sys

from qed.server.main import _KeyValueFormatter


def fail() -> None:
    raise ValueError("secret")


def test_line_of_an_exception_names_its_type_and_places_but_not_its_message() -> None:
    try:
        fail()
    except ValueError:
        record = logging.LogRecord("asyncio", logging.ERROR, "", 0, "Exception in callback", None, sys.exc_info())
    line = _KeyValueFormatter().format(record)
    assert " type=ValueError at='test_server_origin.py:" in line
    assert "secret" not in line
    assert "\n" not in line


def test_line_shows_control_characters_and_does_not_obey_them() -> None:
    said = "a\nb\r\x1b[2J\u2028\u202e"
    record = logging.LogRecord("qed", logging.INFO, "", 0, "said what=%s", (said,), None)
    line = _KeyValueFormatter().format(record)
    assert line.endswith(r"what=a\nb\r\x1b[2J\u2028\u202e")
    assert line.isprintable()
