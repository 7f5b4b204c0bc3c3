"""What verification returns: values that only a verified proof makes."""

from __future__ import annotations

from typing import Final

import pytest

from dishonesty import log_of
from qed import Absent, Extends, Extension, Finding, Membership, Present, Question, TrustedBy, TrustedSnapshots, verify

LOG: Final = log_of(b"a", b"b", b"a")
QUESTIONS: Final[dict[type[Finding], Question]] = {
    Present: Membership(b"a", 1),
    Absent: Membership(b"never added"),
    Extends: Extension(0, 2),
}


def found(kind: type[Finding], by: TrustedBy = TrustedBy.SNAPSHOTS) -> Finding:
    question = QUESTIONS[kind]
    trusted = TrustedSnapshots(*map(LOG.snapshot, range(3)), by=by)
    if isinstance(question, Extension):
        return verify(question, LOG.incremental(question.start, question.end), trusted)
    return verify(question, LOG.membership(question.digest, version=question.version), trusted)


def test_a_finding_has_what_was_proven() -> None:
    present, absent, extends = found(Present), found(Absent), found(Extends)
    assert isinstance(present, Present)
    assert (present.digest, present.version, present.latest_version, present.as_of) == (
        Membership(b"a").digest,
        0,
        2,
        1,
    )
    assert isinstance(absent, Absent)
    assert (absent.digest, absent.as_of) == (Membership(b"never added").digest, 2)
    assert isinstance(extends, Extends)
    assert (extends.start, extends.end) == (0, 2)
    assert (present.is_linked, absent.is_linked) == (True, True)
    assert {finding.trusted_by for finding in (present, absent, extends)} == {TrustedBy.SNAPSHOTS}


@pytest.mark.parametrize("kind", QUESTIONS)
def test_findings_are_equal_if_they_say_the_same_on_the_same_word(kind: type[Finding]) -> None:
    assert found(kind) == found(kind)
    assert hash(found(kind)) == hash(found(kind))
    assert found(kind) != found(kind, TrustedBy.SERVER)
    assert len({found(kind), found(kind, TrustedBy.SERVER)}) == 2
    assert all(found(kind) != found(other) for other in QUESTIONS if other is not kind)


@pytest.mark.parametrize("kind", QUESTIONS)
def test_a_finding_shows_on_whose_word_it_rests(kind: type[Finding]) -> None:
    assert repr(found(kind)).startswith(f"<{kind.__name__} ")
    assert "trusted_by=snapshots" in repr(found(kind))


@pytest.mark.parametrize("kind", QUESTIONS)
def test_only_verification_makes_a_finding(kind: type[Finding]) -> None:
    with pytest.raises(TypeError, match=r"cannot create|No constructor"):
        kind()
    with pytest.raises(AttributeError, match="not writable"):
        found(kind).trusted_by = TrustedBy.RECEIPTS  # type: ignore[misc] # the point of this test


@pytest.mark.parametrize(
    ("question", "same", "shown"),
    [
        (Membership(b"a", 5), Membership(Membership(b"a").digest, 5), f"Membership({Membership(b'a').digest!r}, 5)"),
        (Membership(b"a"), Membership(b"a", None), f"Membership({Membership(b'a').digest!r}, None)"),
        (Extension(0, 2), Extension(start=0, end=2), "Extension(0, 2)"),
    ],
)
def test_questions_are_values(question: Question, same: Question, shown: str) -> None:
    assert question == same
    assert hash(question) == hash(same)
    assert question != Membership(b"b", 5)
    assert question != Extension(0, 3)
    assert repr(question) == shown


def test_questions_match_by_position() -> None:
    match Extension(1, 2):
        case Extension(start, end):
            assert (start, end) == (1, 2)
    match Membership(b"a", 3):
        case Membership(digest, version):
            assert (digest, version) == (Membership(b"a").digest, 3)
