"""`qed audit`: honest logs pass, and what a dishonest one signs is found, and proven by `qed evidence`."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import qed
from commands import qed as run
from commands import read_lines, values
from published import Answer, entries_of, log_of, publish, serving, tile_path, zipped
from qed.errors import DamagedFile
from qed.monitoring.auditing import audit as audit_log
from qed.monitoring.charge import hear
from qed.monitoring.sources import FolderSource
from signing import LOG, WITNESSES, Signer, World, b64, leaf, policy_of, root

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from qed.monitoring.charge import Ruling

SIZES = (1, 1, 5, 300, 256, 1, 40)
SIZE = sum(SIZES)


@pytest.fixture(scope="module")
def log() -> qed.Log:
    log = qed.Log()
    log_of(log, *SIZES)
    return log


@pytest.fixture(scope="module")
def honest(log: qed.Log) -> list[bytes]:
    return entries_of(log)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("policy").write_text(policy_of())
    Path("word").write_text(policy_of("none"))
    return tmp_path


def audit(*args: str, policy: str = "policy") -> subprocess.CompletedProcess[str]:
    return run("audit", *args, "--policy", policy)


def record(*args: str, policy: str = "policy") -> dict[str, Any]:
    done = run("--json", "audit", *args, "--policy", policy)
    [found] = read_lines(done.stdout)
    return {"code": done.returncode} | found


def convicts(path: str) -> bool:
    return run("evidence", path, "--policy", "policy").returncode == 0


def test_an_honest_log_passes_from_a_folder(honest: list[bytes], log: qed.Log) -> None:
    world = publish(Path("copy"), honest)
    done = audit("copy")
    assert (done.returncode, done.stderr) == (0, "")
    shown = values(done.stdout)
    last = log.snapshot(SIZE - 1)
    assert (shown["Size"], shown["Level"]) == (str(SIZE), "witnessed")
    assert shown["Replayed"] == f"{SIZE} of {SIZE} entries"
    assert shown["HyperDigest"] == last.hyper_digest.hex()
    assert shown["HistoryDigest"] == last.history_digest.hex()
    assert shown["Root"] == log.tree_head()[1].hex()
    assert done.stdout.endswith("Verify: OK\n")
    shutil.move("copy", "server/log") if Path("server").exists() else Path("server").mkdir()
    publish(Path("server/log"), honest)
    found = record("server")
    assert (found["Audit"], found["Replayed"], found["Findings"]) == ("OK", SIZE, [])
    assert world.text.splitlines()[1] == str(SIZE)


def test_an_honest_log_passes_over_http_from_a_server_and_from_a_prefix(honest: list[bytes]) -> None:
    publish(Path("copy"), honest)
    paths: list[str] = []

    def note(path: str, answer: Answer) -> Answer:
        paths.append(path)
        return zipped(answer) if "entries" in path else answer

    with serving(Path("copy"), note) as url:
        assert record(f"{url}/log")["code"] == 0
        asked = [path for path in paths if path.startswith("tile/")]
        # Each file once; the audit asks only for what the checkpoint implies.
        assert len(asked) == len(set(asked))
        assert {path for path in asked if "entries" in path} == {
            tile_path("entries", 0, 256),
            tile_path("entries", 1, 256),
            tile_path("entries", 2, SIZE - 512),
        }


def test_an_empty_log_passes() -> None:
    publish(Path("copy"), [])
    assert record("copy")["Audit"] == "OK"


def test_full_files_serve_where_partial_ones_are_gone(log: qed.Log, honest: list[bytes]) -> None:
    # The checkpoint is older than the files: only the full bundle 1 is left.
    older = honest[:307]
    publish(Path("copy"), honest, note=World(entries=older).note())
    for level in ("0", "entries"):
        assert not (Path("copy") / tile_path(level, 1, 51)).exists()
    (Path("copy") / tile_path(1, 0, 1)).write_bytes(log.tile(tile_path(1, 0, 1)))
    found = record("copy")
    assert (found["code"], found["Size"]) == (0, 307)


@pytest.mark.parametrize(
    ("index", "change", "kind"),
    [
        (9, lambda entry: entry[:9] + b"\x08" + entry[10:], "invalid-entry"),
        (9, lambda entry: entry[:1] + bytes([entry[1] | 4]) + entry[2:], "invalid-entry"),
        (9, lambda entry: entry[:1] + b"\1" + entry[2:], "invalid-entry"),
        (6, lambda entry: entry[:1] + b"\0" + entry[2:], "invalid-entry"),
        (SIZE - 1, lambda entry: entry[:1] + b"\0" + entry[2:42], "invalid-entry"),
        (9, lambda _: b"", "invalid-entry"),
        (6, lambda entry: entry[:-1] + bytes([entry[-1] ^ 1]), "replay-mismatch"),
        (6, lambda entry: entry[:42] + bytes([entry[42] ^ 1]) + entry[43:], "replay-mismatch"),
        (20, lambda entry: entry[:10] + bytes([entry[10] ^ 1]) + entry[11:], "replay-mismatch"),
        (13, lambda entry: entry[:1] + b"\0" + entry[2:], "replay-mismatch"),
        (21, lambda entry: entry[:1] + b"\2" + entry[2:], "replay-mismatch"),
    ],
)
def test_a_signed_entry_that_is_wrong_is_found(
    honest: list[bytes], index: int, change: Callable[[bytes], bytes], kind: str
) -> None:
    entries = [*honest]
    assert entries[13][1] == 2, "a repeat"
    entries[index] = change(entries[index])
    publish(Path("copy"), entries)
    found = record("copy")
    [finding] = found["Findings"]
    assert (found["code"], found["Audit"], finding["Kind"]) == (1, "KO", kind)
    evidence = json.loads(Path(finding["Evidence"]).read_text())
    assert evidence["Kind"] == "invalid-entry"
    judged = run("evidence", finding["Evidence"], "--policy", "policy")
    if kind == "invalid-entry":
        assert judged.returncode == 0, judged.stderr
        assert evidence["Index"] == index
    else:
        # No file can prove this: it takes all the entries before it.
        assert judged.returncode == 1
        assert "Run qed audit" in judged.stdout
        assert evidence["Replay"][0] <= index <= evidence["Replay"][1]
    before = Path(finding["Evidence"]).read_bytes()
    assert record("copy")["Findings"] == [finding]
    assert Path(finding["Evidence"]).read_bytes() == before


def mismatch(entries: list[bytes], folder: str) -> dict[str, Any]:
    """Publish these entries with another hyper root at 306, and return the evidence about it."""
    wrong = [*entries]
    wrong[306] = spoilt(wrong[306])
    publish(Path(folder), wrong)
    [finding] = audit_log(qed.Policy.load("policy"), FolderSource(Path(folder))).findings
    assert finding.kind == "replay-mismatch"
    assert finding.evidence is not None
    made: dict[str, Any] = json.loads(finding.evidence.to_json())
    return made


def spoilt(entry: bytes) -> bytes:
    return entry[:-1] + bytes([entry[-1] ^ 1])


def about(world: World, index: int) -> dict[str, Any]:
    """Return the side of evidence that has this entry of a world."""
    return {"Checkpoint": world.note(), "Entry": b64(world.entries[index]), "Proof": inclusion(world, index)}


def inclusion(world: World, index: int) -> list[str]:
    """Return the inclusion path of an entry, the sibling of the leaf first: `World.proof` begins at the left."""
    path: list[str] = []
    entries, low = world.entries, 0
    while len(entries) > 1:
        half = 1 << (len(entries) - 1).bit_length() - 1
        is_left = index - low < half
        path.insert(0, b64(root([leaf(entry) for entry in (entries[half:] if is_left else entries[:half])])))
        low, entries = (low, entries[:half]) if is_left else (low + half, entries[half:])
    return path


def heard(folder: str, evidence: dict[str, Any]) -> Ruling:
    found = qed.Evidence.from_json(json.dumps(evidence).encode())
    return hear(found, qed.Policy.load("policy").trust, FolderSource(Path(folder)))


def test_a_replay_confirms_evidence_and_refutes_what_nobody_did(honest: list[bytes]) -> None:
    made = mismatch(honest, "copy")
    Path("true.json").write_text(json.dumps(made))
    done = audit("copy", "--evidence", "true.json")
    assert (done.returncode, done.stderr) == (1, "")
    assert f"Confirmed: {LOG.name} has done what the file says." in done.stdout
    assert values(done.stdout)["Batch"] == "versions 7 to 306"
    assert "replay-mismatch: entry 306" in done.stdout
    found = record("copy", "--evidence", "true.json")
    assert (found["Evidence"], found["Index"], found["Replay"], found["Replayed"]) == ("confirmed", 306, [7, 306], 7)
    assert [finding["Evidence"] for finding in found["Findings"]] == [None]
    # The same file about an honest log: it has signed the entry, and it is right.
    libel = made | {"A": about(publish(Path("honest"), honest), 306)}
    Path("libel.json").write_text(json.dumps(libel))
    done = audit("honest", "--evidence", "libel.json")
    assert (done.returncode, "Refuted" in done.stdout) == (0, True)
    # The replay decides, not how far the file says that the batch goes.
    assert heard("honest", libel | {"Replay": [0, 2**63 - 1]}).outcome == "refuted"


def test_evidence_is_replayed_from_a_copy_that_has_grown(honest: list[bytes]) -> None:
    made = mismatch(honest[:307], "older")
    # Only full tiles of the older checkpoint are left.
    publish(Path("copy"), [*honest[:306], spoilt(honest[306]), *honest[307:]])
    assert not (Path("copy") / tile_path(0, 1, 51)).exists()
    assert heard("copy", made).outcome == "confirmed"
    # A source with another history shows a fork, and says nothing about the file.
    publish(Path("other"), honest)
    found = heard("other", made)
    assert (found.outcome, found.finding and found.finding.kind) == ("open", "fork")
    # A source that is behind says nothing either.
    publish(Path("behind"), honest[:7])
    with pytest.raises(qed.QedError):
        heard("behind", made)


def test_an_earlier_entry_that_is_wrong_leaves_the_evidence_open(honest: list[bytes]) -> None:
    made = mismatch(honest, "copy")
    wrong = [spoilt(entry) if index in {6, 306} else entry for index, entry in enumerate(honest)]
    Path("later.json").write_text(json.dumps(made | {"A": about(publish(Path("both"), wrong), 306)}))
    found = record("both", "--evidence", "later.json")
    [finding] = found["Findings"]
    assert (found["code"], found["Evidence"], finding["Kind"]) == (1, "open", "replay-mismatch")
    assert json.loads(Path(finding["Evidence"]).read_text())["Index"] == 6
    # A later entry that is wrong does not make the file right.
    later = publish(Path("later"), [b"" if index == 20 else entry for index, entry in enumerate(honest)])
    ruling = heard("later", made | {"Index": 6, "Replay": [2, 6], "A": about(later, 6)})
    assert (ruling.outcome, ruling.finding and ruling.finding.kind) == ("refuted", "invalid-entry")


def test_evidence_that_needs_no_replay_or_shows_nothing(honest: list[bytes]) -> None:
    made = mismatch(honest, "copy")
    without = {key: made[key] for key in ("Format", "Kind", "Origin", "Vkeys", "Index")}
    plain = World(entries=[b"" if index == 9 else entry for index, entry in enumerate(honest)])
    Path("plain.json").write_text(json.dumps(without | {"Index": 9, "A": about(plain, 9)}))
    found = record("copy", "--evidence", "plain.json")
    assert (found["code"], found["Evidence"], found["Replayed"]) == (1, "confirmed", None)
    assert heard("copy", without | {"A": about(World(entries=honest), 306)}).outcome == "refuted"
    notes = {"A": {"Checkpoint": made["A"]["Checkpoint"]}, "B": {"Checkpoint": World(entries=honest[:7]).note()}}
    suspicion = {key: made[key] for key in ("Format", "Origin", "Vkeys")} | {"Kind": "suspicion"} | notes
    Path("suspicion.json").write_text(json.dumps(suspicion))
    found = record("copy", "--evidence", "suspicion.json")
    assert (found["code"], found["Evidence"]) == (5, "open")
    # Exit code 1 is for the log: what accuses nobody is wrong usage.
    Path("broken.json").write_text(json.dumps(made | {"A": made["A"] | {"Proof": []}}))
    assert audit("copy", "--evidence", "broken.json").returncode == 2
    # A key that the policy has retired convicts, however large the checkpoint is.
    trust = {"Format": "qed-trust-1", "Policy": policy_of().replace(LOG.vkey, Signer(LOG.name, 1, 99).vkey)}
    Path("policy").write_text(json.dumps(trust | {"Retired": [{"Vkey": LOG.vkey, "MaxSize": 5}]}))
    assert heard("copy", made).outcome == "confirmed"


def test_damaged_files_are_damage_and_no_proof(honest: list[bytes]) -> None:
    for name in (tile_path(0, 0, 256), tile_path(0, 2, SIZE - 512), tile_path(1, 0, 2), tile_path("entries", 1, 256)):
        for change in (
            lambda content: content[:-1],
            lambda content: content + b"\0",
            lambda _: b"<html>",
            lambda _: b"",
        ):
            publish(Path("copy"), honest)
            path = Path("copy") / name
            path.write_bytes(change(path.read_bytes()))
            done = audit("copy")
            assert done.returncode == 1, name
            assert "Verify: KO" in done.stdout
            assert not list(Path().glob("*.json"))


def test_a_file_that_is_withheld_is_damage(honest: list[bytes]) -> None:
    for name in (tile_path("entries", 1, 256), tile_path(0, 2, SIZE - 512)):
        publish(Path("copy"), honest)
        (Path("copy") / name).unlink()
        done = audit("copy")
        assert (done.returncode, "Verify: KO" in done.stdout) == (1, True)
        assert "but the checkpoint requires this file" in done.stderr


def test_a_file_that_comes_a_little_later_is_not_withheld(honest: list[bytes]) -> None:
    publish(Path("copy"), honest)
    seen: set[str] = set()

    def later(path: str, answer: Answer) -> Answer:
        is_first = path not in seen
        seen.add(path)
        return (404, {}, b"no") if is_first and path == tile_path("entries", 1, 256) else answer

    with serving(Path("copy"), later) as url:
        assert record(f"{url}/log")["Audit"] == "OK"


def as_pipe(path: Path) -> None:
    os.mkfifo(path)


def as_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def as_loop(path: Path) -> None:
    path.symlink_to(path.name)


def as_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize("kind", [as_pipe, as_device, as_loop, as_socket, Path.mkdir])
@pytest.mark.parametrize("name", ["checkpoint", tile_path("entries", 1, 256)])
def test_what_is_not_a_file_is_damage_and_waited_for_by_nobody(
    honest: list[bytes], kind: Callable[[Path], None], name: str
) -> None:
    publish(Path("copy"), honest)
    (Path("copy") / name).unlink()
    kind(Path("copy") / name)
    with pytest.raises(DamagedFile):
        audit_log(qed.Policy.load("policy"), FolderSource(Path("copy")))


def test_two_batches_as_one_are_found_with_a_receipt_from_between(honest: list[bytes], log: qed.Log) -> None:
    entries = [*honest]
    entries[0] = entries[0][:1] + b"\0" + entries[0][2:42]
    publish(Path("copy"), entries)
    assert record("copy")["code"] == 0
    Path("receipts.jsonl").write_bytes(bytes(log.snapshot(0).to_json()) + b"\n")
    found = record("copy", "--receipts", "receipts.jsonl")
    assert (found["code"], [finding["Kind"] for finding in found["Findings"]]) == (1, ["receipt-not-in-log"])


def receipt(world: World, first: int, end: int, last: int) -> dict[str, Any]:
    """Return the signed receipt of entries of a world whose batch ends at `last`."""

    with qed.Log() as log:
        log_of(log, *SIZES)
        found: list[dict[str, Any]] = [json.loads(log.snapshot(version).to_json()) for version in range(first, end)]
        hyper_digest = json.loads(log.snapshot(last).to_json())["HyperDigest"]

    made = world.receipt(0, 1)
    entries = [b64(entry) for entry in world.entries[first:end]]
    batch_end = {
        "Version": last,
        "Entry": b64(world.entries[last]),
        "Proof": world.proof(last, last + 1),
    }
    return made | {
        "First": first,
        "Entries": entries,
        "Proof": world.proof(first, end),
        "End": None if last == end - 1 else batch_end,
        "Snapshots": [snapshot | {"HyperDigest": hyper_digest} for snapshot in found],
        "Checkpoint": world.note(),
    }


def test_receipts_are_compared_with_the_log(honest: list[bytes]) -> None:
    publish(Path("copy"), honest)
    Path("given").mkdir()
    Path("given/one.json").write_text(json.dumps(receipt(World(entries=honest[:7]), 2, 4, 6)))
    Path("given/two.json").write_text(json.dumps(receipt(World(entries=honest), 6, 7, 6)))
    found = record("copy", "--receipts", "given")
    assert (found["Audit"], found["Receipts"], found["NewerReceipts"]) == ("OK", 2, 0)
    # A receipt that is newer than the published checkpoint is no fault.
    publish(Path("older"), honest[:7])
    found = record("older", "--receipts", "given")
    assert (found["Audit"], found["Receipts"], found["NewerReceipts"]) == ("OK", 1, 1)


def test_a_receipt_on_another_tree_is_a_fork_that_evidence_proves(honest: list[bytes]) -> None:
    other = [*honest]
    # The log gave this to a client: another event 3, at a size of its own and at the published one.
    other[3] = other[3][:10] + bytes(32)
    publish(Path("copy"), honest)
    for size, kind in ((7, "same-index"), (SIZE, "same-size")):
        made = receipt(World(entries=other[:size]), 2, 4, 6)
        made["Snapshots"][1]["EventDigest"] = b64(bytes(32))
        Path("receipt.json").write_text(json.dumps(made))
        found = record("copy", "--receipts", "receipt.json")
        [finding] = found["Findings"]
        assert (found["code"], found["Audit"], finding["Kind"]) == (1, "FORK", "fork")
        assert json.loads(Path(finding["Evidence"]).read_text())["Kind"] == kind
        assert convicts(finding["Evidence"])


def test_a_fork_away_from_the_receipt_is_a_suspicion(honest: list[bytes]) -> None:
    other = [*honest]
    other[0] = other[0][:-1] + bytes([other[0][-1] ^ 1])
    publish(Path("copy"), honest)
    Path("receipt.json").write_text(json.dumps(receipt(World(entries=other[:7]), 2, 4, 6)))
    [finding] = record("copy", "--receipts", "receipt.json")["Findings"]
    assert finding["Kind"] == "fork"
    assert Path(finding["Evidence"]).name.startswith("suspicion-")
    assert not convicts(finding["Evidence"])


def test_a_receipt_with_the_end_of_another_batch_is_found(honest: list[bytes]) -> None:
    publish(Path("copy"), honest)
    # Version 0 is a batch of its own only if entry 0 says so; 2 and 3 end at 6. The next batch ends at 306.
    made = receipt(World(entries=honest), 2, 4, 306)
    Path("receipt.json").write_text(json.dumps(made))
    found = record("copy", "--receipts", "receipt.json")
    [finding] = found["Findings"]
    assert (found["code"], finding["Kind"]) == (1, "receipt-not-in-log")
    assert "ends at 6" in finding["Text"]


def test_missing_and_old_cosignatures_are_inconclusive(honest: list[bytes]) -> None:
    world = World(entries=honest)
    publish(Path("copy"), honest, note=world.note(LOG.line(world.text), WITNESSES[0].line(world.text)))
    found = record("copy")
    assert (found["code"], found["Audit"], found["Findings"][0]["Kind"]) == (5, "Inconclusive", "unwitnessed")
    assert record("copy", policy="word")["code"] == 0
    trust = {"Format": "qed-trust-1", "Policy": policy_of(), "MaxAge": 3600}
    Path("recent").write_text(json.dumps(trust))
    publish(Path("copy"), honest)
    found = record("copy", policy="recent")
    assert (found["code"], found["Findings"][0]["Kind"]) == (5, "stale")


def test_what_is_not_signed_by_the_log_is_refused(honest: list[bytes]) -> None:
    for note in (World(entries=honest).note().replace("log.example.com/test\n", "log.example.com/other\n", 1), "x", ""):
        publish(Path("copy"), honest, note=note)
        done = audit("copy")
        assert done.returncode == 1
        assert "Verify: KO" in done.stdout
    assert audit("nowhere").returncode == 2
    assert audit("http://127.0.0.1:1").returncode == 3
    Path("empty").mkdir()
    assert audit("empty").returncode == 3


def test_a_hostile_server_is_damage_or_unreachable(honest: list[bytes]) -> None:
    publish(Path("copy"), honest)
    bomb = zipped((200, {}, bytes(50_000_000)))

    def damaged(kind: str) -> Callable[[str, Answer], Answer]:
        def change(path: str, answer: Answer) -> Answer:
            if "entries" not in path:
                return answer
            return {
                "bomb": bomb,
                "cut": (200, {"Content-Encoding": "gzip"}, zipped(answer)[2][:-5]),
                "brotli": (200, {"Content-Encoding": "br"}, answer[2]),
                "html": (200, {"Content-Type": "text/html"}, b"<html>please wait"),
                "elsewhere": (302, {"Location": "http://169.254.169.254/latest"}, b""),
                "loop": (302, {"Location": "/log/" + path}, b""),
                "refused": (403, {}, b"no"),
                "gone": (404, {}, b"no"),
                "down": (503, {"Retry-After": "0"}, b"later"),
            }[kind]

        return change

    codes = {}
    for kind in ("bomb", "cut", "brotli", "html", "elsewhere", "loop", "refused", "gone", "down"):
        with serving(Path("copy"), damaged(kind)) as url:
            codes[kind] = audit(f"{url}/log", "--timeout", "20").returncode
    assert codes == dict.fromkeys(("bomb", "cut", "brotli", "html", "elsewhere", "loop", "refused", "gone"), 1) | {
        "down": 3
    }


def test_an_error_that_passes_is_retried(honest: list[bytes]) -> None:
    publish(Path("copy"), honest)
    seen: set[str] = set()
    lock = threading.Lock()

    def first_fails(path: str, answer: Answer) -> Answer:
        with lock:
            is_first = path not in seen
            seen.add(path)
        if not is_first or not path.startswith("tile/"):
            return answer
        return (503, {}, b"later") if "entries" in path else (200, {}, answer[2][:-1])

    with serving(Path("copy"), first_fails) as url:
        assert record(f"{url}/log")["Audit"] == "OK"


def test_usage() -> None:
    assert run("audit", ".").returncode == 2
    Path("receipts").write_text("nothing\n")
    publish(Path("copy"), [])
    assert audit("copy", "--receipts", "receipts").returncode == 2
    assert audit("http://user@host/").returncode == 2
