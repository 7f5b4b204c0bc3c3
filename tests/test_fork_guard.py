"""What keeps a signed log from a second history: restored clusters, copies, new members, and a bit that flips."""

from __future__ import annotations

import base64
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

import qed
from harness.cluster import Cluster, new_cluster
from harness.process import Server
from harness.wait import wait_until
from intruders import Intruder, cluster_of
from qed._qed import SigningKey, UnsignedCheckpoint
from signing import NOW, root
from test_signing import Signed, add_refused, ask, published, receipt_in, running
from test_signing_crash import leaves_of
from test_witnessed_log import Watched

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    return Signed(tmp_path)


@pytest.fixture
def cluster(signed: Signed) -> Iterator[Cluster]:
    cluster = new_cluster(signed.folder, 3)
    signed.sign_in(cluster)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.forget()


def flip(process: int, value: bytes) -> int:
    """Flip a bit of a value wherever a process has it in memory that it can write; return in how many places."""
    found = 0
    with Path(f"/proc/{process}/mem").open("r+b", buffering=0) as memory:
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            area = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw-p", line)
            if area is None:
                continue
            start, end = (int(part, 16) for part in area.groups())
            memory.seek(start)
            content = memory.read(end - start)
            at = content.find(value)
            while at >= 0:
                memory.seek(start + at)
                memory.write(bytes([value[0] ^ 1]))
                found += 1
                at = content.find(value, at + 1)
    return found


@pytest.mark.parametrize("what", ["receipt", "published"])
def test_a_bit_that_flips_in_the_running_tree_is_not_signed(signed: Signed, what: str) -> None:
    server = Server("lone", signed.folder / "data", extra=signed.options())
    with running(server):
        for number in range(3):
            ask(server, b"event %d" % number)
        wait_until(lambda: published(server)[0] == 3, "the checkpoint")
        # Of three entries the tree keeps the node over the first two.
        assert flip(server.process.pid, root(leaves_of(server)[:2])) > 0
        answer = ask(server, b"another") if what == "receipt" else server.add(b"another").json()
        assert answer["Version"] == 3
        assert answer.get("Receipt") is None
        wait_until(lambda: "sign-halted" in server.stderr, "the server to notice")
        assert "but the stored tiles give" in add_refused(server)
        assert published(server)[0] == 3
        # The tree is built from the entries at each start, and what was wrong has left no trace.
        assert server.stop() == 0
        server.start()
        signed.policy.verify(receipt_in(ask(server, b"one more")), b"one more")


def test_a_cluster_that_is_restored_signs_nothing_whoever_leads(cluster: Cluster, signed: Signed) -> None:
    assert cluster.leader().add(b"one").status_code == 201
    wait_until(lambda: all(published(one)[0] == 1 for one in cluster.members), "the checkpoint at each member")
    copies = {one.name: signed.folder / f"copy of {one.name}" for one in cluster.members}

    def stop() -> None:
        for member in cluster.members:
            member.kill()

    stop()
    for member in cluster.members:
        shutil.copytree(member.folder, copies[member.name])
    cluster.heal()
    # An add whose outcome is unknown may be there twice.
    wait_until(lambda: cluster.leader().add(b"two").status_code == 201, "the event")
    size = cluster.leader().count()
    wait_until(lambda: all(published(one)[0] == size for one in cluster.members), "the checkpoint at each member")
    stop()
    for member in cluster.members:
        shutil.rmtree(member.folder)
        copies[member.name].rename(member.folder)
    cluster.heal()
    said = f"the log has 1 entries, but {size} were signed"
    first = cluster.leader()
    wait_until(lambda: said in cluster.leader().add(b"other two").text, "the leader to refuse")
    first.kill()
    wait_until(lambda: said in cluster.leader().add(b"other two").text, "the next leader to refuse")
    assert all(published(one)[0] < size for one in cluster.running())
    cluster.heal()
    # A new member remembers nothing, so it must not become the leader of such a log.
    first = cluster.members[0]
    joiner = Server("joiner", signed.folder / "joiner", extra=signed.options("joiner"), secret=first.secret)
    joiner.join = (cluster.leader().address("raft"),)
    done = joiner.run_to_exit()
    assert done.returncode == 1
    assert said in done.stderr


def test_a_member_with_another_tree_than_was_signed_answers_no_more(cluster: Cluster, signed: Signed) -> None:
    assert cluster.leader().add(b"one").status_code == 201
    wait_until(lambda: all(published(one)[0] == 1 for one in cluster.members), "the checkpoint at each member")
    follower, lost = cluster.followers()
    sender, name = Intruder.as_member(lost), cluster_of(follower)
    lost.kill()
    key = SigningKey.parse_file(signed.key.read_bytes())[0]
    other = UnsignedCheckpoint(signed.origin, 1, qed.Digest(bytes(32)))
    note = other.to_note([key.sign(other, time=1)])

    def gives(note: bytes) -> bool:
        wish: dict[str, object] = {"wish": "checkpoint", "note": base64.b64encode(note).decode()}
        return sender.ask(follower, wish, cluster=name).get("error") != "twin"

    # What the log has not signed is refused, and changes nothing.
    wait_until(lambda: gives(note.replace(b"\n1\n", b"\n2\n", 1)), "the follower to miss a member")
    assert published(follower)[0] == 1
    gives(note)
    answer = httpx.post(f"{follower.url}/proofs/incremental", json={"Start": 0, "End": 0})
    assert (answer.status_code, "but the log has signed" in answer.text) == (503, True)
    assert "diverged" in follower.stderr
    # With the checkpoint that the member has, the other convicts the log.
    trust = signed.policy.trust
    kept = (follower.folder / "contradiction-1.note", follower.folder / "checkpoint")
    one, two = (trust.endorse(path.read_bytes(), now=NOW) for path in kept)
    assert qed.Evidence.same_size(one, two, found_at=NOW).judge(trust).verdict == "convicted"


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_copy_that_runs_beside_the_log_is_stopped_by_its_witnesses(tmp_path: Path, ahead: int) -> None:
    """It has the folder, the keys and the memory of the log, as a copy of a whole machine has."""
    watched = Watched(tmp_path)
    server = Server("lone", tmp_path / "data", extra=watched.options())
    copy = Server("lone", tmp_path / "copy", extra=watched.options("copy"))
    try:
        with running(server):
            ask(server, b"one", Receipt="witnessed")
            assert server.stop() == 0
            shutil.copytree(server.folder, copy.folder)
            shutil.copy(watched.memory(), watched.memory("copy"))
            server.start()
            copy.start()
            # Each of them may sign: as yet it has all that was signed.
            for one in (server, copy):
                assert httpx.get(f"{one.url}/receipts/0").status_code == 200
            for number in range(1 + ahead):
                ask(server, b"of the log %d" % number, Receipt="witnessed")
            assert copy.add(b"of the copy").status_code == 201
            wait_until(lambda: "sign-halted" in copy.stderr, "the copy to notice")
            assert "has cosigned" in add_refused(copy)
            assert server.add(b"another").status_code == 201
    finally:
        copy.forget()
        watched.stop()
