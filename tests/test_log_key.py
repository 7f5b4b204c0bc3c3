"""`qed log-key`: the keys of a log, in a file that only its owner can read."""

from __future__ import annotations

import base64
import hashlib
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from commands import one_line, qed
from qed.errors import CertificateError
from qed.log_keys import content_of_log_keys, new_log_keys, parse_log_keys

ORIGIN = "log.example.com/payments"
OWN: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "trust.json").read_text())["own"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def generated(*args: str) -> list[str]:
    """Run `qed log-key generate` and return the lines that it prints."""
    done = qed("log-key", "generate", "--origin", ORIGIN, "--out", "log.key", *args)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def refused(*args: str) -> str:
    done = qed("log-key", *args)
    assert (done.returncode, done.stdout) == (2, "")
    return one_line(done.stderr)


def test_the_public_keys_are_printed_one_a_line_ed25519_first() -> None:
    lines = generated()
    assert len(lines) == 2
    for line, (kind, length) in zip(lines, ((1, 32), (6, 1312)), strict=True):
        name, key_id, encoded = line.split("+", 2)
        key = base64.b64decode(encoded, validate=True)
        assert (name, key[0], len(key)) == (ORIGIN, kind, 1 + length)
        assert key_id == hashlib.sha256(name.encode() + b"\n" + key).hexdigest()[:8]
    done = qed("log-key", "show", "log.key")
    assert (done.returncode, done.stdout.splitlines()) == (0, lines)


def test_the_private_keys_are_those_of_the_public_ones() -> None:
    public, _ = generated()
    prefix, private, *_ = Path("log.key").read_text().splitlines()[0].partition("PRIVATE+KEY+")[1:]
    assert prefix == "PRIVATE+KEY+"
    kind, *seed = base64.b64decode(private.split("+", 2)[2], validate=True)
    key = Ed25519PrivateKey.from_private_bytes(bytes(seed)).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    assert base64.b64decode(public.split("+", 2)[2]) == bytes([kind]) + key


def test_the_key_file_is_for_its_owner_only_and_never_replaced() -> None:
    generated()
    file = Path("log.key")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_bytes()
    assert "log.key" in refused("generate", "--origin", ORIGIN, "--out", "log.key")
    assert file.read_bytes() == before
    for mode in (0o640, 0o604, 0o620):
        file.chmod(mode)
        assert f"{mode:04o}" in refused("show", "log.key")


def test_keys_are_new_each_time() -> None:
    assert len({key.vkey for _ in range(2) for key in new_log_keys(ORIGIN)}) == 4


def test_json_has_the_public_keys_only() -> None:
    done = qed("--json", "log-key", "generate", "--origin", ORIGIN, "--out", "log.key")
    record = json.loads(done.stdout)
    assert (record["File"], record["Origin"], len(record["Vkeys"])) == ("log.key", ORIGIN, 2)
    # The last field is base64, which may have a plus sign itself.
    seeds = [line.split("+", 4)[4] for line in Path("log.key").read_text().splitlines()]
    assert not any(seed in done.stdout + done.stderr for seed in seeds)


@pytest.mark.parametrize(
    "origin", ["", "Log.example.com", "a//b", "/a", "a+b", "a b", "https://a", "o" * 201, "\u00e9"]
)
def test_an_origin_that_no_log_may_have_is_refused(origin: str) -> None:
    assert "origin" in refused("generate", "--origin", origin, "--out", "log.key")
    assert not Path("log.key").exists()


def test_a_key_of_another_implementation_is_shown() -> None:
    file = Path("log.key")
    file.touch(0o600)
    file.write_text(OWN["log"]["skey"] + "\n")
    done = qed("log-key", "show", "log.key")
    assert (done.returncode, done.stdout) == (0, OWN["log"]["vkey"] + "\n")
    seed = bytes.fromhex(OWN["mldsa"]["seed"])
    text = f"PRIVATE+KEY+{OWN['origin']}+{OWN['mldsa']['key_id']}+{base64.b64encode(bytes([6]) + seed).decode()}\n"
    [key] = parse_log_keys(text.encode())
    assert (key.vkey, key.name) == (OWN["mldsa_vkey"], OWN["origin"])


def test_what_is_not_a_key_file_is_refused_without_showing_it() -> None:
    good = content_of_log_keys(new_log_keys(ORIGIN)).decode()
    first, second = good.splitlines()
    seed = first.rsplit("+", 1)[1]
    other = content_of_log_keys(new_log_keys("other")).decode()
    file = Path("log.key")
    file.touch(0o600)
    for bad in ("", "text\n", good[:-1], first[:-4] + "\n", good + first + "\n", second + "\n" + other, f"{seed}\n"):
        file.write_text(bad)
        message = refused("show", "log.key")
        assert "log.key: expected" in message
        assert seed[:12] not in message
    file.write_bytes(b"\xff\x00" * 100)
    assert "log.key: expected" in refused("show", "log.key")
    file.write_bytes(b"x" * (2 << 20))
    assert "log.key: expected" in refused("show", "log.key")
    with pytest.raises(CertificateError, match="expected a file of private keys"):
        parse_log_keys(b"")
    assert seed[:12] not in repr(parse_log_keys(good.encode()))


@pytest.mark.parametrize(
    ("format_", "encryption"),
    [
        (PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")),
        (PrivateFormat.PKCS8, NoEncryption()),
        (PrivateFormat.OpenSSH, NoEncryption()),
    ],
)
def test_a_key_in_pem_format_is_refused_encrypted_or_not(
    format_: PrivateFormat, encryption: NoEncryption | BestAvailableEncryption
) -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, format_, encryption)
    file = Path("log.key")
    file.touch(0o600)
    file.write_bytes(pem)
    message = refused("show", "log.key")
    assert "log.key: expected keys of `qed log-key generate`, found a file in PEM format" in message
    assert pem.splitlines()[1].decode()[:12] not in message
    with pytest.raises(CertificateError, match="PEM format"):
        parse_log_keys(pem)
