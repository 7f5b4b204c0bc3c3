"""`kill -9` of both ends of a backup, and of a restoration, at random moments: the next attempt succeeds."""

from __future__ import annotations

import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

import qed as library
from commands import QED, environment, one_line, qed, read_lines
from harness.process import Server, run_to_exit
from harness.wait import LIMIT_S
from seeds import SEED, chance

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EVENTS = 200_000
KILLS = 6
MOMENTS = chance(SEED)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give a server that holds some parts of a backup."""
    folder = tmp_path_factory.mktemp("filled") / "data"
    with library.Log(folder) as log:
        for first in range(0, EVENTS, 10_000):
            log.add_bulk([b"%d" % number for number in range(first, first + 10_000)])
    server = Server("filled", folder)
    server.start()
    yield server
    server.forget()


def duration_s(*args: str) -> float:
    """Return how long a command takes that is not killed."""
    start_s = time.monotonic()
    assert qed(*args).returncode == 0
    return time.monotonic() - start_s


def kill_within(duration_s: float, *args: str) -> int:
    """Run a command and kill it at a random moment; return its exit code, 0 if it was done before."""
    process = subprocess.Popen(
        [QED, *args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(), start_new_session=True
    )
    try:
        return process.wait(MOMENTS.uniform(0, duration_s))
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait(LIMIT_S)


def test_a_killed_command_is_continued_by_the_next(server: Server, tmp_path: Path) -> None:
    create = ("--endpoints", server.url, "backup", "create", "--to")
    limit_s = duration_s(*create, str(tmp_path / "whole"))
    for attempt in range(KILLS):
        folder = tmp_path / str(attempt)
        kill_within(limit_s, *create, str(folder))
        assert qed(*create, str(folder)).returncode == 0
        # The kill can come just after the backup is whole.
        for record in read_lines(qed("backup", "list", str(folder), "--json").stdout):
            assert record["Events"] == EVENTS
            assert (folder / str(record["Id"])).stat().st_size == record["Bytes"]
        assert not list(folder.glob("*.part"))
    assert qed("backup", "verify", str(tmp_path / "0" / "1")).returncode == 0


def test_a_killed_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    args = ("--endpoints", server.url, "backup", "create", "--to", str(tmp_path))
    limit_s = duration_s(*args)
    qed("backup", "delete", str(tmp_path / "1"))
    process = subprocess.Popen([QED, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    time.sleep(MOMENTS.uniform(0, limit_s))
    server.kill()
    server.start()
    process.communicate(timeout=LIMIT_S)
    # It either had its last part, or found the server again; otherwise it has said how to go on.
    if process.returncode != 0:
        assert process.returncode == 3
        assert qed(*args).returncode == 0
    assert qed("backup", "verify", str(tmp_path / "1")).returncode == 0


def test_a_server_that_stays_away_is_one_line_that_says_how_to_go_on(server: Server, tmp_path: Path) -> None:
    args = ("--endpoints", server.url, "backup", "create", "--to", str(tmp_path))
    assert qed(*args).returncode == 0
    whole = (tmp_path / "1").read_bytes()
    (tmp_path / "1").rename(tmp_path / "1.part")
    (tmp_path / "1.part").write_bytes(whole[: len(whole) // 2])
    server.kill()
    refused = qed(*args)
    assert refused.returncode == 3
    one_line(refused.stderr)
    server.start()
    assert qed(*args).returncode == 0
    assert (tmp_path / "1").read_bytes()[: len(whole) // 2] == whole[: len(whole) // 2]


def test_a_killed_restoration_is_no_log_and_is_done_again(server: Server, tmp_path: Path) -> None:
    backup, whole = tmp_path / "backups" / "1", tmp_path / "whole"
    assert qed("--endpoints", server.url, "backup", "create", "--to", str(backup.parent)).returncode == 0
    limit_s = duration_s("restore", str(backup), "--data-dir", str(whole))
    for attempt in range(KILLS):
        folder = tmp_path / str(attempt)
        restore = ("restore", str(backup), "--data-dir", str(folder))
        if kill_within(limit_s, *restore) == 0:
            continue
        if (folder / "FORMAT").exists() and "being restored" in (folder / "FORMAT").read_text():
            refused = run_to_exit(folder)
            assert refused.returncode == 1
            assert "was not completely restored: run qed restore again" in refused.stderr
            assert "run qed restore again" in one_line(qed("check", str(folder)).stderr)
        again = qed(*restore)
        # The kill can come just after the folder is whole.
        assert again.returncode == 0 or "is not empty" in one_line(again.stderr)
        assert qed("check", str(folder)).returncode == 0


def test_what_a_killed_restoration_leaves_is_refused_and_filled_again(server: Server, tmp_path: Path) -> None:
    backup, folder = tmp_path / "backups" / "1", tmp_path / "data"
    assert qed("--endpoints", server.url, "backup", "create", "--to", str(backup.parent)).returncode == 0
    for text in ("qed log, being restored\n", ""):
        (folder / "store").mkdir(parents=True)
        (folder / "store" / "half").write_bytes(b"half a file")
        (folder / "FORMAT").write_text(text)
        assert run_to_exit(folder).returncode == 1
        assert qed("check", str(folder)).returncode in {1, 2}
        assert qed("restore", str(backup), "--data-dir", str(folder)).returncode == 0
        assert qed("check", str(folder)).returncode == 0
        shutil.rmtree(folder)
