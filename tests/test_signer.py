"""`qed signer`: what it signs, what it refuses, and what it never forgets."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from certificates import Operator
from commands import QED, environment, qed
from harness.wait import LIMIT_S, wait_until
from qed.log_keys import new_log_keys, new_witness_keys
from qed.server.addresses import SettingsError
from qed.server.unix_socket import bound_unix
from signers import ORIGIN, SignedLog, SignerProcess
from witnesses import WitnessProcess, consistency, request

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def log() -> SignedLog:
    log = SignedLog()
    log.grow(10)
    return log


@pytest.fixture
def signer(tmp_path: Path, log: SignedLog) -> Iterator[SignerProcess]:
    """Give a signer with keys that was never started."""
    process = SignerProcess(tmp_path, submitters=(log.submitter.vkey,))
    process.make_key()
    yield process
    process.forget()


@pytest.fixture
def running(signer: SignerProcess) -> SignerProcess:
    signer.start("--new-database")
    return signer


def verify_ed25519(line: str, vkey: str, text: str) -> None:
    """Verify a line of kind 01 with the library `cryptography`."""
    public = base64.b64decode(vkey.split("+", 2)[2])
    signature = base64.b64decode(line.split(" ")[2])
    assert public[0] == 1
    Ed25519PublicKey.from_public_bytes(public[1:]).verify(signature[4:], text.encode())


def lines_of(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    lines = answer.text.splitlines()
    assert all(line.startswith(f"\u2014 {ORIGIN} ") for line in lines)
    return lines


def refused(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert "\u2014" not in answer.text
    return answer.text


def test_checkpoints_are_signed_with_both_keys_and_receipts_with_one(running: SignerProcess, log: SignedLog) -> None:
    assert running.stdout == f"Signer of {ORIGIN} listens on unix:{running.socket}\n"
    ed25519, ml_dsa = sorted(lines_of(running.ask(log.submission(0, 4))), key=len)
    verify_ed25519(ed25519, running.vkeys()[0], log.text(4))
    assert len(base64.b64decode(ml_dsa.split(" ")[2])) == 4 + 8 + 2420
    (line,) = lines_of(running.ask(log.submission(4, 7), "/add-checkpoint/01"))
    verify_ed25519(line, running.vkeys()[0], log.text(7))
    # What was signed for a receipt counts like every other signature.
    assert refused(running.ask(log.submission(4)), 409) == "7\n"
    assert len(lines_of(running.ask(log.submission(7)))) == 2
    assert lines_of(running.ask(log.submission(10)))[0] == lines_of(running.ask(log.submission(10)))[0]
    assert refused(running.ask(log.submission(10, 7)), 400)


def test_a_witness_has_no_call_for_receipts(tmp_path: Path) -> None:
    log = SignedLog()
    process = WitnessProcess(tmp_path, extra=("--vkey", log.vkey))
    process.make_key()
    try:
        process.start("--new-database")
        assert httpx.post(f"{process.url}/add-checkpoint/01", content=b"x").status_code == 404
        assert httpx.post(f"{process.url}/add-checkpoint", content=b"x").status_code == 400
    finally:
        process.forget()


def test_only_submitters_are_answered(running: SignerProcess, log: SignedLog) -> None:
    stranger = new_witness_keys(f"{ORIGIN}/m/1")[0]
    assert refused(running.ask(log.submission(0, submitter=stranger)), 403)
    assert refused(running.ask(request(0, [], log.sign(log.text()))), 403)
    own = new_log_keys(ORIGIN)[0]
    assert refused(running.ask(log.submission(0, submitter=own)), 403)
    other = SignedLog("log.example.com/other", submitter=log.submitter)
    other.grow(3)
    assert "this signer does not sign for this log" in refused(running.ask(other.submission(0)), 404)
    assert refused(running.ask(log.text().encode()), 400)
    assert refused(running.ask(b"x" * 70_000), 413)
    assert "this signer has signed no checkpoint" in running_last(running, log)


def running_last(running: SignerProcess, log: SignedLog) -> str:
    with running.client() as client:
        return client.get(f"/{hashlib.sha256(log.origin.encode()).hexdigest()}/checkpoint").text


def test_a_log_that_lost_entries_gets_no_signature(running: SignerProcess, log: SignedLog) -> None:
    lines_of(running.ask(log.submission(0)))
    del log.leaves[6:]
    assert refused(running.ask(log.submission(6)), 409) == "10\n"
    assert refused(running.ask(log.submission(0)), 409) == "10\n"
    log.leaves += [bytes([number]) * 32 for number in range(9)]
    # Other entries in the place of those that were lost, at the same size and above.
    assert refused(running.ask(log.submission(10, 10)), 422)
    assert refused(running.ask(log.submission(10)), 422)
    assert refused(
        running.ask(request(10, consistency(log.leaves, 10), log.submission(10).decode().partition("\n\n")[2])), 422
    )
    states = json.loads(qed("--json", "signer", "status", "--database", str(running.database)).stdout)
    assert (states["Origin"], states["Size"], states["Refused"]) == (ORIGIN, 10, 2)
    shown = qed("signer", "status", "--database", str(running.database)).stdout
    assert shown.splitlines()[:2] == running.vkeys()


def test_of_two_histories_that_race_one_is_signed(running: SignerProcess, log: SignedLog) -> None:
    lines_of(running.ask(log.submission(0)))
    for turn in range(10):
        forks = []
        for number in range(4):
            fork = SignedLog(leaves=[*log.leaves, bytes([number, turn] * 16)], submitter=log.submitter)
            forks.append((fork, fork.submission(len(log.leaves))))
        barrier = threading.Barrier(len(forks))

        def send(body: bytes, barrier: threading.Barrier = barrier) -> int:
            barrier.wait(LIMIT_S)
            return running.ask(body).status_code

        with ThreadPoolExecutor(len(forks)) as pool:
            statuses = list(pool.map(send, (body for _, body in forks)))
        assert sorted(statuses) == [200, 409, 409, 409]
        log = forks[statuses.index(200)][0]


def test_what_was_signed_is_remembered_after_kill(signer: SignerProcess, log: SignedLog) -> None:
    """A kill at any moment leaves a memory of all that was answered: another tree of that size is never signed."""
    log.grow(400)
    signed = 0
    for turn in range(5):
        signer.start(*(["--new-database"] if turn == 0 else []))
        done = threading.Event()
        answered: list[int] = []

        def load(start: int, answered: list[int] = answered, done: threading.Event = done) -> None:
            size = start
            with signer.client() as client:
                while not done.is_set() and size < len(log.leaves):
                    try:
                        answer = client.post("/add-checkpoint/01", content=log.submission(size, size + 1))
                    except httpx.HTTPError:  # the process was killed
                        return
                    if answer.status_code == 409:
                        size = int(answer.text)
                        continue
                    assert answer.status_code == 200, answer.text
                    size += 1
                    answered.append(size)

        thread = threading.Thread(target=load, args=(signed,))
        thread.start()
        wait_until(lambda answered=answered: len(answered) >= 10, "signatures")  # type: ignore[misc]  # bound at once
        signer.kill()
        done.set()
        thread.join(LIMIT_S)
        signed = answered[-1]
        signer.start()
        forked = SignedLog(leaves=[*log.leaves[: signed - 1], bytes(32)], submitter=log.submitter)
        last = refused(signer.ask(forked.submission(0)), 409)
        assert signed <= int(last) <= signed + 1
        assert signer.ask(forked.submission(signed - 1)).status_code in {409, 422}
        assert signer.ask(forked.submission(signed)).status_code in {409, 422}
        signer.kill()
        signed = int(last)


def test_a_restored_memory_is_smaller_and_the_log_goes_on_from_there(signer: SignerProcess, log: SignedLog) -> None:
    signer.start("--new-database")
    lines_of(signer.ask(log.submission(0, 4)))
    assert signer.stop() == 0
    shutil.copy(signer.database, signer.folder / "copy.db")
    signer.start()
    lines_of(signer.ask(log.submission(4, 9)))
    assert signer.stop() == 0
    (signer.folder / "copy.db").replace(signer.database)
    signer.start()
    assert refused(signer.ask(log.submission(9)), 409) == "4\n"
    lines_of(signer.ask(log.submission(4)))


def test_a_signer_never_starts_without_its_memory(signer: SignerProcess) -> None:
    assert "found none: without it, the signer would sign a second history" in signer.refused()
    signer.start("--new-database")
    assert signer.stop() == 0
    signer.database.unlink()
    assert "have signed" in signer.refused("--new-database")
    assert "--new-database" in signer.refused()


def test_the_memory_of_other_keys_is_refused(signer: SignerProcess) -> None:
    signer.start("--new-database")
    assert signer.stop() == 0
    signer.key.unlink()
    signer.make_key()
    assert "the database of this signer" in signer.refused()


def test_keys_of_a_witness_are_refused(signer: SignerProcess) -> None:
    signer.key.unlink()
    command = [QED, "log-key", "generate", "--witness", ORIGIN, "--out", str(signer.key)]
    subprocess.run(command, check=True, capture_output=True, timeout=LIMIT_S, env=environment())
    assert "expected keys of kind 01 and 06" in signer.refused("--new-database")


def test_a_submitter_has_a_name_below_the_log_and_a_key_of_a_witness(signer: SignerProcess) -> None:
    own, other = new_log_keys(ORIGIN), new_witness_keys("log.example.com/signe")
    below = new_log_keys(f"{ORIGIN}/m/1")
    for vkey in (own[0].vkey, own[1].vkey, other[0].vkey, below[0].vkey, new_witness_keys(f"{ORIGIN}x")[0].vkey, "x"):
        signer.submitters = (vkey,)
        assert "a submitter cannot be used: expected" in signer.refused("--new-database")
    signer.submitters = (signer.submitters[0], signer.submitters[0])
    assert "a submitter cannot be used" in signer.refused("--new-database")


def test_submitters_may_have_keys_of_both_kinds(signer: SignerProcess, log: SignedLog) -> None:
    keys = new_witness_keys(f"{ORIGIN}/m/2")
    signer.submitters = (log.submitter.vkey, *(key.vkey for key in keys))
    signer.start("--new-database")
    lines_of(signer.ask(log.submission(0, 3)))
    lines_of(signer.ask(log.submission(3, 4, submitter=keys[0])))
    lines_of(signer.ask(log.submission(4, 5, submitter=keys[1])))


def test_the_socket_is_for_its_owner_and_goes_with_the_signer(running: SignerProcess) -> None:
    path = Path(running.socket)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    second = SignerProcess(running.folder, submitters=running.submitters)
    second.__dict__["socket"] = running.socket
    assert "another process listens on it" in second.refused()
    assert path.exists()
    assert running.stop() == 0
    assert not path.exists()


def test_a_socket_that_a_killed_signer_left_is_replaced(running: SignerProcess, log: SignedLog) -> None:
    running.kill()
    assert Path(running.socket).exists()
    running.start()
    lines_of(running.ask(log.submission(0)))


def test_a_file_in_the_place_of_the_socket_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("kept")
    with pytest.raises(SettingsError, match="expected a socket or nothing"):
        bound_unix(path)
    assert path.read_text() == "kept"
    with pytest.raises(SettingsError, match="cannot listen"):
        bound_unix(tmp_path / "missing" / "s")
    with pytest.raises(SettingsError, match="cannot listen"):
        bound_unix(tmp_path / ("x" * 200))
    listener = bound_unix(tmp_path / "t")
    assert listener.family is socket.AF_UNIX
    listener.close()


def test_a_signer_listens_on_a_port_too_with_tls_or_without(tmp_path: Path, log: SignedLog) -> None:
    process = SignerProcess(tmp_path, submitters=(log.submitter.vkey,), is_remote=True)
    process.make_key()
    try:
        process.start("--new-database")
        assert process.url.startswith("http://127.0.0.1:")
        lines_of(process.ask(log.submission(0, 3)))
        assert process.stop() == 0
        operator = Operator(tmp_path / "ca")
        files = operator.issue("signer")
        process.start("--tls-cert", str(files.certificate), "--tls-key", str(files.key))
        assert process.url.startswith("https://127.0.0.1:")
        context = ssl.create_default_context(cafile=operator.path)
        with httpx.Client(base_url=process.url, verify=context, timeout=LIMIT_S) as client:
            lines_of(client.post("/add-checkpoint", content=log.submission(3)))
        process.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "files read again" in process.stderr, "the log line")
    finally:
        process.forget()


def test_a_socket_with_tls_is_refused(signer: SignerProcess) -> None:
    path = str(signer.key)
    done = qed(*signer.command("--tls-cert", path, "--tls-key", path)[1:])
    assert done.returncode == 2
    assert "a Unix socket needs no TLS" in done.stderr
