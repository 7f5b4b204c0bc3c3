"""`qed` against a real cluster of three members, some of which die."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import signal
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from commands import (
    QED,
    environment,
    hex_of,
    one_line,
    qed,
    qed_on_terminal,
    read_lines,
    values,
    wait_for_lines,
)
from harness.cluster import new_cluster
from harness.wait import LIMIT_S, wait_until
from qed import _wire

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import StartServer
    from harness.cluster import Cluster

BULK = 1000
NOBODY = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = new_cluster(tmp_path_factory.mktemp("cluster"), 3)
    cluster.start()
    yield cluster
    cluster.forget()


@pytest.fixture
def cluster(shared: Cluster) -> Cluster:
    """Give a cluster whose members are all running, whatever earlier tests have done."""
    shared.heal()
    return shared


def follower_url(cluster: Cluster) -> str:
    return cluster.followers()[0].url


@pytest.mark.parametrize("victim", ["leader", "the endpoint given"])
def test_lines_added_if_absent_survive_a_kill(cluster: Cluster, tmp_path: Path, victim: str) -> None:
    """Nothing acknowledged is lost, nothing is added twice, and no one has to start again."""
    before = cluster.leader().count()
    lines = [f"{victim} {number}".encode() for number in range(40 * BULK)]
    receipts, given = tmp_path / "receipts.jsonl", cluster.followers()[0]
    process = subprocess.Popen(
        [QED, "add", "--lines", "-", "--if-absent", "--receipts", str(receipts)],
        env=environment(QED_ENDPOINTS=given.url),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(b"\n".join(lines[: 2 * BULK]) + b"\n")
    process.stdin.flush()
    wait_for_lines(receipts, 1 + 2 * BULK, wait_until)
    member = cluster.leader() if victim == "leader" else given

    # A bulk of the rest is in flight when the member dies.
    def kill() -> None:
        wait_for_lines(receipts, 1 + 5 * BULK, wait_until)
        member.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    _, stderr = process.communicate(b"\n".join(lines[2 * BULK :]) + b"\n", timeout=2 * LIMIT_S)
    killer.join()
    assert (stderr, process.returncode) == (b"", 0)
    wait_until(lambda: len(cluster.running()) == 2, "the member to die")
    kept = read_lines(receipts.read_text())[1:]  # the first names the log
    assert [snapshot["Version"] for snapshot in kept] == list(range(before, before + len(lines)))
    assert [hex_of(snapshot["EventDigest"]) for snapshot in kept] == [hashlib.sha256(e).hexdigest() for e in lines]
    assert cluster.leader().count() == before + len(lines)
    last = qed(
        "membership", "--event", lines[-1].decode(), "--receipts", str(receipts), QED_ENDPOINTS=",".join(cluster.urls)
    )
    assert "Verify: OK" in last.stdout


@pytest.mark.parametrize("read", ["primary", "primary-preferred", "secondary", "secondary-preferred", "any"])
def test_any_endpoint_serves_any_read(cluster: Cluster, read: str) -> None:
    endpoints = f"{NOBODY},{follower_url(cluster)}"
    added = qed("add", "--event", f"read by {read}", QED_ENDPOINTS=endpoints)
    assert added.returncode == 0, added.stderr
    command = ("membership", "--event", f"read by {read}", "--linearizable", "--read", read)
    assert values(qed(*command, QED_ENDPOINTS=endpoints).stdout)["Exists"] == "true"


def test_a_linearizable_snapshot_of_a_follower_is_there_at_once(cluster: Cluster) -> None:
    endpoint = follower_url(cluster)
    version = values(qed("add", "--event", "there at once", QED_ENDPOINTS=endpoint).stdout)["Version"]
    command = ("snapshot", "--version", version, "--linearizable", "--read", "secondary")
    assert values(qed(*command, QED_ENDPOINTS=endpoint).stdout)["Version"] == version


def test_an_unknown_preference_is_wrong_usage() -> None:
    done = qed("info", "--read", "nearest")
    assert "secondary-preferred" in one_line(done.stderr)
    assert done.returncode == 2


def test_info_shows_the_leader(cluster: Cluster) -> None:
    leader = cluster.leader()
    assert values(qed("info", QED_ENDPOINTS=follower_url(cluster)).stdout)["Leader"] == leader.name


def test_status_shows_every_member(cluster: Cluster) -> None:
    leader, endpoint = cluster.leader(), follower_url(cluster)
    for prefix in ((), ("--read", "any")):
        done = qed(*prefix, "cluster", "status", QED_ENDPOINTS=f"{NOBODY},{endpoint}")
        assert values(done.stdout)["Leader"] == leader.name
        for member in cluster.members:
            role = "leader" if member is leader else "follower"
            rows = [line.split() for line in done.stdout.splitlines() if line.split()[:2] == [member.name, role]]
            assert rows
            assert rows[0][2] == "yes"
            assert rows[0][-1] == member.url.removeprefix("http://")
    code, screen = qed_on_terminal("cluster", "status", QED_ENDPOINTS=endpoint)
    assert (leader.name in screen, code) == (True, 0)


def test_status_tells_programs_the_form_of_the_server(cluster: Cluster) -> None:
    done = qed("cluster", "--json", "status", QED_ENDPOINTS=follower_url(cluster))
    seen = _wire.CLUSTER.decode(done.stdout.encode())
    assert set(read_lines(done.stdout)[0]) == set(_wire.Cluster.__struct_fields__)
    assert seen.leader_id == seen.node_id == cluster.leader().name
    assert {member.node_id for member in seen.members} == cluster.names()


def test_status_shows_how_far_each_member_says_it_is(cluster: Cluster) -> None:
    down, endpoint = cluster.followers()[1], follower_url(cluster)
    version = int(values(qed("add", "--event", "seen by all", QED_ENDPOINTS=endpoint).stdout)["Version"])
    wait_until(lambda: all(member.count() == version + 1 for member in cluster.members), "all to apply it")
    (record,) = read_lines(qed("cluster", "status", "--json", QED_ENDPOINTS=endpoint).stdout)
    for member in record["members"]:
        own = cluster.named(member["node_id"]).view()
        assert (member["events"], member["applied_index"]) == (own.events, own.applied_index)
        assert member["events"] == version + 1
    shown = qed("cluster", "status", QED_ENDPOINTS=endpoint).stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.count(f" events {version + 1} ") == len(cluster.members)
    down.kill()
    done = qed("cluster", "status", QED_ENDPOINTS=endpoint)
    assert done.returncode == 0
    assert done.stdout.count(" events ? ") == done.stdout.count(" applied ? ") == 1


def test_status_shows_who_is_down(cluster: Cluster) -> None:
    down, endpoint = cluster.followers()[1], follower_url(cluster)
    down.kill()

    def is_shown() -> bool:
        done = qed("--json", "cluster", "status", QED_ENDPOINTS=endpoint)
        members = {member.node_id: member for member in _wire.CLUSTER.decode(done.stdout.encode()).members}
        return members[down.name].is_reachable is False

    wait_until(is_shown, "the member to be missed")


def test_watching_goes_on_until_it_is_interrupted(cluster: Cluster) -> None:
    command = [QED, "--endpoints", ",".join(cluster.urls), "--json", "cluster", "status", "--watch"]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    leader = cluster.leader()
    assert json.loads(process.stdout.readline())["leader_id"] == leader.name
    leader.kill()
    while json.loads(process.stdout.readline())["leader_id"] in {leader.name, ""}:
        pass
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=LIMIT_S)
    assert stderr.decode().splitlines()[-1] == "qed: interrupted"
    assert process.returncode == 130


def test_watching_on_a_terminal_leaves_notes_to_stderr(start_server: StartServer, tmp_path: Path) -> None:
    server, notes = start_server(tmp_path / "log"), tmp_path / "notes.txt"
    ours, theirs = pty.openpty()
    with notes.open("wb") as stderr:
        command = [QED, "--endpoints", server.url, "cluster", "status", "--watch"]
        process = subprocess.Popen(command, env=environment(), stdout=theirs, stderr=stderr)
    os.close(theirs)
    assert os.read(ours, 1)
    server.kill()
    wait_for_lines(notes, 1, wait_until)
    process.send_signal(signal.SIGINT)
    assert process.wait(LIMIT_S) == 130
    os.close(ours)
    assert server.url in notes.read_text()


def test_leadership_goes_where_it_is_sent(cluster: Cluster) -> None:
    to, endpoint = cluster.followers()[1], follower_url(cluster)
    done = qed("cluster", "transfer", to.name, QED_ENDPOINTS=endpoint)
    assert (done.stdout.splitlines()[0], done.returncode) == (f"{to.name} leads.", 0)
    assert cluster.leader() is to
    assert qed("cluster", "transfer", QED_ENDPOINTS=endpoint).returncode == 0
    assert cluster.leader() is not to


@pytest.mark.parametrize("verb", ["remove", "transfer"])
def test_a_member_that_is_none_is_refused(cluster: Cluster, verb: str) -> None:
    done = qed("cluster", verb, "nobody", QED_ENDPOINTS=follower_url(cluster))
    assert one_line(done.stderr) == "no member is called nobody"
    assert done.returncode == 4


def test_nobody_to_ask_is_named_with_its_cause(cluster: Cluster) -> None:
    del cluster
    done = qed("cluster", "status", QED_ENDPOINTS=NOBODY)
    assert f"{NOBODY}: connection refused" in one_line(done.stderr)
    assert done.returncode == 3


def test_a_removed_member_is_gone_and_the_log_goes_on(cluster: Cluster) -> None:
    gone = cluster.followers()[1]
    endpoints = ",".join(member.url for member in cluster.others(gone))
    done = qed("cluster", "remove", gone.name, QED_ENDPOINTS=endpoints)
    assert (done.stdout.splitlines()[0], done.returncode) == (f"Removed {gone.name}.", 0)
    assert gone.wait() == 1
    gone.forget()
    cluster.members.remove(gone)
    assert {member.node_id for member in cluster.leader().view().members} == cluster.names()
    assert qed("add", "--event", "after the removal", QED_ENDPOINTS=endpoints).returncode == 0


def test_without_a_leader_the_exit_code_says_that_nobody_answered(cluster: Cluster) -> None:
    alone = cluster.leader()
    for member in cluster.others(alone):
        member.kill()

    def has_stepped_down() -> bool:
        return values(qed("info", QED_ENDPOINTS=alone.url).stdout)["Leader"] == "none"

    wait_until(has_stepped_down, "the leader to step down")
    done = qed("add", "--event", "too few", "--timeout", "0.5", QED_ENDPOINTS=alone.url)
    assert "no leader is known" in one_line(done.stderr)
    assert done.returncode == 3
    assert values(qed("membership", "--event", "too few", QED_ENDPOINTS=alone.url).stdout)["Exists"] == "false"
