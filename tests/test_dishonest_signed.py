"""The servers of test_dishonest_servers.py again, of a log that signs: what they sign convicts them elsewhere.

The caller has a signed receipt of each of five events, as the log gave it when it was added. Then the log signs a lie.
Whatever it has signed ends in a file that `qed evidence` confirms, for somebody with a policy of their own and nothing
else. Where it has signed nothing false there is nothing to convict it of, and no file: a proof that does not verify, a
refusal, an answer without a signature, a checkpoint that is merely old. Roots that the events do not lead to are found
by a replay only: the file names them, and who has the log's files replays them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from commands import one_line, read_lines
from commands import qed as run
from dishonesty import log_of
from published import entries_of, publish
from signing import LOG, World, b64, membership_bundle, policy_of
from test_dishonest_servers import CASES, EVENTS, OTHERS, PAYMENT
from test_dishonest_trees import dishonest, leaf

if TYPE_CHECKING:
    from collections.abc import Callable

Entries = list[bytes]

TRUE: Final = entries_of(log_of(*EVENTS))
"""The entries of the log that the caller knows; each event is a batch of its own."""
LATER: Final = b"event 5"


def signed(entries: Entries) -> str:
    """Return the checkpoint that the log signs, without witnesses."""
    world = World(entries=entries)
    return world.note(LOG.line(world.text))


def receipt(entries: Entries, version: int) -> dict[str, Any]:
    """Return the receipt of the last event of a log."""
    world, entry = World(entries=entries[: version + 1]), entries[version]
    fields = ("EventDigest", "HistoryDigest", "HyperDigest")
    parts = {name: b64(entry[10 + 32 * i : 42 + 32 * i]) for i, name in enumerate(fields)}
    return {
        "Format": "qed-receipt-1",
        "First": version,
        "Entries": [b64(entry)],
        "Proof": world.proof(version, version + 1),
        "End": None,
        "Snapshots": [parts | {"Version": version}],
        "Checkpoint": signed(world.entries),
    }


@pytest.fixture(autouse=True)
def caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the folder of the caller, who has a policy and receipts."""
    home = tmp_path / "caller"
    home.mkdir()
    monkeypatch.chdir(home)
    Path("policy").write_text(policy_of("none"))
    Path("receipts").mkdir()
    for version in range(len(EVENTS)):
        Path(f"receipts/{version}.json").write_text(json.dumps(receipt(TRUE, version)))
    return home


def judged_elsewhere(evidence: str, folder: Path) -> tuple[int, str]:
    """Return what `qed evidence` says of a file on another machine, whose user has got nothing else from the caller."""
    folder.mkdir(exist_ok=True)
    sent, policy = folder / "sent.json", folder / "trust.json"
    shutil.copy(evidence, sent)
    policy.write_text(json.dumps({"Format": "qed-trust-1", "Policy": f"log {LOG.vkey}\nquorum none\n"}))
    # Whatever asked a server would fail there.
    done = run("--json", "evidence", str(sent), "--policy", str(policy), QED_ENDPOINTS="http://127.0.0.1:1")
    [found] = read_lines(done.stdout)
    return done.returncode, str(found["Verdict"])


def audit(source: str, *args: str) -> dict[str, Any]:
    done = run("--json", "audit", source, "--policy", "policy", *args)
    [found] = read_lines(done.stdout)
    return {"code": done.returncode} | found


def altered(version: int, change: Callable[[bytes], bytes], entries: Entries = TRUE) -> Entries:
    return [change(entry) if number == version else entry for number, entry in enumerate(entries)]


def with_root(entry: bytes, *, history: bytes | None = None, hyper: bytes | None = None) -> bytes:
    return entry[:42] + (history or entry[42:74]) + (hyper or entry[74:])


def version_of(number: int) -> Callable[[bytes], bytes]:
    return lambda entry: entry[:2] + number.to_bytes(8, "big") + entry[10:]


GROWN: Final = entries_of(log_of(*EVENTS, LATER))
ZERO: Final = bytes(32)


def shallow() -> bytes:
    """Return the root of a hyper tree that no log has: its leaf is where many others would have to be."""
    _, snapshot = dishonest(PAYMENT_KEY, 16, leaf(16, 5))
    return base64.b64decode(str(snapshot["HyperDigest"]))


PAYMENT_KEY: Final = hashlib.sha256(PAYMENT).digest()


@dataclass(frozen=True)
class Lie:
    """What a log publishes and signs after it has given the receipts, and what that ends in.

    Attributes:
        entries: What it publishes.
        finding: What an audit with the receipts finds; None if there is nothing false in it.
        evidence: The kinds of evidence that are saved.
        verdict: What `qed evidence` says of each elsewhere.
    """

    entries: Entries
    finding: str | None
    evidence: frozenset[str] = frozenset()
    verdict: str = "convicted"


def fork(entries: Entries, *evidence: str) -> Lie:
    return Lie(entries, "fork", frozenset(evidence))


def invalid(entries: Entries) -> Lie:
    return Lie(entries, "invalid-entry", frozenset({"invalid-entry"}))


def replayed(entries: Entries) -> Lie:
    return Lie(entries, "replay-mismatch", frozenset({"invalid-entry"}), verdict="unreplayed")


LIES: Final = {
    # A log that is put back to what it was, or emptied: what it signs was true once.
    "stale": Lie(TRUE[:3], None),
    "emptied": Lie([], None),
    "rewritten": fork(entries_of(log_of(*OTHERS[:5])), "same-index", "same-size"),
    "rewritten and longer": fork(entries_of(log_of(*OTHERS)), "same-index"),
    "rewritten from version 3 on": fork(entries_of(log_of(*EVENTS[:3], *OTHERS[:2])), "same-index", "same-size"),
    "rolled back, and then another event": fork(entries_of(log_of(*EVENTS[:3], LATER)), "same-size"),
    "begun again": fork(entries_of(log_of(LATER)), "same-size"),
    "a version that was given already": invalid(altered(5, version_of(3), GROWN)),
    "a version far beyond": invalid(altered(5, version_of(2**32), GROWN)),
    "the last of all versions": invalid(altered(5, version_of(2**64 - 1), GROWN)),
    "zero roots": replayed(altered(5, lambda entry: with_root(entry, history=ZERO, hyper=ZERO), GROWN)),
    "the hyper root of another log": replayed(
        altered(5, lambda entry: with_root(entry, hyper=entries_of(log_of(*OTHERS))[5][74:]), GROWN)
    ),
    "a hyper tree that no log has": replayed(altered(5, lambda entry: with_root(entry, hyper=shallow()), GROWN)),
}


@pytest.mark.parametrize("name", LIES)
def test_what_a_log_signs_convicts_it_elsewhere(name: str, tmp_path: Path) -> None:
    lie = LIES[name]
    publish(Path("log"), lie.entries, note=signed(lie.entries))
    found = audit("log", "--receipts", "receipts")
    assert {each["Kind"] for each in found["Findings"]} == ({lie.finding} if lie.finding else set())
    assert found["code"] == (1 if lie.finding else 0)
    saved = [each["Evidence"] for each in found["Findings"]]
    assert {json.loads(Path(file).read_text())["Kind"] for file in saved} == lie.evidence
    for file in saved:
        code = 0 if lie.verdict == "convicted" else 1
        assert judged_elsewhere(file, tmp_path / "elsewhere") == (code, lie.verdict)
    if lie.verdict == "unreplayed":
        # Somebody else replays the files that the log has published.
        shutil.copytree("log", tmp_path / "elsewhere" / "log")
        again = audit(str(tmp_path / "elsewhere" / "log"))
        assert [each["Kind"] for each in again["Findings"]] == ["replay-mismatch"]


@pytest.mark.parametrize("name", ["stale", "emptied"])
def test_a_log_that_shows_what_it_was_is_passed_over_and_not_accused(name: str) -> None:
    def watch(entries: Entries) -> dict[str, Any]:
        publish(Path("log"), entries, note=signed(entries))
        done = run("--json", "monitor", "log", "--policy", "policy", "--state", "state", "--once")
        [found] = read_lines(done.stdout)
        return {"code": done.returncode} | found

    assert watch(TRUE)["code"] == 0
    found = watch(LIES[name].entries)
    assert (found["code"], [each["Kind"] for each in found["Passing"]]) == (5, ["stale-source"])
    assert not list(Path().glob("*.json"))
    # It remembers what it has seen: the true log goes on from there.
    assert watch(GROWN)["code"] == 0


# Two faces: one log for the caller's answers, and another for everybody else.

FACES: Final = {
    "two faces": log_of(*OTHERS[:5]),
    "a face for proofs of membership": log_of(*EVENTS[:3], *OTHERS[:2]),
    "denied since the last event": log_of(*EVENTS[:4], OTHERS[0]),
}


@pytest.mark.parametrize("name", FACES)
def test_a_face_that_is_signed_convicts_the_log(name: str, tmp_path: Path) -> None:
    Path("bundle.json").write_text(json.dumps(membership_bundle(FACES[name], b"never added")))
    known = run("verify", "receipts/4.json", "--policy", "policy", "--memory", "seen", "--event", EVENTS[4].decode())
    assert known.returncode == 0, known.stderr
    done = run("verify", "bundle.json", "--policy", "policy", "--memory", "seen")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "Verify: FORK")
    [file] = Path().glob("fork-*.json")
    assert judged_elsewhere(str(file), tmp_path / "elsewhere") == (0, "convicted")


def test_the_longer_of_two_faces_convicts_the_log_with_the_other(tmp_path: Path) -> None:
    """The caller cannot compare the two without their tiles, but an audit of either face does."""
    face = entries_of(log_of(*OTHERS))
    Path("receipts/other.json").write_text(json.dumps(receipt(face, 8)))
    done = run("verify", "receipts/4.json", "--policy", "policy", "--memory", "seen")
    assert done.returncode == 0
    done = run("verify", "receipts/other.json", "--policy", "policy", "--memory", "seen")
    assert "not linked" in (done.stdout + done.stderr).lower()
    honest = entries_of(log_of(*EVENTS, *OTHERS))
    publish(Path("log"), honest, note=signed(honest))
    found = audit("log", "--receipts", "receipts")
    [finding] = found["Findings"]
    assert (finding["Kind"], json.loads(Path(finding["Evidence"]).read_text())["Kind"]) == ("fork", "same-index")
    assert judged_elsewhere(finding["Evidence"], tmp_path / "elsewhere") == (0, "convicted")


# Answers that nobody has signed. They contradict the entries that the log has signed, and prove nothing elsewhere.

UNSIGNED: Final = (
    "two faces",
    "a face for proofs of membership",
    "clamped",
    "refused as added later",
    "refused as added now",
    "refused as added before",
    "nothing to show",
    "made up",
)


@pytest.mark.parametrize("name", UNSIGNED)
def test_an_answer_that_contradicts_the_signed_entries_is_found_and_needs_no_evidence(name: str) -> None:
    with CASES[name].server() as server:
        shown = entries_of(server.faces["snapshot"])
        server.published = Path("log")
        publish(server.published, shown, note=signed(shown))
        found = audit(server.url)
    [finding] = found["Findings"]
    assert (found["code"], finding["Kind"], finding["Evidence"]) == (1, "answer-mismatch", None)
    # The receipt of the payment is all that the caller needs: it verifies without the server.
    done = run("verify", "receipts/3.json", "--policy", "policy", "--event", PAYMENT.decode())
    assert done.returncode == 0


def test_what_was_signed_for_another_event_or_log_is_refused_and_needs_no_evidence() -> None:
    """An acknowledgement with an earlier receipt, or one of another log, says nothing false. It is not the caller's."""
    done = run("verify", "receipts/3.json", "--policy", "policy", "--event", LATER.decode())
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "Verify: KO")
    other = json.loads(Path("receipts/3.json").read_text())
    other["Checkpoint"] = other["Checkpoint"].replace("log.example.com/test\n", "log.example.com/other\n", 1)
    Path("other.json").write_text(json.dumps(other))
    done = run("verify", "other.json", "--policy", "policy")
    assert (done.returncode, len(one_line(done.stderr)) < 600) == (1, True)
    assert not list(Path().glob("*fork*"))
