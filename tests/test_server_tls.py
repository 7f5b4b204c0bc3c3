"""TLS for clients and operators: certificates of servers and of clients, reading them again, and https in every URL."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from commands import one_line, qed, read_lines
from harness.process import Server, run_to_exit
from harness.wait import LIMIT_S, wait_until
from qed._limits import ROLE_URI
from qed.certificates import Holder
from qed.server.access import Caller
from qed.server.config import ServerTls, SettingsError
from qed.server.tls import ServerContext, caller_of
from secure_server import NOW, Secure, authority, of_client, of_server, written

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    found = Secure(tmp_path_factory.mktemp("secure"))
    yield found
    found.server.forget()


def test_a_client_without_key_and_certificate_is_refused(secure: Secure) -> None:
    assert secure.status(None, f"{secure.server.url}/info") == 401
    assert secure.status(None, f"{secure.management}/keys") == 401
    assert secure.status(None, f"{secure.server.url}/healthcheck") == 204


def test_a_certificate_has_the_roles_that_it_names(secure: Secure, tmp_path: Path) -> None:
    append = of_client(tmp_path, "append", secure.clients, "append")
    operate = of_client(tmp_path, "operate", secure.clients, "operate", "observe")
    assert secure.status(append, f"{secure.server.url}/events", "POST") == 400
    assert secure.status(append, f"{secure.management}/keys") == 403
    assert secure.status(operate, f"{secure.management}/keys") == 200
    assert secure.status(operate, f"{secure.server.url}/events", "POST") == 403
    # A key that is presented must be valid, whatever the certificate says.
    assert secure.status(operate, f"{secure.management}/keys", **{"Api-Key": "my-key"}) == 401


@pytest.mark.parametrize("kind", ["foreign", "expired"])
def test_a_certificate_of_another_authority_or_time_is_refused(secure: Secure, tmp_path: Path, kind: str) -> None:
    ca = authority() if kind == "foreign" else secure.clients
    moment = NOW - timedelta(days=3) if kind == "expired" else NOW
    paths = written(tmp_path, kind, ca, Holder(common_name=kind, roles=("operate",)), now=moment)
    with pytest.raises(httpx.TransportError):
        secure.status((str(paths[0]), str(paths[1])), f"{secure.management}/keys")


@pytest.mark.parametrize(
    ("kind", "moment", "said"),
    [
        ("foreign", NOW, 'check that its --tls-client-ca has the authority "CN=an authority"'),
        ("expired", NOW - timedelta(days=3), f"expired on {NOW - timedelta(days=2):%Y-%m-%d}: use a new one"),
        ("early", NOW + timedelta(days=3), "check the clocks of both machines"),
    ],
)
def test_a_client_learns_what_to_do_about_its_certificate(
    secure: Secure, tmp_path: Path, kind: str, moment: datetime, said: str
) -> None:
    ca = authority() if kind == "foreign" else secure.clients
    certificate, key = written(tmp_path, kind, ca, Holder(common_name=kind, roles=("operate",)), now=moment)
    done = qed(*secure.at, "--cert", str(certificate), "--cert-key", str(key), "keys", "list")
    assert done.returncode == 3
    assert str(certificate) in one_line(done.stderr)
    assert said in one_line(done.stderr)
    assert 'event="client certificate refused"' in secure.server.stderr


def test_every_url_has_https(secure: Secure, tmp_path: Path) -> None:
    certificate = of_client(tmp_path, "prove", secure.clients, "prove")
    context = ssl.create_default_context(cafile=secure.ca_file)
    context.load_cert_chain(*certificate)
    with httpx.Client(verify=context) as http:
        shards = http.get(f"{secure.server.url}/info/shards").json()
        assert shards["uriScheme"] == "https"
        assert shards["shards"]["secure"]["httpAddr"] == secure.server.address("http")
        info = http.get(f"{secure.server.url}/info").json()
        assert info["http_addr"] == secure.server.address("http")
        assert info["mgmt_addr"] == secure.server.address("mgmt")


def test_the_command_line_uses_certificates_and_keys(secure: Secure, tmp_path: Path) -> None:
    certificate, key = of_client(tmp_path, "admin", secure.clients, "operate")
    at = ("--endpoints", secure.server.url, "--ca", secure.ca_file)
    made = qed(*at, "--cert", certificate, "--cert-key", key, "--json", "keys", "create", "--role", "append")
    assert made.returncode == 0, made.stderr
    append = read_lines(made.stdout)[0]["Key"]
    assert qed(*at, "--api-key", append, "add", "--event", "e").returncode == 0
    unknown = qed("--endpoints", secure.server.url, "--api-key", append, "add", "--event", "e")
    assert unknown.returncode == 3
    insecure = qed("--endpoints", secure.server.url, "--insecure", "--api-key", append, "add", "--event", "e")
    assert insecure.returncode == 0
    assert "not checked" in one_line(insecure.stderr)
    acts = read_lines(qed(*at, "--cert", certificate, "--cert-key", key, "--json", "cluster", "history").stdout)
    by = {act["act"]["deed"]: act["act"]["who"] for act in acts}
    assert by["key_created"].startswith("certificate ")
    assert by["key_created"].endswith(" (admin)")


def test_certificates_are_read_again(tmp_path: Path) -> None:
    secure = Secure(tmp_path)
    try:
        old_client = of_client(tmp_path, "old", secure.clients, "observe")
        assert secure.status(old_client, f"{secure.management}/cluster") == 200
        secure.ca, secure.clients = authority(), authority()
        (tmp_path / "clients.pem").write_bytes(secure.clients.pem())
        of_server(tmp_path, "server", secure.ca)
        secure.reload()
        with pytest.raises(httpx.TransportError):
            secure.status(None, f"{secure.server.url}/healthcheck")
        (tmp_path / "ca.pem").write_bytes(secure.ca.pem())
        assert secure.status(None, f"{secure.server.url}/healthcheck") == 204
        new_client = of_client(tmp_path, "new", secure.clients, "observe")
        assert secure.status(new_client, f"{secure.management}/cluster") == 200
        with pytest.raises(httpx.TransportError):
            secure.status(old_client, f"{secure.management}/cluster")
        # A damaged file changes nothing.
        (tmp_path / "server.pem").write_text("not a certificate")
        secure.reload()
        assert secure.status(new_client, f"{secure.management}/cluster") == 200
        # Nor does one that nobody writes to.
        (tmp_path / "server.pem").unlink()
        os.mkfifo(tmp_path / "server.pem")
        secure.reload()
        assert secure.status(new_client, f"{secure.management}/cluster") == 200
    finally:
        secure.server.forget()


def test_a_connection_does_not_outlive_the_authority_of_its_client(tmp_path: Path) -> None:
    secure = Secure(tmp_path)
    try:
        context = ssl.create_default_context(cafile=secure.ca_file)
        context.load_cert_chain(*of_client(tmp_path, "old", secure.clients, "observe"))
        with httpx.Client(verify=context, timeout=LIMIT_S) as http:
            assert http.get(f"{secure.management}/cluster").status_code == 200
            secure.replace_clients()
            # On the connection that it has, or on another one.
            with pytest.raises(httpx.TransportError):
                http.get(f"{secure.management}/cluster")
    finally:
        secure.server.forget()


def test_sessions_are_not_resumed(secure: Secure, tmp_path: Path) -> None:
    context = ssl.create_default_context(cafile=secure.ca_file)
    context.load_cert_chain(*of_client(tmp_path, "resumed", secure.clients, "observe"))
    host, _, port = secure.server.address("mgmt").rpartition(":")
    address = host, int(port)
    with socket.create_connection(address) as plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as stream:
        stream.sendall(b"GET /cluster HTTP/1.1\r\nHost: x\r\n\r\n")
        assert stream.recv(1000).startswith(b"HTTP/1.1 200")
        assert stream.version() == "TLSv1.3"
        assert stream.session is None or not stream.session.has_ticket
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(address) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_plain_http_gets_no_answer(secure: Secure) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(secure.server.url.replace("https", "http") + "/info")


# Bad input


def test_a_key_alone_is_not_enough(tmp_path: Path) -> None:
    _, key = of_server(tmp_path, "server", authority())
    done = run_to_exit(tmp_path / "log", "--tls-key", str(key))
    assert done.returncode == 2
    assert "--tls-cert and --tls-key together" in done.stderr


@pytest.mark.parametrize(
    "fault", ["world-readable", "foreign key", "not pem", "cut off", "bad authority", "folder", "pipe", "key pipe"]
)
def test_bad_certificates_are_refused_in_one_line(tmp_path: Path, fault: str) -> None:
    ca = authority()
    certificate, key = of_server(tmp_path, "server", ca)
    clients = tmp_path / "clients.pem"
    clients.write_bytes(ca.pem())
    match fault:
        case "world-readable":
            key.chmod(0o644)
        case "foreign key":
            _, key = of_server(tmp_path, "other", ca)
        case "not pem":
            certificate.write_text("hello")
        case "cut off":
            certificate.write_bytes(certificate.read_bytes()[:200])
        case "bad authority":
            clients.write_text("hello")
        case "pipe":
            certificate = tmp_path / "pipe"
            os.mkfifo(certificate)
        case "key pipe":
            key = tmp_path / "pipe"
            os.mkfifo(key, 0o600)
        case _:
            clients = tmp_path
    with pytest.raises(SettingsError) as refused:
        ServerContext(ServerTls(certificate=certificate, key=key, client_ca=clients))
    assert "\n" not in str(refused.value)
    assert str(tmp_path) in str(refused.value)


def test_only_the_uris_of_roles_count() -> None:
    names = (("DNS", ROLE_URI + "operate"), ("URI", "https://example.com"), ("URI", ROLE_URI + "append"))
    subject = ((("commonName", "a\nb"),),)
    ends = "Jan  2 00:00:00 1970 GMT"
    found = caller_of({"subjectAltName": names, "subject": subject, "serialNumber": "07", "notAfter": ends})
    assert found == Caller("certificate 07 (a\\nb)", frozenset({"append"}), ends=86400.0)
    assert caller_of({"subjectAltName": names[:2]}) is None
    assert caller_of({}) is None
    assert caller_of(None) is None


def test_a_client_that_does_not_read_does_not_hold_up_a_stop(tmp_path: Path) -> None:
    ca = authority()
    certificate, key = of_server(tmp_path, "server", ca)
    server = Server("secure", tmp_path / "log", extra=("--tls-cert", str(certificate), "--tls-key", str(key)))
    context = ssl.create_default_context(cadata=ca.pem().decode())
    server.start()
    try:
        with context.wrap_socket(socket.create_connection(server.http_address), server_hostname="localhost") as idle:
            idle.sendall(b"HEAD /healthcheck HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert idle.recv(1000).startswith(b"HTTP/1.1 204 ")
            started = time.monotonic()
            assert server.stop() == 0
        # The grace of a stop is 15 s.
        assert time.monotonic() - started < 8
    finally:
        server.forget()


def test_a_hangup_while_a_server_starts_waits_until_it_serves(tmp_path: Path) -> None:
    certificate, key = of_server(tmp_path, "server", authority())
    server = Server("secure", tmp_path / "log", extra=("--tls-cert", str(certificate), "--tls-key", str(key)))

    def holds_hangups() -> bool:
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        blocked = next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk"))
        return bool(int(blocked, 16) >> (signal.SIGHUP - 1) & 1)

    server.launch()
    try:
        wait_until(holds_hangups, "the server to hold SIGHUP")
        server.process.send_signal(signal.SIGHUP)
        server.wait_listening()
        wait_until(lambda: "certificates read again" in server.stderr, "the certificates to be read again")
    finally:
        server.forget()
