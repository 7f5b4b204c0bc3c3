"""Servers that are not the expected ones: each stops with one line, or waits, and the cluster goes on."""

from __future__ import annotations

import re
import shutil
import socket
from typing import TYPE_CHECKING

import pytest

from harness.cluster import Cluster, assert_goes_on, new_cluster, new_secret
from harness.ports import free_ports, ports_of_server
from harness.process import Server, StartFailed
from harness.wait import wait_until
from impostors import Impostor
from intruders import KIB, Intruder, cluster_of, frame_of
from qed.server.handshake import PROTOCOL

if TYPE_CHECKING:
    import ssl
    import subprocess
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("goes_on")

LAST_LINE = re.compile(r"^qed-server: [^\n]+\n\Z", re.MULTILINE)


def assert_says(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Check that a server exited with code 1, and that its last line gives the reason."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    last = LAST_LINE.search(done.stderr)
    assert last is not None, done.stderr
    for word in words:
        assert word in last[0], done.stderr


def joiner(cluster: Cluster, folder: Path, name: str = "server9") -> Server:
    join = tuple(member.address("raft") for member in cluster.members)
    return Server(name, folder, join=join, secret=cluster.members[0].secret)


def test_join_with_a_taken_name_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    done = joiner(cluster, tmp_path / "log", "server1").run_to_exit()
    assert_says(done, "cannot join", "server1", "in use")


@pytest.mark.parametrize("name", ["raft", "http"])
def test_join_with_a_taken_address_is_refused(cluster: Cluster, tmp_path: Path, name: str) -> None:
    process, taken = joiner(cluster, tmp_path / "log"), cluster.members[2]
    process.extra = (f"--{name}-advertise-addr", taken.address(name))
    assert_says(process.run_to_exit(), "cannot join", taken.address(name), taken.name)


def test_member_at_the_address_of_a_dead_one_still_votes(cluster: Cluster) -> None:
    dead, moved = cluster.followers()
    dead.kill()
    assert moved.stop() == 0
    moved.ports["http"], dead.ports["http"] = dead.ports["http"], free_ports(1)[0]
    try:
        moved.start()
        wait_until(lambda: not moved.is_running or "not recorded" in moved.stderr, "the refusal")
        assert moved.is_running, moved.stderr
        assert f"the address {moved.address('http')} is in use by {dead.name}" in moved.stderr
        assert cluster.leader().add(b"by a majority").status_code == 201
        # Once the other one has moved away, the address is free.
        dead.start()
        wait_until(
            lambda: all(m.shards().shards[moved.name].http_addr == moved.address("http") for m in cluster.members),
            "the new address to be recorded",
        )
        assert moved.stderr.count("not recorded") == 1
    finally:
        cluster.heal()


def test_port_in_use_is_one_line(cluster: Cluster, tmp_path: Path) -> None:
    process = joiner(cluster, tmp_path / "log")
    process.ports["raft"] = cluster.members[0].ports["raft"]
    assert_says(process.run_to_exit(), "cannot listen on", process.address("raft"))


def test_two_servers_on_one_folder_are_one(cluster: Cluster) -> None:
    member = cluster.members[1]
    twin = Server(member.name, member.folder, join=member.join, secret=member.secret)
    assert_says(twin.run_to_exit(), "another process", str(member.folder))


def test_folder_of_another_member_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    shutil.copytree(cluster.members[1].folder, tmp_path / "log")
    done = joiner(cluster, tmp_path / "log", "server2").run_to_exit()
    assert_says(done, "server1", "server2", str(tmp_path / "log"))


def test_member_that_others_could_not_reach_does_not_come_back(cluster: Cluster) -> None:
    stopped = cluster.follower()
    assert stopped.stop() == 0
    stopped.forget()
    # Its folder names the cluster, so it needs no address to join.
    join, stopped.join, stopped.extra = stopped.join, (), ("--raft-addr", f"0.0.0.0:{stopped.ports['raft']}")
    try:
        assert_says(stopped.run_to_exit(), "--raft-advertise-addr", "0.0.0.0")  # noqa: S104  # not bound by this test
    finally:
        stopped.join, stopped.extra = join, ()
        stopped.start()


def other_cluster(folder: Path, name: str) -> tuple[Server, str]:
    """Return a stopped member of a cluster of its own, with one event, and the name of the cluster."""
    process = Server(name, folder)
    process.start()
    wait_until(lambda: process.shards().leader_id == name, "a leader of the other cluster")
    assert process.add(b"of another cluster").status_code == 201
    cluster = cluster_of(process)
    assert process.stop() == 0
    process.forget()
    return process, cluster


@pytest.mark.parametrize("name", ["server9", "server1"])
def test_folder_of_another_cluster_is_refused(cluster: Cluster, tmp_path: Path, name: str) -> None:
    process, found = other_cluster(tmp_path / "log", name)
    like = joiner(cluster, tmp_path)
    process.join, process.secret = like.join, like.secret
    assert_says(process.run_to_exit(), f"cluster {found} is not that of this member")


def test_folder_of_another_cluster_at_the_address_of_a_member_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    stopped = cluster.follower()
    assert stopped.stop() == 0
    stopped.forget()
    stranger, found = other_cluster(tmp_path / "log", stopped.name)
    stranger.ports, stranger.join = stopped.ports, (cluster.leader().address("raft"),)
    stranger.secret = stopped.secret
    try:
        assert_says(stranger.run_to_exit(), f"cluster {found} is not that of this member")
    finally:
        stopped.start()


def test_join_to_members_of_another_protocol_says_so(cluster: Cluster, tmp_path: Path) -> None:
    message = f"expected protocol {PROTOCOL + 1}, found {PROTOCOL}"
    process = joiner(cluster, tmp_path / "log")
    assert process.secret is not None
    intruder = Intruder.with_secret(process.secret, tmp_path / "impostor")
    answer = frame_of({"error": "protocol", "message": message})

    def refuse(stream: ssl.SSLSocket) -> None:
        stream.recv(64 * KIB)
        stream.sendall(answer)

    with Impostor(intruder.credentials.accepting, refuse) as impostor:
        process.join = (impostor.address,)
        assert_says(process.run_to_exit(), impostor.address, message)


def test_join_to_a_server_of_before_keeps_asking(cluster: Cluster, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = joiner(cluster, tmp_path / "log")
        process.join = (f"127.0.0.1:{listener.getsockname()[1]}",)
        process.start()
        try:
            peer, _ = listener.accept()
            peer.close()
            wait_until(lambda: "did not answer with TLS 1.3" in process.stderr, "the reason")
            assert process.stop() == 0
        finally:
            process.forget()


def test_join_waits_for_members_that_do_not_answer(cluster: Cluster, tmp_path: Path) -> None:
    process = joiner(cluster, tmp_path / "log")
    process.join = (f"127.0.0.1:{free_ports(1)[0]}",)
    process.start()
    try:
        wait_until(lambda: "not admitted yet" in process.stderr, "the first attempt")
        answer = process.add(b"nobody takes it")
        assert (answer.status_code, answer.json()["error"]) == (503, "no_leader")
        assert answer.headers["retry-after"] == "1"
        assert process.stop() == 0
    finally:
        process.forget()


@pytest.mark.parametrize("has_moved", [False, True])
def test_member_that_was_removed_while_down_is_told_so(tmp_path: Path, has_moved: bool) -> None:
    cluster = new_cluster(tmp_path, 4)
    cluster.start()
    try:
        gone = cluster.members.pop()
        assert gone.stop() == 0
        gone.forget()
        cluster.remove(gone.name)
        if has_moved:
            gone.ports = ports_of_server()
        assert_says(gone.run_to_exit(), "removed from the cluster", "empty its data folder")
        assert_goes_on(cluster, "without it")
        # With an emptied folder, it is a new member.
        shutil.rmtree(gone.folder)
        cluster.members.append(gone)
        gone.start()
        assert_goes_on(cluster, "with it again")
    finally:
        cluster.forget()


def test_missing_certificate_is_a_usage_error(cluster: Cluster, tmp_path: Path) -> None:
    process = joiner(cluster, tmp_path / "log")
    process.secret, process.extra = None, ("--raft-tls-cert", str(tmp_path / "missing.pem"))
    with pytest.raises(StartFailed, match="--raft-tls-cert"):
        process.start()
    process.forget()


def test_another_secret_is_refused_with_what_to_do(cluster: Cluster, tmp_path: Path) -> None:
    process = joiner(cluster, tmp_path / "log")
    process.secret = new_secret(tmp_path)
    assert_says(process.run_to_exit(), "cannot join", process.join[0], "same --cluster-secret-file")


@pytest.mark.parametrize("content", [b"too short\n", b"", None])
def test_unusable_secret_is_one_line(cluster: Cluster, tmp_path: Path, content: bytes | None) -> None:
    process = joiner(cluster, tmp_path / "log")
    process.secret = new_secret(tmp_path)
    if content is None:
        process.secret.chmod(0o644)
    else:
        process.secret.write_bytes(content)
    assert_says(process.run_to_exit(), str(process.secret), "chmod 600" if content is None else "qed cluster secret")


def test_join_without_a_secret_is_refused_with_what_to_do(cluster: Cluster, tmp_path: Path) -> None:
    process = joiner(cluster, tmp_path / "log")
    process.secret = None
    done = process.run_to_exit()
    assert done.returncode == 2
    assert "--cluster-secret-file" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "log").exists()


def test_member_does_not_come_back_without_its_secret(cluster: Cluster) -> None:
    stopped = cluster.follower()
    assert stopped.stop() == 0
    stopped.forget()
    secret, join, stopped.secret, stopped.join = stopped.secret, stopped.join, None, ()
    try:
        assert_says(stopped.run_to_exit(), "--cluster-secret-file")
    finally:
        stopped.secret, stopped.join = secret, join
        stopped.start()


def test_server_that_lost_its_key_says_what_to_do(cluster: Cluster) -> None:
    stopped = cluster.follower()
    assert stopped.stop() == 0
    stopped.forget()
    key = stopped.folder / "member.key"
    whole = key.read_bytes()
    try:
        key.write_bytes(whole[:60])
        assert_says(stopped.run_to_exit(), str(key), "damaged", "qed cluster replace")
    finally:
        key.write_bytes(whole)
        stopped.start()
