"""A data folder of format 1, written by an earlier build: every later build finds all acknowledged events in it."""

from __future__ import annotations

import tarfile
from functools import cache
from pathlib import Path

import pytest

from oracle import OracleLog, Request, event_digest
from recorded import outcome
from subject import Subject

ARCHIVE = Path(__file__).parent / "folders" / "format-1.tar.gz"
EVENTS = 370
LAST_HISTORY_DIGEST = "4d735c73003a9dade62152ac8847e1038f5f0e0b169b18795e7deb98215fb956"
LAST_HYPER_DIGEST = "2eb1f521a066b6742f8f322c0510a7e6d319b9638da9ff3837d8bb97cb8b7629"


def requests() -> list[Request]:
    """Return the bulks that filled the folder: 1 to 12 of 150 different events each, every third one if absent."""
    made: list[Request] = []
    for number in range(80):
        numbers = [(number * 7 + i * i * 5) % 150 for i in range(1 + number % 12)]
        made.append(Request([event_digest(b"kept %d" % event) for event in numbers], number % 3 == 2))
    return made


@cache
def oracle() -> OracleLog:
    made = OracleLog()
    for request in requests():
        made.append(request.digests, if_absent=request.if_absent)
    return made


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    """Give the log in the folder of the archive."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return Subject(tmp_path / "data")


def compare_membership(subject: Subject, digest: bytes, version: int | None) -> None:
    demanded = outcome(lambda: oracle().membership(digest, version))
    assert outcome(lambda: subject.membership(digest, version)) == demanded


def test_folder_of_format_1_holds_what_was_acknowledged(subject: Subject) -> None:
    assert len(subject.log) == len(oracle().digests) == EVENTS
    for version in range(EVENTS):
        assert subject.snapshot(version) == oracle().snapshot(version)
    last = subject.log.snapshot(EVENTS - 1)
    assert (last.history_digest.hex(), last.hyper_digest.hex()) == (LAST_HISTORY_DIGEST, LAST_HYPER_DIGEST)
    subject.log.check()


def test_folder_of_format_1_proves_and_grows_on(subject: Subject) -> None:
    for number in range(0, 152, 7):
        digest = event_digest(b"kept %d" % number)
        for version in (None, 40, 200):
            compare_membership(subject, digest, version)
    assert subject.incremental(13, EVENTS - 1) == oracle().incremental(13, EVENTS - 1)
    grown = OracleLog()
    for request in [*requests(), Request([event_digest(b"one more")])]:
        grown.append(request.digests, if_absent=request.if_absent)
    subject.append([event_digest(b"one more")])
    assert subject.snapshot(EVENTS) == grown.snapshot(EVENTS)
