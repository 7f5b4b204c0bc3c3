"""The history of real servers: every deed is recorded once, with its author, and is the same on every member."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
from typing import TYPE_CHECKING

import httpx
import pytest

import qed as library
from commands import QED, environment, qed
from harness.cluster import Cluster, new_cluster
from harness.process import Server
from harness.wait import LIMIT_S, wait_until
from intruders import Intruder
from qed import _wire

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = new_cluster(tmp_path, 3)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.forget()


def said_by(member: Server) -> list[dict[str, object]]:
    """Return what the acts of a member say, its chain checked."""
    return [json.loads(act.body) for act in acts_of(member)]


def acts_of(member: Server) -> list[library.Act]:
    with library.Client(member.url) as client:
        return client.history()


def rows_of(member: Server) -> list[_wire.HistoryRow]:
    """Return the acts in this very member, not in another that a client could ask."""
    answer = httpx.get(f"http://{member.address('mgmt')}/cluster/history", timeout=LIMIT_S)
    return _wire.HISTORY.decode(answer.content).acts


def deeds_of(member: Server) -> list[tuple[object, object]]:
    return [(said["deed"], said.get("name")) for said in said_by(member)]


def outcome_of(intruder: Intruder, leader: Server, act: bytes) -> object:
    """Return what comes of asking the leader to record an act, once it no longer takes the intruder for a twin."""
    wish: dict[str, object] = {"wish": "record", "act": base64.b64encode(act).decode(), "who": "anonymous"}
    answers: list[object] = []

    def is_answered() -> bool:
        answers.append(intruder.ask(leader, wish).get("error"))
        return answers[-1] != "twin"

    wait_until(is_answered, "the leader to notice that the member is dead")
    return answers[-1]


def wait_for(member: Server, *expected: tuple[str, str | None]) -> None:
    wait_until(lambda: set(expected) <= set(deeds_of(member)), f"{expected} in the history")


def lines_of(cluster: Cluster, deed: str, name: str) -> int:
    """Return how many lines about a deed all members have logged."""
    lines = [line for member in cluster.members for line in member.stderr.splitlines() if 'event="act"' in line]
    return sum(f" deed={deed} " in f"{line} " and f" name={name} " in f"{line} " for line in lines)


def test_a_server_alone_begins_its_history(tmp_path: Path) -> None:
    server = Server("alone", tmp_path / "alone")
    server.start()
    try:
        wait_for(server, ("founded", "alone"))
        [founded] = said_by(server)
        assert founded["who"] == "alone"
        assert founded["from"] == server.address("raft")
        assert (founded["cluster"], founded["events"]) == (server.view().cluster_id, 0)
        before = acts_of(server)
        server.add(b"an event")
        server.kill()
        server.start()
        # An old history is neither begun nor logged again.
        wait_until(lambda: server.add(b"another").status_code == 201, "it to lead")
        assert acts_of(server) == before
        assert "deed=founded" not in server.stderr
    finally:
        server.forget()


def test_a_joiner_is_admitted_and_promoted_by_acts(cluster: Cluster) -> None:
    leader = cluster.leader()
    names = [member.name for member in cluster.members]
    wait_for(leader, *(("promoted", name) for name in names[1:]))
    assert deeds_of(leader)[0] == ("founded", names[0])
    # Nothing else, and nothing twice: repeated requests for admission are no acts.
    expected = [("founded", names[0])] + [(deed, name) for deed in ("admitted", "promoted") for name in names[1:]]
    # The first member may make its key after it founded the cluster, and then announces it.
    found = [deed for deed in deeds_of(leader) if deed != ("announced", names[0])]
    assert sorted(map(str, found)) == sorted(map(str, expected))
    for said in said_by(leader):
        if said["deed"] == "admitted":
            joiner = cluster.named(str(said["name"]))
            assert said["who"] == joiner.name
            assert said["raft_addr"] == joiner.address("raft")
            assert str(said["from"]).startswith("127.0.0.1:")
    for name in names[1:]:
        assert [lines_of(cluster, deed, name) for deed in ("admitted", "promoted")] == [1, 1]


@pytest.mark.parametrize("through", ["leader", "follower"])
def test_a_removal_and_a_transfer_name_who_asked(cluster: Cluster, through: str) -> None:
    leader = cluster.leader()
    asked = leader if through == "leader" else cluster.follower()
    other = next(member for member in cluster.followers() if member is not asked)
    assert qed("cluster", "transfer", other.name, QED_ENDPOINTS=asked.url).returncode == 0
    wait_until(lambda: cluster.leader() is other, "the transfer")
    victim = leader if through == "leader" else next(m for m in cluster.members if m not in {asked, other})
    endpoint = asked.url if asked is not victim else other.url
    assert qed("cluster", "remove", victim.name, QED_ENDPOINTS=endpoint).returncode == 0
    wait_for(other, ("transferred", other.name), ("removed", victim.name))
    by_deed = {str(said["deed"]): said for said in said_by(other)}
    for deed in ("transferred", "removed"):
        assert by_deed[deed]["who"] == "anonymous"
        assert str(by_deed[deed]["from"]).startswith("127.0.0.1:")
    assert by_deed["transferred"]["leader"] == leader.name
    assert (lines_of(cluster, "transferred", other.name), lines_of(cluster, "removed", victim.name)) == (1, 1)


def test_what_is_refused_is_not_recorded(cluster: Cluster) -> None:
    leader = cluster.leader()
    wait_for(leader, *(("promoted", member.name) for member in cluster.members[1:]))
    before = acts_of(leader)
    assert qed("cluster", "remove", "nobody", QED_ENDPOINTS=leader.url).returncode != 0
    assert qed("cluster", "transfer", "nobody", QED_ENDPOINTS=leader.url).returncode != 0
    # It leads already.
    assert qed("cluster", "transfer", leader.name, QED_ENDPOINTS=leader.url).returncode == 0
    assert acts_of(leader) == before


def test_a_member_that_fetched_pages_has_the_same_history(cluster: Cluster, tmp_path: Path) -> None:
    leader = cluster.leader()
    assert qed("cluster", "transfer", cluster.follower().name, QED_ENDPOINTS=leader.url).returncode == 0
    joiner = Server("server3", tmp_path / "server3", join=(leader.address("raft"),), secret=leader.secret)
    cluster.members.append(joiner)
    joiner.start()
    cluster.wait_whole()
    wait_for(cluster.leader(), ("promoted", "server3"))
    assert "catching up" in joiner.stderr
    wait_until(lambda: all(rows_of(member) == rows_of(joiner) for member in cluster.members), "equal histories")
    deeds = [deed for deed, _ in deeds_of(joiner)]
    assert [deeds.count(deed) for deed in ("founded", "admitted", "promoted", "transferred")] == [1, 3, 3, 1]


def test_no_acknowledged_act_is_lost_by_a_kill(cluster: Cluster) -> None:
    for _ in range(3):
        moved = qed("cluster", "transfer", cluster.follower().name, QED_ENDPOINTS=cluster.leader().url)
        assert (moved.returncode, moved.stderr) == (0, "")
        acts = acts_of(cluster.leader())
        cluster.kill()
        cluster.heal()
        assert acts_of(cluster.leader())[: len(acts)] == acts


def test_an_admission_names_nobody_else_as_its_author(cluster: Cluster, tmp_path: Path) -> None:
    leader = cluster.leader()
    assert leader.secret is not None
    insider = Intruder.with_secret(leader.secret, tmp_path / "insider")
    answer = insider.ask(leader, insider.admission("newcomer", who="root", origin="192.0.2.1:1", is_passed_on=True))
    assert "error" not in answer
    [admitted] = [said for said in said_by(leader) if said["name"] == "newcomer"]
    assert (admitted["deed"], admitted["who"]) == ("admitted", "newcomer")
    assert str(admitted["from"]).startswith("127.0.0.1:")


def test_a_member_cannot_record_what_the_leader_does_not_know(cluster: Cluster) -> None:
    leader, member = cluster.leader(), cluster.follower()
    before = acts_of(leader)
    intruder = Intruder.as_member(member)
    member.kill()
    for act in (b"", b"{}", b"[", b"x" * 40_000):
        assert outcome_of(intruder, leader, act) == "refused"
    assert acts_of(leader) == before


def test_history_is_asked_for_page_by_page(cluster: Cluster) -> None:
    leader = cluster.leader()
    rows = rows_of(leader)
    url = f"http://{leader.address('mgmt')}/cluster/history"
    answer = httpx.get(f"{url}?after={rows[0].index}", timeout=LIMIT_S)
    assert _wire.HISTORY.decode(answer.content).acts[: len(rows) - 1] == rows[1:]
    answer = httpx.get(f"{url}?after={2**64 - 1}", timeout=LIMIT_S)
    assert _wire.HISTORY.decode(answer.content).acts == []
    for query in ("after=", "after=-1", "after=1&after=2", "since=1", f"after={2**64}", "after=1.5"):
        assert httpx.get(f"{url}?{query}", timeout=LIMIT_S).status_code == 400


def test_people_see_each_act_and_programs_a_line_each(cluster: Cluster) -> None:
    wait_for(cluster.leader(), ("promoted", "server2"))
    shown = qed("cluster", "history", QED_ENDPOINTS=cluster.leader().url)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "founded" in shown.stdout
    acts = acts_of(cluster.leader())
    assert f"Checked the hashes of {len(acts)} acts." in shown.stdout
    assert acts[-1].hash.hex() in shown.stdout
    lines = qed("cluster", "history", "--json", QED_ENDPOINTS=cluster.leader().url).stdout.splitlines()
    assert [json.loads(line)["act"] for line in lines] == [json.loads(act.body) for act in acts]


@pytest.mark.parametrize("option", ["--json", "--no-color"])
def test_watching_shows_each_act_once_and_goes_on_without_a_leader(cluster: Cluster, option: str) -> None:
    wait_for(cluster.leader(), ("promoted", "server2"))
    asked, victim = cluster.leader(), cluster.follower()
    command = [QED, "--endpoints", asked.url, option, "cluster", "history", "--watch"]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    deeds = [deed for deed, _ in deeds_of(asked)]
    lines = [process.stdout.readline() for _ in deeds]
    asked.kill()
    asked.start()
    cluster.wait_whole()
    assert qed("cluster", "remove", victim.name, QED_ENDPOINTS=cluster.leader().url).returncode == 0
    lines.append(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, rest, errors.splitlines()[-1]) == (130, "", "qed: interrupted")
    deeds.append("removed")
    if option == "--json":
        assert [json.loads(line)["act"]["deed"] for line in lines] == deeds
    else:
        assert all(f": {deed} name: " in line for line, deed in zip(lines, deeds, strict=True))


def test_older_acts_are_hidden_and_checked_all_the_same(cluster: Cluster) -> None:
    wait_for(cluster.leader(), ("promoted", "server2"))
    url, acts = cluster.leader().url, acts_of(cluster.leader())
    middle = json.loads(acts[2].body)["when"]
    later = [act for act in acts if json.loads(act.body)["when"] >= middle]
    shown = qed("cluster", "history", "--since", middle, QED_ENDPOINTS=url).stdout
    assert f"Checked the hashes of {len(acts)} acts." in shown
    assert "founded" not in shown
    lines = qed("cluster", "history", "--json", "--since", middle, QED_ENDPOINTS=url).stdout.splitlines()
    assert [json.loads(line)["index"] for line in lines] == [act.index for act in later]
    assert len(later) < len(acts)
    whole = qed("cluster", "history", "--json", "--since", "1h", QED_ENDPOINTS=url).stdout.splitlines()
    assert len(whole) == len(acts)
