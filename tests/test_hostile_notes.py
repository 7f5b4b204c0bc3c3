"""Hostile checkpoints and policies, by `qed verify`: each is refused, or counts for no more than it says."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

import qed
from commands import one_line, values
from commands import qed as run
from signing import (
    LOG,
    NOW,
    ORIGIN,
    WITNESSES,
    Signer,
    World,
    b64,
    bundle_of,
    event,
    honest_entry,
    policy_of,
    signed_log,
)

if TYPE_CHECKING:
    import subprocess

ORDER: Final = 2**252 + 27742317777372353535851937790883648493
"""The order of the group of Ed25519."""
WORLD: Final = World()
TEXT: Final = WORLD.text
LINES: Final = WORLD.lines()
PQ: Final = Signer(ORIGIN, 6, 1)
PQ_WITNESS: Final = Signer("pq.example.com", 6, 60)
PQ_POLICY: Final = f"log {LOG.vkey}\nlog {PQ.vkey}\nwitness w {PQ_WITNESS.vkey}\nquorum w\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def verify(note: str, policy: str = policy_of()) -> subprocess.CompletedProcess[str]:
    """Verify an honest receipt whose checkpoint is this note."""
    Path("policy").write_text(policy)
    Path("receipt.json").write_text(json.dumps(WORLD.receipt(note=note)))
    return run("verify", "receipt.json", "--policy", "policy", XDG_STATE_HOME=os.path.realpath("state"))


def signature_of(line: str) -> bytes:
    return base64.b64decode(line.split()[2])[4:]


def unknown(count: int, length: int = 40) -> list[str]:
    """Return lines of keys that nobody knows, with anything for a signature."""
    return [f"\u2014 x{i} {b64(bytes([i % 256]) * length)}\n" for i in range(count)]


def signed(text: str) -> str:
    """Return the note of any text, signed by the log and two witnesses."""
    return f"{text}\n{''.join(signer.line(text) for signer in (LOG, *WITNESSES[:2]))}"


def of_size(size: str) -> str:
    return signed(TEXT.replace("\n9\n", f"\n{size}\n"))


def raised() -> str:
    """Return the line of the log with the order of the group added to S: the same equation holds."""
    signature = signature_of(LINES[0])
    scalar = int.from_bytes(signature[32:], "little") + ORDER
    return LOG.line_of(signature[:32] + scalar.to_bytes(32, "little"))


def of_small_order() -> str:
    """Return a line of the log whose R is the neutral point: the equation holds, so a lax verifier accepts it."""
    secret = bytearray(hashlib.sha512(bytes([LOG.number]) * 32).digest()[:32])
    secret[0] &= 248
    secret[31] = secret[31] & 127 | 64
    neutral, public = b"\1" + bytes(31), base64.b64decode(LOG.vkey.split("+", 2)[2])[1:]
    challenge = int.from_bytes(hashlib.sha512(neutral + public + TEXT.encode()).digest(), "little")
    scalar = challenge * int.from_bytes(secret, "little") % ORDER
    return LOG.line_of(neutral + scalar.to_bytes(32, "little"))


OTHER: Final = World(origin="other.example.com")
FORK: Final = World(entries=[honest_entry(0)[:-1] + b"x", *WORLD.entries[1:]])
SAME_ID: Final = f"\u2014 other {LINES[0].split()[2]}\n"
SAME_NAME: Final = Signer(ORIGIN, 1, 99).line(TEXT)

REFUSED: Final = {
    "another origin": (OTHER.note(LOG.line(OTHER.text), *OTHER.lines()[1:]), "origin"),
    "another origin, and its name": (OTHER.note(Signer(OTHER.origin, 1, 1).line(OTHER.text)), "origin"),
    "base64 that is not canonical": (WORLD.note("\u2014 x AAAAAAB=\n", *LINES), "base64"),
    "base64 without padding": (WORLD.note("\u2014 x AAAAAAA\n", *LINES), "base64"),
    "the line of the log twice": (WORLD.note(*LINES, LINES[0]), "signature"),
    "a line of the log that fails": (WORLD.note(LOG.line(FORK.text), *LINES[1:]), "signature"),
    "a line of a witness that fails": (WORLD.note(*LINES[:2], WITNESSES[1].line(FORK.text)), "signature"),
    "key ids and names of the log, apart": (WORLD.note(SAME_ID, SAME_NAME, *LINES[1:]), "origin"),
    "the key id of the log with another key": (
        WORLD.note(LOG.line_of(signature_of(SAME_NAME)), *LINES),
        "signature",
    ),
    "101 lines": (WORLD.note(*unknown(98), *LINES), "100 signature lines"),
    "300 KiB": (WORLD.note(*unknown(1, 230_000), *LINES), "262144 bytes"),
    "an origin of 256 bytes": (signed(TEXT.replace(ORIGIN, "o" * 256)), "origin"),
    "CR LF": (WORLD.note().replace("\n", "\r\n"), ""),
    "a tab": (of_size("9\t"), ""),
    "a zero byte": (of_size("9\0"), ""),
    "a byte order mark": ("\ufeff" + WORLD.note(), ""),
    "no final line feed": (WORLD.note()[:-1], ""),
    "no empty line": (WORLD.note().replace("\n\n", "\n"), ""),
    "a size of 007": (of_size("007"), ""),
    "a size of +5": (of_size("+5"), ""),
    "a size and a space": (of_size("5 "), ""),
    "a size of 2^63": (of_size(str(2**63)), ""),
    "a size of 2^64": (of_size(str(2**64)), ""),
    "a size of 10^30": (of_size(str(10**30)), ""),
    "no entries, and a root of some": (of_size("0"), "root"),
    "S above the order of the group": (WORLD.note(raised(), *LINES[1:]), "signature"),
    "R of small order": (WORLD.note(of_small_order(), *LINES[1:]), "signature"),
    "a time of 2^63": (WORLD.note(*LINES[:2], WITNESSES[1].line(TEXT, 2**63)), "signature"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_checkpoint_is_refused(name: str) -> None:
    note, said = REFUSED[name]
    done = verify(note)
    assert (done.returncode, done.stdout) == (1, "Verify: KO\n")
    assert said in one_line(done.stderr)
    assert not Path("state").exists()


def test_what_nobody_knows_counts_for_nothing() -> None:
    done = verify(WORLD.note(*unknown(50), SAME_ID, SAME_NAME, *LINES))
    assert (done.returncode, values(done.stdout)["Witnesses"]) == (0, "w1, w2")
    assert "x1" not in done.stdout


@pytest.mark.parametrize(("moment", "counts"), [("0", False), ("in an hour", False), ("before the log began", True)])
def test_a_time_that_cannot_be_true_counts_for_nothing(moment: str, *, counts: bool) -> None:
    seconds = {"0": 0, "in an hour": int(time.time()) + 3600, "before the log began": 1}[moment]
    done = verify(WORLD.note(*LINES[:2], WITNESSES[1].line(TEXT, seconds)))
    assert done.returncode == (0 if counts else 5)
    assert ("Verify: OK" in done.stdout) is counts


@pytest.mark.parametrize(
    "line",
    [
        PQ_WITNESS.line_of(signature_of(Signer("other.example.com", 6, 60).line(TEXT))),
        PQ_WITNESS.line(World(origin="log.example.com/other").text),
        PQ_WITNESS.line(TEXT, context=b"context"),
        PQ_WITNESS.line_of(signature_of(PQ_WITNESS.line(TEXT))[:-1]),
    ],
    ids=["another cosigner", "another origin", "a context", "a byte less"],
)
def test_an_ml_dsa_line_is_of_its_cosigner_and_log_without_context(line: str) -> None:
    done = verify(WORLD.note(LINES[0], line), PQ_POLICY)
    assert (done.returncode, done.stdout) == (1, "Verify: KO\n")
    assert "signature" in one_line(done.stderr)


def test_an_honest_ml_dsa_line_counts() -> None:
    done = verify(WORLD.note(LINES[0], PQ_WITNESS.line(TEXT)), PQ_POLICY)
    assert (done.returncode, values(done.stdout)["Witnesses"]) == (0, "w")


def test_extension_lines_that_only_ml_dsa_covers_are_warned_of_and_not_shown() -> None:
    extended = World(extensions="retracted: all events\n")
    policy = f"log {LOG.vkey}\nlog {PQ.vkey}\nquorum none\n"
    done = verify(extended.note(PQ.line(extended.text, 0)), policy)
    assert (done.returncode, "Verify: OK" in done.stdout) == (0, True)
    assert "extension lines that its log has not signed" in done.stderr
    assert "retracted" not in done.stdout + done.stderr
    done = verify(extended.note(LOG.line(extended.text)), policy)
    assert (done.returncode, "extension" in done.stderr) == (0, False)


def test_a_retired_key_counts_up_to_its_size() -> None:
    old = Signer(ORIGIN, 1, 2)
    note = WORLD.note(old.line(TEXT), *LINES[1:])
    for size, code in ((9, 0), (8, 1)):
        retired = [{"Vkey": old.vkey, "MaxSize": size}]
        done = verify(note, json.dumps({"Format": "qed-trust-1", "Policy": policy_of(), "Retired": retired}))
        assert done.returncode == code, done.stderr


def test_old_cosignatures_do_not_show_that_an_event_is_absent_today() -> None:
    with qed.Log() as log:
        log.add(event(0))
        digest = b64(bytes(qed.Digest.of(event(9))))
        question = {"KeyDigest": digest, "Version": None}
        bundle = bundle_of(signed_log(log), "membership", question, log.membership(event(9)), 0)
    Path("bundle.json").write_text(json.dumps(bundle))
    for age, code in ((None, 0), (int(time.time()) - NOW + 1000, 0), (3600, 5)):
        Path("policy").write_text(json.dumps({"Format": "qed-trust-1", "Policy": policy_of(), "MaxAge": age}))
        done = run("verify", "bundle.json", "--policy", "policy", "--memory", "memory")
        assert done.returncode == code, done.stderr
    assert "MaxAge" in one_line(done.stderr)


def vkey(name: str, public: bytes) -> str:
    """Return a key with the right id, whatever the key is."""
    return f"{name}+{hashlib.sha256(name.encode() + bytes([10]) + public).hexdigest()[:8]}+{b64(public)}"


TWICE_ENCODED: Final = b"\1\xee" + b"\xff" * 30 + b"\x7f"
"""An Ed25519 key whose y is above the prime of the field."""
OWN_LOG: Final = f"log {LOG.vkey}\n"
WITNESS: Final = f"witness a {WITNESSES[0].vkey}\n"
MISTAKEN: Final = {
    "a wrong key id": (f"log {ORIGIN}+00000000+{LOG.vkey.split('+', 2)[2]}\nquorum none\n", 1),
    "the key of a witness for a log": (f"log {WITNESSES[0].vkey}\nquorum none\n", 1),
    "a key of small order": (f"log {vkey(ORIGIN, bytes([1, 1]) + bytes(31))}\nquorum none\n", 1),
    "a second encoding of a point": (f"log {vkey(ORIGIN, TWICE_ENCODED)}\nquorum none\n", 1),
    "an ML-DSA-44 key of 1311 bytes": (f"log {vkey(ORIGIN, bytes([6]) + bytes(1311))}\nquorum none\n", 1),
    "one key under two names": (f"{OWN_LOG}{WITNESS}witness b {WITNESSES[0].vkey}\nquorum none\n", 3),
    "a witness with the name of the log": (f"{OWN_LOG}witness a {Signer(ORIGIN, 4, 50).vkey}\nquorum a\n", 2),
    "a member that is not defined": (f"{OWN_LOG}group g any nobody\nquorum g\n", 2),
    "a member of two groups": (f"{OWN_LOG}{WITNESS}group g any a\ngroup h any a\nquorum g\n", 4),
    "two quorums": (f"{OWN_LOG}quorum none\nquorum none\n", 3),
    "CR LF": (f"{OWN_LOG}quorum none\n".replace("\n", "\r\n"), 1),
    "a comment behind a line": (f"{OWN_LOG}{WITNESS}quorum a # us\n", 3),
}


@pytest.mark.parametrize("name", MISTAKEN)
def test_a_policy_with_a_mistake_is_wrong_usage_and_its_line_is_named(name: str) -> None:
    policy, line = MISTAKEN[name]
    done = verify(WORLD.note(), policy)
    assert (done.returncode, done.stdout) == (2, "")
    assert one_line(done.stderr).startswith(f"policy: line {line} of the policy: ")


def test_a_policy_is_not_read_beyond_its_limit() -> None:
    verify(WORLD.note())
    Path("long").write_text(policy_of() + "# \n" * 3_500_000)
    for long in ("long", "/dev/zero"):
        done = run("verify", "receipt.json", "--policy", long)
        assert (done.returncode, done.stdout) == (2, "")
        assert "at most" in one_line(done.stderr)
    for command in (["audit", "."], ["monitor", ".", "--once", "--state", "seen"], ["evidence", "receipt.json"]):
        done = run(*command, "--policy", "long")
        assert (done.returncode, "at most" in one_line(done.stderr)) == (2, True), command
