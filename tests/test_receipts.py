"""Receipts files: their content, several writers at once, and every kind of malformed file."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import resource
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from commands import one_line, qed, read_lines
from dishonesty import Faces, log_of
from harness.wait import LIMIT_S, wait_while
from qed import Bundle, Client, Log, Membership, Present, Receipts, verify
from qed.errors import ForkDetected, NotTrusted, ReceiptsError
from qed.proofs import Digest, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

EVENTS: Final = tuple(b"event %d" % number for number in range(6))
HEADER: Final = b'{"Format":"qed-receipts-1","Log":"a"}\n'
WRITERS: Final = 8
EACH: Final = 25


def snapshots_of(log: Log) -> list[Snapshot]:
    return [log.snapshot(version) for version in range(len(log))]


SNAPSHOTS: Final = snapshots_of(log_of(*EVENTS))


def line(snapshot: Snapshot, **fields: object) -> bytes:
    return json.dumps({**json.loads(snapshot.to_json()), **fields}).encode() + b"\n"


def write(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"".join(lines))
    return path


def linked(*snapshots: Snapshot) -> bytes:
    return HEADER + b"".join(line(snapshot, Linked=True) for snapshot in snapshots)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "receipts.jsonl"


def test_the_name_of_the_log_is_asked_once(path: Path) -> None:
    log = log_of()
    with Faces(log, name="a") as server, Client(server.url) as client, Receipts.open(path) as receipts:
        client.prepare(receipts)
        client.keep(receipts, client.add(b"first"))
        # Only the name vouches for the first receipt; further ones are proven to extend it.
        asked = server.asked.count("info")
        for number in range(3):
            client.keep(receipts, client.add(b"event %d" % number))
        assert server.asked.count("info") == asked
        assert len(receipts) == 4


def test_a_server_of_another_log_is_named_as_such_though_the_name_was_confirmed(path: Path) -> None:
    with Faces(log_of(), name="a") as server, Faces(log_of(*EVENTS), name="b") as other:
        with Client(server.url) as client, Receipts.open(path) as receipts:
            client.keep(receipts, client.add(b"first"))
            before = path.read_bytes()
            with Client(other.url) as wrong, pytest.raises(ReceiptsError, match="receipts of log a, this is log b"):
                wrong.keep(receipts, wrong.add(b"second"))
        assert path.read_bytes() == before


# The content of a file.


def test_the_first_line_names_the_log_and_marks_tell_what_is_proven(path: Path) -> None:
    with Receipts.open(path) as receipts:
        receipts.append(SNAPSHOTS[:2], log="a")
        assert (receipts.log, receipts.unlinked) == ("a", SNAPSHOTS[:2])
        receipts.mark_linked("a", SNAPSHOTS[:2])
        assert receipts.append_proven(SNAPSHOTS[2:3], log="a", anchor=SNAPSHOTS[1])
        assert (receipts.unlinked, receipts.linked_anchor) == ([], SNAPSHOTS[2])
    header, *marks = read_lines(path.read_text())
    assert header == {"Format": "qed-receipts-1", "Log": "a"}
    assert [mark["Linked"] for mark in marks] == [True] * 3
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_older_file_is_read_whole(path: Path) -> None:
    receipts = Receipts.load(write(path, *map(line, SNAPSHOTS)))
    assert (receipts.log, len(receipts), receipts.anchor) == (None, 6, SNAPSHOTS[5])
    assert (receipts.unlinked, receipts.linked_anchor) == (SNAPSHOTS, None)


def test_versions_may_stand_in_any_order(path: Path) -> None:
    mixed = [SNAPSHOTS[number] for number in (3, 4, 1, 5, 0, 4, 2, 1)]
    receipts = Receipts.load(write(path, linked(*mixed)))
    assert (len(receipts), receipts.anchor) == (6, SNAPSHOTS[5])
    for version, snapshot in enumerate(SNAPSHOTS):
        assert receipts.get(version) == snapshot
        assert receipts.occurrences_of(Digest.of(EVENTS[version])) == [version]
        assert receipts.batch_start(version) == version
    assert receipts.get(6) is None
    assert receipts.occurrences_of(Digest.of(b"never added")) == []


def test_a_receipt_that_stands_twice_is_linked_if_either_line_is(path: Path) -> None:
    receipts = Receipts.load(
        write(path, HEADER, line(SNAPSHOTS[0]), line(SNAPSHOTS[1]), line(SNAPSHOTS[0], Linked=True))
    )
    assert receipts.unlinked == [SNAPSHOTS[1]]
    assert receipts.linked_anchor == SNAPSHOTS[0]


def test_a_receipt_that_was_never_proven_to_belong_to_the_others_is_no_root(path: Path) -> None:
    receipts = Receipts.load(write(path, linked(*SNAPSHOTS[:3]), line(SNAPSHOTS[3])))
    assert receipts.history_root(2) == SNAPSHOTS[2].history_root()
    for root in (receipts.history_root, receipts.hyper_root):
        with pytest.raises(NotTrusted, match="was never proven to belong to the log of the others"):
            root(3)
    # It still states that its event is in the log, so a denial is refused.
    assert receipts.occurrences_of(Digest.of(EVENTS[3])) == [3]
    assert receipts.anchor == SNAPSHOTS[3]


def test_a_lone_receipt_has_no_others_to_belong_to(path: Path) -> None:
    log = log_of(EVENTS[0])
    receipts = Receipts.load(write(path, line(log.snapshot(0))))
    assert isinstance(verify(Membership(EVENTS[0]), log.membership(EVENTS[0]), receipts), Present)


def test_unknown_leaves_out_what_stands_in_the_file_and_finds_forks(path: Path) -> None:
    receipts = Receipts.load(write(path, linked(*SNAPSHOTS[:2])))
    assert receipts.unknown([SNAPSHOTS[1], SNAPSHOTS[3], SNAPSHOTS[3], SNAPSHOTS[2]]) == [SNAPSHOTS[3], SNAPSHOTS[2]]
    other = log_of(b"x", b"y", b"z").snapshot(1)
    with pytest.raises(ForkDetected) as caught:
        receipts.unknown([other])
    assert (caught.value.trusted, caught.value.other) == (SNAPSHOTS[1], other)
    second = log_of(b"x", b"y", b"z").snapshot(2)
    with pytest.raises(ForkDetected):
        receipts.unknown([SNAPSHOTS[2], second])


def test_an_honest_answer_is_none_that_contradicts_equal_events_of_one_bulk(path: Path) -> None:
    """Of equal events in one bulk, the hyper tree shows the first."""
    log = Log()
    log.add(b"before")
    added = log.add_bulk([b"same", b"other", b"same", b"same"])
    for chosen in (added, added[2:], added[3:], added[1:3]):
        receipts = Receipts.load(write(path, linked(log.snapshot(0), *chosen, log.snapshot(4))))
        answer = log.membership(b"same")
        found = verify(Membership(b"same"), answer, receipts)
        assert isinstance(found, Present)
        assert answer.current_version == 4


def test_the_same_event_in_a_later_bulk_counts_as_newest(path: Path) -> None:
    log = Log()
    first, second = log.add(b"same"), log.add_bulk([b"other", b"same"])[1]
    receipts = Receipts.load(write(path, linked(first, second)))
    assert (receipts.occurrences_of(Digest.of(b"same")), receipts.batch_start(2)) == ([0, 2], 1)


# Several writers.


def test_what_others_append_is_seen_at_the_next_append(path: Path) -> None:
    with Receipts.open(path) as one, Receipts.open(path) as other:
        one.append(SNAPSHOTS[:2], log="a")
        other.append(SNAPSHOTS[1:3], log="a")
        assert (other.log, len(other), len(one)) == ("a", 3, 2)
        one.append([], log="a")
        assert one.anchor == SNAPSHOTS[2]
        assert len(read_lines(path.read_text())) == 4
        with pytest.raises(ReceiptsError, match="receipts of log a, this is log b"):
            other.append(SNAPSHOTS[3:], log="b")


def test_a_proof_against_an_empty_file_ties_nothing_to_what_others_appended(path: Path) -> None:
    other = snapshots_of(log_of(b"x", b"y"))
    with Receipts.open(path) as one, Receipts.open(path) as two:
        assert one.append_proven(SNAPSHOTS[:1], log=None, anchor=None)
        before = path.read_bytes()
        assert not two.append_proven(other[1:], log=None, anchor=None)
        assert not two.append_proven(other[1:], log=None, anchor=other[0])
        assert path.read_bytes() == before
        assert two.append_proven(SNAPSHOTS[1:2], log=None, anchor=SNAPSHOTS[0])


def test_what_others_append_is_not_marked_along(path: Path) -> None:
    with Receipts.open(path) as one, Receipts.open(path) as two:
        one.append(SNAPSHOTS[:2])
        pending = one.unlinked
        two.append(SNAPSHOTS[3:4])
        one.mark_linked("a", pending)
        assert (one.unlinked, one.log) == ([SNAPSHOTS[3]], "a")
    assert [mark.get("Linked") for mark in read_lines(path.read_text())] == [None, True, True, None]


def test_a_proof_of_receipts_marks_no_others_of_their_versions(path: Path) -> None:
    other = snapshots_of(log_of(b"x", b"y"))
    with Receipts.open(path) as receipts:
        receipts.append(SNAPSHOTS[:2])
        replacement = write(path.with_name("other"), *map(line, other))
        replacement.replace(path)
        receipts.mark_linked("a", SNAPSHOTS[:2])
        assert receipts.unlinked == other


def test_an_appender_that_waits_for_the_lock_of_a_replaced_file_takes_the_new_one(path: Path) -> None:
    with Receipts.open(path) as receipts, Receipts.open(path) as waiting:
        receipts.append(SNAPSHOTS[:2])
        holder = os.open(path, os.O_RDONLY)
        fcntl.flock(holder, fcntl.LOCK_EX)
        thread = threading.Thread(target=waiting.append, args=(SNAPSHOTS[2:3],))
        thread.start()
        _wait_for_lock_waiter(path)
        write(path.with_name("new"), linked(*SNAPSHOTS[:2])).replace(path)
        os.close(holder)
        thread.join(LIMIT_S)
        assert not thread.is_alive()
    assert [mark.get("Version") for mark in read_lines(path.read_text())] == [None, 0, 1, 2]


def _wait_for_lock_waiter(path: Path) -> None:
    inode = f":{path.stat().st_ino} "

    def missing() -> str:
        lines = Path("/proc/locks").read_text().splitlines()
        return "" if any("->" in text and inode in text for text in lines) else "nobody waits"

    wait_while(missing, "a process that waits for the lock")


def in_processes(work: Callable[[int], None]) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=work, args=(number,)) for number in range(WRITERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(LIMIT_S)
    assert [worker.exitcode for worker in workers] == [0] * WRITERS


def test_processes_append_at_once_and_lose_nothing(path: Path) -> None:
    log = Log()
    snapshots = log.add_bulk([b"%d" % number for number in range(WRITERS * EACH)])

    def work(number: int) -> None:
        with Receipts.open(path) as receipts:
            for snapshot in snapshots[number::WRITERS]:
                receipts.append([snapshot], log="a")

    in_processes(work)
    receipts = Receipts.load(path)
    assert len(receipts) == WRITERS * EACH
    assert all(receipts.get(snapshot.version) == snapshot for snapshot in snapshots)


def test_processes_keep_at_once_and_every_receipt_is_proven(path: Path) -> None:
    with Faces(Log(), name="a") as server:

        def work(number: int) -> None:
            with Client(server.url) as client, Receipts.open(path) as receipts:
                for count in range(5):
                    client.keep(receipts, client.add(b"%d of %d" % (count, number)))

        in_processes(work)
    receipts = Receipts.load(path)
    assert (len(receipts), receipts.unlinked, receipts.log) == (WRITERS * 5, [], "a")


def _size_bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def test_a_process_killed_while_it_appends_leaves_at_most_half_a_line(path: Path) -> None:
    snapshots = Log().add_bulk([b"%d" % number for number in range(20_000)])

    def work() -> None:
        with Receipts.open(path) as receipts:
            for start in range(0, len(snapshots), 500):
                receipts.append(snapshots[start : start + 500], log="a")

    kept = 0
    for _ in range(5):
        child = multiprocessing.get_context("fork").Process(target=work)
        size = _size_bytes(path)
        child.start()
        wait_while(lambda: "" if _size_bytes(path) > size else "nothing", "an append")  # noqa: B023 - waited for here
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join(LIMIT_S)
        # What every command asks for before it uses such a file.
        content = path.read_bytes()
        path.write_bytes(content[: content.rfind(b"\n") + 1])
        receipts = Receipts.load(path)
        assert len(receipts) >= kept
        kept = len(receipts)
    assert kept >= 500


# Malformed files.


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Save the answer that event 0 is in the log. All receipts in this file are of this log."""
    log, path = log_of(*EVENTS), tmp_path_factory.mktemp("bundle") / "bundle.json"
    question = Membership(EVENTS[0])
    Bundle.of(question, log.membership(EVENTS[0]), [log.snapshot(5)]).save(path)
    return str(path)


OTHER: Final = snapshots_of(log_of(*(b"other %d" % number for number in range(6))))
TWO_VERSIONS: Final = line(SNAPSHOTS[5]).replace(b'"Version"', b'"Version": 3, "Version"')

# The content of the file; the exit code of `qed verify` with it; a part of the line on stderr, None for no line.
FILES: Final[dict[str, tuple[bytes, int, str | None]]] = {
    "empty": (b"", 1, "has none"),
    "only a first line": (HEADER, 1, "has none"),
    "a first line without a name": (
        b'{"Format":"qed-receipts-1","Log":null}\n' + linked(*SNAPSHOTS)[len(HEADER) :],
        0,
        None,
    ),
    "cut in the last line": (linked(*SNAPSHOTS)[:-20], 2, "ends in half a line"),
    "cut in a line more": (linked(*SNAPSHOTS) + line(SNAPSHOTS[0])[:50], 2, "ends in half a line"),
    "cut before the last line's end": (linked(*SNAPSHOTS)[:-1], 0, None),
    "two logs by name": (
        linked(*SNAPSHOTS) + HEADER.replace(b'"a"', b'"b"') + line(OTHER[0]),
        2,
        "receipts of two logs, a and b",
    ),
    "two logs, one without a name": (
        linked(*SNAPSHOTS) + HEADER.replace(b'"a"', b"null"),
        2,
        "receipts of two logs, a and one without a name",
    ),
    "the first line twice": (linked(*SNAPSHOTS[:3]) + linked(*SNAPSHOTS[3:]), 0, None),
    "two roots for one version": (linked(*SNAPSHOTS) + line(OTHER[2]), 1, "two different snapshots of version 2"),
    "versions out of order": (linked(*reversed(SNAPSHOTS)), 0, None),
    "lines of an older format": (b"".join(map(line, SNAPSHOTS)), 1, "was never proven to belong"),
    "lines that were never proven": (HEADER + b"".join(map(line, SNAPSHOTS)), 1, "was never proven to belong"),
    "a newer format": (HEADER.replace(b"-1", b"-2"), 2, "expected format qed-receipts-1, found 'qed-receipts-2'"),
    "a blank line": (linked(*SNAPSHOTS) + b"\n" + line(SNAPSHOTS[0]), 2, "line 8"),
    "two versions in one line": (linked(*SNAPSHOTS[:5]) + TWO_VERSIONS, 2, "duplicate field"),
    "two marks in one line": (
        linked(*SNAPSHOTS[:5]) + line(SNAPSHOTS[5], Linked=False)[:-2] + b',"Linked":true}\n',
        2,
        "line 7: duplicate field",
    ),
    "a mark twice, once with an escape": (
        linked(*SNAPSHOTS[:5]) + line(SNAPSHOTS[5])[:-2] + b',"Linke\\u0064":false,"Linked":true}\n',
        2,
        "line 7: duplicate field",
    ),
    "an unknown field twice": (
        linked(*SNAPSHOTS[:5]) + line(SNAPSHOTS[5])[:-2] + b',"X":1,"X":2}\n',
        2,
        "line 7: duplicate field",
    ),
    "unknown fields": (linked(*SNAPSHOTS[:5]) + line(SNAPSHOTS[5], X="a", Y=["b"], Linked=True), 0, None),
    "a mark with an escape": (linked(*SNAPSHOTS[:5]) + line(SNAPSHOTS[5])[:-2] + b',"Linke\\u0064":true}\n', 0, None),
    "two names of the log in the first line": (
        HEADER.replace(b'"Log"', b'"Log":"b","Log"') + linked(*SNAPSHOTS)[len(HEADER) :],
        2,
        "line 1: duplicate field",
    ),
    "a version beyond 64 bits": (
        HEADER + line(SNAPSHOTS[5]).replace(b'"Version": 5', b'"Version": 18446744073709551616'),
        2,
        "is not a receipts file",
    ),
    "a version of all 64 bits": (
        linked(*SNAPSHOTS)
        + line(SNAPSHOTS[5], Linked=True).replace(b'"Version": 5', b'"Version": 18446744073709551615'),
        0,
        None,
    ),
    "a negative version": (HEADER + line(SNAPSHOTS[5]).replace(b": 5", b": -5"), 2, "is not a receipts file"),
    "a mark that is no truth": (linked(*SNAPSHOTS) + line(SNAPSHOTS[0], Linked="yes"), 2, "is not a receipts file"),
    "a mark that is a number": (linked(*SNAPSHOTS) + line(SNAPSHOTS[0], Linked=1), 2, "is not a receipts file"),
    "a first line that is too deep": (b'{"Format":' + b"[" * 4000 + b"\n", 2, "is not a receipts file"),
    "a first line that is no text": (b'{"Format":"\xff"}\n', 2, "is not a receipts file"),
    "a huge line": (HEADER + b'{"X":"' + b"x" * 10**6 + b'"}\n', 2, "is not a receipts file"),
    "zeros": (bytes(10**6), 2, "is not a receipts file"),
}


@pytest.mark.parametrize("name", FILES)
def test_each_kind_of_file_ends_in_one_plain_line(path: Path, bundle: str, name: str) -> None:
    content, code, said = FILES[name]
    write(path, content)
    done = qed("verify", bundle, "--receipts", str(path))
    assert ("Verify: OK" in done.stdout) == (code == 0), done.stdout
    assert done.returncode == code, done.stderr
    if said is None:
        assert done.stderr == ""
    else:
        assert said in one_line(done.stderr)
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_added_that_a_bad_file_cannot_take(path: Path, name: str) -> None:
    """A file that cannot be appended to is refused before the event is sent, and keeps its content."""
    content, _, _ = FILES[name]
    write(path, content)
    log = log_of(*EVENTS)
    with Faces(log, name="a") as server:
        done = qed("add", "--event", "event 6", "--receipts", str(path), QED_ENDPOINTS=server.url)
    if done.returncode:
        one_line(done.stderr)
        assert path.read_bytes() == content
        # The last possible version is only in conflict once the event was added. Then the receipt is on stdout.
        assert len(log) == (7 if "64 bits" in name and "all" in name else 6)
        return
    lines = path.read_bytes().splitlines()
    assert {json.loads(known).get("Version") for known in content.splitlines()} - {None} <= {
        json.loads(known).get("Version") for known in lines
    }
    assert json.loads(lines[-1]) == json.loads(line(log.snapshot(6), Linked=True))


def test_a_link_is_read_but_not_appended_to(path: Path, bundle: str) -> None:
    target = write(path.with_name("target"), linked(*SNAPSHOTS))
    path.symlink_to(target)
    assert qed("verify", bundle, "--receipts", str(path)).returncode == 0
    log = log_of(*EVENTS)
    with Faces(log, name="a") as server:
        done = qed("add", "--event", "x", "--receipts", str(path), QED_ENDPOINTS=server.url)
    assert "symbolic link" in one_line(done.stderr)
    assert (done.returncode, len(log)) == (2, 6)


def test_the_newest_receipt_counts_without_the_end_of_its_line(path: Path) -> None:
    """An editor, or a hand, may leave it out. Passed over, it would let a log go back behind it."""
    write(path, linked(*SNAPSHOTS).removesuffix(b"\n"))
    receipts = Receipts.load(path)
    assert receipts.anchor == SNAPSHOTS[5]
    with Faces(log_of(*EVENTS[:5]), name="a") as server:
        for event in ("event 5", "event 0"):
            done = qed("membership", "--event", event, "--receipts", str(path), QED_ENDPOINTS=server.url)
            assert ("Verify: STALE\n" in done.stdout, done.returncode) == (True, 1), done.stdout
    with pytest.raises(ReceiptsError, match="ends in half a line"):
        Receipts.open(path)


@pytest.mark.parametrize("ending", [b"\n", b""])
def test_receipts_that_cannot_be_written_are_proven_all_the_same(path: Path, ending: bytes) -> None:
    """An older file behind a symbolic link, or whose last line lacks its end, is linked in memory at each use."""
    target = write(path.with_name("target"), b"".join(map(line, SNAPSHOTS)).removesuffix(b"\n"), ending)
    path.symlink_to(target)
    before = target.read_bytes()
    with Faces(log_of(*EVENTS), name="a") as server:
        for question in ("event 0", "never added"):
            done = qed("membership", "--event", question, "--receipts", str(path), QED_ENDPOINTS=server.url)
            assert done.stdout.endswith("Verify: OK\n"), done.stderr
    assert target.read_bytes() == before


@pytest.mark.parametrize("kind", ["folder", "pipe", "missing"])
@pytest.mark.parametrize("command", ["verify", "membership", "add"])
def test_what_is_no_file_is_wrong_usage(tmp_path: Path, bundle: str, kind: str, command: str) -> None:
    path = tmp_path / "receipts"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif command == "add":
        path = tmp_path / "missing" / "receipts"
    log = log_of(*EVENTS)
    arguments = {"verify": (bundle,), "membership": ("--event", "event 0"), "add": ("--event", "x")}[command]
    with Faces(log, name="a") as server:
        done = qed(command, *arguments, "--receipts", str(path), QED_ENDPOINTS=server.url)
    assert str(path) in one_line(done.stderr)
    assert (done.returncode, len(log)) == (2, 6)


def test_a_file_edited_while_in_use_is_noticed(path: Path) -> None:
    receipts = Receipts.load(write(path, linked(*SNAPSHOTS)))
    with path.open("r+b") as file:
        file.write(HEADER + line(SNAPSHOTS[5], Linked=True) + line(SNAPSHOTS[4], Linked=True))
    with pytest.raises(ReceiptsError, match="was edited"):
        receipts.get(0)


def test_an_error_of_the_system_names_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Receipts.open(path) as receipts:

        def full(*_: Any) -> int:  # noqa: ANN401 - the signature of os.write
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left") as caught:
            receipts.append(SNAPSHOTS[:1])
        assert caught.value.filename == str(path)
        monkeypatch.undo()
        receipts.append(SNAPSHOTS[:1])
    assert len(read_lines(path.read_text())) == 2


# Large files.


def large(path: Path, count: int) -> None:
    text = linked(SNAPSHOTS[5])[len(HEADER) :].replace(b'"Version": 5', b'"Version": %d')
    with path.open("wb") as file:
        file.write(HEADER)
        file.writelines(text % version for version in range(count))


def test_a_receipt_takes_few_bytes_in_memory_and_little_time(path: Path) -> None:
    """A gigabyte is four and a half million lines. The limits leave room for a busy machine."""
    count = 200_000
    large(path, count)
    before, began_s = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
    receipts = Receipts.load(path)
    spent_s = time.process_time() - began_s
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert len(receipts) == count
    assert (after.ru_maxrss - before.ru_maxrss) * 1024 / count < 100
    assert spent_s / count < 12e-6
    assert receipts.occurrences_of(Digest.of(EVENTS[0])) == []
