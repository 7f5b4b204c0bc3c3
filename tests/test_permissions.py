"""Who may read and write a data folder: nobody but the user that the log runs as."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

import qed
from harness.process import run_to_exit, start_process
from qed.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_new_log_is_private_whatever_the_umask(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with umask(0), qed.Log(folder) as log:
        log.add(b"event")
    assert {path.name: oct(mode(path)) for path in (folder, folder / "store")} == {"data": "0o700", "store": "0o700"}
    assert mode(folder / "FORMAT") == mode(folder / "durable") == 0o600


@pytest.mark.parametrize("found", [0o755, 0o750, 0o711])
def test_old_folder_that_others_may_read_is_closed_to_them(tmp_path: Path, found: int) -> None:
    folder = tmp_path / "data"
    qed.Log(folder).close()
    folder.chmod(found)
    with qed.Log(folder) as log:
        assert log.add(b"event").version == 0
    assert mode(folder) == 0o700


@pytest.mark.parametrize("found", [0o775, 0o777, 0o722, 0o1777])
def test_folder_that_others_may_write_to_is_refused(
    tmp_path: Path, found: int, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    qed.Log(folder).close()
    folder.chmod(found)
    before = sorted(folder.rglob("*"))
    with pytest.raises(qed.LogError, match=rf"can be written by others \(mode {found:04o}\)"):
        qed.Log(folder)
    assert (mode(folder), sorted(folder.rglob("*"))) == (found, before)
    with pytest.raises(SystemExit):
        main(["check", str(folder)])
    [line] = capsys.readouterr().err.splitlines()
    assert "chmod go-w" in line


def test_server_keeps_all_its_files_to_itself(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with umask(0):
        server = start_process(folder)
    assert server.add(b"event").is_success
    paths = [folder, *folder.rglob("*")]
    server.forget()
    assert {"MEMBER", "FORMAT", "synced", "store"} <= {path.name for path in paths}
    assert {str(path): oct(mode(path)) for path in paths if path.exists() and mode(path) & 0o077} == {}


def test_server_refuses_a_folder_that_others_may_write_to_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "FORMAT").write_text("qed log, format 1\n")
    folder.chmod(0o777)
    ended = run_to_exit(folder)
    assert ended.returncode == 1, ended.stderr
    [line] = ended.stderr.splitlines()
    assert "can be written by others (mode 0777)" in line
    assert "chmod go-w" in line
