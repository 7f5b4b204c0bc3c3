"""What a witness keeps of logs that contradict themselves, and of lines that were verified."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from typing import TYPE_CHECKING

import httpx
import pytest

from commands import qed as run
from harness.wait import LIMIT_S, wait_until
from witnesses import ForeignLog, WitnessProcess, request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def log() -> ForeignLog:
    log = ForeignLog("log.example.com/payments")
    log.grow(10)
    return log


@pytest.fixture
def witness(tmp_path: Path, log: ForeignLog) -> Iterator[WitnessProcess]:
    """Give a running witness that has cosigned nothing."""
    process = WitnessProcess(tmp_path)
    process.make_key()
    process.know(log)
    try:
        process.start("--new-database")
        yield process
    finally:
        process.forget()


def ok(answer: httpx.Response) -> None:
    assert answer.status_code == 200, answer.text


def refused(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, answer.text


def evidence_in(witness: WitnessProcess, log: ForeignLog) -> list[tuple[str, int]]:
    with sqlite3.connect(witness.database) as database:
        return database.execute("SELECT kind, size FROM evidence WHERE origin = ?", (log.origin,)).fetchall()


def test_two_roots_of_one_size_are_a_fork_whichever_came_first(witness: WitnessProcess, log: ForeignLog) -> None:
    ok(witness.post(log.request(0, 5)))
    split = log.sign(log.text(10, hashlib.sha256(b"another history").digest()))
    refused(witness.post(request(5, [], split)), 422)
    assert evidence_in(witness, log) == [("unproven", 10)]
    ok(witness.post(log.request(5)))
    with sqlite3.connect(witness.database) as database:
        rows = database.execute("SELECT kind, note, last FROM evidence").fetchall()
    assert rows == [("fork", split, witness.last(log.origin).text)]
    wait_until(lambda: f"log={log.origin} size=10 kind=fork" in witness.stderr, "the alert")


def test_two_unproven_roots_of_one_size_are_a_fork(witness: WitnessProcess, log: ForeignLog) -> None:
    first, second = (log.sign(log.text(10, hashlib.sha256(name).digest())) for name in (b"one", b"two"))
    for note in (first, second):
        refused(witness.post(request(0, [bytes(32)], note)), 422)
    with sqlite3.connect(witness.database) as database:
        rows = database.execute("SELECT kind, note, last FROM evidence ORDER BY kind").fetchall()
    assert rows == [("fork", second, first), ("unproven", first, "")]


def test_evidence_without_room_is_counted_and_logged_once(witness: WitnessProcess, log: ForeignLog) -> None:
    log.grow(150)
    ok(witness.post(log.request(0, 1)))
    split = log.sign(log.text(130, hashlib.sha256(b"another history").digest()))
    with httpx.Client(base_url=witness.url, timeout=LIMIT_S) as client:
        for size in range(2, 102):
            refused(witness.post(request(1, [], log.sign(log.text(size))), client), 422)
        for _ in range(3):
            refused(witness.post(request(1, [], split), client), 422)
    assert len(evidence_in(witness, log)) == 100
    wait_until(lambda: "size=130 kind=unproven" in witness.stderr, "the log line")
    assert witness.stderr.count("size=130") == 1
    done = run("--json", "witness", "status", "--database", str(witness.database))
    assert json.loads(done.stdout)["Dropped"] == 1
    assert "1 more of kind unproven" in run("witness", "evidence", "--database", str(witness.database)).stderr
    # A fork has room of its own.
    refused(witness.post(request(1, [], log.sign(log.text(1, bytes(32))))), 422)
    assert ("fork", 1) in evidence_in(witness, log)


def test_lines_of_the_log_that_were_verified_stay_with_the_same_tree(witness: WitnessProcess, log: ForeignLog) -> None:
    other = ForeignLog(log.origin, log.leaves)
    witness.stop()
    witness.logs.write_text(f'[[log]]\nvkeys = ["{log.vkey}", "{other.vkey}"]\n')
    witness.start()
    text, (first, second) = log.text(), (one.sign(log.text()).splitlines()[-1] for one in (log, other))

    def served() -> list[str]:
        return witness.last(log.origin).text.splitlines()[4:-2]

    ok(witness.post(request(0, [], f"{text}\n{first}\n{second}\n")))
    assert served() == [first, second]
    ok(witness.post(request(10, [], f"{text}\n{second}\n")))
    assert sorted(served()) == sorted([first, second])
    # A tree that follows has only its own lines.
    log.grow(1)
    ok(witness.post(log.request(10)))
    assert served() == [log.sign(log.text()).splitlines()[-1]]
    witness.stop()
    witness.know(log)
    witness.start()
    ok(witness.post(log.request(11)))
    assert served() == [log.sign(log.text()).splitlines()[-1]]
