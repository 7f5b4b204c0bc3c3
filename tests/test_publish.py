"""`qed publish`: a folder that grows with its log, and refuses another one."""

from __future__ import annotations

import functools
import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

import qed
from commands import QED, environment
from commands import qed as run
from harness.process import Server
from harness.wait import wait_until
from published import entries_of, log_of, publish
from signing import policy_of
from test_signing import Signed, published, running

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("policy").write_text(policy_of())
    return tmp_path


def once(source: str, target: str = "out", policy: str = "policy") -> subprocess.CompletedProcess[str]:
    return run("publish", source, target, "--policy", policy, "--once")


def files_in(folder: str) -> dict[str, bytes]:
    paths = (path for path in Path(folder).rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def entries(*sizes: int) -> list[bytes]:
    log = qed.Log()
    log_of(log, *sizes)
    return entries_of(log)


def test_a_folder_grows_with_its_log_and_is_one_that_anybody_can_audit() -> None:
    for sizes in ((1,), (1, 300), (1, 300, 255), (1, 300, 255, 256, 1)):
        shutil.rmtree("source", ignore_errors=True)
        publish(Path("source"), entries(*sizes))
        done = once("source")
        assert (done.returncode, done.stderr) == (0, "")
        audited = run("audit", "out", "--policy", "policy")
        assert audited.returncode == 0, audited.stdout
        assert files_in("source").items() <= files_in("out").items()
        before = files_in("out")
        assert "0 files are new" in once("source").stdout
        assert files_in("out") == before
    # What was published for smaller trees is still there.
    assert "tile/0/000.p/1" in files_in("out")


def test_another_history_is_not_published_and_ends_in_evidence() -> None:
    publish(Path("source"), entries(1, 300))
    assert once("source").returncode == 0
    before = files_in("out")
    other = qed.Log()
    other.add(b"another first event")
    log_of(other, 400)
    publish(Path("other"), entries_of(other))
    done = once("other")
    assert done.returncode == 1
    (evidence,) = Path("out").glob("fork-*.json")
    assert run("evidence", str(evidence), "--policy", "policy").returncode == 0
    evidence.unlink()
    assert files_in("out") == before


def test_a_smaller_checkpoint_changes_nothing() -> None:
    publish(Path("source"), entries(1, 300))
    assert once("source").returncode == 0
    before = files_in("out")
    publish(Path("older"), entries(1))
    done = once("older")
    assert (done.returncode, "fewer than the 301" in done.stdout) == (0, True)
    assert files_in("out") == before


def test_a_damaged_file_is_never_published_nor_replaced() -> None:
    publish(Path("source"), entries(1, 300))
    bundle = Path("source/tile/entries/000")
    whole = bundle.read_bytes()
    bundle.write_bytes(whole[:-1] + b"x")
    done = once("source")
    assert done.returncode == 1
    assert "checkpoint" not in files_in("out")
    bundle.write_bytes(whole)
    assert once("source").returncode == 0
    Path("out/tile/entries/000").write_bytes(b"something else")
    publish(Path("source"), entries(1, 300, 300))
    assert once("source").returncode == 0
    Path("out/checkpoint").unlink()
    done = once("source")
    assert (done.returncode, "expected what the log has" in done.stderr) == (1, True)


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    return Signed(tmp_path)


@pytest.fixture
def server(signed: Signed) -> Iterator[Server]:
    server = Server("lone", signed.folder / "data", extra=signed.options())
    with running(server):
        yield server


def has_copied(server: Server, size: int) -> bool:
    copy = Path("out/checkpoint")
    return published(server)[0] == size and copy.exists() and copy.read_text().split("\n")[1] == str(size)


def test_a_server_is_followed_until_the_command_is_stopped(server: Server, signed: Signed, tmp_path: Path) -> None:
    policy = tmp_path / "own"
    policy.write_text("".join(f"log {vkey}\n" for vkey in signed.vkeys) + "quorum none\n")
    command = [QED, "--json", "publish", server.url, "out", "--policy", str(policy), "--interval", "0.2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        try:
            for size in (1, 2, 3):
                assert httpx.post(f"{server.url}/events", json={"Event": "b25l"}).status_code == 201
                wait_until(functools.partial(has_copied, server, size), "the copy of the checkpoint")
            # The record follows the checkpoint.
            published_sizes = (json.loads(line)["Published"] for line in process.stdout)
            assert 3 in published_sizes
        finally:
            process.terminate()
    assert process.returncode == 128 + signal.SIGTERM
    assert run("audit", "out", "--policy", str(policy)).returncode == 0
