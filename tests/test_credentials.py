"""What a member shows to the others: keys, certificates and contexts; and files that cannot be used."""

from __future__ import annotations

import contextlib
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID

from certificates import DAY, Operator
from harness.cluster import new_secret
from qed.server.cluster_authority import ClusterAuthority
from qed.server.config import Address, Settings, SettingsError, Tls
from qed.server.credentials import Credentials, read_credentials
from qed.server.member_key import KEY_FILE, read_or_make_key
from qed.server.pins import Peer, pin_of

if TYPE_CHECKING:
    from pathlib import Path

SECRET = bytes(range(32))


def settings(folder: Path, *, secret: Path | None = None, tls: Tls | None = None, name: str = "server0") -> Settings:
    folder.mkdir(exist_ok=True)
    addresses = [Address("127.0.0.1", port) for port in range(1, 5)]
    return Settings(
        node_id=name,
        http_addr=addresses[0],
        mgmt_addr=addresses[1],
        metrics_addr=addresses[2],
        raft_addr=addresses[3],
        data_dir=folder,
        cluster_secret_file=secret,
        raft_tls=tls,
    )


def credentials(folder: Path, **given: object) -> Credentials:
    found = read_credentials(settings(folder, **given))  # type: ignore[arg-type]  # the caller's
    assert found is not None
    return found


def shake_hands(accepting: ssl.SSLContext, dialling: ssl.SSLContext, host: str | None = None) -> list[ssl.SSLObject]:
    """Return both ends of a TLS stream in memory: the one that accepted, the one that dialled."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [accepting.wrap_bio(there, back, server_side=True), dialling.wrap_bio(back, there, server_hostname=host)]
    for _ in range(3):
        for end in reversed(ends):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ends


def peer(end: ssl.SSLObject) -> Peer:
    certificate = end.getpeercert(binary_form=True)
    assert certificate is not None
    return Peer.of_certificate(x509.load_der_x509_certificate(certificate))


# The authority of a secret


def test_authority_is_the_same_on_every_member() -> None:
    assert ClusterAuthority.of_secret(SECRET).pem == ClusterAuthority.of_secret(SECRET).pem
    assert ClusterAuthority.of_secret(SECRET).pem != ClusterAuthority.of_secret(SECRET[::-1]).pem


def test_authority_s_key_is_derived_as_documented() -> None:
    # HKDF-SHA256 (RFC 5869) by hand: extract with 32 zero bytes, expand with the label and one counter byte.
    import hashlib  # noqa: PLC0415  # an oracle beside its use
    import hmac  # noqa: PLC0415  # as above

    extracted = hmac.digest(bytes(32), SECRET, hashlib.sha256)
    seed = hmac.digest(extracted, b"qed cluster CA 1\x01", hashlib.sha256)
    key = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    assert ClusterAuthority.of_secret(SECRET).certificate.public_key() == key


def test_certificates_name_nobody_and_do_not_expire() -> None:
    authority = ClusterAuthority.of_secret(SECRET)
    leaf = x509.load_pem_x509_certificate(authority.sign(Ed25519PrivateKey.generate().public_key()))
    for certificate in (leaf, authority.certificate):
        assert certificate.not_valid_after_utc.isoformat() == "9999-12-31T23:59:59+00:00"
        assert certificate.not_valid_before_utc.year == 2000
    assert leaf.subject.rfc4514_string() == "CN=qed member"
    with pytest.raises(x509.ExtensionNotFound):
        leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)


def test_members_with_one_secret_know_each_other_s_keys(tmp_path: Path) -> None:
    secret = new_secret(tmp_path)
    one, other = (credentials(tmp_path / name, secret=secret) for name in ("one", "other"))
    assert one.pin != other.pin
    accepted, dialled = shake_hands(one.accepting, other.dialling)
    assert (peer(accepted).pin, peer(dialled).pin) == (other.pin, one.pin)
    assert accepted.version() == dialled.version() == "TLSv1.3"
    # Without it, a session could outlive the certificate with which it began.
    assert dialled.session is None or not dialled.session.has_ticket


def test_members_with_different_secrets_do_not_connect(tmp_path: Path) -> None:
    secrets = [new_secret(tmp_path / name) for name in ("a", "b")]
    one, other = (credentials(secret.parent, secret=secret) for secret in secrets)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(one.accepting, other.dialling)


# The key of a member


def test_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    key = read_or_make_key(tmp_path)
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert pin_of(read_or_make_key(tmp_path).public_key()) == pin_of(key.public_key())
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


def test_damaged_key_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    read_or_make_key(tmp_path)
    path = tmp_path / KEY_FILE
    whole = path.read_bytes()
    other = ec.generate_private_key(ec.SECP256R1())
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415  # for this test
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    wrong_kind = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    encrypted = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    for content in (b"", whole[:50], whole.replace(b"PRIVATE", b"PUBLIC"), b"\xff" * 100, wrong_kind, encrypted):
        path.write_bytes(content)
        with pytest.raises(SettingsError, match=r"damaged.*qed cluster replace"):
            read_or_make_key(tmp_path)
        assert path.read_bytes() == content
    path.write_bytes(whole)
    path.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        read_or_make_key(tmp_path)


# The operator's certificates


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path / "pki")


def test_operator_s_certificates_name_their_members(tmp_path: Path, operator: Operator) -> None:
    one, other = (credentials(tmp_path / name, tls=operator.issue(name), name=name) for name in ("server0", "server1"))
    assert one.is_named
    assert one.authority is None
    accepted, dialled = shake_hands(one.accepting, other.dialling)
    assert [*peer(accepted).names, *peer(dialled).names] == ["server1", "server0"]
    shake_hands(one.accepting, other.meeting, "127.0.0.1")
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake_hands(one.accepting, other.meeting, "elsewhere")


def test_certificate_without_the_member_s_name_is_refused(tmp_path: Path, operator: Operator) -> None:
    with pytest.raises(SettingsError, match=r"subjectAltName=DNS:server0, found backup-job, \*"):
        credentials(tmp_path / "data", tls=operator.issue("backup-job", "*"))


@pytest.mark.parametrize(
    ("dates", "reason"),
    [((-2 * DAY, -DAY), "certificate has expired"), ((DAY, 2 * DAY), "certificate is not yet valid")],
)
def test_certificate_of_another_day_is_refused(
    tmp_path: Path, operator: Operator, dates: tuple[object, object], reason: str
) -> None:
    tls = operator.issue("server0", dates=dates)  # type: ignore[arg-type]  # the parameters' type
    with pytest.raises(SettingsError, match=reason):
        credentials(tmp_path / "data", tls=tls)


def test_certificate_for_servers_only_is_refused(tmp_path: Path, operator: Operator) -> None:
    tls = operator.issue("server0", usages=(ExtendedKeyUsageOID.SERVER_AUTH,))
    with pytest.raises(SettingsError, match=r"unsuitable certificate purpose|unsupported certificate purpose"):
        credentials(tmp_path / "data", tls=tls)


def test_certificate_of_another_authority_is_refused(tmp_path: Path, operator: Operator) -> None:
    tls = replace(operator.issue("server0"), ca=Operator(tmp_path / "theirs").path)
    with pytest.raises(SettingsError, match="authority does not confirm"):
        credentials(tmp_path / "data", tls=tls)


@pytest.mark.parametrize("which", ["certificate", "key", "ca"])
@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "missing"])
def test_damaged_file_is_one_line(tmp_path: Path, operator: Operator, which: str, damage: str) -> None:
    tls = operator.issue("server0")
    path: Path = getattr(tls, which)
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "noise": b"\xff" * 200}[damage])
    with pytest.raises(SettingsError) as refused:
        credentials(tmp_path / "data", tls=tls)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_key_of_another_certificate_is_refused(tmp_path: Path, operator: Operator) -> None:
    tls, other = operator.issue("server0"), operator.issue("server1")
    with pytest.raises(SettingsError, match="key values mismatch"):
        credentials(tmp_path / "data", tls=replace(tls, key=other.key))


def test_key_that_others_can_read_is_refused(tmp_path: Path, operator: Operator) -> None:
    tls = operator.issue("server0")
    tls.key.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        credentials(tmp_path / "data", tls=tls)


def test_server_without_any_has_none(tmp_path: Path) -> None:
    alone = settings(tmp_path / "data")
    assert not alone.has_credentials
    assert read_credentials(alone) is None
    assert not any(alone.data_dir.iterdir())


def test_joining_without_any_is_refused_with_what_to_do(tmp_path: Path) -> None:
    alone = settings(tmp_path / "data")
    with pytest.raises(SettingsError, match=r"--cluster-secret-file.*qed cluster secret.*--raft-tls-cert"):
        replace(alone, raft_join_addrs=(Address("127.0.0.1", 9),))


def test_two_kinds_at_once_are_refused(tmp_path: Path, operator: Operator) -> None:
    with pytest.raises(SettingsError, match="found --cluster-secret-file and --raft-tls"):
        settings(tmp_path / "data", secret=new_secret(tmp_path), tls=operator.issue("server0"))
