"""`qed add`: what it adds, what it keeps, and what it reports when it ends early."""

from __future__ import annotations

import array
import errno
import fcntl
import hashlib
import itertools
import json
import os
import re
import signal
import subprocess
import termios
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest

from adversary import Adversary, hang, http
from adversary import snapshot as adversary_snapshot
from commands import (
    QED,
    environment,
    hex_of,
    one_line,
    qed,
    qed_on_terminal,
    qed_with_bar,
    read_lines,
    values,
    wait_for_lines,
)
from dishonesty import Faces, log_of
from harness.wait import LIMIT_S, wait_until

if TYPE_CHECKING:
    from conftest import StartServer
    from dishonesty import Reply
    from harness.process import Server

BULK = 1000


@pytest.fixture
def url(server: Server) -> str:
    return server.url


@pytest.fixture
def own(start_server: StartServer, tmp_path: Path) -> Server:
    """Give a server of the test's own, on an empty log."""
    return start_server(tmp_path / "log")


def numbered(count: int, prefix: str = "") -> bytes:
    return b"".join(b"%sline %d\n" % (prefix.encode(), number) for number in range(count))


def feed(url: str, *args: str) -> subprocess.Popen[bytes]:
    """Start `qed add --lines -` with pipes on all sides."""
    pipe = subprocess.PIPE
    command = [QED, "--endpoints", url, "add", "--lines", "-", *args]
    return subprocess.Popen(command, env=environment(), stdin=pipe, stdout=pipe, stderr=pipe)


def test_lines_become_events_in_their_order(own: Server, tmp_path: Path) -> None:
    lines, receipts = tmp_path / "lines.txt", tmp_path / "receipts.jsonl"
    lines.write_bytes(numbered(2500))
    done = qed("add", "--lines", str(lines), "--receipts", str(receipts), QED_ENDPOINTS=own.url)
    assert done.returncode == 0
    assert done.stdout.startswith("Received 2,500 snapshots, the last with values:\n")
    assert values(done.stdout)["Version"] == "2499"
    _, *kept = read_lines(receipts.read_text())
    assert [snapshot["Version"] for snapshot in kept] == list(range(2500))
    assert [hex_of(snapshot["EventDigest"]) for snapshot in kept] == [
        hashlib.sha256(b"line %d" % number).hexdigest() for number in range(2500)
    ]


@pytest.mark.parametrize("proof", [(), ("--receipts-unverified",)], ids=["proven", "unverified"])
@pytest.mark.parametrize("kind", ["event", "lines"])
def test_receipts_of_another_log_are_refused_before_anything_is_added(
    start_server: StartServer, own: Server, tmp_path: Path, kind: str, proof: tuple[str, ...]
) -> None:
    receipts, lines = tmp_path / "receipts.jsonl", tmp_path / "lines.txt"
    lines.write_bytes(numbered(3))
    other = start_server(tmp_path / "other")
    args = (*proof, *(("--event", "x") if kind == "event" else ("--lines", str(lines))))
    assert qed("add", *args, "--receipts", str(receipts), QED_ENDPOINTS=own.url).returncode == 0
    before = receipts.read_bytes()
    done = qed("add", *args, "--receipts", str(receipts), QED_ENDPOINTS=other.url)
    assert (done.stdout, done.returncode) == ("", 2)
    assert "keep a file for each log" in done.stderr
    assert other.count() == 0
    assert receipts.read_bytes() == before


def test_only_the_line_end_is_no_part_of_the_event(url: str) -> None:
    done = qed("add", "--lines", "-", "--json", stdin=b"a \r\n\n\xff\x00b", QED_ENDPOINTS=url)
    digests = [hex_of(snapshot["EventDigest"]) for snapshot in read_lines(done.stdout)]
    assert digests == [hashlib.sha256(event).hexdigest() for event in (b"a \r", b"", b"\xff\x00b")]


def test_programs_get_every_snapshot_of_the_lines(url: str) -> None:
    done = qed("add", "--lines", "-", "--json", stdin=numbered(1200, "json "), QED_ENDPOINTS=url)
    assert len(read_lines(done.stdout)) == 1200
    assert (done.stderr, done.returncode) == ("", 0)


def test_no_lines_are_no_error(url: str) -> None:
    done = qed("add", "--lines", "-", QED_ENDPOINTS=url)
    assert (done.stdout, done.returncode) == ("Added nothing: the input is empty.\n", 0)


def test_a_file_is_one_event(url: str, tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    file = tmp_path / "report.bin"
    file.write_bytes(content)
    for args, stdin in ((("--file", str(file)), b""), (("--file", "-"), content)):
        done = qed("add", "--json", *args, stdin=stdin, QED_ENDPOINTS=url)
        assert hex_of(read_lines(done.stdout)[0]["EventDigest"]) == hashlib.sha256(content).hexdigest()


def test_the_empty_event_is_an_event(url: str) -> None:
    done = qed("add", "--event", "", "--json", QED_ENDPOINTS=url)
    assert hex_of(read_lines(done.stdout)[0]["EventDigest"]) == hashlib.sha256(b"").hexdigest()


def test_if_absent_adds_nothing_twice(own: Server) -> None:
    command = ("add", "--event", "once", "--if-absent", "--json")
    first, second = (qed(*command, QED_ENDPOINTS=own.url) for _ in range(2))
    assert (first.stdout, first.returncode, second.returncode) == (second.stdout, 0, 0)
    lines = qed("add", "--lines", "-", "--if-absent", "--json", stdin=b"once\ntwice\n", QED_ENDPOINTS=own.url)
    assert [snapshot["Version"] for snapshot in read_lines(lines.stdout)] == [0, 1]
    assert own.count() == 2


def test_an_event_added_again_shows_its_latest_version(own: Server, tmp_path: Path) -> None:
    receipts = str(tmp_path / "receipts.jsonl")
    for event in ("twice", "other", "twice"):
        qed("add", "--event", event, "--receipts", receipts, QED_ENDPOINTS=own.url)
    done = qed("membership", "--event", "twice", "--version", "1", "--receipts", receipts, QED_ENDPOINTS=own.url)
    shown = values(done.stdout)
    assert (shown["ActualVersion"], shown["LatestVersion"], done.returncode) == ("0", "2", 0)
    assert "LatestVersion" not in qed("membership", "--event", "other", QED_ENDPOINTS=own.url).stdout


def test_receipts_are_appended(url: str, tmp_path: Path) -> None:
    receipts = tmp_path / "receipts.jsonl"
    for event in ("a", "b"):
        qed("add", "--event", f"appended {event}", "--receipts", str(receipts), QED_ENDPOINTS=url)
    header, *kept = read_lines(receipts.read_text())
    assert header["Format"] == "qed-receipts-1"
    assert [snapshot["Linked"] for snapshot in kept] == [True, True]


@pytest.mark.parametrize("content", ['{"EventDigest"', "no newline"])
def test_nothing_is_added_to_a_file_that_ends_in_half_a_line(own: Server, tmp_path: Path, content: str) -> None:
    receipts = tmp_path / "receipts.jsonl"
    receipts.write_text(content)
    done = qed("add", "--event", "x", "--receipts", str(receipts), QED_ENDPOINTS=own.url)
    assert "half a line" in one_line(done.stderr)
    assert (done.returncode, receipts.read_text(), own.count()) == (2, content, 0)


def test_nothing_is_added_when_its_receipt_cannot_be_kept(own: Server, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing" / "receipts.jsonl"):
        done = qed("add", "--event", "x", "--receipts", str(path), QED_ENDPOINTS=own.url)
        one_line(done.stderr)
        assert (done.returncode, own.count()) == (2, 0)


@pytest.mark.parametrize("form", ["", "--json"], ids=["people", "programs"])
def test_a_receipt_that_cannot_be_written_is_reported_and_printed(own: Server, tmp_path: Path, form: str) -> None:
    receipts = tmp_path / "receipts.jsonl"
    for number, given in enumerate(("--event x", "--lines -")):
        # As on a full disk, the file can be opened but not written.
        command = f"ulimit -f 0; exec '{QED}' --endpoints {own.url} add {given} {form} --receipts '{receipts}'"
        done = subprocess.run(
            ["/bin/sh", "-c", command], input=b"y\n", capture_output=True, env=environment(), check=False
        )
        reported = (
            f"{receipts}: {os.strerror(errno.EFBIG)}; versions {number} to {number} may have no receipt; they are on"
        )
        assert one_line(done.stderr.decode()).startswith(reported)
        snapshot = qed("snapshot", "--version", str(number), "--json", QED_ENDPOINTS=own.url).stdout
        assert done.stdout.decode() == snapshot
        assert (done.returncode, own.count(), receipts.read_bytes()) == (2, number + 1, b"")


@pytest.mark.parametrize("path", ["/dev/full", "/dev/null", "link"])
def test_receipts_are_kept_in_regular_files_only(own: Server, tmp_path: Path, path: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    receipts = str(tmp_path / path)
    done = qed("add", "--event", "x", "--receipts", receipts, QED_ENDPOINTS=own.url)
    assert receipts in one_line(done.stderr)
    assert (done.returncode, own.count()) == (2, 0)


def test_wrong_usage_leaves_no_receipts_file(url: str, tmp_path: Path) -> None:
    receipts, missing = tmp_path / "receipts.jsonl", str(tmp_path / "missing")
    for wrong in (
        (),
        ("--event", "x", "--file", "-"),
        ("--event", "x", "--endpoints", "http://x?"),
        ("--lines", missing),
    ):
        assert qed("add", *wrong, "--receipts", str(receipts), QED_ENDPOINTS=url).returncode == 2
        assert not receipts.exists()


def test_where_nothing_was_sent_nothing_may_have_been_added() -> None:
    done = qed("add", "--lines", "-", stdin=b"y\n", QED_ENDPOINTS="http://127.0.0.1:1")
    assert one_line(done.stderr).endswith("; 0 events were acknowledged")
    assert done.returncode == 3


def test_a_reader_who_leaves_is_no_secret_about_what_was_added(own: Server) -> None:
    process = feed(own.url, "--json")
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stdin.write(numbered(2 * BULK))
    process.stdin.close()
    stderr = process.stderr.read().decode()
    process.stderr.close()
    unsure = r"(?:, and the next ([\d,]+) may or may not have been added)?"
    said = re.fullmatch(rf"output pipe closed; ([\d,]+) events were acknowledged{unsure}", one_line(stderr))
    assert said is not None
    acknowledged, unknown = (int((number or "0").replace(",", "")) for number in said.groups())
    assert 0 < acknowledged <= own.count() <= acknowledged + unknown
    assert process.wait(LIMIT_S) == 141


def test_a_second_signal_while_receipts_wait_for_their_turn_says_which_are_missing(own: Server, tmp_path: Path) -> None:
    receipts = tmp_path / "receipts.jsonl"
    process = feed(own.url, "--receipts", str(receipts))
    assert process.stdin is not None
    process.stdin.write(numbered(BULK))
    process.stdin.flush()
    wait_for_lines(receipts, 1 + BULK, wait_until)
    with receipts.open("rb") as other:
        # As another qed does while it adds lines.
        fcntl.flock(other, fcntl.LOCK_EX)
        process.stdin.write(numbered(BULK))
        process.stdin.flush()
        wait_until(lambda: own.count() == 2 * BULK, "the second bulk to be added")
        wait_until(lambda: is_waiting_for_a_lock(process.pid), "the wait for the lock")
        interrupt_twice(process)
        stdout, stderr = process.communicate(timeout=LIMIT_S)
    said = "terminated; versions 1000 to 1999 may have no receipt; they are on stdout; 2,000 events were acknowledged"
    assert one_line(stderr.decode()) == said
    assert [snapshot["Version"] for snapshot in read_lines(stdout.decode())] == list(range(BULK, 2 * BULK))


def interrupt_twice(process: subprocess.Popen[bytes]) -> None:
    """Send two signals. They differ, since the second of two equal signals may be lost."""
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)


def is_waiting_for_a_lock(pid: int) -> bool:
    """Return whether a process waits in flock: in /proc/locks, the lines with an arrow are waiting."""
    waiting = (line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" in line)
    return any(str(pid) in words for words in waiting)


def test_two_at_once_keep_every_line_of_their_receipts(own: Server, tmp_path: Path) -> None:
    receipts = tmp_path / "receipts.jsonl"
    processes = [feed(own.url, "--receipts", str(receipts)) for _ in range(2)]
    for number, process in enumerate(processes):
        assert process.stdin is not None
        process.stdin.write(numbered(3000, f"{number} "))
        process.stdin.close()
    for process in processes:
        assert process.wait(LIMIT_S) == 0
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()
    _, *kept = read_lines(receipts.read_text())
    assert sorted(snapshot["Version"] for snapshot in kept) == list(range(6000))
    assert all(snapshot["Linked"] for snapshot in kept)


def test_a_missing_input_is_wrong_usage(url: str, tmp_path: Path) -> None:
    for option in ("--file", "--lines"):
        done = qed("add", option, str(tmp_path / "missing"), QED_ENDPOINTS=url)
        assert "missing" in one_line(done.stderr)
        assert done.returncode == 2


def test_exactly_one_input_is_wanted(url: str) -> None:
    for args in ((), ("--event", "x", "--file", "-"), ("--event", "x", "--lines", "-")):
        done = qed("add", *args, QED_ENDPOINTS=url)
        one_line(done.stderr)
        assert done.returncode == 2


def test_ctrl_c_says_how_many_were_acknowledged(url: str, tmp_path: Path) -> None:
    receipts = tmp_path / "receipts.jsonl"
    process = feed(url, "--receipts", str(receipts))
    assert process.stdin is not None
    process.stdin.write(numbered(BULK, "interrupted "))
    process.stdin.flush()
    wait_for_lines(receipts, 1 + BULK, wait_until)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=LIMIT_S)
    # If the signal arrives during a sync of the receipts, qed also reports which may be missing, and prints them.
    unsure = r"(versions \d+ to \d+ may have no receipt; they are on stdout; )?"
    said = re.fullmatch(rf"interrupted; {unsure}1,000 events were acknowledged", one_line(stderr.decode()))
    assert said
    assert (stdout.count(b"\n"), process.returncode) == (BULK if said[1] else 0, 130)


def test_a_server_that_dies_leaves_the_count_of_what_was_acknowledged(own: Server, tmp_path: Path) -> None:
    receipts = tmp_path / "receipts.jsonl"
    process = feed(own.url, "--receipts", str(receipts), "--json")
    assert process.stdin is not None
    process.stdin.write(numbered(BULK))
    process.stdin.flush()
    wait_for_lines(receipts, 1 + BULK, wait_until)
    own.kill()
    stdout, stderr = process.communicate(numbered(BULK, "lost "), timeout=LIMIT_S)
    # Whether part of the next bulk was sent depends on when the client notices the crash.
    unsure = "(, and the next 1,000 may or may not have been added)?"
    assert re.search(rf"1,000 events were acknowledged{unsure}$", one_line(stderr.decode()))
    _, *kept = read_lines(receipts.read_text())
    assert [snapshot | {"Linked": True} for snapshot in read_lines(stdout.decode())] == kept
    assert process.returncode == 3


def test_progress_shows_on_a_terminal(url: str, tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_bytes(numbered(1500, "progress "))
    code, screen = qed_on_terminal("add", "--lines", str(lines), QED_ENDPOINTS=url)
    assert "1,500 events" in screen
    assert "/s" in screen
    assert code == 0


def test_the_bar_on_stderr_keeps_nothing_from_stdout(url: str, tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_bytes(numbered(1500, "beside a bar "))
    code, stdout, screen = qed_with_bar("add", "--lines", str(lines), "--json", QED_ENDPOINTS=url)
    assert "1,500 events" in screen
    assert (len(read_lines(stdout)), code) == (1500, 0)


def test_a_reader_who_leaves_ends_it_quietly(own: Server) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [QED, "--endpoints", own.url, "add", "--event", "x", "--json"]
    done = subprocess.run(
        command, stdout=writing, stderr=subprocess.PIPE, timeout=LIMIT_S, env=environment(), check=False
    )
    os.close(writing)
    assert (done.stderr, done.returncode, own.count()) == (b"", 141, 1)


def test_a_full_disk_under_stdout_is_one_line(url: str) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
        command = [QED, "--endpoints", url, "add", "--event", "x", "--json"]
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, timeout=LIMIT_S, env=environment(), check=False
        )
    assert os.strerror(errno.ENOSPC) in one_line(done.stderr.decode())
    assert done.returncode == 2


def test_a_closed_stdout_is_no_error(own: Server) -> None:
    command = f"exec '{QED}' --endpoints {own.url} add --event x >&-"
    done = subprocess.run(["/bin/sh", "-c", command], stderr=subprocess.PIPE, env=environment(), check=False)
    assert (done.stderr, done.returncode, own.count()) == (b"", 0, 1)


def feed_live(url: str, receipts: Path, *args: str) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    process = feed(url, "--receipts", str(receipts), *args)
    assert process.stdin is not None
    return process, process.stdin


def write(pipe: IO[bytes], lines: bytes) -> None:
    pipe.write(lines)
    pipe.flush()


def digests_in(receipts: Path) -> list[str]:
    """Return the digests in a receipts file, whose first line names the log."""
    return [hex_of(snapshot["EventDigest"]) for snapshot in read_lines(receipts.read_text())[1:]]


def sha256_of(*events: bytes) -> list[str]:
    return [hashlib.sha256(event).hexdigest() for event in events]


def test_a_line_of_a_live_pipe_is_added_while_the_pipe_is_open(own: Server, tmp_path: Path) -> None:
    receipts = tmp_path / "receipts.jsonl"
    process, pipe = feed_live(own.url, receipts)
    write(pipe, b"first\n")
    wait_for_lines(receipts, 1 + 1, wait_until)
    # A line without its end is not an event yet.
    write(pipe, b"second\nthi")
    wait_for_lines(receipts, 2 + 1, wait_until)
    write(pipe, b"rd\nfourth")
    wait_for_lines(receipts, 3 + 1, wait_until)
    stdout, stderr = process.communicate(timeout=LIMIT_S)
    assert (stdout.startswith(b"Received 4 snapshots"), stderr, process.returncode) == (True, b"", 0)
    assert digests_in(receipts) == sha256_of(b"first", b"second", b"third", b"fourth")


def test_lines_are_added_in_bulks_by_a_server_without_streams() -> None:
    with Faces(log_of()) as server:
        done = qed("add", "--lines", "-", "--json", stdin=numbered(BULK + 1), QED_ENDPOINTS=server.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert [snapshot["Version"] for snapshot in read_lines(done.stdout)] == list(range(BULK + 1))
    assert [kind for kind in server.asked if kind != "other"] == ["bulk", "add"]


def test_a_stream_that_is_refused_in_the_middle_says_what_is_in(own: Server, tmp_path: Path) -> None:
    """A key that is revoked while lines come."""

    def new_key(*roles: str, key: str = "") -> str:
        made = qed("--json", "keys", "create", *roles, QED_ENDPOINTS=own.url, QED_API_KEY=key)
        return str(read_lines(made.stdout)[0]["Key"])

    operator = new_key("--role", "operate")
    key = new_key("--role", "append", "--role", "prove", key=operator)
    receipts = tmp_path / "receipts.jsonl"
    process = subprocess.Popen(
        [QED, "--endpoints", own.url, "add", "--lines", "-", "--receipts", str(receipts)],
        env=environment(QED_API_KEY=key),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    write(process.stdin, b"first\nsecond\n")
    wait_for_lines(receipts, 2 + 1, wait_until)
    assert qed("keys", "revoke", key.split("_")[1], QED_ENDPOINTS=own.url, QED_API_KEY=operator).returncode == 0
    _, stderr = process.communicate(b"third\n", timeout=LIMIT_S)
    assert one_line(stderr.decode()).endswith("; 2 events were acknowledged")
    assert process.returncode == 4
    assert digests_in(receipts) == sha256_of(b"first", b"second")


def test_a_line_is_added_though_others_keep_coming(own: Server, tmp_path: Path) -> None:
    receipts = tmp_path / "receipts.jsonl"
    process, pipe = feed_live(own.url, receipts)

    numbers = itertools.count()

    def is_added_after_one_more() -> bool:
        write(pipe, b"line %d\n" % next(numbers))
        return bool(own.count())

    # Each line arrives long before the others have lingered.
    wait_until(is_added_after_one_more, "the first line to be added")
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0


def test_lines_linger_as_long_as_asked(own: Server, tmp_path: Path) -> None:
    process, pipe = feed_live(own.url, tmp_path / "receipts.jsonl", "--linger", "86400")
    write(pipe, numbered(BULK + 1))
    wait_until(lambda: own.count() == BULK, "the full bulk")
    process.communicate(timeout=LIMIT_S)
    assert (own.count(), process.returncode) == (BULK + 1, 0)


ENDINGS = pytest.mark.parametrize(
    ("number", "said", "code"),
    [(signal.SIGINT, "interrupted", 130), (signal.SIGTERM, "terminated", 143), (signal.SIGHUP, "hung up", 129)],
)


@ENDINGS
def test_a_signal_between_acknowledgement_and_proof_prints_the_snapshot(
    tmp_path: Path, number: signal.Signals, said: str, code: int
) -> None:
    log, released = log_of(), threading.Event()

    def late(reply: Reply) -> Reply:
        released.wait(LIMIT_S)
        return reply

    with Faces(log) as server:
        server.lies["incremental"] = late
        command = [
            QED,
            "--endpoints",
            server.url,
            "add",
            "--event",
            "x",
            "--receipts",
            str(tmp_path / "receipts.jsonl"),
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
        wait_until(lambda: "incremental" in server.asked, "the request for a proof")
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=LIMIT_S)
        released.set()
    assert stdout == log.snapshot(0).to_json() + b"\n"
    assert one_line(stderr.decode()) == f"{said}; versions 0 to 0 may have no receipt; they are on stdout"
    assert process.returncode == code


def test_an_ignored_hangup_stays_ignored(tmp_path: Path) -> None:
    """As under nohup."""
    receipts, arrived, released = tmp_path / "receipts.jsonl", threading.Event(), threading.Event()

    def late(reply: Reply) -> Reply:
        arrived.set()
        released.wait(LIMIT_S)
        return reply

    with Faces(log_of()) as server:
        server.lies["incremental"] = late
        command = f"trap '' HUP; exec '{QED}' --endpoints {server.url} add --event x --receipts '{receipts}'"
        process = subprocess.Popen(["/bin/sh", "-c", command], stdout=subprocess.DEVNULL, env=environment())
        wait_until(arrived.is_set, "the request for a proof")
        process.send_signal(signal.SIGHUP)
        released.set()
        assert process.wait(LIMIT_S) == 0
    assert digests_in(receipts) == sha256_of(b"x")


@ENDINGS
def test_what_was_read_is_added_when_a_signal_ends_it(
    own: Server, tmp_path: Path, number: signal.Signals, said: str, code: int
) -> None:
    receipts = tmp_path / "receipts.jsonl"
    process, pipe = feed_live(own.url, receipts, "--linger", "86400")
    write(pipe, b"first\nsecond\nhalf a li")
    wait_until(lambda: waiting_bytes(pipe) == 0, "the lines to be read")
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=LIMIT_S)
    assert (stdout, one_line(stderr.decode())) == (b"", f"{said}; 2 events were acknowledged")
    assert process.returncode == code
    assert digests_in(receipts) == sha256_of(b"first", b"second")


def waiting_bytes(pipe: IO[bytes]) -> int:
    """Return how many bytes wait in a pipe for their reader."""
    found = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, found)
    return found[0]


def test_a_second_signal_ends_it_at_once() -> None:
    with Adversary(hang) as server:
        process = feed(server.url, "--linger", "0", "--timeout", "86400")
        assert process.stdin is not None
        write(process.stdin, b"first\n")
        wait_until(lambda: bool(server.received), "the request")
        interrupt_twice(process)
        _, stderr = process.communicate(timeout=LIMIT_S)
    # The server has not said that it accepts a stream, so nothing was sent.
    assert (one_line(stderr.decode()), process.returncode) == ("terminated; 0 events were acknowledged", 143)


def test_lingering_is_for_lines(url: str) -> None:
    done = qed("add", "--event", "x", "--linger", "1", QED_ENDPOINTS=url)
    assert (one_line(done.stderr).startswith("--linger needs --lines"), done.returncode) == (True, 2)


HUGE_BYTES = 300 * 1024 * 1024
"""More bytes than an event that is sent may have, and more than the memory that the test allows."""


@pytest.fixture
def huge(tmp_path: Path) -> Path:
    """Give a sparse file, which needs no space on disk."""
    file = tmp_path / "huge.bin"
    with file.open("wb") as opened:
        opened.truncate(HUGE_BYTES)
    return file


def test_a_file_of_any_size_is_added_in_constant_memory(url: str, huge: Path) -> None:
    command = f"ulimit -v {HUGE_BYTES // 1024 + 200 * 1024}; exec '{QED}' --endpoints {url} add --file '{huge}' --json"
    done = subprocess.run(["/bin/bash", "-c", command], capture_output=True, env=environment(), check=False)
    assert (done.stderr, done.returncode) == (b"", 0)
    with huge.open("rb") as opened:
        expected = hashlib.file_digest(opened, "sha256").hexdigest()
    assert hex_of(read_lines(done.stdout.decode())[0]["EventDigest"]) == expected
    assert qed("membership", "--event-digest", expected, QED_ENDPOINTS=url).returncode == 0
    assert values(qed("membership", "--file", str(huge), QED_ENDPOINTS=url).stdout)["Exists"] == "true"


def test_hashing_a_large_file_shows_a_bar(url: str, huge: Path) -> None:
    code, _, screen = qed_with_bar("add", "--file", str(huge), "--json", QED_ENDPOINTS=url)
    assert ("MB" in screen, code) == (True, 0)


def test_a_file_that_is_sent_must_be_an_event(own: Server, huge: Path) -> None:
    done = qed("add", "--file", str(huge), "--send", "event", QED_ENDPOINTS=own.url)
    assert "bytes to send as an event, found more" in one_line(done.stderr)
    assert (done.returncode, own.count()) == (2, 0)


def test_a_digest_is_added_without_its_event(url: str) -> None:
    digest = hashlib.sha256(b"elsewhere").hexdigest()
    done = qed("add", "--event-digest", digest, "--json", QED_ENDPOINTS=url)
    assert hex_of(read_lines(done.stdout)[0]["EventDigest"]) == digest
    both = qed("add", "--event-digest", digest, "--event", "x", QED_ENDPOINTS=url)
    assert (one_line(both.stderr) != "", both.returncode) == (True, 2)


@pytest.mark.parametrize(("sent", "field"), [("digest", "EventDigest"), ("event", "Event")])
def test_what_is_sent_is_what_was_asked_for(sent: str, field: str, tmp_path: Path) -> None:
    file = tmp_path / "event"
    file.write_bytes(b"x")
    with Adversary(http(201, adversary_snapshot(b"x"))) as server:
        for given in (("--event", "x"), ("--file", str(file))):
            assert qed("add", *given, "--send", sent, QED_ENDPOINTS=server.url).returncode == 0
        assert [list(json.loads(each.body)) for each in server.received] == [[field], [field]]


def test_equal_lines_of_one_bulk_have_receipts(own: Server, tmp_path: Path) -> None:
    receipts = tmp_path / "receipts.jsonl"
    for _ in range(2):
        done = qed("add", "--lines", "-", "--receipts", str(receipts), stdin=b"a\nb\na\na\n", QED_ENDPOINTS=own.url)
        assert (done.stderr, done.returncode) == ("", 0)
    assert digests_in(receipts) == 2 * sha256_of(b"a", b"b", b"a", b"a")
