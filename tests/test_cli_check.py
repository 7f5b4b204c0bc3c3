"""`qed check`: an intact folder, a damaged one, one in use, and one that holds no log."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

import qed
from commands import hex_of, one_line, qed_on_terminal, read_lines, values
from commands import qed as run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EVENTS = 300


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "log"
    with qed.Log(folder) as log:
        for bulk in range(EVENTS // 10):
            log.add_bulk([b"%d.%d" % (bulk, i) for i in range(10)])
    # Opening replays the journal into tables.
    qed.Log(folder).close()
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "log")


def test_a_whole_folder_is_shown_with_its_last_roots(folder: Path) -> None:
    with qed.Log(folder) as log:
        last = log.snapshot(EVENTS - 1)
    done, for_programs = run("check", str(folder)), run("check", "--json", str(folder))
    shown = values(done.stdout)
    assert (done.returncode, done.stderr, shown["Events"]) == (0, "", str(EVENTS))
    assert (shown["HistoryDigest"], shown["HyperDigest"]) == (last.history_digest.hex(), last.hyper_digest.hex())
    assert done.stdout.endswith("\nCheck: OK\n")
    (record,) = read_lines(for_programs.stdout)
    assert (record["Check"], record["Events"]) == ("OK", EVENTS)
    assert hex_of(record["Snapshot"]["HyperDigest"]) == last.hyper_digest.hex()


def test_an_empty_log_is_whole(tmp_path: Path) -> None:
    qed.Log(tmp_path / "log").close()
    done = run("check", "--json", str(tmp_path / "log"))
    assert read_lines(done.stdout) == [{"Check": "OK", "Events": 0, "Snapshot": None}]


def test_on_a_terminal_a_bar_is_drawn(folder: Path) -> None:
    code, screen = qed_on_terminal("check", str(folder))
    assert code == 0
    assert "events" in screen
    assert "left:" in screen


def flip_manifest(folder: Path) -> None:
    for manifest in folder.glob("store/keyspaces/1/v*"):
        manifest.write_bytes(bytes([manifest.read_bytes()[0] ^ 1]) + manifest.read_bytes()[1:])


def lose_version(folder: Path) -> None:
    (folder / "store" / "version").unlink()


@pytest.mark.parametrize("damage", [flip_manifest, lose_version])
def test_a_damaged_folder_is_one_line_and_its_own_exit_code(folder: Path, damage: Callable[[Path], None]) -> None:
    damage(folder)
    done, for_programs = run("check", str(folder)), run("check", "--json", str(folder))
    assert (done.returncode, done.stdout) == (1, "Check: KO\n")
    assert "damaged" in one_line(done.stderr)
    (record,) = read_lines(for_programs.stdout)
    assert record == {"Check": "KO", "Reason": one_line(for_programs.stderr)}


def test_a_folder_in_use_is_refused(folder: Path) -> None:
    with qed.Log(folder):
        done = run("check", str(folder))
    assert (done.returncode, done.stdout) == (2, "")
    assert "in use" in one_line(done.stderr)


def test_what_is_no_data_folder_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    done = run("check", str(tmp_path))
    one_line(done.stderr)
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    assert run("check", str(tmp_path / "nothing")).returncode == 2


class Stopped(Exception):
    """Raised by a callback."""


def test_a_check_tells_how_far_it_is_and_can_be_stopped(folder: Path) -> None:
    told: list[int] = []

    def stop(events: int) -> None:
        raise Stopped(events)

    with qed.Log(folder) as log:
        log.check(progress=told.append)
        with pytest.raises(Stopped):
            log.check(progress=stop)
        log.check()
        assert log.add(b"more").version == EVENTS
    assert told[0] == 10
    assert told == sorted(told)
