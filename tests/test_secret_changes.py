"""A change of the cluster secret, or of the operator's authorities, is in the history: one act for each member."""

from __future__ import annotations

import base64
import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import qed
from certificates import Operator
from harness.cluster import Cluster, new_cluster
from harness.process import Server
from harness.wait import wait_until
from qed.server.cluster_authority import ClusterAuthority
from qed.server.cluster_secret import make_secret, read_secret
from test_members_certificates import hang_up, options

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    found = new_cluster(tmp_path, 3)
    try:
        found.start()
        yield found
    finally:
        found.forget()


def pin_of(certificate: x509.Certificate) -> bytes:
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return sha256(key).digest()


def pin_of_secret(path: Path) -> bytes:
    return pin_of(ClusterAuthority.of_secret(read_secret(path)).certificate)


def said_by(member: Server) -> list[dict[str, Any]]:
    with qed.Client(member.url) as client:
        return [json.loads(act.body) for act in client.history()]


def changes_in(member: Server) -> list[tuple[str, str, list[str]]]:
    """Return who changed what to which authorities."""
    changes = [said for said in said_by(member) if said["deed"] == "secret_changed"]
    return [(said["who"], said["name"], said["authorities"]) for said in changes]


def text_of(pin: bytes) -> str:
    """Return a pin as acts have it."""
    return base64.b64encode(pin).decode()


def change_secret(cluster: Cluster) -> str:
    """Give all members another secret, in their file, and return its authority as acts name it."""
    secret = cluster.members[0].secret
    assert secret is not None
    secret.write_text(make_secret())
    return text_of(pin_of_secret(secret))


@pytest.mark.parametrize("how", ["hangup", "restart"])
def test_each_member_records_that_it_has_another_secret(cluster: Cluster, how: str) -> None:
    secret = cluster.members[0].secret
    assert secret is not None
    founded = said_by(cluster.leader())[0]
    assert founded["authorities"] == [text_of(pin_of_secret(secret))]
    assert changes_in(cluster.leader()) == []
    new = change_secret(cluster)
    if how == "hangup":
        for member in cluster.members:
            hang_up(member, "credentials read again")
    else:
        cluster.kill()
        cluster.heal()
    expected = [(member.name, member.name, [new]) for member in cluster.members]
    wait_until(lambda: sorted(changes_in(cluster.leader())) == expected, "an act of each")
    # Nothing is recorded twice: not by a start, and not by a member that joins with the new secret.
    newcomer = Server("server3", cluster.members[0].folder.with_name("server3"), secret=secret)
    newcomer.join = (cluster.leader().address("raft"),)
    cluster.members.append(newcomer)
    newcomer.start()
    cluster.wait_whole()
    restarted = cluster.follower()
    assert restarted.stop() == 0
    restarted.start()
    cluster.wait_whole()
    assert cluster.leader().add(b"after").status_code == 201
    assert sorted(changes_in(cluster.leader())) == expected
    lines = [line for member in cluster.members for line in member.log.read_text().splitlines()]
    assert sum("deed=secret_changed" in line for line in lines) == len(expected)


def test_a_member_that_accepts_a_second_authority_of_its_operator_records_it(tmp_path: Path) -> None:
    operator, second = Operator(tmp_path / "pki"), Operator(tmp_path / "second", "a second one")
    cluster = new_cluster(tmp_path, 3)
    for member in cluster.members:
        member.secret, member.extra = None, options(operator.issue(member.name))
    cluster.start()
    try:
        first = pin_of(x509.load_pem_x509_certificate(operator.path.read_bytes()))
        assert said_by(cluster.leader())[0]["authorities"] == [text_of(first)]
        lax = cluster.follower()
        both = tmp_path / "both.pem"
        both.write_bytes(operator.path.read_bytes() + second.path.read_bytes())
        lax.extra = tuple(str(both) if word == str(operator.path) else word for word in lax.extra)
        assert lax.stop() == 0
        lax.start()
        cluster.wait_whole()
        pins = sorted([first, pin_of(x509.load_pem_x509_certificate(second.path.read_bytes()))])
        expected = [(lax.name, lax.name, [text_of(pin) for pin in pins])]
        wait_until(lambda: changes_in(cluster.leader()) == expected, "the act")
    finally:
        cluster.forget()


def test_a_server_that_was_alone_and_gets_a_secret_records_it(tmp_path: Path) -> None:
    server = Server("alone", tmp_path / "alone")
    server.start()
    try:
        wait_until(lambda: said_by(server) != [], "the history to begin")
        assert said_by(server)[0]["authorities"] == []
        assert server.stop() == 0
        secret = tmp_path / "secret"
        secret.touch(mode=0o600)
        secret.write_text(make_secret())
        server.secret = secret
        server.start()
        expected = [("alone", "alone", [text_of(pin_of_secret(secret))])]
        wait_until(lambda: changes_in(server) == expected, "the act")
    finally:
        server.forget()
