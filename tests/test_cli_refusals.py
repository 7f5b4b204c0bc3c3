"""`qed` against servers that refuse, lie, send garbage or stall: one exit code and one line each."""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from adversary import Adversary, endless, error, hang, http, snapshot
from commands import QED, environment, one_line, qed
from harness.wait import LIMIT_S, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from adversary import Play
    from conftest import StartServer

NO_STREAMS = error(404, "not_found")
"""How a server from before streams answers. It gets bulks."""
MEMBERSHIP = ("membership", "--event", "x")
ROOTS = ("--hyper-digest", "00" * 32, "--current-version", "0", "--history-digest", "00" * 32, "--query-version", "0")
VERIFIED = (*MEMBERSHIP, *ROOTS)
REFUSALS = {
    "malformed": (error(400, "malformed"), 4),
    "not found": (error(404, "not_found"), 4),
    "wrong method": (error(405, "method_not_allowed"), 4),
    "no such version": (error(412, "invalid_range"), 4),
    "empty log": (error(412, "empty_log"), 4),
    "too large": (error(413, "too_large"), 4),
    "overloaded": (error(429, "overloaded", retry_after="3600"), 4),
    "internal": (error(500, "internal"), 4),
    "not qed": (http(200, b"<html>It works!</html>"), 4),
    "nothing": (http(200), 4),
}
UNKNOWN_OUTCOMES = {"internal", "not qed", "nothing"}
"""Those after which the event may have been added."""


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize("command", [("info",), ("snapshot", "--version", "0"), ("add", "--event", "x")], ids=" ".join)
def test_a_refusal_is_one_line_and_its_own_exit_code(name: str, command: tuple[str, ...]) -> None:
    answer, code = REFUSALS[name]
    with Adversary(answer) as server:
        done = qed(*command, QED_ENDPOINTS=server.url)
    is_unknown = command[0] == "add" and name in UNKNOWN_OUTCOMES
    assert ("the event may or may not have been added" in one_line(done.stderr)) == is_unknown
    assert (done.stdout, done.returncode) == ("", 3 if is_unknown else code)


def test_an_unavailable_server_is_as_good_as_none() -> None:
    with Adversary(error(503, "unavailable", retry_after="3600")) as server:
        done = qed("info", QED_ENDPOINTS=server.url)
    assert server.url in one_line(done.stderr)
    assert done.returncode == 3


def test_ctrl_c_during_the_imports_is_one_line_and_its_own_exit_code(tmp_path: Path) -> None:
    started = tmp_path / "started"
    # The first slow import; this replacement lasts as long as the test needs.
    (tmp_path / "click.py").write_text(
        f"import pathlib, time\npathlib.Path({str(started)!r}).touch()\ntime.sleep(60)\n"
    )
    process = subprocess.Popen(
        [QED, "info"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(PYTHONPATH=str(tmp_path))
    )
    wait_until(started.exists, "the import")
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, stdout, stderr) == (130, b"", b"qed: interrupted\n")


def test_what_a_server_says_cannot_write_on_the_terminal() -> None:
    with Adversary(error(400, "malformed", "\x1b[2J\nVerify: OK\r")) as server:
        done = qed("info", QED_ENDPOINTS=server.url)
    assert "\x1b" not in one_line(done.stderr)


def test_a_snapshot_of_another_event_fails(tmp_path: Path) -> None:
    receipts = tmp_path / "receipts.jsonl"
    names = ("node_id", "raft_addr", "mgmt_addr", "http_addr", "metrics_addr", "version")
    info = {**dict.fromkeys(names, ""), "current_version": None, "events": 0}
    with Adversary(http(200, info), http(201, snapshot(b"y"))) as server:
        done = qed("add", "--event", "x", "--receipts", str(receipts), QED_ENDPOINTS=server.url)
    one_line(done.stderr)
    assert (done.stdout, done.returncode, receipts.read_bytes()) == ("", 1, b"")


@pytest.mark.parametrize(
    "answer",
    [b"", b"null", b"{}", b"[" * 500_000, b'{"Exists":true}', b'{"Exists":"yes","Hyper":{}}', b"\xff"],
    ids=lambda answer: repr(answer[:40]),
)
def test_an_answer_that_is_no_proof_fails_the_verification(answer: bytes) -> None:
    with Adversary(http(200, answer)) as server:
        done = qed(*VERIFIED, QED_ENDPOINTS=server.url)
        unverified = qed(*MEMBERSHIP, QED_ENDPOINTS=server.url)
    assert done.stdout.endswith("Verify: KO\n")
    one_line(done.stderr)
    assert (done.returncode, unverified.returncode) == (1, 1)
    assert "Exists" not in unverified.stdout


def test_a_server_that_stalls_is_given_up_after_the_time_out() -> None:
    with Adversary(hang) as server:
        done = qed("info", "--timeout", "0.3", QED_ENDPOINTS=server.url)
    one_line(done.stderr)
    assert done.returncode == 3


def test_a_server_that_never_stops_talking_is_cut_off() -> None:
    with Adversary(endless(b"HTTP/1.1 200 OK\r\n\r\n", b"[" * 65536)) as server:
        done = qed("info", QED_ENDPOINTS=server.url)
    one_line(done.stderr)
    assert done.returncode in {3, 4}


@pytest.mark.parametrize("command", [("info",), ("add", "--event", "x")], ids=" ".join)
def test_ctrl_c_is_one_line(command: tuple[str, ...]) -> None:
    with Adversary(hang) as server:
        process = subprocess.Popen(
            [QED, "--endpoints", server.url, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        wait_until(lambda: bool(server.received), "the request to arrive")
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=LIMIT_S)
    said = "interrupted; the event may or may not have been added" if command[0] == "add" else "interrupted"
    assert one_line(stderr.decode()) == said
    assert (stdout, process.returncode) == (b"", 130)


def test_a_second_signal_in_the_middle_of_a_bulk_says_that_it_may_have_been_added() -> None:
    with Adversary(NO_STREAMS, hang) as server:
        process = subprocess.Popen(
            [QED, "--endpoints", server.url, "add", "--lines", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        assert process.stdin is not None
        process.stdin.write(b"event\n" * 7)
        process.stdin.close()
        wait_until(lambda: len(server.received) > 1, "the request to arrive")
        # The first only requests the end. The second of two equal signals may be lost.
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        process.wait(LIMIT_S)
        assert process.stdout is not None
        assert process.stderr is not None
        stdout, stderr = process.stdout.read(), process.stderr.read()
        process.stdout.close()
        process.stderr.close()
    said = "terminated; 0 events were acknowledged, and the next 7 may or may not have been added"
    assert one_line(stderr.decode()) == said
    assert (stdout, process.returncode) == (b"", 143)


@pytest.mark.parametrize("play", [b"", hang, error(503, "unavailable")], ids=["cut off", "stalled", "given up"])
def test_a_bulk_without_an_answer_may_have_been_added(play: Play) -> None:
    with Adversary(NO_STREAMS, play) as server:
        done = qed("add", "--lines", "-", "--timeout", "0.5", stdin=b"event\n" * 7, QED_ENDPOINTS=server.url)
    assert one_line(done.stderr).endswith("and the next 7 may or may not have been added")
    assert done.returncode == 3


@pytest.mark.parametrize("play", [b"", hang, error(503, "unavailable")], ids=["cut off", "stalled", "given up"])
def test_a_stream_that_does_not_begin_adds_nothing(play: Play) -> None:
    with Adversary(play) as server:
        done = qed("add", "--lines", "-", "--timeout", "0.5", stdin=b"event\n" * 7, QED_ENDPOINTS=server.url)
    assert one_line(done.stderr).endswith("; 0 events were acknowledged")
    assert "nevertheless" not in done.stderr
    assert done.returncode == 3


def test_a_line_larger_than_the_server_takes_is_refused_and_named(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path / "log", "--max-body-bytes", "2048")
    small, large = b"small\n", b"x" * 4096 + b"\n"
    done = qed("add", "--lines", "-", "--send", "event", stdin=small + large, QED_ENDPOINTS=server.url)
    said = "event 2: it is longer than 2048 bytes; 1 events were acknowledged"
    assert one_line(done.stderr) == said
    assert (done.returncode, server.count()) == (4, 1)
