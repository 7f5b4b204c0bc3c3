"""The lines of a stream: wherever they are cut into pieces, they are the same events, in bulks without a repeat."""

from __future__ import annotations

import base64
import json
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qed._wire import ADD_REQUEST, DecodeError
from qed.proofs import Digest, digest_of
from qed.server.event_lines import BULK_EVENTS, BadLine, EventLines, LineTooLong

if TYPE_CHECKING:
    from collections.abc import Iterable

PLAIN: Final = b'{"Event":"eA=="}'
WORDS: Final = (
    PLAIN,
    b'{"Event": "eQ=="}\r',
    b'  {"Event":"eA==","IfAbsent":true}',
    b'{"IfAbsent":false,"Event":""}',
    b'{"EventDigest":"%b"}' % base64.b64encode(bytes(range(32))),
    b'{"EventDigest":"%b"}' % base64.b64encode(bytes(Digest.of(b"x"))),
    b'{"Event":"eA==","Other":{"Event":"}"}}',
    b'{"\\u0045vent":"eA=="}',
    b"",
    b"{",
    b"}",
    b"nonsense",
    PLAIN + b" " + PLAIN,
    b'{"Event":"eB=="}',
    b'{"Event":"eA==","Event":"eA=="}',
    b'{"Event":"eA==","EventDigest":"eA=="}',
    b'{"Event":"eA==","Receipt":"committed"}',
    b'{"EventDigest":"eA=="}',
    b"\xff",
)


def lines(limit_bytes: int = 1 << 20) -> EventLines:
    return EventLines(max_line_bytes=limit_bytes, max_bulk_events=BULK_EVENTS)


def outcome(pieces: Iterable[bytes]) -> tuple[list[tuple[Digest, bool]], int | None]:
    """Return the events of a stream, each with its `IfAbsent`, and the number of the line that is wrong."""
    found: list[tuple[Digest, bool]] = []
    reader = lines()
    try:
        for piece in pieces:
            for bulk in reader.feed(piece):
                assert len(set(map(digest_of, bulk.events))) == len(bulk.events)
                found += [(digest_of(event), bulk.if_absent) for event in bulk.events]
        for bulk in reader.finish():
            found += [(digest_of(event), bulk.if_absent) for event in bulk.events]
    except BadLine as exc:
        return found, exc.line
    return found, None


def expected(text: bytes) -> tuple[list[tuple[Digest, bool]], int | None]:
    """Return the same, from each line alone as `POST /events` reads it."""
    found: list[tuple[Digest, bool]] = []
    *whole, last = text.split(b"\n")
    for number, line in enumerate([*whole, last] if last else whole, start=1):
        try:
            request = ADD_REQUEST.decode(line)
        except DecodeError:
            return found, number
        if request.receipt is not None:
            return found, number
        found.append((digest_of(request.added()), request.if_absent))
    return found, None


@given(st.lists(st.sampled_from(WORDS)), st.booleans(), st.lists(st.integers(min_value=0, max_value=500)))
def test_lines_are_read_as_single_requests_wherever_they_are_cut(
    words: list[bytes], has_end: bool, cuts: list[int]
) -> None:
    text = b"\n".join(words) + (b"\n" if has_end and words else b"")
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    assert outcome(text[start:end] for start, end in pairwise(places)) == expected(text)


@given(st.lists(st.sampled_from([word for word in WORDS if word.startswith(b"{") and word.endswith(b"}")])))
def test_plain_lines_in_one_piece_are_read_as_single_requests(words: list[bytes]) -> None:
    text = b"".join(word + b"\n" for word in words)
    assert outcome([text]) == expected(text)


@pytest.mark.parametrize("values", [b"%b\n\n" % (PLAIN + b" " + PLAIN), b'{"Event":\n"eA=="}\n', b'{"a":{}\n}\n'])
def test_values_that_are_not_one_a_line_are_refused(values: bytes) -> None:
    assert outcome([values]) == ([], 1)


def test_a_line_may_be_as_long_as_a_body_and_not_longer() -> None:
    line = json.dumps({"Event": base64.b64encode(b"x" * 60).decode()}).encode()
    assert len(list(lines(len(line)).feed(line + b"\n"))) == 1
    for piece in (line + b" \n", line + b" ", PLAIN + b"\n" + line + b" \n"):
        with pytest.raises(LineTooLong, match="is longer than"):
            list(lines(len(line)).feed(piece))


def test_what_is_held_of_a_line_is_counted() -> None:
    reader = lines()
    assert list(reader.feed(PLAIN + b"\n" + PLAIN[:5]))
    assert reader.held_bytes == 5
    assert not list(reader.feed(PLAIN[5:7]))
    assert reader.held_bytes == 7
    assert list(reader.feed(PLAIN[7:] + b"\n"))
    assert reader.held_bytes == 0


def test_bulks_are_not_larger_than_others_wait_for() -> None:
    text = b"".join(b'{"Event":"%b"}\n' % base64.b64encode(b"%d" % number) for number in range(2 * BULK_EVENTS + 1))
    assert [len(bulk.events) for bulk in lines().feed(text)] == [BULK_EVENTS, BULK_EVENTS, 1]
