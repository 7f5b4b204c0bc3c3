"""A witness over HTTP: the recorded run, hostile requests, races and crashes."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from harness.wait import LIMIT_S, wait_until, wait_while
from qed._qed import AddCheckpoint, LogKeys
from witnesses import ForeignLog, WitnessProcess, consistency, key_id, request, root_of

if TYPE_CHECKING:
    from collections.abc import Iterator

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "trust.json").read_text())
RUN: Final = VECTORS["witness_run"]


@pytest.fixture(scope="module")
def witness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WitnessProcess]:
    """Give a running witness that knows the recorded log and those in `LOGS`, shared by the tests of this module."""
    process = WitnessProcess(tmp_path_factory.mktemp("witness"), extra=("--vkey", RUN["vkey"]))
    process.make_key()
    process.know(*LOGS)
    try:
        process.start("--new-database")
        yield process
    finally:
        process.forget()


LOGS: Final = [ForeignLog(f"log.example.com/{number}") for number in range(40)]
"""Each test takes one of its own."""
_unused = iter(LOGS)


@pytest.fixture
def log() -> ForeignLog:
    """Give a log of 10 leaves that the witness has not seen."""
    log = next(_unused)
    log.grow(10)
    return log


def ok(answer: httpx.Response) -> str:
    """Return the signature lines."""
    assert answer.status_code == HTTPStatus.OK, answer.text
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert all(line.startswith("\u2014 witness.example.com/w1 ") for line in answer.text.splitlines())
    return answer.text


def refused(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert not answer.text.startswith("\u2014")
    return answer.text


def verify_cosignature(line: str, vkey: str, text: str) -> int:
    """Verify a line of kind 04 with the library `cryptography`, and return its time."""
    name, key_hex, encoded = vkey.split("+", 2)
    public = base64.b64decode(encoded)
    assert public[0] == 4
    assert key_hex == key_id(name, 4, public[1:]).hex()
    start, signed_by, signature = line.split(" ")
    found = base64.b64decode(signature)
    assert (start, signed_by, found[:4].hex(), len(found)) == ("\u2014", name, key_hex, 4 + 8 + 64)
    moment = int.from_bytes(found[4:12], "big")
    message = f"cosignature/v1\ntime {moment}\n{text}".encode()
    Ed25519PublicKey.from_public_bytes(public[1:]).verify(found[12:], message)
    return moment


def test_the_twelve_recorded_requests_are_answered_as_recorded(witness: WitnessProcess) -> None:
    assert len(RUN["steps"]) == 12
    for number, step in enumerate(RUN["steps"], 1):
        answer = witness.post(step["request"].encode())
        assert answer.status_code == step["status"], f"step {number}: {answer.text}"
        if step["status"] == 200:
            ok(answer)
        if "body" in step:
            assert (answer.headers["content-type"], answer.text) == (step["type"], step["body"])


def test_both_keys_cosign_and_the_time_is_now(witness: WitnessProcess, log: ForeignLog) -> None:
    before = int(time.time())
    lines = ok(witness.post(log.request(0))).splitlines()
    ed25519, ml_dsa = sorted(lines, key=len)
    vkey, _ = witness.vkeys()
    assert before <= verify_cosignature(ed25519, vkey, log.text()) <= time.time()
    assert len(base64.b64decode(ml_dsa.split(" ")[2])) == 4 + 8 + 2420


def test_monitors_get_the_last_checkpoint_with_the_lines_of_log_and_witness(
    witness: WitnessProcess, log: ForeignLog
) -> None:
    assert witness.last(log.origin).status_code == 404
    for old, size in ((0, 4), (4, 10)):
        lines = ok(witness.post(log.request(old, size)))
        answer = witness.last(log.origin)
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.text == log.sign(log.text(size)) + lines
    digest = hashlib.sha256(log.origin.encode()).hexdigest()
    assert httpx.head(f"{witness.url}/{digest}/checkpoint").status_code == 200
    for path in (f"/{digest.upper()}/checkpoint", f"/{digest[1:]}/checkpoint", f"/{digest}", "/", "/sign-subtree"):
        assert httpx.get(f"{witness.url}{path}").status_code == 404
    assert httpx.post(f"{witness.url}/sign-subtree", content=b"x").status_code == 404
    wrong = httpx.get(f"{witness.url}/add-checkpoint")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")


def test_a_size_that_is_not_the_last_one_is_answered_with_the_last_one(
    witness: WitnessProcess, log: ForeignLog
) -> None:
    for old, last in ((3, "0\n"), (10, "0\n")):
        answer = witness.post(log.request(old))
        assert (answer.headers["content-type"], refused(answer, 409)) == ("text/x.tlog.size", last)
    ok(witness.post(log.request(0, 7)))
    assert refused(witness.post(log.request(0)), 409) == "7\n"
    assert refused(witness.post(log.request(3, 5)), 409) == "7\n"
    ok(witness.post(log.request(7)))


def test_the_same_size_again_gets_a_cosignature_and_never_goes_back(witness: WitnessProcess, log: ForeignLog) -> None:
    ok(witness.post(log.request(0)))
    ok(witness.post(log.request(10)))
    assert refused(witness.post(log.request(10, 4)), 400)
    assert refused(witness.post(log.request(4, 4)), 409) == "10\n"


def test_another_root_of_the_same_size_is_refused_and_kept_as_evidence(
    witness: WitnessProcess, log: ForeignLog
) -> None:
    ok(witness.post(log.request(0)))
    fork = log.sign(log.text(10, hashlib.sha256(b"another history").digest()))
    refused(witness.post(request(10, [], fork)), 422)
    refused(witness.post(request(10, [], fork)), 422)
    with sqlite3.connect(witness.database) as database:
        rows = database.execute("SELECT kind, note, last FROM evidence WHERE origin = ?", (log.origin,)).fetchall()
    assert rows == [("fork", fork, witness.last(log.origin).text)]
    wait_until(lambda: f"log={log.origin} size=10 kind=fork" in witness.stderr, "the alert")


def test_a_fork_is_evidence_even_if_its_sender_asks_with_another_size(witness: WitnessProcess, log: ForeignLog) -> None:
    ok(witness.post(log.request(0)))
    fork = log.sign(log.text(10, hashlib.sha256(b"another history").digest()))
    assert refused(witness.post(request(4, [], fork)), 409) == "10\n"
    with sqlite3.connect(witness.database) as database:
        rows = database.execute("SELECT kind, note FROM evidence WHERE origin = ?", (log.origin,)).fetchall()
    assert rows == [("fork", fork)]


def test_evidence_is_bounded_and_dropped_once_the_tree_is_proven(witness: WitnessProcess, log: ForeignLog) -> None:
    log.grow(150)
    ok(witness.post(log.request(0, 1)))
    with httpx.Client(base_url=witness.url, timeout=LIMIT_S) as client:
        for size in range(2, 122):
            refused(witness.post(request(1, [], log.sign(log.text(size))), client), 422)

    def kept() -> int:
        with sqlite3.connect(witness.database) as database:
            found = database.execute("SELECT count(*) FROM evidence WHERE origin = ?", (log.origin,)).fetchone()
        assert isinstance(found[0], int)
        return found[0]

    assert kept() == 100
    ok(witness.post(log.request(1, 50)))
    assert kept() == 99


def test_the_wrong_proof_is_refused(witness: WitnessProcess, log: ForeignLog) -> None:
    ok(witness.post(log.request(0, 3)))
    good = consistency(log.leaves, 3)
    note = log.sign(log.text())
    for proof in ([], good[:-1], [*good, good[0]], [good[1], good[0], *good[2:]], [bytes(32), *good[1:]]):
        refused(witness.post(request(3, proof, note)), 422)
    ok(witness.post(request(3, good, note)))
    refused(witness.post(request(10, [bytes(32)], note)), 422)


def test_size_0_has_one_root_and_anything_extends_it(witness: WitnessProcess, log: ForeignLog) -> None:
    empty = log.sign(log.text(0))
    assert log.text(0).splitlines()[2] == base64.b64encode(root_of([])).decode()
    refused(witness.post(request(0, [], log.sign(log.text(0, bytes(32))))), 422)
    refused(witness.post(request(0, [bytes(32)], empty)), 422)
    ok(witness.post(request(0, [], empty)))
    ok(witness.post(request(0, [], empty)))
    assert witness.last(log.origin).text.startswith(empty)
    refused(witness.post(request(0, [bytes(32)], log.sign(log.text()))), 422)
    ok(witness.post(log.request(0)))


def test_a_log_that_is_not_known_is_not_found(witness: WitnessProcess) -> None:
    stranger = ForeignLog("stranger.example.com")
    stranger.grow(3)
    refused(witness.post(stranger.request(0)), 404)


def test_the_key_of_a_known_log_is_not_known_under_another_origin(witness: WitnessProcess, log: ForeignLog) -> None:
    other = ForeignLog("other.example.com", log.leaves, log._key)
    refused(witness.post(other.request(0)), 404)
    _, line = log.sign(other.text()).split("\n\n")
    refused(witness.post(request(0, [], f"{other.text()}\n{line}")), 404)
    ok(witness.post(log.request(0)))


def test_lines_of_keys_that_nobody_knows_are_ignored_and_not_kept(witness: WitnessProcess, log: ForeignLog) -> None:
    note = log.sign(log.text())
    stray = [f"\u2014 x{i} {base64.b64encode(bytes([i]) * 40).decode()}\n" for i in range(50)]
    lines = ok(witness.post(request(0, [], note + "".join(stray))))
    assert witness.last(log.origin).text == note + lines


def test_only_its_log_signs_a_checkpoint(witness: WitnessProcess, log: ForeignLog) -> None:
    impostor = ForeignLog(log.origin, log.leaves)
    refused(witness.post(impostor.request(0)), 403)
    other = next(_unused)
    _, signature = other.sign(log.text()).split("\n\n")
    refused(witness.post(request(0, [], f"{log.text()}\n{signature}")), 403)
    note = log.sign(log.text())
    _, signature = note.split("\n\n")
    # The line of the log twice, and a failing one beside lines of others.
    refused(witness.post(request(0, [], note + signature)), 403)
    flipped = base64.b64decode(signature.split(" ")[2])
    flipped = flipped[:-1] + bytes([flipped[-1] ^ 1])
    line = f"\u2014 {log.origin} {base64.b64encode(flipped).decode()}\n"
    refused(witness.post(request(0, [], f"{log.text()}\n{line}")), 403)
    refused(witness.post(request(0, [], other.sign(log.text()) + line)), 403)
    ok(witness.post(request(0, [], note)))


def test_a_forged_line_of_the_witness_itself_is_neither_stored_nor_served(
    witness: WitnessProcess, log: ForeignLog
) -> None:
    vkey, _ = witness.vkeys()
    name, key_hex, _ = vkey.split("+", 2)
    forged = base64.b64encode(bytes.fromhex(key_hex) + bytes(72)).decode()
    stray = base64.b64encode(b"\1\2\3\4" + bytes(64)).decode()
    note = log.sign(log.text())
    lines = ok(witness.post(request(0, [], f"{note}\u2014 {name} {forged}\n\u2014 {name} {stray}\n")))
    assert witness.last(log.origin).text == note + lines
    assert forged not in lines
    assert stray not in lines


def _malformed(log: ForeignLog) -> dict[str, bytes]:
    good = log.request(0).decode()
    hash_line = base64.b64encode(bytes(32)).decode()
    texts = {
        "no size": good.partition("\n")[2],
        "a padded size": good.replace("old 0", "old 00", 1),
        "a signed size": good.replace("old 0", "old +0", 1),
        "2^63": good.replace("old 0", f"old {2**63}", 1),
        "2^64": good.replace("old 0", f"old {2**64}", 1),
        "10^30": good.replace("old 0", f"old {10**30}", 1),
        "no empty line": good.replace("old 0\n\n", "old 0\n", 1),
        "64 hashes": good.replace("old 0\n", "old 3\n" + f"{hash_line}\n" * 64, 1),
        "a hash of 31 bytes": good.replace("old 0\n", f"old 3\n{base64.b64encode(bytes(31)).decode()}\n", 1),
        "a hash that is not canonical": good.replace("old 0\n", f"old 3\n{hash_line[:-2]}B=\n", 1),
        "CR LF": good.replace("\n", "\r\n"),
        "a byte order mark": "\ufeff" + good,
        "no final line feed": good[:-1],
        "a size of 2^63": request(0, [], log.sign(log.text(str(2**63)))).decode(),
        "a size of 010": request(0, [], log.sign(log.text("010"))).decode(),
        "extension lines": request(0, [], log.sign(log.text() + "more\n")).decode(),
        "101 lines": good + "\u2014 n AQIDBAU=\n" * 100,
        "a line without padding": good + "\u2014 n AQIDBAU\n",
        "a long origin": good.replace(log.origin, "o" * 256),
    }
    return {name: text.encode() for name, text in texts.items()} | {"nothing": b"", "bytes": b"\xff" * 99, "NUL": b"\0"}


def test_what_is_malformed_is_refused(witness: WitnessProcess, log: ForeignLog) -> None:
    with httpx.Client(base_url=witness.url, timeout=LIMIT_S) as client:
        for name, body in _malformed(log).items():
            assert witness.post(body, client).status_code == 400, name
        ok(witness.post(log.request(0), client))


def test_what_is_too_large_is_refused_before_it_is_read(witness: WitnessProcess, log: ForeignLog) -> None:
    good = log.request(0)
    line = "\u2014 n " + base64.b64encode(bytes(3 * 16_000)).decode() + "\n"
    assert len(good) + len(line) < 65_536 + 4000
    refused(witness.post(good + line.encode() * 2), 413)
    refused(witness.post(b"x" * (300 * 1024)), 413)
    # Of a body in pieces, the length is not declared.
    answer = httpx.post(f"{witness.url}/add-checkpoint", content=(b"x" * 8192 for _ in range(40)), timeout=LIMIT_S)
    refused(answer, 413)
    ok(witness.post(good))


def test_a_body_that_does_not_arrive_is_given_up(witness: WitnessProcess) -> None:
    url = httpx.URL(witness.url)
    assert url.port is not None
    with socket.create_connection((url.host, url.port), timeout=LIMIT_S) as stream:
        stream.sendall(b"POST /add-checkpoint HTTP/1.1\r\nhost: w\r\ncontent-length: 100\r\n\r\nold 0\n")
        start = time.monotonic()
        assert stream.recv(4096).startswith(b"HTTP/1.1 408 ")
        assert 9 < time.monotonic() - start < 20


def test_a_connection_serves_one_request_after_the_other(witness: WitnessProcess, log: ForeignLog) -> None:
    with httpx.Client(base_url=witness.url, timeout=LIMIT_S) as client:
        for size in range(1, 11):
            answer = witness.post(log.request(size - 1, size), client)
            ok(answer)
            assert "connection" not in answer.headers


def test_of_racing_requests_one_wins_and_the_size_never_goes_back(witness: WitnessProcess, log: ForeignLog) -> None:
    log.grow(400)
    size = 10
    ok(witness.post(log.request(0, size)))
    with ThreadPoolExecutor(8) as pool:
        for _ in range(15):
            barrier = threading.Barrier(8)

            def send(body: bytes, barrier: threading.Barrier = barrier) -> httpx.Response:
                barrier.wait()
                return witness.post(body)

            sizes = [size + 1 + number for number in range(8)]
            answers = list(pool.map(send, [log.request(size, new) for new in sizes]))
            won = [new for new, answer in zip(sizes, answers, strict=True) if answer.status_code == 200]
            assert len(won) == 1
            assert all(answer.text == f"{won[0]}\n" for answer in answers if answer.status_code == 409)
            assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
            [size] = won


class Load:
    """Logs that grow by one leaf with each request, all at once, until the witness is killed."""

    def __init__(self, witness: WitnessProcess, logs: list[ForeignLog]) -> None:
        self.witness = witness
        self.logs = logs
        self.acknowledged = dict.fromkeys((log.origin for log in logs), 0)
        self._end = threading.Event()
        self._threads: list[threading.Thread] = []

    @property
    def total(self) -> int:
        return sum(self.acknowledged.values())

    def start(self) -> None:
        self._end.clear()
        self._threads = [threading.Thread(target=self._submit, args=(log,)) for log in self.logs]
        for thread in self._threads:
            thread.start()

    def wait_for(self, more: int) -> None:
        wanted = self.total + more
        wait_while(lambda: "" if self.total >= wanted else f"{self.total}", f"{wanted} cosignatures")

    def join(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(LIMIT_S)

    def _submit(self, log: ForeignLog) -> None:
        with httpx.Client(base_url=self.witness.url, timeout=5) as client:
            while not self._end.is_set() and self.acknowledged[log.origin] < len(log.leaves):
                size = self.acknowledged[log.origin]
                try:
                    answer = self.witness.post(log.request(size, size + 1), client)
                except httpx.TransportError:
                    return
                if answer.status_code == 409:
                    # Cosigned before the kill, and not answered.
                    assert int(answer.text) > size
                    self.acknowledged[log.origin] = int(answer.text)
                else:
                    ok(answer)
                    self.acknowledged[log.origin] = size + 1


def test_killed_at_any_moment_a_witness_forgets_nothing_it_has_signed(tmp_path: Path) -> None:
    logs = [ForeignLog(f"log.example.com/crash-{number}") for number in range(3)]
    for log in logs:
        log.grow(400)
    process = WitnessProcess(tmp_path)
    process.make_key()
    process.know(*logs)
    load = Load(process, logs)
    try:
        for turn in range(6):
            process.start(*(["--new-database"] if turn == 0 else []))
            load.start()
            load.wait_for(20)
            process.kill()
            load.join()
            with sqlite3.connect(process.database) as database:
                found = dict(database.execute("SELECT origin, size FROM logs").fetchall())
            for origin, size in load.acknowledged.items():
                assert size <= found.get(origin, 0) <= size + 1
        process.start()
        for log in logs:
            size = int(process.last(log.origin).text.splitlines()[1])
            assert size >= load.acknowledged[log.origin]
            ok(process.post(log.request(size)))
    finally:
        process.forget()


def test_the_extension_cannot_cosign_what_was_not_verified() -> None:
    log = ForeignLog("log.example.com/x")
    log.grow(2)
    parsed = AddCheckpoint.parse(log.request(0))
    assert (parsed.claimed_origin, parsed.has_extensions) == (log.origin, False)
    assert not hasattr(parsed, "cosign")
    submission = parsed.verify(LogKeys.parse([log.vkey]))
    assert (submission.origin, submission.old, submission.size) == (log.origin, 0, 2)
    assert bytes(submission.root) == root_of(log.leaves)
    assert not hasattr(submission, "cosign")
