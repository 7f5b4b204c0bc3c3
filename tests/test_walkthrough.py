"""The walk-through of docs/cluster.md with three processes, and the other claims of that page."""

from __future__ import annotations

import base64
import json
import re
import shlex
import shutil
import signal
from typing import TYPE_CHECKING

import httpx
import pytest

import qed
from harness.cluster import Cluster, new_cluster
from harness.ports import free_ports, ports_of_server
from harness.process import Server
from harness.wait import wait_until
from walkthrough import CONTAINERS, NAMES, commands_of, is_whole, run, walk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PORT = re.compile(r"\b8([5678])0([0-3])\b")
KINDS = {"8": "http", "7": "mgmt", "6": "metrics", "5": "raft"}


class Machine:
    """Three processes, started by the commands of the documentation, but on free ports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        documented = [f"8{kind}0{number}" for kind in KINDS for number in range(4)]
        self.ports = dict(zip(documented, map(str, free_ports(len(documented))), strict=True))
        secret, *commands = [*commands_of("As processes"), *commands_of("Members")]
        run(secret, folder)
        self.members = {process.name: process for process in map(self._process, commands)}

    def _process(self, command: str) -> Server:
        words = shlex.split(self.translate(command))
        assert words[0] == "qed-server"
        options = dict(zip(words[1::2], words[2::2], strict=True))
        number = options["--node-id"][-1]
        process = Server(options.pop("--node-id"), self.folder / options.pop("--data-dir"))
        process.secret = self.folder / options.pop("--cluster-secret-file")
        process.ports = {name: int(self.ports[f"8{kind}0{number}"]) for kind, name in KINDS.items()}
        process.join = tuple(filter(None, options.pop("--raft-join-addr", "").split(",")))
        # Options that are not given have defaults: server 0's ports.
        for name in KINDS.values():
            assert options.pop(f"--{name}-addr", process.address(name)) == process.address(name)
        assert not options
        return process

    def translate(self, command: str) -> str:
        return PORT.sub(lambda found: self.ports[found[0]], command)

    def run(self, command: str) -> str:
        match shlex.split(command):
            case ["docker", "ps"]:
                return ""
            case ["docker", "stop", name]:
                assert self.members[CONTAINERS[name]].stop() == 0
                self.members[CONTAINERS[name]].forget()
                return ""
            case ["docker", "start", name]:
                self.members[CONTAINERS[name]].start()
                return ""
        return run(self.translate(command), self.folder)

    def wait(self, names: set[str]) -> None:
        ports = [self.members[name].ports["http"] for name in names]
        wait_until(lambda: is_whole(ports), f"{names} to agree")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    for member in machine.members.values():
        member.forget()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = new_cluster(tmp_path, 3)
    cluster.start()
    yield cluster
    cluster.forget()


def test_walk_through_with_processes(machine: Machine) -> None:
    for name in NAMES:
        machine.members[name].start()
    machine.wait(set(NAMES))
    walk(machine.run, wait=machine.wait, ports=[machine.members[name].ports["http"] for name in NAMES])
    fourth = machine.members["server3"]
    fourth.start()
    everyone = [*NAMES, "server3"]
    wait_until(lambda: is_whole([fourth.ports["http"]], everyone), "the fourth to be a member")
    wait_until(lambda: fourth.count() == 4, "the fourth to catch up")
    assert fourth.add(b"through the fourth").status_code == 201


def test_wiped_disk_comes_back_as_a_member(cluster: Cluster) -> None:
    wiped = cluster.follower()
    assert cluster.leader().add(b"before").status_code == 201
    wiped.kill()
    shutil.rmtree(wiped.folder)
    wiped.join = tuple(member.address("raft") for member in cluster.members if member is not wiped)
    wiped.start()
    assert wiped.wait() == 1
    assert f"qed cluster replace {wiped.name}" in wiped.stderr
    wiped.forget()
    with qed.Client(cluster.leader().url) as client:
        client.replace_member(wiped.name)
    wiped.start()
    wait_until(lambda: wiped.shards().leader_id != "", "the new member to know a leader")
    cluster.wait_whole()
    wait_until(lambda: wiped.count() == 1, "the new member to catch up")
    assert wiped.add(b"after").status_code == 201
    with qed.Client(cluster.leader().url) as client:
        said = [json.loads(act.body) for act in client.history()]
    of_wiped = [(act["deed"], act["who"]) for act in said if act.get("name") == wiped.name][-3:]
    assert of_wiped[:2] == [("given_up", "anonymous"), ("replaced", wiped.name)]


def test_who_takes_the_name_of_a_member_that_is_down_does_not_take_its_place(cluster: Cluster) -> None:
    down, leader = cluster.follower(), cluster.leader()
    with qed.Client(leader.url) as client:
        for name in (down.name, leader.name):
            with pytest.raises(qed.MembershipRefused, match=f"{name} is alive"):
                client.replace_member(name)
        with pytest.raises(qed.MembershipRefused, match="no member is called server9"):
            client.replace_member("server9")
    down.kill()
    # With the secret of the cluster, and all the time that a restart takes.
    squatter = Server(down.name, down.folder.with_name("squatter"), join=(leader.address("raft"),), secret=down.secret)
    squatter.start()
    assert squatter.wait() == 1
    assert "in use by another member" in squatter.stderr
    squatter.forget()
    down.start()
    cluster.wait_whole()
    assert down.add(b"back").status_code == 201


def test_changed_address_is_told_to_the_others(cluster: Cluster) -> None:
    moved = cluster.follower()
    assert moved.stop() == 0
    moved.ports, moved.join = ports_of_server(), ()
    moved.start()

    def is_told() -> bool:
        shards = [member.shards().shards for member in cluster.members]
        return all(entry[moved.name].http_addr == moved.address("http") for entry in shards)

    wait_until(is_told, "everyone to know the new address")
    assert moved.add(b"from elsewhere").status_code == 201


def test_transfer_and_remove_by_the_management_address(cluster: Cluster) -> None:
    follower = cluster.follower()
    management = f"http://{follower.address('mgmt')}/cluster"
    assert httpx.post(f"{management}/transfer", json={"name": follower.name}).status_code == 200
    assert cluster.leader() is follower
    gone = cluster.follower()
    assert httpx.post(f"{management}/remove", json={"name": gone.name}).status_code == 200
    assert gone.wait() == 1
    assert "removed from the cluster" in gone.stderr
    cluster.members.remove(gone)
    cluster.wait_whole()
    gone.forget()
    assert follower.add(b"without it").status_code == 201


def test_client_is_told_what_happened(cluster: Cluster) -> None:
    leader, follower = cluster.leader(), cluster.follower()
    body = {"Event": base64.b64encode(b"x").decode()}
    redirected = httpx.post(f"{follower.url}/events", json=body)
    assert (redirected.status_code, redirected.headers["location"]) == (307, f"{leader.url}/events")
    for member in cluster.members:
        if member is not follower:
            member.forget()
    wait_until(lambda: follower.shards().leader_id == "", "the follower to miss the leader")
    refused = httpx.post(f"{follower.url}/events", json=body)
    assert (refused.status_code, refused.json()["error"]) == (503, "no_leader")
    assert refused.headers["retry-after"] == "1"


def test_certificate_of_the_documentation_s_commands_is_accepted(tmp_path: Path) -> None:
    for command in commands_of("Who is a member"):
        run(command, tmp_path)
    files = {"cert": "server0.pem", "key": "server0.key", "ca": "ca.pem"}
    server = Server("server0", tmp_path / "data")
    server.extra = tuple(word for name, file in files.items() for word in (f"--raft-tls-{name}", str(tmp_path / file)))
    server.start()
    try:
        wait_until(lambda: server.shards().leader_id == server.name, "the server to lead")
        assert server.stop() == 0
    finally:
        server.forget()


def test_members_with_certificates_of_qed_certs_form_a_cluster_and_renew_them(tmp_path: Path) -> None:
    run('qed certs ca --name "qed members"', tmp_path)
    cluster = new_cluster(tmp_path, 3)
    for member in cluster.members:
        run(f"qed certs server --node-id {member.name} --host 127.0.0.1 --valid 1d", tmp_path)
        files = {"cert": f"{member.name}.pem", "key": f"{member.name}.key", "ca": "ca.pem"}
        member.secret = None
        member.extra = tuple(
            word for kind, file in files.items() for word in (f"--raft-tls-{kind}", str(tmp_path / file))
        )
    cluster.start()
    try:
        assert cluster.leader().add(b"with certificates").status_code == 201
        renewed = cluster.follower()
        run(f"qed certs server --node-id {renewed.name} --host 127.0.0.1 --key {renewed.name}.key --force", tmp_path)
        renewed.process.send_signal(signal.SIGHUP)
        assert renewed.stop() == 0
        renewed.start()
        cluster.wait_whole()
        assert renewed.add(b"with a renewed one").status_code == 201
    finally:
        cluster.forget()


def test_topology_in_the_documentation_is_the_one_that_is_served(machine: Machine) -> None:
    first = machine.members["server0"]
    first.start()
    machine_view = json.loads(machine.run(commands_of("Walk through it")[1]))
    assert list(machine_view) == ["nodeId", "leaderId", "uriScheme", "shards"]
