"""`qed restore --from-tiles`: a log from what it has published, when every server is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

import qed
from buckets import BUCKET, CREDENTIALS, Shelf
from commands import QED, environment
from commands import qed as run
from harness.process import Server
from harness.wait import LIMIT_S, wait_until
from published import entries_of, log_of, publish, serving
from qed._client.connections import Security
from qed.monitoring.places import source_of, target_of
from qed.monitoring.publisher import Publisher
from signing import LOG, World, honest_entry, policy_of
from test_signing import Signed, add_refused, ask, published, receipt_in, running

if TYPE_CHECKING:
    from published import Answer


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("policy").write_text(policy_of())
    return tmp_path


def restore(place: str, *args: str, policy: str = "policy") -> subprocess.CompletedProcess[str]:
    return run("restore", "--from-tiles", place, "--policy", policy, "--data-dir", "data", *args)


def copied(server: Server, signed: Signed, size: int) -> None:
    """Publish a server's log in the folder `copy`, once it has signed so many entries."""
    wait_until(lambda: published(server)[0] == size, "the checkpoint")
    source = source_of(server.url, Security(), timeout_s=10)
    target = target_of("copy", Security(), timeout_s=10)
    assert Publisher(target, signed.policy, source).run().published == size
    source.close()


def lose(server: Server) -> None:
    assert server.stop() == 0
    server.wipe()


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    found = Signed(tmp_path)
    Path("own").write_text("".join(f"log {vkey}\n" for vkey in found.vkeys) + "quorum none\n")
    return found


def test_a_copy_that_has_all_goes_on_under_its_name(signed: Signed) -> None:
    server = Server("lone", Path("data").absolute(), extra=signed.options())
    with running(server):
        memory = qed.Memory("seen")
        signed.policy.verify(receipt_in(ask(server, b"one")), b"one", memory=memory)
        for number in range(3):
            ask(server, b"more %d" % number)
        log = httpx.get(f"{server.url}/info").json()["log"]
        copied(server, signed, 4)
        lose(server)
        done = restore("copy", policy="own")
        assert done.returncode == 0, done.stderr
        server.start()
        receipt = receipt_in(ask(server, b"two"))
        shown = signed.policy.verify(receipt, b"two", memory=memory).shown
        assert [version for version, _ in shown.events] == [4]
        info = httpx.get(f"{server.url}/info").json()
        assert info["log"] != log
        history = run("--json", "cluster", "history", QED_ENDPOINTS=server.url)
        deeds = [json.loads(line) for line in history.stdout.splitlines()]
        (rebuilt,) = (deed for deed in deeds if "rebuilt" in json.dumps(deed))
        assert signed.origin in json.dumps(rebuilt)
        # What was published before is a part of what is published from here on.
        copied(server, signed, 5)
        audited = run("audit", server.url, "--policy", "own")
        assert audited.returncode == 0, audited.stdout


def test_a_copy_that_lacks_signed_entries_ends_in_sign_halted(signed: Signed) -> None:
    server = Server("lone", Path("data").absolute(), extra=signed.options())
    with running(server):
        ask(server, b"one")
        copied(server, signed, 1)
        ask(server, b"two")
        lose(server)
        assert restore("copy", policy="own").returncode == 0
        server.start()
        assert "1 entries, but 2 were signed" in add_refused(server)
        # Reads go on.
        assert httpx.get(f"{server.url}/snapshots/0").status_code == 200


def test_a_log_that_does_not_sign_goes_on_too(signed: Signed) -> None:
    server = Server("lone", Path("data").absolute(), extra=signed.options())
    with running(server):
        snapshot = ask(server, b"one")
        copied(server, signed, 1)
        lose(server)
    assert restore("copy", policy="own").returncode == 0
    unsigned = Server("lone", Path("data").absolute())
    with running(unsigned):
        assert httpx.get(f"{unsigned.url}/snapshots/0").json() == {
            name: snapshot[name] for name in ("EventDigest", "HistoryDigest", "HyperDigest", "Version")
        }
        assert unsigned.add(b"two").json()["Version"] == 1


def test_large_logs_with_repeats_are_the_same_to_the_last_row(monkeypatch: pytest.MonkeyPatch) -> None:
    log = qed.Log()
    # More than a page of rows, with batches that end in it and beyond it.
    log_of(log, 1, 300, 20_000, 255, 256, 1, 9_000)
    publish(Path("source"), entries_of(log))
    shelf = Shelf({f"log/{path.relative_to('source')}": path.read_bytes() for path in files_in("source")})
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with shelf.serving() as url:
        done = restore(f"s3://{BUCKET}/log", "--json", "--s3-endpoint", url)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["Events"], record["OldLog"]) == (len(log), "log.example.com/test")
    with qed.Log("data") as found:
        assert found.tree_head() == log.tree_head()
        last = len(log) - 1
        assert found.snapshot(last) == log.snapshot(last)
        for number in (0, 6, 5_000, 20_300):
            event = b"event %d" % number
            assert found.membership(event).to_json() == log.membership(event).to_json()
        assert found.add(b"next") == log.add(b"next")


def files_in(folder: str) -> list[Path]:
    return [path for path in Path(folder).rglob("*") if path.is_file()]


def test_an_empty_log_is_restored_as_one() -> None:
    publish(Path("source"), [])
    done = restore("source")
    assert done.returncode == 0, done.stderr
    with qed.Log("data") as found:
        assert len(found) == 0


def is_empty(folder: str) -> bool:
    return not Path(folder).exists() or not list(Path(folder).iterdir())


def test_entries_that_do_not_lead_to_their_roots_are_not_restored() -> None:
    publish(Path("source"), [honest_entry(version) for version in range(300)])
    done = restore("source")
    assert (done.returncode, "replay-mismatch" in done.stdout) == (1, True)
    (evidence,) = Path().glob("*.json")
    assert run("evidence", str(evidence), "--policy", "policy").returncode in {0, 1}
    assert is_empty("data")


def honest_source(*sizes: int) -> World:
    log = qed.Log()
    log_of(log, *sizes)
    return publish(Path("source"), entries_of(log))


@pytest.mark.parametrize("path", ["tile/entries/000", "tile/entries/001.p/44", "tile/1/000.p/1", "checkpoint"])
def test_a_changed_file_is_not_restored(path: str) -> None:
    honest_source(300)
    whole = Path("source", path).read_bytes()
    Path("source", path).write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
    done = restore("source")
    assert done.returncode == 1, done.stderr
    assert is_empty("data")
    Path("source", path).write_bytes(whole)
    assert restore("source").returncode == 0


def test_a_missing_file_ends_it_and_it_can_be_begun_again() -> None:
    honest_source(300)
    bundle = Path("source/tile/entries/001.p/44")
    whole = bundle.read_bytes()
    bundle.unlink()
    done = restore("source")
    assert (done.returncode, "has no tile/entries/001" in done.stderr) == (1, True)
    assert is_empty("data")
    bundle.write_bytes(whole)
    assert restore("source").returncode == 0


def test_a_folder_that_holds_something_is_refused() -> None:
    honest_source(300)
    Path("data").mkdir()
    Path("data/mine").write_text("mine")
    done = restore("source")
    assert (done.returncode, Path("data/mine").read_text()) == (2, "mine")
    assert [path.name for path in Path("data").iterdir()] == ["mine"]


def test_a_checkpoint_without_witnesses_is_not_restored() -> None:
    world = honest_source(300)
    Path("source/checkpoint").write_text(f"{world.text}\n{LOG.line(world.text)}")
    done = restore("source")
    assert (done.returncode, "unwitnessed" in done.stdout) == (5, True)
    assert not Path("data").exists()


def test_either_a_backup_or_a_place_is_given() -> None:
    for words in (("--data-dir", "data"), ("policy", "--from-tiles", "source", "--data-dir", "data")):
        done = run("restore", *words)
        assert (done.returncode, "expected either" in done.stderr) == (2, True)
    done = run("restore", "--from-tiles", "source", "--data-dir", "data")
    assert (done.returncode, "nothing is trusted" in done.stderr) == (2, True)


def test_ctrl_c_ends_it_while_the_source_is_silent() -> None:
    asked, released = threading.Event(), threading.Event()

    def silent(_path: str, answer: Answer) -> Answer:
        asked.set()
        released.wait(2 * LIMIT_S)
        return answer

    publish(Path("copy"), World().entries)
    with serving(Path("copy"), silent) as url:
        command = [QED, "restore", "--from-tiles", f"{url}/log", "--policy", "policy", "--data-dir", "data"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
            assert asked.wait(LIMIT_S)
            process.send_signal(signal.SIGINT)
            # The source has still not answered.
            assert process.wait(LIMIT_S) == 130
        released.set()
    assert not Path("data").exists()
