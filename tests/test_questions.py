"""Questions and `qed.verify` given values of other types: mistakes of a program, named plainly."""

from __future__ import annotations

from typing import Any, Final

import pytest

from both_clients import Connect, connect
from dishonesty import log_of
from qed import Extension, Membership, TrustedSnapshots, verify

__all__ = ["connect"]

LOG: Final = log_of(b"a", b"b")
QUESTION: Final = Membership(b"a")
TRUSTED: Final = TrustedSnapshots(LOG.snapshot(1))
ANSWER: Final = LOG.membership(b"a")


# The arguments are wrong on purpose, so they are not of the types that the signatures name.
@pytest.mark.parametrize("answer", [None, ANSWER.to_json(), LOG.snapshot(1)], ids=["none", "bytes", "snapshot"])
def test_an_answer_of_another_type_is_a_type_error(answer: Any) -> None:  # noqa: ANN401 - wrong on purpose
    for question in (QUESTION, Extension(0, 1)):
        with pytest.raises(TypeError, match=r"expected an answer, as qed\.parse_answer returns it, found"):
            verify(question, answer, TRUSTED)


@pytest.mark.parametrize("question", [None, b"a", ANSWER.key_digest], ids=["none", "bytes", "digest"])
def test_a_question_of_another_type_is_a_type_error(question: Any) -> None:  # noqa: ANN401 - wrong on purpose
    with pytest.raises(TypeError, match=r"expected a question, qed\.Membership or qed\.Extension, found"):
        verify(question, ANSWER, TRUSTED)


NOTHING_TRUSTED: Final[dict[str, object]] = {
    "none": None,
    "snapshot": LOG.snapshot(1),
    "root": LOG.snapshot(1).history_root(),
    "list": [],
}


@pytest.mark.parametrize("trusted", NOTHING_TRUSTED.values(), ids=NOTHING_TRUSTED)
def test_roots_of_another_type_are_a_type_error(trusted: Any) -> None:  # noqa: ANN401 - wrong on purpose
    with pytest.raises(TypeError, match=r"expected trusted roots, such as qed\.TrustedSnapshots, found"):
        verify(QUESTION, ANSWER, trusted)


@pytest.mark.parametrize("version", [True, False, 1.0, "1", b"1"], ids=repr)
def test_a_version_of_another_type_is_a_type_error(version: Any) -> None:  # noqa: ANN401 - wrong on purpose
    for ask in (lambda: Membership(b"a", version), lambda: Extension(0, version), lambda: Extension(version, 1)):
        with pytest.raises(TypeError, match="expected a version as an int, found"):
            ask()


@pytest.mark.parametrize("version", [-1, 2**64])
def test_a_version_out_of_range_is_a_value_error(version: int) -> None:
    with pytest.raises(ValueError, match=f"expected a version of 0 to 2\\*\\*64 - 1, found {version}"):
        Membership(b"a", version)


@pytest.mark.parametrize("trusted", [None, LOG.snapshot(1)], ids=["none", "snapshot"])
def test_a_client_verifies_nothing_while_nothing_is_trusted(connect: Connect, trusted: Any) -> None:  # noqa: ANN401 - as above
    with pytest.raises(TypeError, match="expected trusted roots"):
        connect("http://127.0.0.1:1").verify(QUESTION, trusted)


def test_a_client_asks_questions_only(connect: Connect) -> None:
    wrong: Any = b"a"
    with pytest.raises(TypeError, match="expected a question"):
        connect("http://127.0.0.1:1").ask(wrong)
    with pytest.raises(TypeError, match="expected a version as an int"):
        connect("http://127.0.0.1:1").membership(b"a", version=True)
