"""`--high-water`: a note outside the data folder, so that a server does not start on an old copy of it."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from commands import qed
from harness.cluster import new_cluster
from harness.process import Server, run_to_exit
from harness.wait import wait_until
from qed.server.config import SettingsError
from qed.server.high_water import read_high_water

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server("lone", tmp_path / "data", extra=("--high-water", str(tmp_path / "note")))
    server.start()
    yield server
    server.forget()


def noted(tmp_path: Path) -> int:
    note = tmp_path / "note"
    return int(json.loads(note.read_bytes())["index"]) if note.exists() else 0


def only_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that a server printed which did not start."""
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    return line


def refusal(server: Server) -> str:
    return only_line(server.run_to_exit())


def test_an_old_copy_of_a_single_server_is_refused(server: Server, tmp_path: Path) -> None:
    assert server.add(b"one").status_code == 201
    assert server.stop() == 0
    copy = tmp_path / "copy"
    shutil.copytree(server.folder, copy)
    server.start()
    assert server.add(b"two").status_code == 201
    assert server.stop() == 0
    newer = server.folder.rename(tmp_path / "newer")
    shutil.copytree(copy, server.folder)
    assert "is an old copy" in refusal(server)
    assert "qed recover" in refusal(server)
    # The newer folder starts, and so does the old one as a new cluster.
    shutil.rmtree(server.folder)
    newer.rename(server.folder)
    server.start()
    assert server.count() == 2
    assert server.stop() == 0
    shutil.rmtree(server.folder)
    shutil.copytree(copy, server.folder)
    assert qed("recover", "--data-dir", str(server.folder)).returncode == 0
    assert "is not the folder of the high-water file" in refusal(server)
    (tmp_path / "note").unlink()
    server.start()
    assert server.count() == 1


def test_an_empty_folder_is_refused(server: Server) -> None:
    assert server.add(b"one").status_code == 201
    assert server.stop() == 0
    server.wipe()
    assert "is not the folder of the high-water file" in refusal(server)


def test_the_note_is_written_while_the_server_runs_and_a_kill_loses_nothing(server: Server, tmp_path: Path) -> None:
    wait_until(lambda: noted(tmp_path) > 0, "a first note")
    before = noted(tmp_path)
    assert server.add(b"one").status_code == 201
    wait_until(lambda: noted(tmp_path) > before, "the event in the note")
    server.kill()
    server.start()
    assert server.count() == 1


def test_an_old_copy_of_a_member_with_peers_starts_and_catches_up(tmp_path: Path) -> None:
    cluster = new_cluster(tmp_path, 3)
    cluster.start()
    try:
        member = cluster.follower()
        assert member.stop() == 0
        copy = tmp_path / "copy"
        shutil.copytree(member.folder, copy)
        member.extra = (*member.extra, "--high-water", str(tmp_path / "note"))
        member.start()
        assert cluster.leader().add(b"one").status_code == 201
        cluster.wait_whole()
        assert member.stop() == 0
        shutil.rmtree(member.folder)
        shutil.copytree(copy, member.folder)
        member.start()
        cluster.wait_whole()
        assert member.count() == 1
    finally:
        cluster.forget()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        '{"member": "0", "term": 1, "index": 1}',
        '{"member": "x", "term": 1, "index": 1}',
        '{"member": "1", "term": -1, "index": 1}',
        '{"member": "1", "term": 1, "index": 18446744073709551616}',
    ],
)
def test_what_is_no_note_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    note = tmp_path / "note"
    note.write_text(text)
    done = run_to_exit(tmp_path / "data", "--high-water", str(note))
    assert "expected a high-water note" in only_line(done)
    assert note.read_text() == text


def test_a_note_that_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "note")
    with pytest.raises(SettingsError, match="expected a regular file"):
        read_high_water(tmp_path / "note")
