"""Backups from the command line: made while events are added, checked, restored, and what clients see afterwards."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest

import qed as library
from commands import QED, environment, one_line, qed, qed_with_bar, read_lines, values
from documents import ROOT
from harness.cluster import new_cluster
from harness.process import Server, start_process
from harness.small_disk import small_disk
from harness.wait import LIMIT_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import StartServer

EVENTS = 3000


def at(server: Server) -> tuple[str, str]:
    return ("--endpoints", server.url)


def add(server: Server, events: list[str], *extra: str) -> None:
    done = qed(*at(server), "add", "--lines", "-", *extra, stdin="".join(f"{event}\n" for event in events).encode())
    assert done.returncode == 0, done.stderr


def create(server: Server, folder: Path, *extra: str) -> dict[str, object]:
    done = qed(*at(server), "backup", "create", "--to", str(folder), "--json", *extra)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    (record,) = read_lines(done.stdout)
    return record


@pytest.fixture(scope="module")
def filled(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Server:
    server = start_server(tmp_path_factory.mktemp("filled") / "data")
    add(server, [f"event {number % (EVENTS - 10)}" for number in range(EVENTS)])
    return server


@pytest.fixture(scope="module")
def made(filled: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "backups"
    assert create(filled, folder)["Id"] == 1
    return folder


@pytest.fixture
def backups(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "backups")


def test_a_backup_is_made_checked_and_shown(filled: Server, backups: Path) -> None:
    with library.Client(filled.url) as client:
        last = client.snapshot(EVENTS - 1)
        log = client.info().log
    for done in (qed("backup", "verify", str(backups / "1")), qed("backup", "show", str(backups / "1"))):
        shown = values(done.stdout)
        assert (done.returncode, shown["Events"], shown["Log"]) == (0, str(EVENTS), log)
        assert (shown["HistoryDigest"], shown["HyperDigest"]) == (last.history_digest.hex(), last.hyper_digest.hex())
    assert qed("backup", "verify", str(backups / "1")).stdout.endswith("\nCheck: OK\n")
    (record,) = read_lines(qed("backup", "list", str(backups), "--json").stdout)
    assert (record["Id"], record["Events"], record["Base"]) == (1, EVENTS, None)
    assert (backups / "1").stat().st_mode & 0o777 == 0o600


def test_a_restored_log_has_everything_under_a_new_name(filled: Server, backups: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    done = qed("restore", str(backups / "1"), "--data-dir", str(data))
    shown = values(done.stdout)
    assert (done.returncode, shown["Events"], shown["OldLog"]) == (0, str(EVENTS), filled.info().log)
    assert f"from version {EVENTS} on, is not in it" in one_line(done.stderr)
    assert qed("check", str(data)).stdout.endswith("Check: OK\n")
    restored = start_process(data)
    try:
        info = restored.info()
        assert (info.events, info.log, info.continues) == (EVENTS, shown["NewLog"], [filled.info().log])
        assert info.log != filled.info().log
        with library.Client(filled.url) as old, library.Client(restored.url) as new:
            for version in (0, 1234, EVENTS - 1):
                assert old.snapshot(version) == new.snapshot(version)
            assert new.add(b"after").version == EVENTS
    finally:
        restored.forget()


@pytest.mark.parametrize("delay_s", [0.2, 0.4, 0.5, 0.6, 0.7, 0.8])
def test_what_an_interrupted_restore_says_is_true(backups: Path, tmp_path: Path, delay_s: float) -> None:
    data = tmp_path / "data"
    command = [QED, "restore", str(backups / "1"), "--data-dir", str(data)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(delay_s)
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate(timeout=60)
    if "NewLog" in stdout:
        assert qed("check", str(data)).returncode == 0
    else:
        assert running.returncode in {130, -signal.SIGINT}
        assert "qed: interrupted" in stderr
        # Nothing is left that would be in the way.
        assert qed("restore", str(backups / "1"), "--data-dir", str(data)).returncode == 0


def test_a_backup_since_another_has_only_what_is_new(start_server: StartServer, tmp_path: Path) -> None:
    server, folder = start_server(tmp_path / "data"), tmp_path / "backups"
    add(server, ["one"] * 2)
    whole = create(server, folder)
    add(server, ["two", "one"])
    rest = create(server, folder, "--since", "1")
    assert (rest["Id"], rest["Events"], rest["StartEvents"], rest["Base"]) == (2, 4, 2, whole["Identity"])
    nothing = create(server, folder, "--since", "2")
    assert (nothing["Events"], nothing["StartEvents"]) == (4, 4)
    assert qed("backup", "verify", str(folder / "3")).returncode == 0
    refused = qed("backup", "delete", str(folder / "1"))
    assert (refused.returncode, one_line(refused.stderr)) == (2, "backup 1 is needed by backup 2: delete that first")
    done = qed("restore", str(folder / "3"), "--data-dir", str(tmp_path / "restored"), "--json")
    assert read_lines(done.stdout)[0]["Events"] == 4
    assert qed("check", str(tmp_path / "restored")).returncode == 0
    (folder / "1").rename(tmp_path / "1")
    for args in (
        ("backup", "verify", str(folder / "2")),
        ("restore", str(folder / "2"), "--data-dir", str(tmp_path / "x")),
    ):
        done = qed(*args)
        assert done.returncode == 2
        assert "which is not in" in one_line(done.stderr)
    assert not (tmp_path / "x").exists()


def test_a_backup_since_another_has_acts_without_events(start_server: StartServer, tmp_path: Path) -> None:
    server, folder = start_server(tmp_path / "data"), tmp_path / "backups"
    add(server, ["one"])
    create(server, folder)
    made = qed(*at(server), "keys", "create", "--role", "operate", "--role", "append", "--role", "prove", "--json")
    key = read_lines(made.stdout)[0]["Key"]
    create(server, folder, "--since", "1", "--api-key", str(key))
    done = qed("restore", str(folder / "2"), "--data-dir", str(tmp_path / "restored"), "--json")
    assert done.returncode == 0, done.stderr
    restored = start_server(tmp_path / "restored")
    # Were the key not in the backup, the restored server would be open.
    assert qed(*at(restored), "add", "--event", "two").returncode == 4
    assert qed(*at(restored), "--api-key", str(key), "add", "--event", "two").returncode == 0


def test_a_backup_that_cannot_begin_leaves_nothing(start_server: StartServer, tmp_path: Path) -> None:
    server, folder = start_server(tmp_path / "data"), tmp_path / "backups"
    add(server, ["one"])
    create(server, folder)
    made = qed(*at(server), "keys", "create", "--role", "operate", "--json")
    admin = str(read_lines(made.stdout)[0]["Key"])
    made = qed(*at(server), "--api-key", admin, "keys", "create", "--role", "append", "--role", "prove", "--json")
    key = str(read_lines(made.stdout)[0]["Key"])
    # It may ask for the log, but for no part of a backup.
    done = qed(*at(server), "--api-key", key, "backup", "create", "--to", str(folder), "--since", "1")
    assert done.returncode == 4, done.stderr
    assert [path.name for path in folder.iterdir()] == ["1"]
    assert qed("backup", "delete", str(folder / "1")).returncode == 0


def test_a_backup_that_an_unfinished_one_may_need_is_not_deleted(backups: Path) -> None:
    (backups / "2.part").touch(mode=0o600)
    refused = qed("backup", "delete", str(backups / "1"))
    said = "the unfinished backup 2 may need backup 1: finish or delete that first"
    assert (refused.returncode, one_line(refused.stderr)) == (2, said)
    assert (backups / "1").exists()


def test_a_damaged_backup_does_not_hide_the_others(backups: Path) -> None:
    (backups / "2").write_bytes((backups / "1").read_bytes()[:-1])
    done = qed("backup", "list", str(backups), "--json")
    assert done.returncode == 1
    assert [record["Id"] for record in read_lines(done.stdout)] == [1]
    assert str(backups / "2") in one_line(done.stderr)


def test_a_folder_that_others_can_write_to_is_refused(filled: Server, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    done = qed(*at(filled), "backup", "create", "--to", str(shared))
    said = f"others can write to {shared}: chmod go-w {shared}, or use another folder"
    assert (done.returncode, one_line(done.stderr)) == (2, said)
    shared.chmod(0o700)
    (shared / "1.part").symlink_to(tmp_path / "elsewhere")
    done = qed(*at(filled), "backup", "create", "--to", str(shared))
    assert done.returncode == 2
    assert "is a link" in one_line(done.stderr)
    assert not (tmp_path / "elsewhere").exists()


def test_an_empty_log_can_be_backed_up(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path / "data")
    assert create(server, tmp_path / "backups")["Events"] == 0
    assert qed("backup", "verify", str(tmp_path / "backups" / "1")).returncode == 0
    assert qed("restore", str(tmp_path / "backups" / "1"), "--data-dir", str(tmp_path / "new")).returncode == 0
    restored = start_server(tmp_path / "new")
    assert restored.add(b"first").json()["Version"] == 0


def test_an_unfinished_backup_is_continued(filled: Server, backups: Path) -> None:
    whole = (backups / "1").read_bytes()
    (backups / "1").unlink()
    for length in (0, 10, 21, 200, len(whole) // 2, len(whole) - 1, len(whole)):
        (backups / "1.part").write_bytes(whole[:length])
        assert create(filled, backups)["Events"] == EVENTS
        assert qed("backup", "verify", str(backups / "1")).returncode == 0
        if length >= 200:
            assert (backups / "1").read_bytes()[:200] == whole[:200], "it was not begun again"
        assert not (backups / "1.part").exists()
        (backups / "1").unlink()


def test_a_flipped_byte_is_found_by_verify_and_by_restore(backups: Path, tmp_path: Path) -> None:
    path, data = backups / "1", tmp_path / "data"
    whole = path.read_bytes()
    for position in (0, 20, 21, 30, 150, len(whole) // 2, len(whole) - 40, len(whole) - 1):
        changed = bytearray(whole)
        changed[position] ^= 0x10
        path.write_bytes(changed)
        for args in (("backup", "verify", str(path)), ("restore", str(path), "--data-dir", str(data))):
            done = qed(*args)
            assert done.returncode in {1, 2}, (position, args)
            assert str(path) in one_line(done.stderr)
        assert not data.exists() or not list(data.iterdir())
    path.write_bytes(whole[:-50])
    verified = qed("backup", "verify", str(path), "--json")
    assert (verified.returncode, read_lines(verified.stdout)[0]["Check"]) == (1, "KO")
    assert "cut off" in one_line(verified.stderr)


BAD_FILES = {
    "newer": (b"qed backup, format 7\nwhatever", "it is a backup of format 7, this build knows format 1"),
    "other": (b"PK\x03\x04 something else", "it is not a backup"),
    "empty": (b"", "it is not a backup"),
}


@pytest.mark.parametrize("name", BAD_FILES)
@pytest.mark.parametrize("command", ["show", "verify", "restore"])
def test_what_is_no_backup_of_this_format_is_one_line(name: str, command: str, tmp_path: Path) -> None:
    content, expected = BAD_FILES[name]
    (tmp_path / "1").write_bytes(content)
    path, data = str(tmp_path / "1"), tmp_path / "data"
    done = qed("restore", path, "--data-dir", str(data)) if command == "restore" else qed("backup", command, path)
    assert done.returncode == 2
    assert expected in one_line(done.stderr)
    assert not data.exists()


@pytest.mark.parametrize("command", ["show", "verify", "restore", "list", "delete"])
def test_a_pipe_is_no_backup(command: str, backups: Path, tmp_path: Path) -> None:
    os.mkfifo(backups / "7")
    path = backups if command == "list" else backups / "7"
    args = ("restore", str(path), "--data-dir", str(tmp_path / "data")) if command == "restore" else ("backup", command)
    done = qed(*args, *([] if command == "restore" else [str(path)]))
    assert done.returncode == 2
    assert str(backups) in one_line(done.stderr)


def test_a_pipe_is_no_unfinished_backup(filled: Server, tmp_path: Path) -> None:
    (tmp_path / "to").mkdir(mode=0o700)
    os.mkfifo(tmp_path / "to" / "1.part")
    done = qed(*at(filled), "backup", "create", "--to", str(tmp_path / "to"))
    assert done.returncode == 2
    assert "expected a regular file" in one_line(done.stderr)


def test_a_server_passes_over_a_pipe_among_its_backups(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path / "data", "--backup-dir", str(tmp_path / "kept"))
    assert manage(server, "POST", "/backup").status_code == 200
    os.mkfifo(tmp_path / "kept" / "7")
    (kept,) = manage(server, "GET", "/backups").json()
    assert kept["ID"] == 1
    assert server.stop() == 0
    assert 'event="backup unreadable"' in server.stderr


def test_a_backup_is_restored_only_into_an_empty_folder(filled: Server, backups: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    for folder in (tmp_path / "mine", filled.folder):
        done = qed("restore", str(backups / "1"), "--data-dir", str(folder))
        assert (done.returncode, done.stdout) == (2, "")
        assert "is not empty: expected a folder that does not exist or is empty" in one_line(done.stderr)
    assert (tmp_path / "mine" / "file").read_text() == "mine"
    assert filled.add(b"still there").status_code == 201


def test_backups_of_another_log_do_not_mix(start_server: StartServer, backups: Path, tmp_path: Path) -> None:
    other = start_server(tmp_path / "other")
    add(other, ["another"])
    done = qed(*at(other), "backup", "create", "--to", str(backups), "--since", "1")
    assert done.returncode == 2
    assert "is of log" in one_line(done.stderr)
    (backups / "1").rename(backups / "2.part")
    done = qed(*at(other), "backup", "create", "--to", str(backups))
    assert done.returncode == 2
    assert "is unfinished and is of log" in one_line(done.stderr)
    assert qed("backup", "delete", str(backups / "2.part")).returncode == 0
    assert create(other, backups)["Id"] == 1


def test_an_unfinished_backup_is_not_confused_with_a_finished_one(backups: Path) -> None:
    done = qed("backup", "delete", str(backups / "1.part"))
    assert (done.returncode, (backups / "1").is_file()) == (2, True)
    assert "there is no unfinished backup 1" in one_line(done.stderr)


@pytest.fixture
def folder_too_small(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 64 KiB."""
    with small_disk(tmp_path / "small", "size=64k") as folder:
        yield folder


def test_a_full_disk_is_one_line_and_nothing_is_lost(filled: Server, backups: Path, folder_too_small: Path) -> None:
    done = qed(*at(filled), "backup", "create", "--to", str(folder_too_small))
    assert done.returncode == 2
    assert "No space left on device" in one_line(done.stderr)
    assert qed("backup", "delete", str(folder_too_small / "1.part")).returncode == 0
    done = qed("restore", str(backups / "1"), "--data-dir", str(folder_too_small))
    assert done.returncode == 2
    assert "No space left on device" in one_line(done.stderr)
    assert list(folder_too_small.iterdir()) == []
    assert qed("backup", "verify", str(backups / "1")).returncode == 0


# The calls of the management address.


def manage(server: Server, method: str, path: str) -> httpx.Response:
    return httpx.request(method, f"http://{server.info().mgmt_addr}{path}")


def test_a_server_keeps_backups_as_the_original_did(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path / "data", "--backup-dir", str(tmp_path / "kept"))
    assert manage(server, "GET", "/backups").json() == []
    add(server, ["one", "two"])
    created = manage(server, "POST", "/backup")
    assert created.status_code == 200
    (kept,) = manage(server, "GET", "/backups").json()
    assert kept == created.json()
    assert (kept["ID"], kept["NumFiles"], kept["Metadata"]) == (1, 1, "1")
    assert kept["Size"] == (tmp_path / "kept" / "1").stat().st_size
    assert manage(server, "POST", "/backup?since=1").json()["Base"] == kept["Identity"]
    assert manage(server, "DELETE", "/backup?backupID=1").status_code == 409
    assert [manage(server, "DELETE", f"/backup?backupID={number}").status_code for number in (2, 1, 1)] == [
        204,
        204,
        404,
    ]
    assert manage(server, "GET", "/backups").json() == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("DELETE", "/backup", 400),
        ("DELETE", "/backup?backupID=x", 400),
        ("DELETE", "/backup?backupID=4294967296", 400),
        ("DELETE", "/backup?backupID=1&backupID=2", 400),
        ("DELETE", "/backup?backupID=7", 404),
        ("POST", "/backup?since=7", 404),
        ("POST", "/backup?since=-1", 400),
        ("POST", "/backup?rate=0", 400),
        ("GET", "/backup", 405),
        ("POST", "/backups", 405),
        ("GET", "/backups/part?after=0011", 409),
        ("GET", "/backups/part?after=xyz", 400),
        ("GET", f"/backups/part?after={'ff' * 120}", 409),
        ("GET", f"/backups/part?since={'ff' * 120}", 409),
        ("GET", f"/backups/part?after={'00' * 120}&until=-1", 400),
        ("GET", "/backups/part?" + "a=1&" * 20, 400),
    ],
)
def test_bad_calls_are_refused(server: Server, method: str, path: str, status: int) -> None:
    answer = manage(server, method, path)
    assert answer.status_code == status, answer.text
    assert answer.json()["message"]
    if status == 405 and path == "/backup":
        assert answer.headers["allow"] == "DELETE, POST"
    assert manage(server, "GET", "/backups").status_code == 200


def test_a_server_that_cannot_write_its_backups_says_why(start_server: StartServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    server = start_server(tmp_path / "data", "--backup-dir", str(tmp_path / "file"))
    done = qed(*at(server), "backup", "create")
    assert done.returncode == 2
    assert str(tmp_path / "file") in one_line(done.stderr)


def test_the_server_s_own_backups_from_the_command_line(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path / "data")
    add(server, ["one"])
    made = read_lines(qed(*at(server), "backup", "create", "--json").stdout)
    assert made == read_lines(qed(*at(server), "backup", "list", "--json").stdout)
    path = tmp_path / "data" / "backups" / str(made[0]["Id"])
    assert qed("backup", "verify", str(path)).returncode == 0
    assert qed(*at(server), "backup", "delete", "1").stdout == "Deleted backup 1.\n"
    done = qed(*at(server), "backup", "delete", "1")
    assert (done.returncode, "there is no backup 1" in one_line(done.stderr)) == (2, True)


def test_another_member_continues_a_backup(tmp_path: Path) -> None:
    cluster = new_cluster(tmp_path, 3)
    cluster.start()
    try:
        first, second = cluster.followers()
        add(cluster.leader(), [f"event {number}" for number in range(2000)])
        cluster.wait_whole()
        record = create(first, tmp_path / "backups")
        whole = (tmp_path / "backups" / "1").read_bytes()
        (tmp_path / "backups" / "1").unlink()
        (tmp_path / "backups" / "1.part").write_bytes(whole[:400])
        first.kill()
        done = qed(
            "--endpoints", f"{first.url},{second.url}", "backup", "create", "--to", str(tmp_path / "backups"), "--json"
        )
        assert read_lines(done.stdout)[0]["Events"] == record["Events"] == 2000
        assert qed("backup", "verify", str(tmp_path / "backups" / "1")).returncode == 0
    finally:
        cluster.forget()


def test_a_backup_of_format_1_can_still_be_read(start_server: StartServer, tmp_path: Path) -> None:
    """Recorded with repeats, events added again, acts and a second backup since the first, on 2026-11-29."""
    recorded = ROOT / "tests" / "folders" / "backups-1"
    shown = values(qed("backup", "verify", str(recorded / "2")).stdout)
    assert shown["Identity"] == "9b2746a27b2679d25fc20658c3f61dd9d7179436e0712a7d77a206b0de818743"
    assert qed("restore", str(recorded / "2"), "--data-dir", str(tmp_path / "data")).returncode == 0
    checked = values(qed("check", str(tmp_path / "data")).stdout)
    assert checked["Events"] == "37"
    assert checked["HistoryDigest"] == "b8badb6bf15fa47d6b5a202445757644e60d78cbcd48ec4afebabceb36172833"
    assert checked["HyperDigest"] == "447309d266a7edfed2cd2b58f1441a43a49ccc04c90fa9a90a8368b064a35472"
    assert start_server(tmp_path / "data").events == 37


# How far a backup is.

MANY = 70_000
"""More than one part has: at most 65,536 events."""


@pytest.fixture(scope="module")
def large(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Server:
    server = start_server(tmp_path_factory.mktemp("large") / "data")
    with library.Client(server.url) as client:
        for start in range(0, MANY, 10_000):
            client.add_bulk([b"event %d" % number for number in range(start, start + 10_000)])
    return server


def test_a_running_backup_shows_how_far_it_is(large: Server) -> None:
    making = subprocess.Popen([QED, *at(large), "backup", "create", "--rate", "10000"], env=environment())
    try:
        wait_until(lambda: any("TotalEvents" in kept for kept in listed(large)), "a backup that is being made")
        wait_until(lambda: listed(large)[-1]["Events"] > 0 or making.poll() is not None, "its first part")
        running = listed(large)[-1]
        assert 0 < running["Events"] < MANY
        assert (running["TotalEvents"], running["Identity"]) == (MANY, "")
        number = str(running["ID"])
        refused = qed(*at(large), "backup", "delete", number)
        assert (refused.returncode, "is being made" in one_line(refused.stderr)) == (2, True)
        shown = qed(*at(large), "backup", "list").stdout
        assert f"0 of {MANY}" in shown
        (record,) = read_lines(qed(*at(large), "backup", "list", "--json").stdout)[-1:]
        assert record["Events"] < record["TotalEvents"] == MANY
        assert making.wait(LIMIT_S) == 0
    finally:
        making.kill()
        making.wait()
    kept = listed(large)[-1]
    assert (str(kept["ID"]), kept["Events"], "TotalEvents" in kept) == (number, MANY, False)
    assert qed(*at(large), "backup", "delete", number).returncode == 0


def listed(server: Server) -> list[dict[str, Any]]:
    """Return the backups of a server, without checks: a missing field is a KeyError."""
    return cast("list[dict[str, Any]]", manage(server, "GET", "/backups").json())


@pytest.mark.parametrize("is_here", [True, False], ids=["here", "on the server"])
def test_the_command_shows_how_far_a_backup_is(large: Server, tmp_path: Path, *, is_here: bool) -> None:
    create = ("backup", "create", "--rate", "30000", *(("--to", str(tmp_path / "backups")) if is_here else ()))
    code, stdout, screen = qed_with_bar(*at(large), *create, "--json")
    assert (code, len(read_lines(stdout))) == (0, 1)
    assert re.search("[1-6]0,000 events", screen)


def test_a_backup_away_from_a_terminal_prints_lines(large: Server) -> None:
    done = qed(*at(large), "backup", "create", "--rate", "30000", "--json")
    assert done.returncode == 0
    assert re.fullmatch(f"(qed: [1-6]0000 of {MANY} events\n)+", done.stderr)
