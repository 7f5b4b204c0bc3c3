"""`qed` queries, shows and verifies: real commands against a real server that holds "event 0" to "event 3"."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from adversary import Adversary, http
from commands import QED, environment, hex_of, one_line, qed, qed_on_terminal, read_lines, values

if TYPE_CHECKING:
    from harness.process import Server

OPERATIONS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors" / "qed-rc2-basic.json").read_text())
RECORDED = [operation["snapshot"] for operation in OPERATIONS if operation["op"] == "add"][:4]
EVENT_0, ABSENT = hashlib.sha256(b"event 0").hexdigest(), hashlib.sha256(b"absent").hexdigest()


@dataclass(frozen=True)
class Filled:
    """A server that holds four events, and the receipts for them."""

    url: str
    receipts: str
    stdout: tuple[str, ...]

    def __call__(self, *args: str) -> subprocess.CompletedProcess[str]:
        return qed(*args, QED_ENDPOINTS=self.url)


@pytest.fixture(scope="module")
def filled(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Filled:
    receipts = str(tmp_path_factory.mktemp("receipts") / "receipts.jsonl")
    done = [
        qed("add", "--event", f"event {number}", "--receipts", receipts, QED_ENDPOINTS=server.url)
        for number in range(4)
    ]
    assert [process.returncode for process in done] == [0] * 4
    return Filled(server.url, receipts, tuple(process.stdout for process in done))


def lying_receipts(path: Path, version: int, name: str) -> str:
    """Write the recorded snapshots with one digest of one of them replaced."""
    lines = [
        snapshot | ({name: RECORDED[0]["EventDigest"]} if snapshot["Version"] == version else {})
        for snapshot in RECORDED
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_add_shows_the_recorded_snapshots(filled: Filled) -> None:
    for snapshot, stdout in zip(RECORDED, filled.stdout, strict=True):
        assert stdout.splitlines() == [
            "Received snapshot with values:",
            "",
            f" EventDigest: {hex_of(snapshot['EventDigest'])}",
            f" HistoryDigest: {hex_of(snapshot['HistoryDigest'])}",
            f" HyperDigest: {hex_of(snapshot['HyperDigest'])}",
            f" Version: {snapshot['Version']}",
            "",
        ]


def test_receipts_are_the_recorded_snapshots(filled: Filled) -> None:
    header, *lines = read_lines(Path(filled.receipts).read_text())
    (info,) = read_lines(filled("info", "--json").stdout)
    assert header == {"Format": "qed-receipts-1", "Log": info["Info"]["log"]}
    assert lines == [{**snapshot, "Linked": True} for snapshot in RECORDED]


def test_a_membership_verifies_with_receipts(filled: Filled) -> None:
    done = filled("membership", "--event", "event 0", "--receipts", filled.receipts)
    assert done.stdout.splitlines() == [
        "Querying key [ event 0 ] with latest version",
        "",
        "Received membership proof:",
        "",
        " Exists: true",
        " CurrentVersion: 3",
        " QueryVersion: 3",
        " ActualVersion: 0",
        f" KeyDigest: {EVENT_0}",
        "",
        "Verifying event with:",
        "",
        f" EventDigest: {EVENT_0}",
        f" HyperDigest: {hex_of(RECORDED[3]['HyperDigest'])}",
        f" HistoryDigest: {hex_of(RECORDED[3]['HistoryDigest'])}",
        " Version: 3",
        "",
        "Verify: OK",
    ]
    assert (done.returncode, done.stderr) == (0, "")


def test_an_absence_verifies_with_receipts(filled: Filled) -> None:
    done = filled("membership", "--event", "absent", "--receipts", filled.receipts)
    assert done.stdout.endswith("Verify: OK\n")
    assert values(done.stdout)["Exists"] == "false"
    assert values(done.stdout)["KeyDigest"] == ABSENT
    assert done.returncode == 0


def test_an_event_can_be_named_by_text_bytes_and_digest(filled: Filled, tmp_path: Path) -> None:
    file = tmp_path / "event"
    file.write_bytes(b"event 2")
    digest = hashlib.sha256(b"event 2").hexdigest()
    for named in (("--event", "event 2"), ("--file", str(file)), ("--event-digest", digest)):
        done = filled("membership", *named, "--receipts", filled.receipts, "--json")
        (answer,) = read_lines(done.stdout)
        assert (answer["ActualVersion"], answer["Verify"], done.returncode) == (2, "OK", 0)


def test_an_older_version_verifies_with_its_own_history_digest(filled: Filled) -> None:
    given = (
        *("--history-digest", hex_of(RECORDED[2]["HistoryDigest"]), "--query-version", "2"),
        *("--hyper-digest", hex_of(RECORDED[3]["HyperDigest"]), "--current-version", "3"),
    )
    done = filled("membership", "--event", "event 1", "--version", "2", *given)
    assert values(done.stdout)["QueryVersion"] == "2"
    assert done.stdout.endswith("Verify: OK\n")
    assert done.returncode == 0


def test_a_version_beyond_the_log_is_the_latest_and_verifies_nothing(filled: Filled) -> None:
    question = ("membership", "--event", "event 1", "--version", "4000")
    done = filled(*question)
    assert (values(done.stdout)["QueryVersion"], done.returncode) == ("3", 0)
    done = filled(*question, "--receipts", filled.receipts)
    assert (done.stdout.endswith("Verify: STALE\n"), done.returncode) == (True, 1)


def test_a_later_event_is_refused_and_not_called_absent(filled: Filled) -> None:
    done = filled("membership", "--event", "event 3", "--version", "1")
    assert "Exists" not in done.stdout
    assert "3" in one_line(done.stderr)
    assert done.returncode == 4


@pytest.mark.parametrize("wrong", ["--hyper-digest", "--history-digest"])
def test_a_wrong_digest_fails_the_verification(filled: Filled, wrong: str) -> None:
    right = {"--hyper-digest": RECORDED[3]["HyperDigest"], "--history-digest": RECORDED[3]["HistoryDigest"]}
    given = [part for name, digest in right.items() for part in (name, "00" * 32 if name == wrong else hex_of(digest))]
    given += ["--current-version", "3", "--query-version", "3"]
    done = filled("membership", "--event", "event 0", *given)
    assert "Verify: KO\n" in done.stdout
    assert "Verify: OK" not in done.stdout
    assert "0000000000" in one_line(done.stderr)
    assert done.returncode == 1


@pytest.mark.parametrize("name", ["HyperDigest", "HistoryDigest"])
def test_other_receipts_fail_the_verification(filled: Filled, tmp_path: Path, name: str) -> None:
    receipts = lying_receipts(tmp_path / "receipts.jsonl", 3, name)
    done = filled("membership", "--event", "event 0", "--receipts", receipts, "--json")
    (answer,) = read_lines(done.stdout)
    assert (answer["Verify"], answer["TrustedBy"], done.returncode) == ("FORK", "receipts", 1)
    assert one_line(done.stderr).startswith(answer["Reason"])
    assert len(read_lines(Path(answer["Fork"]).read_text())) == 2


def test_what_lies_beyond_the_receipts_is_tied_to_them(filled: Filled, tmp_path: Path) -> None:
    receipts = tmp_path / "receipts.jsonl"
    receipts.write_text("".join(json.dumps(snapshot) + "\n" for snapshot in RECORDED[:3]))
    done = filled("membership", "--event", "event 0", "--receipts", str(receipts))
    assert (done.stdout.endswith("Verify: OK\n"), done.returncode) == (True, 0)
    done = filled("incremental", "--start", "0", "--end", "3", "--receipts", str(receipts))
    assert (done.stdout.endswith("Verify: OK\n"), done.returncode) == (True, 0)
    # No proof links a hyper digest to an older one, so an absence there rests on the server's word alone.
    done = filled("membership", "--event", "absent", "--receipts", str(receipts))
    assert done.stdout.endswith("Consistent (the hyper digest of version 3 is the server's word)\n")
    assert done.returncode == 5


def test_receipts_of_the_earlier_format_are_linked_at_their_first_use(filled: Filled, tmp_path: Path) -> None:
    receipts = tmp_path / "receipts.jsonl"
    receipts.write_text("".join(json.dumps(snapshot) + "\n" for snapshot in RECORDED))
    done = filled("membership", "--event", "event 0", "--receipts", str(receipts))
    assert done.returncode == 0, done.stderr
    assert read_lines(receipts.read_text()) == read_lines(Path(filled.receipts).read_text())


def test_verify_without_anything_trusted_is_wrong_usage(filled: Filled) -> None:
    for command in (("membership", "--event", "event 0"), ("incremental", "--start", "0", "--end", "3")):
        done = filled(*command, "--verify")
        assert "Verify" not in done.stdout
        assert "--receipts" in one_line(done.stderr)
        assert done.returncode == 2


def test_trusting_the_server_is_said_aloud(filled: Filled) -> None:
    done = filled("membership", "--event", "event 0", "--verify", "--trust-server")
    assert done.stdout.endswith("Consistent (nothing trusted)\n")
    assert "Verify: OK" not in done.stdout
    assert (done.stderr, done.returncode) == ("", 0)


def test_digests_are_asked_for_on_a_terminal(filled: Filled) -> None:
    typed = ["nonsense", hex_of(RECORDED[3]["HyperDigest"]), hex_of(RECORDED[3]["HistoryDigest"])]
    code, screen = qed_on_terminal(
        "membership", "--event", "event 0", "--verify", typed=typed, QED_ENDPOINTS=filled.url, NO_COLOR="1"
    )
    assert "hyperDigest for current version [ 3 ]" in screen
    assert "expected 64 hex digits, found 8 characters" in screen
    assert "historyDigest for version [ 3 ]" in screen
    assert screen.endswith("Verify: OK\n")
    assert code == 0


def test_ending_the_input_instead_of_answering_ends_the_command(filled: Filled) -> None:
    code, screen = qed_on_terminal(
        "incremental", "--start", "0", "--end", "3", "--verify", typed=["\x04"], QED_ENDPOINTS=filled.url
    )
    assert "nothing was verified" in screen
    assert code == 2


def test_an_incremental_proof_verifies_with_receipts(filled: Filled) -> None:
    done = filled("incremental", "--start", "1", "--end", "3", "--receipts", filled.receipts)
    assert done.stdout.splitlines() == [
        "Querying incremental between versions [ 1 ] and [ 3 ]",
        "",
        "Received incremental proof:",
        "",
        " Start version: 1",
        " End version: 3",
        "",
        "Verifying with snapshots:",
        "",
        " Version: 1",
        f" HistoryDigest: {hex_of(RECORDED[1]['HistoryDigest'])}",
        " Version: 3",
        f" HistoryDigest: {hex_of(RECORDED[3]['HistoryDigest'])}",
        "",
        "Verify: OK",
    ]
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("wrong", ["--start-digest", "--end-digest"])
def test_a_wrong_end_of_the_range_fails_the_verification(filled: Filled, wrong: str) -> None:
    right = {"--start-digest": RECORDED[0]["HistoryDigest"], "--end-digest": RECORDED[3]["HistoryDigest"]}
    given = [part for name, digest in right.items() for part in (name, "00" * 32 if name == wrong else hex_of(digest))]
    done = filled("incremental", "--start", "0", "--end", "3", *given)
    assert "Verify: KO\n" in done.stdout
    assert done.returncode == 1


def test_ranges_upside_down_or_beyond_the_log_are_refused(filled: Filled) -> None:
    for start, end in (("3", "0"), ("0", "400")):
        done = filled("incremental", "--start", start, "--end", end)
        one_line(done.stderr)
        assert done.returncode == 4


def test_a_past_snapshot_is_its_receipt(filled: Filled) -> None:
    done = filled("snapshot", "--version", "2", "--json")
    assert (read_lines(done.stdout), done.returncode) == ([RECORDED[2]], 0)
    assert values(filled("snapshot", "--version", "2").stdout)["HyperDigest"] == hex_of(RECORDED[2]["HyperDigest"])


def test_a_snapshot_beyond_the_log_is_refused(filled: Filled) -> None:
    done = filled("snapshot", "--version", "4")
    one_line(done.stderr)
    assert (done.stdout, done.returncode) == ("", 4)


def test_info_shows_the_server_and_its_members(filled: Filled) -> None:
    (record,) = read_lines(filled("info", "--json").stdout)
    assert (record["Info"]["events"], record["Info"]["current_version"]) == (4, 3)
    assert record["Shards"]["shards"]
    shown = filled("info")
    assert values(shown.stdout)["Events"] == "4"
    assert record["Info"]["node_id"] in shown.stdout
    assert "leader" in shown.stdout


def test_the_next_endpoint_is_tried_when_one_is_down(filled: Filled) -> None:
    done = qed("--endpoints", f"http://127.0.0.1:1,{filled.url}", "info", "--json")
    assert done.returncode == 0


def test_no_server_at_all_is_an_exit_code_of_its_own() -> None:
    done = qed("--endpoints", "http://127.0.0.1:1", "--endpoints", "http://127.0.0.1:2", "info")
    line = one_line(done.stderr)
    assert "http://127.0.0.1:1" in line
    assert "http://127.0.0.1:2" in line
    assert done.returncode == 3


def test_global_options_stand_on_either_side_and_the_nearest_wins(filled: Filled) -> None:
    dead = "http://127.0.0.1:1"
    assert qed("--endpoints", filled.url, "--json", "info").returncode == 0
    assert qed("info", "--endpoints", filled.url, "--json").returncode == 0
    assert qed("--endpoints", dead, "info", "--endpoints", filled.url).returncode == 0
    assert qed("--endpoints", filled.url, "info", QED_ENDPOINTS=dead).returncode == 0
    assert qed("info", QED_ENDPOINTS=f"{dead},{filled.url}", QED_JSON="1").stdout.startswith("{")


def test_proofs_are_drawn_in_80_columns_with_no_digest_cut(filled: Filled) -> None:
    shown = [
        filled("membership", "--event", "event 0", "--receipts", filled.receipts, "--show"),
        filled("membership", "--event", "absent", "--receipts", filled.receipts, "--show"),
        filled("incremental", "--start", "0", "--end", "3", "--receipts", filled.receipts, "--show"),
        filled("info"),
    ]
    for done in shown:
        assert max(len(line) for line in done.stdout.splitlines()) <= 80
    for done in shown[:3]:
        assert "└── " in done.stdout
    assert shown[0].stdout.count("  right  ") + shown[0].stdout.count("  left   ") >= 24
    assert shown[0].stdout.count(EVENT_0) == 2
    assert "2|1" in shown[0].stdout


@pytest.mark.parametrize("columns", ["20", "79"])
def test_a_narrow_terminal_cuts_no_digest(filled: Filled, columns: str) -> None:
    _, screen = qed_on_terminal("snapshot", "--version", "3", QED_ENDPOINTS=filled.url, COLUMNS=columns, NO_COLOR="1")
    assert f" HistoryDigest: {hex_of(RECORDED[3]['HistoryDigest'])}\n" in screen


def test_colours_appear_on_a_terminal_only_and_can_be_refused(filled: Filled) -> None:
    command = ("membership", "--event", "event 0", "--receipts", filled.receipts, "--show")
    assert "\x1b[" in qed_on_terminal(*command, QED_ENDPOINTS=filled.url)[1]
    assert "\x1b[3" not in qed_on_terminal(*command, "--no-color", QED_ENDPOINTS=filled.url)[1]
    assert "\x1b[3" not in qed_on_terminal(*command, QED_ENDPOINTS=filled.url, NO_COLOR="1")[1]
    assert "\x1b" not in filled(*command).stdout


def test_an_event_cannot_write_on_the_terminal(filled: Filled) -> None:
    done = filled("membership", "--event", "\x1b[2J[red]x\n Exists: true")
    assert done.stdout.startswith(r"Querying key [ \x1b[2J[red]x\n Exists: true ] with")
    assert values(done.stdout)["Exists"] == "false"


def test_an_event_is_the_very_bytes_of_the_argument(filled: Filled) -> None:
    done = qed("membership", "--json", "--event", b"caf\xe9", QED_ENDPOINTS=filled.url)
    (answer,) = read_lines(done.stdout)
    assert hex_of(answer["KeyDigest"]) == hashlib.sha256(b"caf\xe9").hexdigest()


def test_an_answer_that_is_not_verified_says_nothing_of_verification(filled: Filled) -> None:
    assert "Verify" not in filled("membership", "--event", "event 0").stdout
    assert "Verify" not in filled("membership", "--event", "event 0", "--json").stdout


def test_sources_of_trust_exclude_each_other(filled: Filled) -> None:
    done = filled("membership", "--event", "event 0", "--receipts", filled.receipts, "--trust-server")
    assert done.returncode == 2


def test_logs_go_to_stderr(filled: Filled) -> None:
    done = filled("info", "--json", "--log", "debug")
    assert " DEBUG " in done.stderr
    assert len(read_lines(done.stdout)) == 1


def test_the_bundle_of_an_answer_that_fails_is_kept_as_evidence(filled: Filled, tmp_path: Path) -> None:
    receipts = lying_receipts(tmp_path / "receipts.jsonl", 3, "HyperDigest")
    out = tmp_path / "proof.json"
    done = filled("membership", "--event", "event 0", "--receipts", receipts, "--out", str(out))
    assert done.returncode == 1
    assert qed("verify", str(out), "--receipts", filled.receipts).returncode == 1
    shutil.copy(filled.receipts, receipts)
    assert filled("membership", "--event", "event 0", "--receipts", receipts, "--out", str(out)).returncode == 0
    assert qed("verify", str(out), "--receipts", filled.receipts).returncode == 0


@pytest.mark.parametrize(
    "command", [("membership", "--event", "event 0"), ("incremental", "--start", "0", "--end", "3")]
)
def test_receipts_that_contradict_themselves_end_in_a_verdict(
    filled: Filled, tmp_path: Path, command: tuple[str, ...]
) -> None:
    receipts = Path(lying_receipts(tmp_path / "receipts.jsonl", 3, "HyperDigest"))
    receipts.write_text(receipts.read_text() + Path(filled.receipts).read_text())
    done = filled(*command, "--receipts", str(receipts))
    assert "two different snapshots of version 3" in one_line(done.stderr)
    assert (done.stdout.endswith("Verify: FORK\n"), done.returncode) == (True, 1)


def test_a_server_that_lies_about_its_snapshots_ends_in_a_verdict(filled: Filled) -> None:
    answer = filled("membership", "--event", "event 0", "--json").stdout.encode()
    with Adversary(http(200, answer), http(200, RECORDED[2])) as server:
        done = qed("membership", "--event", "event 0", "--trust-server", QED_ENDPOINTS=server.url)
    assert "a snapshot of another version" in done.stderr
    assert (done.stdout.endswith("Verify: KO\n"), done.returncode) == (True, 1)


def test_an_answer_that_cannot_be_saved_is_verified_all_the_same(filled: Filled, tmp_path: Path) -> None:
    command = ("membership", "--event", "event 0")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for out in (str(tmp_path / "missing" / "proof.json"), "/dev/full", str(loop)):
        done = filled(*command, "--receipts", filled.receipts, "--out", out)
        assert one_line(done.stderr).startswith(f"{out}: ")
        assert (done.stdout.endswith("Verify: OK\n"), done.returncode) == (True, 2)
        receipts = lying_receipts(tmp_path / "receipts.jsonl", 3, "HyperDigest")
        done = filled(*command, "--receipts", receipts, "--out", out)
        assert re.search(f"; the answer was not saved: .*{re.escape(out)}", one_line(done.stderr))
        assert (done.stdout.endswith("Verify: FORK\n"), done.returncode) == (True, 1)


def test_a_bundle_that_is_written_again_keeps_its_mode_and_the_link_to_it(filled: Filled, tmp_path: Path) -> None:
    kept, link = tmp_path / "kept.json", tmp_path / "link.json"
    kept.write_text("the one before")
    kept.chmod(0o600)
    link.symlink_to(kept)
    done = filled("membership", "--event", "event 0", "--receipts", filled.receipts, "--out", str(link))
    assert done.returncode == 0, done.stderr
    assert (link.is_symlink(), kept.stat().st_mode & 0o777) == (True, 0o600)
    assert kept.read_text().startswith("{")


def test_a_bundle_that_cannot_be_written_whole_leaves_the_one_before(filled: Filled, tmp_path: Path) -> None:
    out = tmp_path / "proof.json"
    out.write_text("the one before")
    command = f"ulimit -f 0; exec '{QED}' membership --event 'event 0' --out '{out}'"
    done = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, env=environment(QED_ENDPOINTS=filled.url), check=False
    )
    assert one_line(done.stderr.decode()).startswith(f"{out}: ")
    assert (done.returncode, out.read_text(), list(tmp_path.iterdir())) == (2, "the one before", [out])


def test_a_byte_that_is_no_text_is_asked_again(filled: Filled) -> None:
    digests = [hex_of(RECORDED[3][name]) for name in ("HyperDigest", "HistoryDigest")]
    typed = ["\udcff", *digests]
    code, screen = qed_on_terminal(
        "membership", "--event", "event 0", "--verify", typed=typed, QED_ENDPOINTS=filled.url, NO_COLOR="1"
    )
    assert "expected 64 hex digits" in screen
    assert ("Verify: OK" in screen, code) == (True, 0)
