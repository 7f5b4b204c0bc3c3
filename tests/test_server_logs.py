"""Log lines of unexpected exceptions."""

from __future__ import annotations

import logging
import sys

from qed.server.logs import KeyValueFormatter, Line


def fail() -> None:
    raise ValueError("secret")


def test_line_of_an_exception_names_its_type_and_places_but_not_its_message() -> None:
    try:
        fail()
    except ValueError:
        record = logging.LogRecord("asyncio", logging.ERROR, "", 0, "Exception in callback", None, sys.exc_info())
    line = KeyValueFormatter().format(record)
    assert " type=ValueError at='test_server_logs.py:" in line
    assert "secret" not in line
    assert "\n" not in line


def test_line_shows_control_characters_and_does_not_obey_them() -> None:
    said = "a\nb\r\x1b[2J\u2028\u202e"
    record = logging.LogRecord("qed", logging.INFO, "", 0, Line(said, what=said), (), None)
    line = KeyValueFormatter().format(record)
    assert line.endswith(r"""event="a\nb\r\x1b[2J\u2028\u202e" what='a\nb\r\x1b[2J\u2028\u202e'""")
    assert line.isprintable()


def test_fields_stay_apart_from_the_event() -> None:
    said = Line("x=1 said", number=7, word="a.b:1", words="a b", forged="1 level=error", empty="", quote="'")
    assert str(said) == """x=1 said number=7 word=a.b:1 words='a b' forged='1 level=error' empty='' quote="'\""""
    record = logging.LogRecord("qed", logging.INFO, "", 0, said, (), None)
    assert KeyValueFormatter().format(record).endswith(f'event="x=1 said"{str(said).removeprefix("x=1 said")}')
    record = logging.LogRecord("asyncio", logging.INFO, "", 0, "executor took=%d", (7,), None)
    assert KeyValueFormatter().format(record).endswith('logger=asyncio event="executor took=7"')


def test_no_line_shows_a_key() -> None:
    secret = "0123456789abcdef" * 4
    for text in (f"/info/qed_{secret[:16]}_{secret}", f"qed_{secret[:16]}_{secret[:20]}"):
        record = logging.LogRecord("qed", logging.INFO, "", 0, Line("refused", path=text), (), None)
        line = KeyValueFormatter().format(record)
        assert f"qed_{secret[:16]}_…" in line
        assert secret[:17] not in line
    # A path is cut to 100 characters, so the last part of a token may be short or missing.
    for text in (f"/qed_join_{secret[:16]}_{secret}_{secret}", f"/qed_join_{secret[:16]}_{secret}_{secret[:3]}"):
        record = logging.LogRecord("qed", logging.INFO, "", 0, Line("refused", path=text), (), None)
        assert KeyValueFormatter().format(record).endswith(f"path=/qed_join_{secret[:16]}_…")
