"""Servers whose keys are in another process."""

from __future__ import annotations

import shlex
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

import qed
from commands import one_line
from commands import qed as run
from harness.process import Server
from harness.wait import wait_until
from qed.log_keys import content_of_log_keys, new_witness_keys
from signers import SignerProcess
from test_signing import ORIGIN, Signed, add_refused, ask, published, receipt_in, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def signer(tmp_path: Path) -> Iterator[SignerProcess]:
    keys = new_witness_keys(f"{ORIGIN}/m/1")
    (tmp_path / "signer").mkdir()
    signer = SignerProcess(tmp_path / "signer", ORIGIN, submitters=(keys[0].vkey,))
    signer.make_key()
    submitter = tmp_path / "submitter.key"
    submitter.touch(mode=0o600)
    submitter.write_bytes(content_of_log_keys(keys))
    (tmp_path / "log.pub").write_text("".join(f"{vkey}\n" for vkey in signer.vkeys()))
    signer.start("--new-database")
    yield signer
    signer.forget()


def options(folder: Path, *extra: str) -> tuple[str, ...]:
    memory, public = folder / "memory", folder / "log.pub"
    return ("--origin", ORIGIN, "--sign-memory", str(memory), "--public-keys", str(public), *extra)


def policy_in(folder: Path) -> qed.Policy:
    lines = (folder / "log.pub").read_text().splitlines()
    return qed.Policy(("".join(f"log {vkey}\n" for vkey in lines) + "quorum none\n").encode())


def of_signer(folder: Path, signer: SignerProcess) -> Server:
    where = ("--signer", f"unix:{signer.socket}", "--submitter-key", str(folder / "submitter.key"))
    return Server("lone", folder / "data", extra=options(folder, *where))


def test_a_signer_signs_what_the_server_acknowledges(tmp_path: Path, signer: SignerProcess) -> None:
    with running(of_signer(tmp_path, signer)) as server:
        policy_in(tmp_path).verify(receipt_in(ask(server, b"one")), b"one")
        wait_until(lambda: published(server)[0] == 1, "the checkpoint")
        add = ("--endpoints", server.url, "add", "--receipts", str(tmp_path / "receipts"), "--event")
        assert run(*add, "signed").stderr == ""
        signer.kill()
        assert "no committed receipt: the signer cannot be asked" in one_line(run(*add, "not signed").stderr)
        answer = ask(server, b"two")
        assert answer["Version"] == 3
        assert (answer["Receipt"], "signer" in answer["ReceiptError"]) == (None, True)
        signer.start()
        policy_in(tmp_path).verify(receipt_in(ask(server, b"three")), b"three")


def test_a_server_that_lost_entries_is_refused_by_its_signer(tmp_path: Path, signer: SignerProcess) -> None:
    server = of_signer(tmp_path, signer)
    with running(server):
        ask(server, b"one")
        assert server.stop() == 0
        # Both the folder and the sign memory are old: only the signer knows.
        shutil.copytree(server.folder, tmp_path / "copy")
        shutil.copy(tmp_path / "memory", tmp_path / "memory copy")
        server.start()
        ask(server, b"two")
        assert server.stop() == 0
        shutil.rmtree(server.folder)
        (tmp_path / "copy").rename(server.folder)
        (tmp_path / "memory copy").rename(tmp_path / "memory")
        server.start()
        wait_until(lambda: "sign-halted" in server.stderr, "the server to notice")
        assert "the signer has signed 2 entries" in add_refused(server)


def test_a_command_signs(tmp_path: Path) -> None:
    signed = Signed(tmp_path)
    (tmp_path / "log.pub").write_text("".join(f"{vkey}\n" for vkey in signed.vkeys))
    script = tmp_path / "sign.py"
    script.write_text(f"""
import os, sys, time
from pathlib import Path
from qed._qed import SigningKey, UnsignedCheckpoint
from qed.proofs import Digest
import base64
origin, size, root = sys.stdin.read().split("\\n")[:3]
checkpoint = UnsignedCheckpoint(origin, int(size), Digest(base64.b64decode(root)))
for key in SigningKey.parse_file(Path({str(signed.key)!r}).read_bytes()):
    if key.kind == 1 or os.environ["QED_SIGN_FOR"] == "checkpoint":
        print(key.sign(checkpoint, time=int(time.time())))
""")
    command = shlex.join([sys.executable, str(script)])
    server = Server("lone", tmp_path / "data", extra=options(tmp_path, "--signer-command", command))
    with running(server):
        signed.policy.verify(receipt_in(ask(server, b"one")), b"one")
        wait_until(lambda: published(server)[0] == 1, "the checkpoint")
