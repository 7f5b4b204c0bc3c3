"""A cluster with the operator's own certificates: who is let in by which, and how they are renewed."""

from __future__ import annotations

import signal
import socket
import ssl
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from certificates import DAY, Operator
from harness.cluster import Cluster, assert_goes_on, new_cluster
from harness.process import Server
from harness.wait import wait_until
from intruders import Intruder, number_of, plain
from qed.server.config import Address, Settings, Tls
from qed.server.credentials import read_credentials
from test_members_bad_input import STRANGER
from test_members_refused import assert_says

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("goes_on")


def options(tls: Tls) -> tuple[str, ...]:
    files = {"cert": tls.certificate, "key": tls.key, "ca": tls.ca}
    return tuple(word for name, path in files.items() for word in (f"--raft-tls-{name}", str(path)))


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Operator:
    return Operator(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, operator: Operator) -> Iterator[Cluster]:
    """Yield three members, shared by the tests of this module: no test may harm them."""
    cluster = new_cluster(tmp_path_factory.mktemp("cluster"), 3)
    for member in cluster.members:
        member.secret, member.extra = None, options(operator.issue(member.name))
    cluster.start()
    yield cluster
    cluster.forget()


def holder(folder: Path, tls: Tls, name: str) -> Intruder:
    """Return somebody with a certificate of the operator, which names them."""
    addresses = [Address("127.0.0.1", port) for port in range(1, 5)]
    settings = Settings(
        node_id=name,
        http_addr=addresses[0],
        mgmt_addr=addresses[1],
        metrics_addr=addresses[2],
        raft_addr=addresses[3],
        data_dir=folder,
        raft_tls=tls,
    )
    credentials = read_credentials(settings)
    assert credentials is not None
    return Intruder(credentials, 77)


def test_certificate_of_the_same_authority_is_not_a_member(
    cluster: Cluster, operator: Operator, tmp_path: Path
) -> None:
    other = holder(tmp_path, operator.issue("backup-job"), "backup-job")
    leader = cluster.leader()
    wishes: list[dict[str, object]] = [
        {"wish": "transfer"},
        {"wish": "remove", "name": "server2"},
        {"wish": "introduce"},
        {"wish": "uses"},
        {"wish": "record", "act": "e30="},
    ]
    for member in cluster.members:
        for sender in (77, number_of(cluster.others(member)[0]), number_of(member)):
            assert all(other.ask(member, wish, sender=sender) == STRANGER for wish in wishes)
            for kind in ("messages", "pages"):
                peer, answer = other.greet(member, kind=kind, sender=sender)
                peer.close()
                assert answer == STRANGER
    assert cluster.leader() is leader


def test_nobody_joins_under_a_name_that_the_certificate_does_not_hold(
    cluster: Cluster, operator: Operator, tmp_path: Path
) -> None:
    other = holder(tmp_path, operator.issue("backup-job"), "backup-job")
    for name in ("server9", "server2", "*", "backup-job.example"):
        answer = other.ask(cluster.leader(), other.admission(name))
        assert answer["error"] == "refused"
        assert f"does not name {name}" in answer["message"]


def test_no_certificate_or_that_of_another_authority_is_no_stream(cluster: Cluster, tmp_path: Path) -> None:
    theirs = holder(tmp_path / "theirs", Operator(tmp_path / "pki").issue("server1"), "server1")
    with pytest.raises(OSError, match=r"(?i)certificate"):
        theirs.connect(cluster.members[0])
    with plain(cluster.members[0]) as peer:
        peer.sendall(b"\x00\x00\x00\x02{}")
        peer.shutdown(socket.SHUT_WR)
        assert len(peer.recv(100)) <= 7


def test_joiner_checks_the_host_that_it_joins(cluster: Cluster, operator: Operator, tmp_path: Path) -> None:
    port = cluster.members[0].ports["raft"]
    joiner = Server("server9", tmp_path / "log", join=(f"localhost:{port}",), extra=options(operator.issue("server9")))
    assert_says(joiner.run_to_exit(), f"localhost:{port}", "Hostname mismatch")


@pytest.mark.parametrize("which", ["expired", "tomorrow's", "another name's", "cut"])
def test_certificate_that_cannot_be_used_is_one_line(
    cluster: Cluster, operator: Operator, tmp_path: Path, which: str
) -> None:
    del cluster
    dates = {"expired": (-2 * DAY, -DAY), "tomorrow's": (DAY, 2 * DAY)}.get(which, (-DAY, DAY))
    tls = operator.issue("server8" if which == "another name's" else "server9", dates=dates)
    if which == "cut":
        tls.certificate.write_bytes(tls.certificate.read_bytes()[:100])
    done = Server("server9", tmp_path / "log", extra=options(tls)).run_to_exit()
    reasons = {"expired": "expired", "tomorrow's": "not yet valid", "another name's": "DNS:server9", "cut": "damaged"}
    assert_says(done, str(tls.certificate), reasons[which])


def hang_up(member: Server, logged: str) -> None:
    """Have a member read its files again, and wait until it has logged what became of that."""
    before = member.stderr.count(logged)
    member.process.send_signal(signal.SIGHUP)
    wait_until(lambda: member.stderr.count(logged) > before, "the files to be read again")


def test_renewed_certificate_is_used_after_a_hangup(cluster: Cluster, operator: Operator) -> None:
    for member in cluster.members:
        before = certificate_of(member)
        operator.issue(member.name, key=operator.key_of(member.name))
        hang_up(member, "credentials read again")
        assert certificate_of(member) != before
    assert_goes_on(cluster, "with renewed certificates")


def test_new_key_is_recorded_before_it_is_used(cluster: Cluster, operator: Operator) -> None:
    for member in [cluster.leader(), *cluster.followers()]:
        operator.issue(member.name, key=ec.generate_private_key(ec.SECP256R1()))
        hang_up(member, "credentials read again")
        assert_goes_on(cluster, f"with a new key of {member.name}")
        assert member.stop() == 0
        member.start()
        assert_goes_on(cluster, f"with {member.name} started again")


def test_member_that_was_away_learns_the_new_key_of_the_leader(
    cluster: Cluster, operator: Operator, tmp_path: Path
) -> None:
    away = cluster.follower()
    assert away.stop() == 0
    leader = cluster.leader()
    operator.issue(leader.name, key=ec.generate_private_key(ec.SECP256R1()))
    hang_up(leader, "credentials read again")
    assert leader.add(b"only the leader can send this").status_code == 201
    away.start()
    assert_goes_on(cluster, "with a new key that one member has missed")
    # A new server sees memberships that are older than its introduction, too.
    joiner = Server("server9", tmp_path / "log", extra=options(operator.issue("server9")))
    joiner.join = tuple(member.address("raft") for member in cluster.others(leader))
    joiner.start()
    with cluster.joined_by(joiner):
        pass
    joiner.forget()


def test_new_key_that_no_leader_can_record_changes_nothing(cluster: Cluster, operator: Operator) -> None:
    member, other = cluster.followers()
    before = certificate_of(member)
    for lost in (cluster.leader(), other):
        lost.kill()
    operator.issue(member.name, key=ec.generate_private_key(ec.SECP256R1()))
    hang_up(member, 'event="new key not recorded"')
    assert certificate_of(member) == before
    cluster.heal()
    hang_up(member, "credentials read again")
    assert certificate_of(member) != before
    assert_goes_on(cluster, "with the new key after all")


def test_files_that_cannot_be_read_again_change_nothing(cluster: Cluster, operator: Operator) -> None:
    member = cluster.follower()
    before, path = certificate_of(member), operator.folder / f"{member.name}.pem"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    hang_up(member, 'event="credentials not read again"')
    path.write_bytes(whole)
    assert certificate_of(member) == before


def certificate_of(member: Server) -> bytes:
    """Return the certificate that a member shows to anybody, in DER."""
    pem = ssl.get_server_certificate(("127.0.0.1", member.ports["raft"]))
    return ssl.PEM_cert_to_DER_cert(pem)
