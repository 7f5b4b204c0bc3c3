"""`qed membership --lines`: each line of a file, with the exit codes of single questions."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from commands import one_line, qed, values
from dishonesty import Faces, changed, log_of
from qed import Digest, Snapshot
from signing import policy_of
from test_dishonest_servers import write_receipts

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartServer

ROWS = [f"2026-11-{1 + number % 30:02} row {number}" for number in range(2500)]


def statement(path: Path, rows: list[str]) -> str:
    path.write_text("".join(f"{row}\n" for row in rows))
    return str(path)


def test_each_line_of_a_statement_is_proven_by_receipts(start_server: StartServer, tmp_path: Path) -> None:
    url, receipts = start_server(tmp_path / "data").url, str(tmp_path / "receipts.jsonl")
    rows = statement(tmp_path / "rows.csv", ROWS)
    assert qed("add", "--lines", rows, "--receipts", receipts, QED_ENDPOINTS=url).returncode == 0
    done = qed("membership", "--lines", rows, "--receipts", receipts, QED_ENDPOINTS=url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("Verify: OK\n")
    found = values(done.stdout)
    assert (found["Lines"], found["Present"], found["Absent"]) == ("2500", "2500", "0")
    assert (found["Version"], found["TrustedBy"]) == ("2499", "receipts")
    # The last line may lack its end; a line that was changed is named.
    changed_rows = [*ROWS[:1], "2026-11-02 row 1, changed", *ROWS[2:]]
    text = "\n".join(changed_rows).encode()
    done = qed("membership", "--lines", "-", "--receipts", receipts, stdin=text, QED_ENDPOINTS=url)
    assert done.returncode == 0, done.stderr
    assert "\nNot in the log:\n\n line 2: 2026-11-02 row 1, changed\n" in done.stdout
    done = qed("--json", "membership", "--lines", "-", "--receipts", receipts, stdin=text, QED_ENDPOINTS=url)
    digest = base64.b64encode(bytes(Digest.of(changed_rows[1].encode()))).decode()
    assert json.loads(done.stdout) == {
        "Lines": 2500,
        "Present": 2499,
        "Absent": [{"Line": 2, "KeyDigest": digest}],
        "CurrentVersion": 2499,
        "Verify": "OK",
        "TrustedBy": "receipts",
    }


def test_an_absence_beyond_the_receipts_is_the_server_s_word(tmp_path: Path) -> None:
    log = log_of(*(row.encode() for row in ROWS[:5]))
    receipts = write_receipts(tmp_path / "receipts.jsonl", log.snapshot(2))
    rows = statement(tmp_path / "rows.csv", [*ROWS[:5], "absent"])
    with Faces(log, name="the log") as faces:
        done = qed("membership", "--lines", rows, "--receipts", receipts, QED_ENDPOINTS=faces.url)
        present = qed(
            "membership",
            "--lines",
            "-",
            "--receipts",
            receipts,
            stdin=b"\n".join(r.encode() for r in ROWS[:5]),
            QED_ENDPOINTS=faces.url,
        )
    assert done.returncode == 5
    assert done.stdout.endswith("Consistent (the hyper digest of version 4 is the server's word)\n")
    assert present.returncode == 0
    assert present.stdout.endswith("Verify: OK\n")


def test_the_server_s_own_word_proves_nothing_and_is_accepted_by_name_only(tmp_path: Path) -> None:
    rows = statement(tmp_path / "rows.csv", ROWS[:3])
    with Faces(log_of(*(row.encode() for row in ROWS[:3]))) as faces:
        done = qed("membership", "--lines", rows, "--trust-server", QED_ENDPOINTS=faces.url)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "Consistent (nothing trusted)")
        done = qed("membership", "--lines", rows, QED_ENDPOINTS=faces.url)
        assert done.returncode == 2
        assert "--lines needs --receipts, --policy, trusted digests or --trust-server" in one_line(done.stderr)


def test_trusted_digests_of_the_last_version_prove_lines(tmp_path: Path) -> None:
    log = log_of(*(row.encode() for row in ROWS[:3]))
    last: Snapshot = log.snapshot(2)
    rows = statement(tmp_path / "rows.csv", ROWS[:3])
    roots = ["--hyper-digest", last.hyper_digest.hex(), "--current-version", "2"]
    roots += ["--history-digest", last.history_digest.hex(), "--query-version", "2"]
    with Faces(log) as faces:
        done = qed("membership", "--lines", rows, *roots, QED_ENDPOINTS=faces.url)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "Verify: OK")


@pytest.mark.parametrize("lie", [{"Ends": []}, {"History": base64.b64encode(bytes(32)).decode()}, {"Hyper": ""}])
def test_an_answer_that_proves_nothing_ends_with_1(tmp_path: Path, lie: dict[str, object]) -> None:
    log = log_of(*(row.encode() for row in ROWS[:3]))
    receipts = write_receipts(tmp_path / "receipts.jsonl", log.snapshot(2))
    rows = statement(tmp_path / "rows.csv", ROWS[:3])
    with Faces(log, name="the log") as faces:
        faces.lies["many"] = changed(**lie)
        done = qed("--json", "membership", "--lines", rows, "--receipts", receipts, QED_ENDPOINTS=faces.url)
    assert (done.returncode, json.loads(done.stdout)["Verify"]) == (1, "KO")


def test_a_log_that_was_rolled_back_is_stale(tmp_path: Path) -> None:
    log, behind = (log_of(*(row.encode() for row in ROWS[:count])) for count in (3, 2))
    receipts = write_receipts(tmp_path / "receipts.jsonl", log.snapshot(2))
    rows = statement(tmp_path / "rows.csv", ROWS[:3])
    with Faces(behind, name="the log") as faces:
        done = qed("membership", "--lines", rows, "--receipts", receipts, QED_ENDPOINTS=faces.url)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "Verify: STALE")


def test_lines_are_asked_for_alone_and_as_of_the_latest_version(tmp_path: Path) -> None:
    rows = statement(tmp_path / "rows.csv", ROWS[:3])
    for options in (["--event", "a"], ["--version", "0"], ["--out", "proof.json"], ["--show"], ["--verify"]):
        done = qed("membership", "--lines", rows, *options, QED_ENDPOINTS="http://127.0.0.1:1")
        assert done.returncode == 2, options
    done = qed("membership", "--lines", "-", "--trust-server", QED_ENDPOINTS="http://127.0.0.1:1")
    assert "expected at least one line, found none" in one_line(done.stderr)
    assert done.returncode == 2


def test_a_log_that_signs_nothing_does_not_meet_a_policy(tmp_path: Path) -> None:
    policy = tmp_path / "policy"
    policy.write_text(policy_of())
    rows = statement(tmp_path / "rows.csv", ROWS[:3])
    with Faces(log_of(*(row.encode() for row in ROWS[:3]))) as faces:
        done = qed("membership", "--lines", rows, "--policy", str(policy), QED_ENDPOINTS=faces.url)
    assert done.returncode not in {0, 1, 70}
    assert "Verify: OK" not in done.stdout
