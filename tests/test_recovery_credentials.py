"""docs/recovery.md, carried out: certificates that have expired, and secrets and keys that somebody else has."""

from __future__ import annotations

import shlex
import signal
import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import pytest
from cryptography import x509

from commands import QED, environment, one_line, read_lines
from documents import ROOT
from harness.cluster import Cluster, new_cluster
from harness.process import Server
from harness.wait import LIMIT_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

NONE: Final[Mapping[str, str]] = {}
GUIDE = (ROOT / "docs" / "recovery.md").read_text()
SHORT = "5s"
"""Long enough for a certificate to be read before it expires."""


def qed(*words: str, cwd: Path | None = None, variables: Mapping[str, str] = NONE) -> subprocess.CompletedProcess[str]:
    """Run `qed` in a folder, with variables in its environment."""
    env = environment(**variables)
    return subprocess.run([QED, *words], cwd=cwd, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False)


def run_of(command: str, folder: Path, variables: Mapping[str, str] = NONE) -> str:
    """Run a command of the guide in a folder, with variables in its environment, and return what it printed."""
    assert f"\n$ {command}\n" in GUIDE
    done = qed(*shlex.split(command)[1:], cwd=folder, variables=variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_for_line(server: Server, text: str) -> None:
    wait_until(lambda: text in server.stderr, f"{text!r} in the log of {server.name}")


def read_again(server: Server, line: str) -> None:
    """Let a server read its files again, and return once it says so."""
    count = server.stderr.count(line)
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: server.stderr.count(line) > count, f"another {line!r}")


def wait_expired(path: Path) -> None:
    ends = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    wait_until(lambda: datetime.now(UTC) > ends, "the certificate to expire")


def add(server: Server, receipts: Path, event: str, variables: Mapping[str, str] = NONE) -> None:
    done = qed("--endpoints", server.url, "add", "--event", event, "--receipts", str(receipts), variables=variables)
    assert done.returncode == 0, done.stderr


def require_kept(server: Server, receipts: Path, *events: str, variables: Mapping[str, str] = NONE) -> None:
    """Check that a server proves these events against the receipts."""
    for event in events:
        asked = ("membership", "--event", event, "--receipts", str(receipts), "--linearizable")
        done = qed("--endpoints", server.url, *asked, variables=variables)
        assert (done.returncode, done.stdout.endswith("Verify: OK\n")) == (0, True), done.stdout + done.stderr


# Certificates of members


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    """Give a folder with an authority for members."""
    folder = tmp_path / "pki"
    folder.mkdir()
    assert qed("certs", "ca", "--name", "qed members", cwd=folder).returncode == 0
    return folder


def certify(pki: Path, name: str, *options: str) -> None:
    words = ("certs", "server", "--node-id", name, "--host", "127.0.0.1", "--out", name, *options)
    done = qed(*words, cwd=pki)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def certified(tmp_path: Path, pki: Path) -> Iterator[Cluster]:
    """Give three members with certificates of an operator."""
    cluster = new_cluster(tmp_path, 3)
    for member in cluster.members:
        certify(pki, member.name)
        files = {"cert": f"{member.name}.pem", "key": f"{member.name}.key", "ca": "ca.pem"}
        member.secret = None
        member.extra = tuple(f"--raft-tls-{name}={pki / file}" for name, file in files.items())
    cluster.start()
    yield cluster
    cluster.forget()


RENEW = "qed certs server --node-id server2 --host 127.0.0.1 --out server2 --key server2.key --force"


def test_a_member_s_certificate_that_expired_is_renewed_while_it_runs(
    certified: Cluster, pki: Path, tmp_path: Path
) -> None:
    receipts, (leader, other, member) = tmp_path / "receipts", certified.members
    add(leader, receipts, "one")
    certify(pki, member.name, "--key", "server2.key", "--force", "--valid", SHORT)
    read_again(member, "credentials read again")
    wait_expired(pki / "server2.pem")
    # Streams that are open stay open.
    add(certified.leader(), receipts, "two")
    require_kept(member, receipts, "two")
    # Nobody opens another one: the next leader reaches the others only.
    leader.stop()
    leader.start()
    wait_for_line(other, "certificate has expired")
    wait_for_line(member, "certificate")
    wait_until(lambda: certified.known_leader() in {leader, other}, "a leader among the two that reach each other")
    add(other, receipts, "three")
    run_of(RENEW, pki)
    read_again(member, "credentials read again")
    certified.wait_whole()
    add(certified.leader(), receipts, "four")
    require_kept(member, receipts, "one", "two", "three", "four")


def test_a_member_whose_certificate_expired_does_not_start_until_it_is_renewed(
    certified: Cluster, pki: Path, tmp_path: Path
) -> None:
    receipts, member = tmp_path / "receipts", certified.named("server2")
    add(certified.leader(), receipts, "one")
    member.stop()
    certify(pki, member.name, "--key", "server2.key", "--force", "--valid", "1s")
    wait_expired(pki / "server2.pem")
    ended = member.run_to_exit()
    assert ended.returncode != 0
    (line,) = ended.stderr.splitlines()
    assert "server2.pem: certificate has expired" in line
    add(certified.leader(), receipts, "two")
    run_of(RENEW, pki)
    member.start()
    certified.wait_whole()
    require_kept(member, receipts, "one", "two")


# Certificates for clients


def test_a_server_s_certificate_that_expired_is_renewed_while_it_runs(tmp_path: Path) -> None:
    receipts, pki = tmp_path / "receipts", tmp_path / "pki"
    pki.mkdir()
    names = ("certs", "server", "--host", "127.0.0.1", "--out", "api")
    assert qed("certs", "ca", cwd=pki).returncode == 0
    assert qed(*names, cwd=pki).returncode == 0
    server = Server("lone", tmp_path / "data", extra=(f"--tls-cert={pki}/api.pem", f"--tls-key={pki}/api.key"))
    trusting = {"QED_CA": str(pki / "ca.pem")}
    server.start()
    try:
        add(server, receipts, "one", trusting)
        assert qed(*names, "--key", "api.key", "--force", "--valid", SHORT, cwd=pki).returncode == 0
        read_again(server, "certificates read again")
        wait_expired(pki / "api.pem")
        refused = qed("--endpoints", server.url, "add", "--event", "two", variables=trusting)
        assert (refused.returncode, "certificate has expired" in one_line(refused.stderr)) == (3, True)
        run_of("qed certs server --host 127.0.0.1 --out api --key api.key --force", pki)
        read_again(server, "certificates read again")
        add(server, receipts, "three", trusting)
        require_kept(server, receipts, "one", "three", variables=trusting)
    finally:
        server.forget()


# Secrets


def test_a_stolen_cluster_secret_is_replaced_and_the_stranger_removed(tmp_path: Path) -> None:
    receipts, cluster = tmp_path / "receipts", new_cluster(tmp_path, 3)
    stolen = tmp_path / "stolen-secret"
    stranger = Server("stranger", tmp_path / "stranger", secret=stolen)
    cluster.start()
    try:
        add(cluster.leader(), receipts, "one")
        secret = cluster.members[0].secret
        assert secret is not None
        stolen.write_text(secret.read_text())
        stolen.chmod(0o600)
        stranger.join = tuple(member.address("raft") for member in cluster.members)
        stranger.start()
        wait_until(lambda: "stranger" in {m.node_id for m in cluster.leader().view().members}, "the stranger")
        at = {"QED_ENDPOINTS": ",".join(cluster.urls)}
        assert "stranger" in run_of("qed cluster history", tmp_path, at)
        run_of("qed cluster secret --out new-secret", tmp_path)
        secret.write_text((tmp_path / "new-secret").read_text())
        for member in cluster.members:
            read_again(member, "credentials read again")
        add(cluster.leader(), receipts, "two")
        run_of("qed cluster remove stranger", tmp_path, at)
        assert stranger.wait() == 1
        # With the old secret it is nobody, also under another name and with an empty folder.
        again = Server("another", tmp_path / "another", secret=stolen, join=stranger.join)
        ended = again.run_to_exit()
        assert (ended.returncode, "did not show a certificate of this cluster" in ended.stderr) == (1, True)
        # Members of the cluster meet again with the new one.
        member = cluster.follower()
        member.stop()
        member.start()
        cluster.wait_whole()
        require_kept(member, receipts, "one", "two")
    finally:
        stranger.forget()
        cluster.forget()


def test_a_stolen_key_is_revoked_with_all_that_it_made(tmp_path: Path) -> None:
    server = Server("lone", tmp_path / "data")
    server.start()
    try:

        def using(key: str) -> dict[str, str]:
            return {"QED_ENDPOINTS": server.url} | ({"QED_API_KEY": key} if key else {})

        def made(*roles: str, key: str = "") -> tuple[str, str]:
            words = [word for role in roles for word in ("--role", role)]
            (record,) = read_lines(qed("--json", "keys", "create", *words, variables=using(key)).stdout)
            return record["Id"], record["Key"]

        _, admin = made("operate")
        as_admin = using(admin)
        stolen, text = made("operate", "append", key=admin)
        # The thief makes another key, and adds an event.
        further, another = made("append", "prove", key=text)
        assert qed("add", "--event", "forged", variables=using(another)).returncode == 0
        assert {stolen, further} <= set(run_of("qed keys list", tmp_path, as_admin).split())
        acts = read_lines(qed("cluster", "history", "--json", variables=as_admin).stdout)
        assert [act["act"]["id"] for act in acts if f"key {stolen}" in act["act"]["who"]] == [further]
        run_of("qed keys create --role append --name ingest-2", tmp_path, as_admin)
        for key in (stolen, further):
            assert qed("keys", "revoke", key, variables=as_admin).returncode == 0
        for key in (text, another):
            refused = qed("add", "--event", "more", variables=using(key))
            assert (refused.returncode, "expected a valid key" in one_line(refused.stderr)) == (4, True), refused.stderr
    finally:
        server.forget()


def test_an_operator_who_has_lost_every_key_makes_another(tmp_path: Path) -> None:
    cluster = new_cluster(tmp_path, 3)
    cluster.start()

    def restart(*extra: str, key: str | None = None) -> None:
        for member in cluster.members:
            assert member.stop() == 0
            member.extra, member.key = extra, key or member.key
            member.start()
            cluster.wait_whole()

    try:
        (lost,) = read_lines(
            qed("--endpoints", cluster.members[0].url, "--json", "keys", "create", "--role", "operate").stdout
        )
        for member in cluster.members:
            member.key = lost["Key"]  # This test looks at the cluster with it, and the operator does not have it.
        asked = {"QED_ENDPOINTS": cluster.members[1].url}
        make = "qed keys create --role operate --name admin"
        assert qed(*shlex.split(make)[1:], variables=asked).returncode == 4
        restart("--open")
        made = run_of(make, tmp_path, asked)
        key = next(word for word in made.split() if word.startswith("qed_"))
        restart(key=key)
        for member in cluster.members:
            using = {"QED_ENDPOINTS": member.url}
            assert qed("keys", "list", variables=using).returncode == 4
            listed = qed("keys", "list", variables=using | {"QED_API_KEY": key})
            assert (listed.returncode, lost["Id"] in listed.stdout) == (0, True), listed.stderr
    finally:
        cluster.forget()
