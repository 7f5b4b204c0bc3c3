"""Other people's text, cut: never inside a word, which may be a digest."""

from __future__ import annotations

import pytest

from qed._client.calls import plain
from qed._printable import beginning, ending

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize("most", [70, 100, 131, 132, 133, 200])
def test_a_digest_is_whole_or_not_there(most: int) -> None:
    text = f"found {DIGEST}, not {DIGEST}"
    for part in (beginning(text, most), ending(text, most)):
        assert len(part) <= most
        assert {len(word.strip(",")) for word in part.split()} <= {5, 3, 64}
    assert text.startswith(beginning(text, most))
    assert text.endswith(ending(text, most))


def test_a_long_word_is_cut() -> None:
    assert (beginning("x" * 90, 7), ending("x" * 90, 7)) == ("x" * 7, "x" * 7)


def test_a_long_message_of_a_server_ends_before_a_digest() -> None:
    told = plain(f"{'word ' * 50}{DIGEST}")
    assert told == f"{'word ' * 50}..."
    assert plain(f"{DIGEST} {DIGEST}") == f"{DIGEST} {DIGEST}"
