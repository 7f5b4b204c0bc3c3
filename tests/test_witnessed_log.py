"""Servers whose checkpoints are cosigned by witnesses of others."""

from __future__ import annotations

import json
import shutil
import time
from typing import TYPE_CHECKING

import httpx
import pytest

import qed
from harness.cluster import new_cluster
from harness.process import Server
from harness.wait import wait_until
from test_signing import Signed, add_refused, ask, published, receipt_in, running
from witnesses import WitnessProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Watched(Signed):
    """A log with two witnesses, of which the policy wants both."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.witnesses = [WitnessProcess(folder / name, f"{name}.example.org/w") for name in ("east", "west")]
        lines = [f"log {vkey}\n" for vkey in self.vkeys]
        for number, witness in enumerate(self.witnesses):
            witness.folder.mkdir()
            witness.make_key()
            witness.logs.write_text(f"[[log]]\nvkeys = {json.dumps(self.vkeys)}\n")
            witness.start("--new-database")
            lines.append(f"witness w{number} {witness.vkeys()[0]} {witness.url}\n")
        lines += ["group both all w0 w1\n", "quorum both\n"]
        self.policy_file = folder / "policy"
        self.policy_file.write_text("".join(lines))
        self.policy = qed.Policy.load(self.policy_file)

    def options(self, name: str = "lone") -> tuple[str, ...]:
        return (*super().options(name), "--policy", str(self.policy_file))

    def stop(self) -> None:
        for witness in self.witnesses:
            witness.forget()


def restart(witness: WitnessProcess) -> None:
    witness.start("--listen", witness.url.removeprefix("http://"))


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(tmp_path)
    yield watched
    watched.stop()


@pytest.fixture
def server(watched: Watched) -> Iterator[Server]:
    server = Server("lone", watched.folder / "data", extra=watched.options())
    with running(server):
        yield server


def test_an_event_is_acknowledged_with_a_witnessed_receipt(server: Server, watched: Watched) -> None:
    receipt = receipt_in(ask(server, b"one", Receipt="witnessed"))
    verified = watched.policy.verify(receipt, b"one")
    assert verified.level is qed.Level.WITNESSED
    assert verified.checkpoint.witnesses == ["w0", "w1"]
    # A committed one is upgraded later.
    committed = receipt_in(ask(server, b"two"))
    with pytest.raises(qed.Inconclusive):
        watched.policy.verify(committed, b"two")
    later = httpx.get(f"{server.url}/receipts/1?level=witnessed").content
    watched.policy.verify(qed.SignedReceipt.from_json(later), b"two")


def test_without_a_quorum_nothing_new_is_published(server: Server, watched: Watched) -> None:
    ask(server, b"one", Receipt="witnessed")
    watched.witnesses[1].kill()
    answer = httpx.post(f"{server.url}/events", json={"Event": "dHdv", "Receipt": "committed"}).json()
    assert answer["Receipt"] is not None
    late = httpx.get(f"{server.url}/receipts/1?level=witnessed&wait=2")
    assert (late.status_code, late.json()["error"], late.json()["message"]) == (503, "signer", "not witnessed yet")
    assert published(server)[0] == 1
    restart(watched.witnesses[1])
    wait_until(lambda: published(server)[0] == 2, "both witnesses", limit_s=60)


def test_a_log_that_a_witness_knows_better_accepts_nothing(server: Server, watched: Watched) -> None:
    server.add(b"one")
    assert server.stop() == 0
    copies = {path: watched.folder / f"copy-{path.name}" for path in (server.folder, watched.memory())}
    shutil.copytree(server.folder, copies[server.folder])
    shutil.copy(watched.memory(), copies[watched.memory()])
    server.start()
    ask(server, b"two", Receipt="witnessed")
    assert server.stop() == 0
    # Folder and memory are both old, so only the witnesses know.
    shutil.rmtree(server.folder)
    copies[server.folder].rename(server.folder)
    copies[watched.memory()].rename(watched.memory())
    server.start()
    assert "a witness has cosigned 2" in add_refused(server)
    assert server.stop() == 0
    watched.memory().unlink()
    server.start()
    assert "a witness has cosigned 2" in add_refused(server)
    assert not watched.memory().exists()


def test_witnesses_vouch_for_a_log_whose_memory_is_lost(server: Server, watched: Watched) -> None:
    ask(server, b"one", Receipt="witnessed")
    assert server.stop() == 0
    watched.memory().unlink()
    for witness in watched.witnesses:
        witness.kill()
    server.start()
    refused = server.add(b"two")
    # Not for good: a witness may answer later.
    assert (refused.status_code, refused.json()["error"]) == (503, "unavailable")
    assert "wait until more witnesses can be reached: others may" in refused.json()["message"]
    restart(watched.witnesses[1])
    # The policy wants both, so nothing was published that this one has not cosigned.
    assert server.add(b"two").status_code == 201
    assert "new sign memory, as witnesses agree" in server.stderr
    assert watched.memory().exists()


def test_one_of_several_witnesses_does_not_vouch_for_all(server: Server, watched: Watched) -> None:
    watched.policy_file.write_text(watched.policy_file.read_text().replace("group both all", "group both any"))
    ask(server, b"one", Receipt="witnessed")
    assert server.stop() == 0
    watched.memory().unlink()
    for witness in watched.witnesses:
        witness.kill()
    restart(watched.witnesses[1])
    server.start()
    # The other one alone may have cosigned more.
    assert "do not show what they have cosigned: w0" in server.add(b"two").json()["message"]
    assert not watched.memory().exists()
    restart(watched.witnesses[0])
    assert server.add(b"two").status_code == 201


def test_cosigned_checkpoints_reach_every_member(watched: Watched) -> None:
    cluster = new_cluster(watched.folder, 3)
    watched.sign_in(cluster)
    try:
        cluster.start()
        ask(cluster.leader(), b"one", Receipt="witnessed")
        wait_until(lambda: all(published(one)[0] == 1 for one in cluster.members), "the checkpoint at each member")
        for member in cluster.members:
            note = httpx.get(f"{member.url}/log/checkpoint").content
            assert watched.policy.trust.endorse(note, now=int(time.time())).is_witnessed
    finally:
        cluster.forget()
