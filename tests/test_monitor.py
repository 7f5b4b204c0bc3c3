"""`qed monitor`: what a dishonest log shows in one round after the other, and what is told to whom."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import zlib
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import qed
from commands import QED, environment, read_lines
from commands import qed as run
from harness.wait import LIMIT_S
from published import Answer, entries_of, log_of, publish, serving
from qed.monitoring.metrics import Metrics
from qed.monitoring.monitor import Options
from qed.monitoring.sinks import Webhook
from qed.monitoring.state import StateFile
from signing import LOG, NOW, WITNESSES, Signer, World, policy_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZES = (1, 1, 5, 300, 256, 1, 40)
SIZE = sum(SIZES)
ENDS = (1, 2, 7, 307, 563, 564, 604)
SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()


@pytest.fixture(scope="module")
def honest() -> list[bytes]:
    with qed.Log() as log:
        log_of(log, *SIZES)
        return entries_of(log)


@pytest.fixture(scope="module")
def other() -> list[bytes]:
    """Return the entries of another log that began in the same way, but has another event 3."""
    with qed.Log() as log:
        log_of(log, 1, 1)
        log.add_bulk([b"event 2", b"forged", b"event 4", b"event 5", b"event 6"])
        log_of(log, *SIZES[3:], start=7)
        return entries_of(log)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("policy").write_text(policy_of())
    return tmp_path


def monitor(*args: str, policy: str = "policy", state: str = "state") -> subprocess.CompletedProcess[str]:
    return run("monitor", *args, "--policy", policy, "--state", state, "--once")


def record(*args: str, policy: str = "policy", state: str = "state") -> dict[str, Any]:
    done = run("--json", "monitor", *args, "--policy", policy, "--state", state, "--once")
    [found] = read_lines(done.stdout)
    return {"code": done.returncode, "stderr": done.stderr} | found


def kinds(found: dict[str, Any]) -> list[str]:
    return [each["Kind"] for each in found["Findings"] + found["Passing"]]


def state() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("state").read_text())["State"]
    return found


def convicting() -> list[str]:
    """Return the names of the files beside the state that prove something."""
    files = sorted(Path().glob("*.json"))
    return [file.name for file in files if run("evidence", str(file), "--policy", "policy").returncode == 0]


class Hook:
    """A webhook that keeps what it gets, and answers as a test wants."""

    def __init__(self) -> None:
        self.answers: list[Callable[[BaseHTTPRequestHandler], None]] = []
        self.got: list[tuple[dict[str, str], bytes]] = []

    @contextmanager
    def serving(self) -> Iterator[str]:
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
                answer = hook.answers.pop(0) if hook.answers else answering(204)
                answer(self)

            def log_message(self, *_args: object) -> None:
                """Print nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/hook"
        finally:
            server.shutdown()
            server.server_close()

    @property
    def alerts(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.got]


def answering(status: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()

    return answer


def test_an_honest_log_is_followed_as_it_grows(honest: list[bytes]) -> None:
    for end in (0, *ENDS):
        publish(Path("copy"), honest[:end])
        found = record("copy")
        assert (found["code"], found["Size"], found["Replayed"], kinds(found)) == (0, end, end, [])
        assert ("first use" in found["stderr"]) == (end == 0)
        saved = state()
        assert (saved["Size"], saved["NextEntry"], saved["Mode"], saved["Outbox"]) == (end, end, "full", [])
        assert bool(saved["Note"])
    assert saved["HyperRoot"] == honest[-1][-32:].hex()
    assert saved["HistoryRoot"] == honest[-1][-64:-32].hex()
    assert saved["Sources"]["copy"]["Size"] == SIZE
    # The copy is the log itself, as anybody could publish it.
    shutil.rmtree("copy")
    assert run("audit", "state.copy", "--policy", "policy").returncode == 0


def test_another_root_of_the_same_size_is_a_fork(honest: list[bytes], other: list[bytes]) -> None:
    publish(Path("copy"), honest)
    assert record("copy")["code"] == 0
    before = state()
    publish(Path("copy"), other)
    found = record("copy")
    assert (found["code"], kinds(found)) == (1, ["fork"])
    assert len(convicting()) == 1
    # What was seen first stays, and an honest source is still followed.
    assert [state()[name] for name in ("Size", "Root", "Note")] == [before[name] for name in ("Size", "Root", "Note")]
    publish(Path("honest"), honest)
    assert record("honest")["code"] == 0


@pytest.mark.parametrize(("first", "second"), [(307, SIZE), (SIZE, 307), (307, 563)])
def test_another_history_at_another_size_is_a_fork(
    honest: list[bytes], other: list[bytes], first: int, second: int
) -> None:
    publish(Path("copy"), honest[:first])
    assert record("copy")["code"] == 0
    shutil.rmtree("copy")
    publish(Path("copy"), other[:second])
    found = record("copy")
    assert (found["code"], kinds(found)) == (1, ["fork"])
    assert "entry 3 differs" in found["Findings"][0]["Text"]
    assert len(convicting()) == 1
    assert state()["Size"] == first


def test_without_the_tiles_of_what_was_seen_it_is_a_suspicion(honest: list[bytes], other: list[bytes]) -> None:
    publish(Path("copy"), honest[:307])
    assert record("copy")["code"] == 0
    shutil.rmtree("copy")
    shutil.rmtree("state.copy")
    publish(Path("copy"), other)
    found = record("copy")
    assert (found["code"], kinds(found)) == (1, ["fork"])
    assert "suspicion" in found["Findings"][0]["Text"]
    assert len(list(Path().glob("suspicion-*.json"))) == 1
    assert convicting() == []


def test_two_sources_that_show_two_histories_are_a_fork_at_first_sight(honest: list[bytes], other: list[bytes]) -> None:
    publish(Path("a"), honest)
    publish(Path("b"), other[:307])
    found = record("a", "b")
    assert (found["code"], kinds(found)) == (1, ["fork"])
    assert len(convicting()) == 1
    # Nothing is known to be the right one.
    assert state()["Note"] == ""


def test_an_older_checkpoint_is_no_attack_by_itself(honest: list[bytes]) -> None:
    publish(Path("copy"), honest)
    assert record("copy")["code"] == 0
    shutil.copytree("copy", "new")
    publish(Path("copy"), honest, note=World(entries=honest[:307]).note())
    found = record("copy")
    assert (found["code"], kinds(found), state()["Size"]) == (5, ["stale-source"], SIZE)
    assert record("copy", "new")["code"] == 0


def test_cosignatures_that_are_old_or_missing(honest: list[bytes]) -> None:
    Path("recent").write_text(json.dumps({"Format": "qed-trust-1", "Policy": policy_of(), "MaxAge": 3600}))
    publish(Path("copy"), honest)
    found = record("copy", policy="recent")
    assert (found["code"], kinds(found)) == (5, ["stale"])
    assert state()["Size"] == SIZE
    world = World(entries=honest)
    publish(Path("copy"), honest, note=world.note(LOG.line(world.text), WITNESSES[0].line(world.text)))
    found = record("copy", state="state2")
    assert (found["code"], kinds(found)) == (5, ["unwitnessed"])
    # Nobody but the log says so, so it is not what later checkpoints are compared with.
    assert json.loads(Path("state2").read_text())["State"]["Note"] == ""


@pytest.mark.parametrize(
    ("index", "change", "kind"),
    [
        (9, lambda entry: entry[:9] + b"\x08" + entry[10:], "invalid-entry"),
        (306, lambda entry: entry[:-1] + bytes([entry[-1] ^ 1]), "replay-mismatch"),
        (13, lambda entry: entry[:1] + b"\0" + entry[2:], "replay-mismatch"),
    ],
)
def test_a_wrong_entry_is_found_when_it_appears(
    honest: list[bytes], index: int, change: Callable[[bytes], bytes], kind: str
) -> None:
    publish(Path("copy"), honest[:7])
    assert record("copy")["code"] == 0
    entries = [*honest]
    entries[index] = change(entries[index])
    publish(Path("copy"), entries[:563])
    found = record("copy")
    assert (found["code"], kinds(found)) == (1, [kind])
    assert state()["NextEntry"] == 7
    files = list(Path().glob("invalid-entry-*.json"))
    # The same finding is one alert, though the log grows on.
    publish(Path("copy"), entries)
    assert kinds(record("copy")) == [kind]
    assert list(Path().glob("invalid-entry-*.json")) == files
    assert len(state()["Told"]) == 1


def test_samples_do_without_a_replay(honest: list[bytes]) -> None:
    entries = [*honest]
    entries[306] = entries[306][:-1] + bytes([entries[306][-1] ^ 1])
    publish(Path("copy"), entries)
    found = record("copy", "--sample", "2")
    assert (found["code"], found["Replayed"], state()["Mode"], state()["NextEntry"]) == (0, 0, "sampled", 0)
    entries[9] = entries[9][:9] + b"\x08" + entries[9][10:]
    publish(Path("copy"), entries)
    assert kinds(record("copy", "--sample", "3", state="state2")) == ["invalid-entry"]


def test_a_damaged_state_is_never_started_over(honest: list[bytes]) -> None:
    publish(Path("copy"), honest)
    assert record("copy")["code"] == 0
    good = Path("state").read_bytes()

    def changed(change: Callable[[dict[str, Any]], object], *, crc: bool = True) -> None:
        whole = json.loads(good)
        change(whole["State"])
        text = json.dumps(whole["State"], separators=(",", ":"), ensure_ascii=False).encode()
        code = f"{zlib.crc32(text):08x}" if crc else whole["Crc"]
        Path("state").write_bytes(b'{"State":' + text + b',"Crc":"' + code.encode() + b'"}')

    smaller = World(entries=honest[:307])
    forged = World(entries=honest[:307]).note().replace("\n307\n", "\n308\n")
    for change, crc, code in (
        (lambda saved: saved.update(Size=307), False, 1),
        (lambda saved: saved.update(Size=307), True, 1),
        (lambda saved: saved.update(Size=308, Note=forged), True, 1),
        (lambda saved: saved.update(NextEntry=SIZE + 1), True, 1),
        (lambda saved: saved.update(Note=""), True, 1),
        (lambda saved: saved.update(Origin="log.example.com/other"), True, 2),
        (lambda saved: saved.update(Format="qed-monitor-2"), True, 1),
        (lambda saved: saved.clear(), True, 1),
    ):
        changed(change, crc=crc)
        done = monitor("copy")
        assert done.returncode == code, done.stderr
    for content in (b"", b"{}", good[:-20], b"\0" * len(good)):
        Path("state").write_bytes(content)
        assert monitor("copy").returncode == 1
        assert Path("state").read_bytes() == content
    # A state with an older checkpoint of the log is a smaller memory, and verifies.
    changed(lambda saved: saved.update(Size=307, Root=rooted(smaller), Note=smaller.note(), NextEntry=7))
    assert record("copy")["code"] == 0
    Path("state").unlink()
    assert "no state" in monitor("copy", "--must-exist").stderr
    assert monitor("copy", "--must-exist").returncode == 2
    # Its copy of the log is not forgotten with it.
    done = monitor("copy")
    assert (done.returncode, "what an earlier monitor saw" in done.stderr) == (1, True)
    # A state without a checkpoint, and without a copy, is one that has seen nothing.
    shutil.rmtree("state.copy")
    changed(lambda saved: saved.clear())
    assert monitor("copy", "--must-exist").returncode == 2
    assert "first use" in monitor("copy").stderr


def rooted(world: World) -> str:
    return base64.b64decode(world.text.splitlines()[2]).hex()


def test_a_state_is_of_one_log_and_one_process(honest: list[bytes]) -> None:
    publish(Path("copy"), honest)
    assert record("copy")["code"] == 0
    with Path("state.lock").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = monitor("copy")
    assert (done.returncode, "another process" in done.stderr) == (2, True)
    assert monitor().returncode == 2
    assert monitor("http://user@host").returncode == 2
    assert run("monitor", "copy", "--state", "state", "--once").returncode == 2


def test_no_source_answers(honest: list[bytes]) -> None:
    publish(Path("copy"), honest)
    found = record("http://127.0.0.1:1", "copy", "--grace", "0")
    assert (found["code"], kinds(found)) == (0, ["source-unreachable"])
    assert [told["Kind"] for told in state()["Troubles"].values()] == ["source-unreachable"]
    found = record("http://127.0.0.1:1")
    assert (found["code"], found["Size"]) == (3, SIZE)


def test_an_outage_is_told_after_the_grace_and_so_is_its_end(honest: list[bytes]) -> None:
    publish(Path("copy"), honest)
    hook = Hook()
    with hook.serving() as url:
        args = ("copy", "--webhook", url)
        assert record("http://127.0.0.1:1", *args)["code"] == 0
        assert hook.got == []
        assert record("http://127.0.0.1:1", *args, "--grace", "0")["code"] == 0
        assert record("http://127.0.0.1:1", *args, "--grace", "0")["code"] == 0
        assert record(*args)["code"] == 0
    assert [alert["Kind"] for alert in hook.alerts] == ["source-unreachable", "recovered"]


def test_an_alert_is_signed_told_once_and_acknowledged(honest: list[bytes], other: list[bytes]) -> None:
    Path("secret").write_text(SECRET + "\n")
    publish(Path("copy"), honest)
    assert record("copy")["code"] == 0
    publish(Path("copy"), other)
    hook = Hook()
    with hook.serving() as url:
        args = ("copy", "--webhook", url, "--webhook-secret-file", "secret")
        assert record(*args)["code"] == 1
        assert record(*args)["code"] == 1
        [(headers, body)] = hook.got
        alert = json.loads(body)
        assert (alert["Format"], alert["Kind"], alert["Severity"], alert["First"]) == (
            "qed-alert-1",
            "fork",
            "critical",
            True,
        )
        assert alert["Origin"] == LOG.name
        Path("told.json").write_text(json.dumps(alert["Evidence"]))
        assert run("evidence", "told.json", "--policy", "policy").returncode == 0
        signed = f"{alert['Id']}.{headers['webhook-timestamp']}.".encode() + body
        code = base64.b64encode(hmac.digest(bytes(range(24)), signed, hashlib.sha256)).decode()
        assert headers["webhook-signature"] == f"v1,{code}"
        assert headers["webhook-id"] == alert["Id"]
        assert abs(int(headers["webhook-timestamp"]) - time.time()) < 600
        assert record(*args, "--repeat", "0")["code"] == 1
        assert [(each["Id"], each["First"]) for each in hook.alerts] == [(alert["Id"], True), (alert["Id"], False)]
        assert run("monitor", "ack", alert["Id"], "--state", "state").returncode == 0
        assert record(*args, "--repeat", "0")["code"] == 1
        assert len(hook.got) == 2
    for words in (("ack",), ("ack", "0" * 32), ("ack", alert["Id"], "more")):
        assert run("monitor", *words, "--state", "state").returncode == 2
    assert run("monitor", "ack", alert["Id"], "--state", "nowhere").returncode == 2


def test_what_a_webhook_does_not_take_is_kept_and_tried_again(honest: list[bytes], other: list[bytes]) -> None:
    publish(Path("copy"), honest)
    assert record("copy")["code"] == 0
    shutil.copy("state", "state2")
    publish(Path("copy"), other)
    hook = Hook()
    away = "http://169.254.169.254/latest"
    hook.answers = [answering(500), answering(302, Location=away), answering(307, Location="/other"), answering(410)]
    with hook.serving() as url:
        for tries in range(1, 5):
            assert record("copy", "--webhook", url)["code"] == 1
            [pending] = state()["Outbox"]
            assert (pending["Sink"], pending["Tries"], pending["HasFailed"]) == ("webhook", tries, False)
            assert pending["NextAt"] > pending["Since"]
        # The log is honest again for this source, but somebody still waits for the alert.
        publish(Path("copy"), honest)
        assert record("copy", "--webhook", url)["code"] == 0
        assert state()["Outbox"] == []
    # A redirect is never followed: each POST came here.
    assert [headers["webhook-id"] for headers, _ in hook.got] == [hook.alerts[0]["Id"]] * 5
    with hook.serving() as url:
        hook.answers = [answering(503)]
        publish(Path("copy"), honest, note="nothing")
        assert record("copy", "--webhook", url)["code"] == 1
        publish(Path("copy"), honest)
        hook.answers = [answering(503)]
        assert record("copy", "--webhook", url)["code"] == 5


def test_a_webhook_that_hangs_has_ten_seconds(honest: list[bytes]) -> None:
    hook = Hook()
    released = threading.Event()

    def hang(_handler: BaseHTTPRequestHandler) -> None:
        released.wait(LIMIT_S)

    hook.answers = [hang]
    with hook.serving() as url:
        begun = time.monotonic()
        done = run("monitor", "--policy", "policy", "--state", "state", "--test-alert", "--webhook", url)
        took_s = time.monotonic() - begun
        released.set()
    assert (done.returncode, "not delivered" in done.stderr) == (5, True)
    assert 9 < took_s < 30
    assert len(honest) == SIZE


def test_a_test_alert_goes_to_every_sink() -> None:
    Path("take").write_text("#!/bin/sh\ncat > told.json\n")
    Path("take").chmod(0o700)
    hook = Hook()
    with hook.serving() as url:
        args = ("monitor", "--policy", "policy", "--state", "state", "--test-alert", "--webhook", url)
        done = run(*args, "--command", f"{Path('take').absolute()} 'one argument; rm -rf /'")
        assert (done.returncode, "Every sink" in done.stdout) == (0, True)
        assert [alert["Kind"] for alert in hook.alerts] == ["test"]
        assert json.loads(Path("told.json").read_text())["Id"] == hook.alerts[0]["Id"]
        assert run(*args, "--command", "false").returncode == 5
        assert run(*args, "--command", "/nowhere/at/all").returncode == 5
    assert run(*args).returncode == 5
    for words in (
        ("--webhook", "http://alerts.example.com/"),
        ("--webhook", "ftp://127.0.0.1/"),
        ("--webhook-secret-file", "policy"),
        ("--command", ""),
        ("--command", "'"),
    ):
        assert run("monitor", "--policy", "policy", "--state", "s", "--test-alert", *words).returncode == 2
    Path("short").write_text("short")
    short = ("--webhook", "http://127.0.0.1:1/", "--webhook-secret-file", "short")
    assert run("monitor", "--policy", "policy", "--state", "s", "--test-alert", *short).returncode == 2


def test_receipts_and_events_are_looked_for(honest: list[bytes]) -> None:
    publish(Path("copy"), honest)
    wanted = qed.Digest.of(b"event 21").hex()
    missing = qed.Digest.of(b"nowhere").hex()
    hook = Hook()
    with hook.serving() as url:
        found = record("copy", "--watch", wanted, "--watch", missing, "--webhook", url)
    assert (found["code"], kinds(found)) == (0, ["watch-hit"])
    assert [alert["Kind"] for alert in hook.alerts] == ["watch-hit"]
    with qed.Log() as log:
        log_of(log, 1, 1, 5)
        snapshots = [log.snapshot(version) for version in (0, 6)]
        lines = b"".join(bytes(snapshot.to_json()) + b"\n" for snapshot in snapshots)
        log.add(b"one that the log forgot")
    Path("receipts.jsonl").write_bytes(lines)
    assert record("copy", "--receipts", "receipts.jsonl")["code"] == 0
    Path("receipts.jsonl").write_bytes(lines.replace(b'"Version":6', b'"Version":5'))
    found = record("copy", "--receipts", "receipts.jsonl")
    assert (found["code"], kinds(found)) == (1, ["receipt-not-in-log"])


def test_what_witnesses_have_cosigned_is_compared(honest: list[bytes], other: list[bytes]) -> None:
    publish(Path("copy"), honest[:563])
    publish(Path("agrees"), honest[:307])
    assert record("copy", "--witness", "agrees")["code"] == 0
    publish(Path("ahead"), honest)
    found = record("copy", "--witness", "ahead")
    assert (found["code"], kinds(found)) == (0, ["rollback"])
    found = record("copy", "--witness", "ahead", "--grace", "0")
    assert found["code"] == 1
    publish(Path("differs"), other[:563])
    found = record("copy", "--witness", "differs")
    assert (found["code"], sorted(kinds(found))) == (1, ["fork", "witness-disagrees"])
    assert convicting() != []
    found = record("copy", "--witness", "http://127.0.0.1:1")
    assert (found["code"], kinds(found)) == (0, ["source-unreachable"])


def test_what_only_the_log_has_signed_is_no_word_of_a_witness(honest: list[bytes], other: list[bytes]) -> None:
    publish(Path("copy"), honest[:307])
    larger, differs = World(entries=honest), World(entries=other[:307])
    publish(Path("page"), honest, note=larger.note(LOG.line(larger.text)))
    found = record("copy", "--witness", "page", "--grace", "0")
    assert (found["code"], kinds(found)) == (0, ["source-unreachable"])
    # The log has signed two histories all the same.
    publish(Path("page"), other[:307], note=differs.note(LOG.line(differs.text)))
    found = record("copy", "--witness", "page", "--grace", "0")
    assert (found["code"], kinds(found)) == (1, ["fork", "source-unreachable"])


def test_receipts_that_cannot_be_read_do_not_end_the_watch(honest: list[bytes]) -> None:
    publish(Path("copy"), honest[:307])
    Path("receipts/below").mkdir(parents=True)
    Path("receipts/below/half").write_text('{"Format":"qed-receipt-1","Fir')
    found = record("copy", "--receipts", "receipts")
    assert (found["code"], kinds(found)) == (0, ["source-unreachable"])
    assert "receipts/below/half" in found["Passing"][0]["Text"]


def test_another_log_of_the_policy_neither_ends_the_watch_nor_accuses(honest: list[bytes]) -> None:
    other = Signer("log.example.com/other", 1, 99)
    Path("policy").write_text(policy_of().replace("witness w1", f"log {other.vkey}\nwitness w1"))
    publish(Path("copy"), honest[:307])
    foreign = World(entries=honest[:563])
    text = foreign.text.replace(foreign.text.split("\n")[0], other.name)
    note = text + "\n" + "".join(signer.line(text) for signer in (other, *WITNESSES[:2]))
    publish(Path("foreign"), foreign.entries, note=note)
    # Which of the two is meant?
    first = monitor("copy", "foreign")
    assert (first.returncode, "a monitor watches one log" in first.stderr) == (2, True)
    found = record("copy", "--witness", "foreign", state="own")
    assert (found["code"], kinds(found)) == (0, ["source-unreachable"]), found
    found = record("copy", "foreign", state="own")
    assert (found["code"], kinds(found), found["Size"]) == (1, ["damaged"], 307)


def test_a_first_run_that_was_killed_is_continued(honest: list[bytes]) -> None:
    publish(Path("copy"), honest)
    # The run ends here: after two bundles, whose entries end no batch at 512.
    reached = threading.Event()
    asked: list[str] = []

    def hanging(path: str, answer: Answer) -> Answer:
        asked.append(path)
        if path.startswith("tile/entries/002"):
            reached.set()
            time.sleep(3)
            return (503, {"Retry-After": "30"}, b"later")
        return answer

    with serving(Path("copy"), hanging) as url:
        process = subprocess.Popen(
            [QED, "monitor", f"{url}/log", "--policy", "policy", "--state", "state"],
            env=environment(),
            stderr=subprocess.DEVNULL,
        )
        assert reached.wait(LIMIT_S)
        process.send_signal(signal.SIGKILL)
        process.wait(LIMIT_S)
    saved = state()
    assert (saved["Size"], bool(saved["Note"])) == (SIZE, True)
    asked.clear()

    def noting(path: str, answer: Answer) -> Answer:
        asked.append(path)
        return answer

    with serving(Path("copy"), noting) as url:
        found = record(f"{url}/log")
    assert (found["code"], found["Replayed"], state()["NextEntry"]) == (0, SIZE, SIZE)
    # What the first run had verified is not read again.
    assert [path for path in asked if "entries" in path] == [f"tile/entries/002.p/{SIZE - 512}"]


def test_a_kill_between_alert_and_state_tells_twice_and_not_never(honest: list[bytes], other: list[bytes]) -> None:
    publish(Path("copy"), honest)
    assert record("copy")["code"] == 0
    publish(Path("copy"), other)
    hook = Hook()
    with hook.serving() as url:
        got = threading.Event()

        def hold(_handler: BaseHTTPRequestHandler) -> None:
            got.set()
            time.sleep(5)

        hook.answers = [hold]
        words = ["monitor", "copy", "--policy", "policy", "--state", "state", "--once", "--webhook", url]
        process = subprocess.Popen(
            [QED, *words], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        assert got.wait(LIMIT_S)
        process.send_signal(signal.SIGKILL)
        process.wait(LIMIT_S)
        # It was durable before anybody was told.
        assert [pending["Sink"] for pending in state()["Outbox"]] == ["log", "webhook"]
        assert record("copy", "--webhook", url)["code"] == 1
    assert len({alert["Id"] for alert in hook.alerts}) == 1
    assert len(hook.alerts) == 2
    assert state()["Outbox"] == []


def test_a_monitor_runs_until_it_is_stopped(honest: list[bytes], other: list[bytes]) -> None:
    publish(Path("copy"), honest[:307])
    hook = Hook()
    with hook.serving() as url:
        words = ["monitor", "copy", "--policy", "policy", "--state", "state", "--interval", "0.1", "--webhook", url]
        process = subprocess.Popen([QED, *words], env=environment(), stderr=subprocess.PIPE)
        wait_for(lambda: Path("state").exists() and state()["NextEntry"] == 307)
        publish(Path("new"), honest)
        Path("old").symlink_to("copy")
        shutil.copytree("new", "copy", dirs_exist_ok=True)
        wait_for(lambda: state()["NextEntry"] == SIZE)
        publish(Path("copy"), other)
        # A round that reads while the files are replaced finds damage first.
        wait_for(lambda: "fork" in {alert["Kind"] for alert in hook.alerts})
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, stderr


def test_a_source_that_is_behind_withholds_nothing(honest: list[bytes]) -> None:
    publish(Path("copy"), honest)
    assert record("copy")["code"] == 0
    # The monitor has lost its own copy, and the only source an older tree.
    shutil.rmtree("state.copy")
    shutil.rmtree("copy")
    publish(Path("copy"), honest[:307])
    found = record("copy")
    assert (found["code"], kinds(found)) == (5, ["source-unreachable"])


def test_state_and_secret_that_are_no_files_are_not_waited_for() -> None:
    os.mkfifo("pipe")
    with pytest.raises(OSError, match="expected a regular file"):
        StateFile(Path("pipe")).load()
    assert Webhook.secret_in(Path("pipe")) == b""


def test_each_fork_is_counted_once_in_the_metrics(honest: list[bytes], other: list[bytes]) -> None:
    publish(Path("copy"), honest)
    metrics = Metrics()

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"qed_monitor_{name}", labels)

    with qed.Monitor(qed.Policy.load("policy"), ["copy"], "state", Options(metrics=metrics)) as watch:
        watch.once(now=NOW)
        assert (value("last_success_timestamp_seconds") or 0) > NOW
        assert (value("forks_total"), value("replayed_total"), value("lag_entries")) == (0, SIZE, 0)
        publish(Path("copy"), other)
        for now in (NOW + 1, NOW + 2, NOW + 200_000):
            watch.once(now=now)
        # The alert was repeated after a day; the fork is still the same one.
        assert (value("forks_total"), value("alerts_total", kind="fork")) == (1, 2)
        assert (value("checkpoint_size"), value("outbox_pending")) == (SIZE, 0)


def test_a_sampling_monitor_counts_what_it_has_verified(honest: list[bytes]) -> None:
    publish(Path("copy"), honest)
    metrics = Metrics()
    with qed.Monitor(qed.Policy.load("policy"), ["copy"], "state", Options(metrics=metrics, samples=9)) as watch:
        watch.once()
    found = [
        metrics.registry.get_sample_value(f"qed_monitor_{name}")
        for name in ("entries_verified_total", "replayed_total", "lag_entries")
    ]
    assert found == [SIZE, 0, 0]


def test_metrics_that_cannot_be_served_are_wrong_usage(honest: list[bytes]) -> None:
    publish(Path("copy"), honest)
    assert monitor("copy", "--metrics-listen", "0").returncode == 2
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("monitor", "copy", "--policy", "policy", "--state", "state", "--metrics-listen", port)
    assert (done.returncode, "Address already in use" in done.stderr) == (2, True)
    done = run("monitor", "copy", "--policy", "policy", "--state", "state", "--metrics-listen", "a b:1")
    assert (done.returncode, "expected a host name" in done.stderr) == (2, True)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
