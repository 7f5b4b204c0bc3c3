"""`qed certs`: what it makes is accepted by openssl and by TLS, for what it names and for nothing else."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import socket
import ssl
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from commands import one_line, qed
from qed.cli.pem import Output

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMBER = ("server", "--node-id", "server0", "--host", "10.0.0.1", "--host", "log.example.com")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with an authority, which the tests copy."""
    folder = tmp_path_factory.mktemp("authority")
    made("ca", "--out", str(folder / "ca"))
    return folder


@pytest.fixture(autouse=True)
def folder(authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder, the working one, with an authority."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(authority, tmp_path, dirs_exist_ok=True)
    return tmp_path


def made(*args: str) -> dict[str, Any]:
    """Run `qed certs` and return what it says that it made."""
    done = qed("--json", "certs", *args)
    assert (done.returncode, done.stderr) == (0, "")
    record: dict[str, Any] = json.loads(done.stdout)
    return record


def refused(*args: str) -> str:
    """Run `qed certs`, which must fail without a change in the working folder, and return its one line."""
    before = state()
    done = qed("certs", *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert state() == before
    return one_line(done.stderr)


def state() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()}


def openssl(*args: str) -> str:
    command = [str(shutil.which("openssl")), *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return f"{done.returncode}\n{done.stdout}{done.stderr}"


def verified(certificate: str, *args: str) -> bool:
    """Return whether openssl accepts a certificate, by the rules of RFC 5280."""
    return openssl("verify", "-x509_strict", "-CAfile", "ca.pem", *args, certificate) == f"0\n{certificate}: OK\n"


def load(path: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(Path(path).read_bytes())


def test_member_certificate_names_its_node_and_its_hosts() -> None:
    record = made(*MEMBER)
    assert record["Names"] == ["DNS:server0", "IP:10.0.0.1", "DNS:log.example.com"]
    assert (record["Certificate"], record["Key"]) == ("server0.pem", "server0.key")
    for usage in ("sslserver", "sslclient"):
        assert verified("server0.pem", "-purpose", usage)
    for wanted in (
        ("-verify_hostname", "server0"),
        ("-verify_hostname", "log.example.com"),
        ("-verify_ip", "10.0.0.1"),
    ):
        assert verified("server0.pem", *wanted)
    for other in (
        ("-verify_hostname", "server1"),
        ("-verify_hostname", "a.log.example.com"),
        ("-verify_ip", "10.0.0.2"),
    ):
        assert not verified("server0.pem", *other)


def test_certificate_of_a_server_is_no_clients() -> None:
    made("server", "--host", "log.example.com")
    assert verified("log.example.com.pem", "-purpose", "sslserver")
    assert not verified("log.example.com.pem", "-purpose", "sslclient")


def test_client_certificate_names_its_roles_and_no_host() -> None:
    record = made("client", "--name", "ci", "--role", "prove", "--role", "append")
    assert record["Names"] == ["URI:qed:role:append", "URI:qed:role:prove"]
    assert record["Subject"] == "CN=ci"
    assert verified("ci.pem", "-purpose", "sslclient")
    assert not verified("ci.pem", "-purpose", "sslserver")
    shown = openssl("x509", "-in", "ci.pem", "-noout", "-ext", "subjectAltName")
    assert "URI:qed:role:append, URI:qed:role:prove" in shown


def test_authority_signs_leaves_only() -> None:
    made(*MEMBER)
    shown = openssl("x509", "-in", "ca.pem", "-noout", "-ext", "basicConstraints,keyUsage")
    assert re.search(r"Basic Constraints: critical\s+CA:TRUE, pathlen:0\s", shown)
    assert re.search(r"Key Usage: critical\s+Certificate Sign, CRL Sign\s", shown)
    assert "authority" in refused(
        "client", "--name", "x", "--role", "append", "--ca", "server0.pem", "--ca-key", "server0.key"
    )


def test_keys_are_private_and_belong_to_their_certificates(folder: Path) -> None:
    record = made(*MEMBER)
    for name in ("ca", "server0"):
        assert (folder / f"{name}.key").stat().st_mode & 0o777 == 0o600
        key = serialization.load_pem_private_key((folder / f"{name}.key").read_bytes(), None)
        assert key.public_key() == load(f"{name}.pem").public_key()
    assert (folder / "server0.pem").stat().st_mode & 0o777 == 0o644
    der = (
        load("server0.pem")
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    assert record["KeySha256"] == hashlib.sha256(der).hexdigest()


def test_validity_is_the_chosen_one() -> None:
    for given, expected in (((), timedelta(days=365)), (("--valid", "12h"), timedelta(hours=12))):
        made("server", "--host", "h", "--force", *given)
        found, now = load("h.pem"), datetime.now(UTC)
        assert abs(found.not_valid_after_utc - now - expected) < timedelta(minutes=5)
        assert timedelta() < now - found.not_valid_before_utc < timedelta(minutes=10)
    made("ca", "--force")
    assert abs(load("ca.pem").not_valid_after_utc - datetime.now(UTC) - timedelta(days=3650)) < timedelta(minutes=5)


def test_certificate_does_not_outlive_its_authority() -> None:
    made("ca", "--valid", "30d", "--force")
    assert re.search("at most (29|30) days are left", refused(*MEMBER))
    made(*MEMBER, "--valid", "29d")
    assert verified("server0.pem")


def test_nothing_is_replaced_without_force(folder: Path) -> None:
    assert "ca.pem and ca.key would be replaced" in refused("ca")
    made(*MEMBER)
    (folder / "server0.pem").unlink()
    assert "server0.key would be replaced" in refused(*MEMBER)
    before = (folder / "server0.key").read_bytes()
    (folder / "server0.key").chmod(0o644)
    made(*MEMBER, "--force")
    assert (folder / "server0.key").read_bytes() != before
    assert (folder / "server0.key").stat().st_mode & 0o777 == 0o600


def test_a_link_in_the_place_of_a_key_is_not_followed(folder: Path) -> None:
    (folder / "server0.key").symlink_to(folder / "elsewhere")
    assert "server0.key would be replaced" in refused(*MEMBER)
    made(*MEMBER, "--force")
    assert not (folder / "elsewhere").exists()


def test_member_certificate_is_renewed_with_the_same_key() -> None:
    first = made(*MEMBER)
    again = made(*MEMBER, "--key", "server0.key", "--force")
    assert again["KeySha256"] == first["KeySha256"]
    assert again["SerialNumber"] != first["SerialNumber"]
    assert verified("server0.pem")


def test_request_is_signed_elsewhere_and_the_key_stays(folder: Path) -> None:
    names = MEMBER[1:]
    asked = made("csr", *names, "--out", "there")
    assert (folder / "there.key").stat().st_mode & 0o777 == 0o600
    assert openssl("req", "-in", "there.csr", "-noout", "-verify").startswith("0\n")
    record = made(*MEMBER, "--csr", "there.csr")
    assert (record["Key"], record["KeySha256"]) == (None, asked["KeySha256"])
    assert not (folder / "server0.key").exists()
    assert verified("server0.pem", "-verify_hostname", "server0")


def test_request_for_more_than_is_granted_is_refused() -> None:
    made("csr", "--node-id", "server0", "--host", "10.0.0.9", "--out", "there")
    assert "IP:10.0.0.9 too" in refused("server", "--node-id", "server0", "--csr", "there.csr")
    made("csr", "--name", "eve", "--role", "operate", "--role", "append", "--out", "eve")
    assert "URI:qed:role:operate too" in refused("client", "--name", "eve", "--role", "append", "--csr", "eve.csr")


def test_a_request_for_an_authority_is_signed_as_a_leaf() -> None:
    asked = openssl(
        "req", "-new", "-newkey", "ed25519", "-nodes", "-subj", "/CN=evil", "-keyout", "evil.key", "-out", "evil.csr",
        "-addext", "basicConstraints=critical,CA:TRUE",
    )  # fmt: skip
    assert asked.startswith("0\n")
    record = made("client", "--name", "ci", "--role", "append", "--csr", "evil.csr")
    assert record["Subject"] == "CN=ci"
    basic = load("ci.pem").extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.value.ca, basic.critical) == (False, True)


@pytest.mark.parametrize("kind", ["ed25519", "rsa:2048", "ed448"])
def test_keys_of_other_kinds_are_certified(kind: str) -> None:
    algorithm, _, bits = kind.partition(":")
    option = ("-pkeyopt", f"rsa_keygen_bits:{bits}") if bits else ()
    assert openssl("genpkey", "-algorithm", algorithm, *option, "-out", "other.key").startswith("0\n")
    made("server", "--node-id", "server0", "--key", "other.key")
    assert verified("server0.pem")


def test_authority_below_a_root_brings_its_chain(folder: Path) -> None:
    (folder / "v3").write_text("basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign\n")
    make_root = (
        "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=root", "-keyout", "root.key", "-out", "root.pem",
        "-addext", "keyUsage=critical,keyCertSign",
    )  # fmt: skip
    ask = (
        "req",
        "-new",
        "-newkey",
        "ed25519",
        "-nodes",
        "-subj",
        "/CN=below",
        "-keyout",
        "below.key",
        "-out",
        "below.csr",
    )
    sign = (
        "x509", "-req", "-in", "below.csr", "-CA", "root.pem", "-CAkey", "root.key", "-days", "400", "-extfile", "v3",
        "-out", "below.pem",
    )  # fmt: skip
    for command in (make_root, ask, sign):
        assert openssl(*command).startswith("0\n")
    made("server", "--host", "h", "--ca", "below.pem", "--ca-key", "below.key")
    assert openssl("verify", "-CAfile", "root.pem", "-untrusted", "h.pem", "h.pem") == "0\nh.pem: OK\n"


def test_a_long_name_leaves_the_subject_out() -> None:
    made("server", "--node-id", "n" * 65, "--out", "long")
    found = load("long.pem")
    assert list(found.subject) == []
    assert found.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical
    assert verified("long.pem")


def test_people_see_what_was_made() -> None:
    done = qed("certs", *MEMBER)
    assert done.stdout.startswith("Made certificate with values:\n\n Certificate: server0.pem\n Key: server0.key\n")
    assert " Names: DNS:server0, IP:10.0.0.1, DNS:log.example.com\n" in done.stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("server",), "expected a node id, a host or a role"),
        (("server", "--host", "*.example.com"), "expected a host name or an IP address"),
        (("server", "--host", "10.0.0.256"), "expected a host name or an IP address"),
        (("server", "--host", "h..example"), "expected a host name or an IP address"),
        (("server", "--host", "-h"), "expected a host name or an IP address"),
        (("server", "--host", "h\u00e9"), "expected a host name or an IP address"),
        (("server", "--host", "a" * 254), "expected a host name or an IP address"),
        (("server", "--host", "[::1]"), "expected a host name or an IP address"),
        (("server", "--node-id", "*"), "visible ASCII characters without *"),
        (("server", "--node-id", "two words"), "visible ASCII characters without *"),
        (("client", "--name", "x" * 65, "--role", "append"), "1 to 64 printable characters"),
        (("client", "--name", "a\nb", "--role", "append"), "1 to 64 printable characters"),
        (("client", "--name", "", "--role", "append"), "1 to 64 printable characters"),
        (("client", "--name", "x", "--role", "root"), "root"),
        (("client", "--name", "x"), "--role"),
        (("csr", "--name", "x", "--role", "append", "--host", "h"), "found both"),
        (("server", "--host", "h", "--valid", "0d"), "90d"),
        (("server", "--host", "h", "--valid", "1y"), "90d"),
        (("ca", "--valid", "99999999d", "--out", "x"), "at most 36500d"),
        (("server", "--host", "h", "--ca", "missing.pem"), "missing.pem"),
        (("server", "--host", "h", "--out", "no/such/folder"), "folder that exists"),
        (("server", "--host", "h", "--key", "ca.key", "--csr", "ca.pem"), "--csr cannot be combined with --key"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else "",
)
def test_wrong_usage_is_one_line(args: tuple[str, ...], said: str) -> None:
    assert said in refused(*args)


def damage(folder: Path, name: str, content: bytes, mode: int = 0o600) -> None:
    (folder / name).write_bytes(content)
    (folder / name).chmod(mode)


def test_files_that_cannot_be_used_are_named(folder: Path) -> None:
    made("ca", "--out", "other")
    made("csr", "--host", "h", "--out", "there")
    signed = ("server", "--host", "h")
    assert "found another one" in refused(*signed, "--ca-key", "other.key")
    own = (folder / "ca.key").read_bytes()
    (folder / "ca.key").chmod(0o660)
    assert "ca.key: others can read or change this key (mode 0660)" in refused(*signed)
    for broken in (b"", b"nothing", own[:80], own * 100_000):
        damage(folder, "ca.key", broken)
        assert "ca.key: expected" in refused(*signed)
    damage(folder, "ca.key", own)
    for broken in (b"", b"nothing", (folder / "ca.pem").read_bytes()[:200], own):
        damage(folder, "broken.pem", broken)
        assert "broken.pem" in refused(*signed, "--ca", "broken.pem")
        assert "broken.pem: expected" in refused(*signed, "--csr", "broken.pem")
    damage(folder, "there.csr", (folder / "there.csr").read_bytes().replace(b"M", b"N", 9))
    assert "there.csr: expected a" in refused(*signed, "--csr", "there.csr")


def test_request_signed_with_another_key_is_refused(folder: Path) -> None:
    made("csr", "--host", "h", "--out", "there")
    der = bytearray(
        x509.load_pem_x509_csr((folder / "there.csr").read_bytes()).public_bytes(serialization.Encoding.DER)
    )
    # The last byte of the signature.
    der[-1] ^= 1
    found = x509.load_der_x509_csr(bytes(der))
    damage(folder, "there.csr", found.public_bytes(serialization.Encoding.PEM))
    assert "found a wrong signature" in refused("server", "--host", "h", "--csr", "there.csr")


def test_encrypted_and_weak_keys_are_refused() -> None:
    made_keys = (
        ("genpkey", "-algorithm", "ed25519", "-aes256", "-pass", "pass:secret", "-out", "encrypted.key"),
        ("genpkey", "-algorithm", "rsa", "-pkeyopt", "rsa_keygen_bits:1024", "-out", "weak.key"),
        ("genpkey", "-algorithm", "x25519", "-out", "exchange.key"),
    )
    for command in made_keys:
        assert openssl(*command).startswith("0\n")
    for name, said in (("encrypted", "is not encrypted"), ("weak", "found 1024"), ("exchange", "found X25519")):
        assert said in refused("server", "--host", "h", "--key", f"{name}.key")


def test_an_authority_that_is_not_valid_signs_nothing(folder: Path) -> None:
    now = datetime.now(UTC)
    when = f"{now - timedelta(days=20):%Y%m%d%H%M%SZ}", f"{now - timedelta(days=10):%Y%m%d%H%M%SZ}"
    assert openssl("req", "-new", "-key", "ca.key", "-subj", "/CN=old", "-out", "old.csr").startswith("0\n")
    (folder / "v3").write_text("basicConstraints=critical,CA:TRUE\n")
    old = openssl(
        "ca", "-config", str(openssl_folder(folder)), "-selfsign", "-keyfile", "ca.key", "-in", "old.csr", "-batch",
        "-notext", "-out", "old.pem", "-startdate", when[0], "-enddate", when[1], "-extfile", "v3",
    )  # fmt: skip
    assert old.startswith("0\n")
    assert "expected an authority that is valid now" in refused("server", "--host", "h", "--ca", "old.pem")


def openssl_folder(folder: Path) -> Path:
    """Give the configuration that `openssl ca` needs, which alone can choose the start of a certificate."""
    (folder / "index").touch()
    config = folder / "config"
    config.write_text(
        f"[ca]\ndefault_ca=d\n[d]\ndatabase={folder}/index\nserial={folder}/serial\nrand_serial=yes\n"
        f"new_certs_dir={folder}\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n"
    )
    return config


def served(context: ssl.SSLContext) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Serve TLS on a free port; give the port, and the certificates that clients presented."""
    seen: list[dict[str, Any]] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                try:
                    with context.wrap_socket(connection, server_side=True) as stream:
                        seen.append(dict(stream.getpeercert() or {}))
                        stream.sendall(b"hello")
                except (ssl.SSLError, OSError):
                    connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1], seen
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def greeting(port: int, context: ssl.SSLContext, name: str) -> bytes:
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=name) as stream,
    ):
        return stream.recv(5)


def test_servers_and_clients_meet_over_tls() -> None:
    made("server", "--node-id", "server0", "--host", "127.0.0.1")
    made("client", "--name", "ci", "--role", "append")
    made("ca", "--out", "foreign")
    made("client", "--name", "eve", "--role", "append", "--ca", "foreign.pem", "--ca-key", "foreign.key")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile="ca.pem")
    server.load_cert_chain("server0.pem", "server0.key")
    server.verify_mode = ssl.CERT_REQUIRED
    running = served(server)
    port, seen = next(running)

    def client(name: str, authority: str = "ca.pem") -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=authority)
        context.load_cert_chain(f"{name}.pem", f"{name}.key")
        return context

    try:
        assert greeting(port, client("ci"), "127.0.0.1") == b"hello"
        assert greeting(port, client("server0"), "server0") == b"hello"
        assert ("URI", "qed:role:append") in seen[0]["subjectAltName"]
        with pytest.raises(ssl.SSLCertVerificationError):
            greeting(port, client("ci"), "server1")
        with pytest.raises(ssl.SSLCertVerificationError):
            greeting(port, client("ci", "foreign.pem"), "server0")
        # A server's refusal reaches the client with the first bytes that it reads.
        with pytest.raises((ssl.SSLError, ConnectionError)):
            greeting(port, client("eve"), "server0")
    finally:
        with pytest.raises(StopIteration):
            next(running)


def test_a_pair_is_written_whole_or_not_at_all(folder: Path) -> None:
    output = Output(folder / "pair", is_forced=False)
    output.require_free(".key", ".pem")
    # Another process is faster.
    (folder / "pair.pem").write_bytes(b"theirs")
    before = state()
    with pytest.raises(FileExistsError):
        output.write({".key": b"ours", ".pem": b"ours"})
    assert state() == before
