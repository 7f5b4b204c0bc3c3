"""Strangers, and former members, at the addresses where a server expects members: none of them can stop it."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from harness.cluster import Cluster, assert_goes_on
from harness.ports import free_ports
from harness.process import Server
from harness.wait import wait_until
from impostors import Impostor
from intruders import Intruder, frame_of, read_frame
from qed.server.cluster_authority import ClusterAuthority
from qed.server.credentials import Credentials, of_authority
from test_members_bad_input import STRANGER
from test_members_refused import assert_says
from test_tokens import token_option

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("goes_on")


def stranger(folder: Path) -> Credentials:
    """Return the credentials of somebody who has an authority of their own."""
    folder.mkdir()
    return of_authority(ClusterAuthority.of_secret(b"an authority of a stranger, who has its key"), folder)


def former_member(cluster: Cluster, folder: Path) -> Credentials:
    """Return the credentials of somebody who has a certificate of the cluster's authority, and is no member."""
    secret = cluster.members[0].secret
    assert secret is not None
    return Intruder.with_secret(secret, folder).credentials


def answer_nothing(_: ssl.SSLSocket) -> None:
    """Let the other side see the certificate only."""


def test_stranger_at_the_address_of_a_member_that_is_down_stops_nobody(cluster: Cluster, tmp_path: Path) -> None:
    down, restarted = cluster.followers()
    for member in (down, restarted):
        assert member.stop() == 0
    join, restarted.join = restarted.join, (down.address("raft"),)
    try:
        with Impostor(stranger(tmp_path / "stranger").accepting, answer_nothing, port=down.ports["raft"]):
            restarted.start()
            wait_until(lambda: "did not show a certificate of this cluster" in restarted.stderr, "the probe")
            wait_until(lambda: restarted.add(b"two of three").status_code == 201, "an add")
            assert restarted.is_running
    finally:
        restarted.join = join
        cluster.heal()


@pytest.mark.parametrize("has_moved", [False, True])
def test_former_member_cannot_tell_a_member_that_it_was_removed(
    cluster: Cluster, tmp_path: Path, has_moved: bool
) -> None:
    asked: list[object] = []

    def refuse(stream: ssl.SSLSocket) -> None:
        asked.append(read_frame(stream))
        stream.sendall(frame_of({"error": "removed", "message": "this member was removed; empty its data folder"}))

    restarted = cluster.follower()
    assert restarted.stop() == 0
    join, port = restarted.join, restarted.ports["metrics"]
    try:
        with Impostor(former_member(cluster, tmp_path / "former").accepting, refuse) as former:
            restarted.join = (former.address,)
            if has_moved:
                # Then it asks to have its new address recorded.
                restarted.ports["metrics"] = free_ports(1)[0]
            restarted.start()
            wait_until(lambda: bool(asked), "a question to the former member")
            cluster.wait_whole()
            assert_goes_on(cluster, "beside a former member")
    finally:
        restarted.join, restarted.ports["metrics"] = join, port
        restarted.kill()
        cluster.heal()


@pytest.mark.parametrize(
    ("code", "is_for_request", "asked"), [("refused", True, 10), ("protocol", False, 3), ("cluster", False, 3)]
)
def test_former_member_stops_no_member_while_there_is_no_leader(
    cluster: Cluster, tmp_path: Path, code: str, is_for_request: bool, asked: int
) -> None:
    questions: list[object] = []

    def refuse(stream: ssl.SSLSocket) -> None:
        questions.append(read_frame(stream))
        if is_for_request:
            stream.sendall(frame_of({}))
            read_frame(stream)
        stream.sendall(frame_of({"error": code, "message": "not here"}))

    for member in cluster.members:
        assert member.stop() == 0
    first = cluster.members[0]
    join, port = first.join, first.ports["metrics"]
    try:
        with Impostor(former_member(cluster, tmp_path / "former").accepting, refuse) as former:
            # It asks to have its new address recorded, and the others are down.
            first.join, first.ports["metrics"] = (former.address,), free_ports(1)[0]
            first.start()
            # A server that is no member ends after the fourth second of refusals: with the seventh question.
            wait_until(lambda: not first.is_running or len(questions) >= asked, "questions to the former member")
            assert first.is_running, first.stderr
            assert "does not know who says so" in first.stderr
            first.join = join
            cluster.heal()
    finally:
        first.join, first.ports["metrics"] = join, port
        first.kill()
        cluster.heal()


@pytest.mark.parametrize("code", ["caller", "refused", "unavailable", "unheard of"])
def test_new_server_joins_whatever_a_former_member_replies(cluster: Cluster, tmp_path: Path, code: str) -> None:
    def reply(stream: ssl.SSLSocket) -> None:
        read_frame(stream)
        stream.sendall(frame_of({}))
        read_frame(stream)
        stream.sendall(frame_of({"error": code, "message": "not you"}))

    server = Server("server9", tmp_path / "log", secret=cluster.members[0].secret)
    try:
        with Impostor(former_member(cluster, tmp_path / "former").accepting, reply) as former:
            server.join = (former.address, cluster.members[0].address("raft"))
            server.start()
            with cluster.joined_by(server):
                pass
    finally:
        server.forget()


def test_former_member_introduces_nobody(cluster: Cluster, tmp_path: Path) -> None:
    """A member that has moved asks the addresses to join to record it, and must not learn the members from anybody."""
    former = Intruder(former_member(cluster, tmp_path / "former"), 77)
    pin = base64.b64encode(former.credentials.pin).decode()
    answers: list[dict[str, Any]] = []

    def admit(stream: ssl.SSLSocket) -> None:
        answers.append(read_frame(stream))
        stream.sendall(frame_of({}))
        if answers[-1].get("kind") == "question":
            answers.append(read_frame(stream))
            stream.sendall(frame_of({"keys": {"77": pin}, "applied": 2**40}))

    restarted = cluster.follower()
    assert restarted.stop() == 0
    join, port = restarted.join, restarted.ports["metrics"]
    try:
        with Impostor(former.credentials.accepting, admit) as impostor:
            restarted.join = (impostor.address,)
            restarted.ports["metrics"] = free_ports(1)[0]
            restarted.start()
            wait_until(lambda: len(answers) > 1, "a request to the former member")
            for kind in ("messages", "pages"):
                peer, answer = former.greet(restarted, kind=kind)
                peer.close()
                assert answer == STRANGER
            cluster.wait_whole()
    finally:
        restarted.join, restarted.ports["metrics"] = join, port
        restarted.kill()
        cluster.heal()


@pytest.mark.parametrize("has_token", [False, True])
@pytest.mark.parametrize("kind", ["stranger", "former member"])
def test_new_server_joins_in_spite_of_a_false_member(
    cluster: Cluster, tmp_path: Path, kind: str, has_token: bool
) -> None:
    def refuse(stream: ssl.SSLSocket) -> None:
        read_frame(stream)
        stream.sendall(frame_of({"error": "protocol", "message": "update this server"}))

    is_stranger, folder = kind == "stranger", tmp_path / "false"
    credentials = stranger(folder) if is_stranger else former_member(cluster, folder)
    server = Server("server9", tmp_path / "log")
    if has_token:
        server.extra = token_option(tmp_path / "token", cluster)
    else:
        server.secret = cluster.members[0].secret
    with Impostor(credentials.accepting, refuse) as false:
        server.join = (false.address, cluster.members[0].address("raft"))
        server.start()
        with cluster.joined_by(server):
            pass
        server.forget()


def test_new_server_that_finds_only_strangers_ends_with_what_to_do(cluster: Cluster, tmp_path: Path) -> None:
    server = Server("server9", tmp_path / "log", secret=cluster.members[0].secret)
    with Impostor(stranger(tmp_path / "stranger").accepting, answer_nothing) as alone:
        server.join = (alone.address,)
        assert_says(server.run_to_exit(), "cannot join", alone.address, "same --cluster-secret-file")
