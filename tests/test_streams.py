"""Streams of events: wherever they are cut, and however slow a client is, the receipts say exactly what is in."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest

from commands import qed
from harness.cluster import new_cluster
from harness.wait import wait_until
from plain_http import connect, connect_narrowly
from secure_server import Secure
from streams import Talk, chunk, digest_of, events_in, line_of, request_head, versions_of
from test_rates import new_key

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartServer
    from harness.process import Server

HASTY: Final = ("--request-arrival-timeout-s", "0.3", "--keep-alive-timeout-s", "1", "--unread-timeout-s", "0.5")


@pytest.fixture(scope="module")
def server(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Server:
    return start_server(tmp_path_factory.mktemp("streams"))


@pytest.fixture(scope="module")
def hasty(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Server:
    return start_server(tmp_path_factory.mktemp("hasty"), *HASTY)


def assert_receipts(lines: list[dict[str, Any]], events: list[bytes]) -> None:
    """Check that lines are the snapshots of these events, in order."""
    assert [line["EventDigest"] for line in lines] == [digest_of(event) for event in events]
    versions = [line["Version"] for line in lines]
    assert versions == sorted(set(versions))


def test_each_line_is_answered_in_order(server: Server) -> None:
    events = [b"in order %d" % number for number in range(5000)]
    with Talk(server) as talk:
        talk.send(b"".join(map(line_of, events)))
        talk.end()
        *receipts, last = talk.rest()
    assert talk.status == 200
    assert talk.headers["content-type"] == "application/x-ndjson"
    assert last == {"Done": 5000}
    assert talk.is_complete
    assert_receipts(receipts, events)
    assert versions_of(server, events[-1]) == receipts[-1]["Version"]


def test_a_stream_of_nothing_is_done(server: Server) -> None:
    with Talk(server) as talk:
        talk.end()
        assert talk.rest() == [{"Done": 0}]


def test_a_line_is_answered_before_the_next_is_sent(server: Server) -> None:
    with Talk(server) as talk:
        for number in range(5):
            event = b"one by one %d" % number
            # The end of the line comes later than the rest of it.
            for part in (line_of(event)[:20], line_of(event)[20:]):
                talk.send(part)
            receipt = talk.line()
            assert receipt is not None
            assert receipt["EventDigest"] == digest_of(event)
        talk.end()
        assert talk.rest() == [{"Done": 5}]


def test_the_last_line_of_a_whole_body_needs_no_line_feed(server: Server) -> None:
    with Talk(server) as talk:
        talk.send(line_of(b"a last line").rstrip(b"\n"))
        talk.end()
        assert_receipts(talk.rest()[:-1], [b"a last line"])


def test_a_body_with_a_length_is_a_stream_too(server: Server) -> None:
    content = line_of(b"with a length") + line_of(b"with a length, too").rstrip(b"\n")
    answer = httpx.post(f"{server.url}/events/stream", content=content)
    *receipts, last = map(json.loads, answer.text.splitlines())
    assert_receipts(receipts, [b"with a length", b"with a length, too"])
    assert last == {"Done": 2}


def test_a_stream_cut_at_any_byte_adds_whole_lines_only(server: Server) -> None:
    def cut(place: int) -> None:
        events = [b"cut at %d: %d" % (place, number) for number in range(3)]
        body = chunk(line_of(events[0]) + line_of(events[1])[:30]) + chunk(line_of(events[1])[30:] + line_of(events[2]))
        sent = (body + b"0\r\n\r\n")[:place]
        whole = sent.count(b"}\n")
        with Talk(server) as talk:
            talk.peer.sendall(sent)
            receipts = [talk.line() for _ in range(whole)]
            talk.peer.shutdown(socket.SHUT_WR)
            rest = talk.rest()
        assert talk.is_complete == (rest == [{"Done": 3}])
        assert not talk.is_complete or sent == body + b"0\r\n\r\n"
        # What was submitted before is committed before this one.
        assert server.add(b"after the cut at %d" % place).status_code == 201
        assert_receipts([receipt for receipt in receipts if receipt], events[:whole])
        versions = [receipt["Version"] for receipt in receipts if receipt]
        assert [versions_of(server, event) for event in events] == [*versions, *[None] * (3 - whole)]

    length = sum(len(line_of(b"cut at 100: %d" % number)) for number in range(3)) + 2 * len(chunk(b"x" * 99)) - 198 + 5
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(cut, range(length + 1)))


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (b"nonsense", "malformed"),
        (b"", "malformed"),
        (b'{"EventDigest":"eA=="}', "malformed"),
        (b'{"Event":"eB=="}', "malformed"),
        (b'{"Event":"eA==","Event":"eA=="}', "malformed"),
        (b'{"Event":"eA==","Receipt":"committed"}', "malformed"),
    ],
)
@pytest.mark.parametrize("is_at_once", [True, False])
def test_a_bad_line_ends_the_stream_and_is_named(server: Server, bad: bytes, code: str, is_at_once: bool) -> None:
    name = b"%b %d " % (bad, is_at_once)
    events = [name + b"%d" % number for number in range(3)]
    lines = [line_of(events[0]), line_of(events[1]), bad + b"\n", line_of(events[2])]
    with Talk(server) as talk:
        for part in [b"".join(lines)] if is_at_once else lines:
            talk.send(part)
        *receipts, last = talk.rest_until_error()
    assert_receipts(receipts, events[:2])
    assert last["error"] == code
    assert last["message"].startswith("line 3: ")
    assert (last["Line"], last["Acknowledged"], last["Unknown"]) == (3, 2, 0)
    assert versions_of(server, events[2]) is None


def test_a_line_is_not_longer_than_a_body(start_server: StartServer, tmp_path: Path) -> None:
    small = start_server(tmp_path, "--max-body-bytes", "2048")
    with Talk(small) as talk:
        talk.send(line_of(b"a short line"))
        for _ in range(3):
            talk.send(b" " * 1000)
        receipt, last = talk.rest_until_error()
    assert_receipts([receipt], [b"a short line"])
    assert (last["error"], last["Line"], last["Acknowledged"]) == ("too_large", 2, 1)


def test_a_repeated_event_is_shown_at_its_last_version_as_by_single_additions(server: Server) -> None:
    with Talk(server) as talk:
        talk.send(line_of(b"again") + line_of(b"between") + line_of(b"again"))
        talk.end()
        first, _, third, last = talk.rest()
    assert last == {"Done": 3}
    assert versions_of(server, b"again") == third["Version"] == first["Version"] + 2


def test_many_equal_events_are_many_versions(server: Server) -> None:
    with Talk(server) as talk:
        talk.send(line_of(b"equal") * 2000)
        talk.end()
        *receipts, last = talk.rest()
    assert last == {"Done": 2000}
    assert_receipts(receipts, [b"equal"] * 2000)
    assert versions_of(server, b"equal") == receipts[-1]["Version"]


def test_each_line_says_whether_it_is_added_only_if_absent(server: Server) -> None:
    with Talk(server) as talk:
        talk.send(line_of(b"once") + line_of(b"once", IfAbsent=True) + line_of(b"once"))
        talk.end()
        first, same, second, _ = talk.rest()
    assert first == same
    assert second["Version"] == first["Version"] + 1


def test_a_log_that_does_not_sign_says_so_behind_the_snapshots(server: Server) -> None:
    with Talk(server, query="?receipt=committed") as talk:
        talk.send(line_of(b"with a receipt"))
        talk.end()
        snapshot, receipt, last = talk.rest()
    assert_receipts([snapshot], [b"with a receipt"])
    assert receipt["Receipt"] is None
    assert "not signed" in receipt["ReceiptError"]
    assert last == {"Done": 1}


def test_another_query_is_refused(server: Server) -> None:
    answer = httpx.post(f"{server.url}/events/stream?receipt=witnessed", content=b"")
    assert (answer.status_code, answer.json()["error"]) == (400, "malformed")


# Slow clients


@pytest.mark.parametrize(("sent", "what"), [(b'{"Eve', "a line did not arrive whole"), (b"", "the next line")])
def test_a_stream_that_stalls_ends_with_its_receipts(hasty: Server, sent: bytes, what: str) -> None:
    event = b"before %b stalls" % sent
    with Talk(hasty) as talk:
        talk.send(line_of(event) + sent)
        receipt, last = talk.rest()
    assert_receipts([receipt], [event])
    assert (last["error"], last["Acknowledged"], last["Unknown"]) == ("timeout", 1, 0)
    assert what in last["message"]


def test_a_line_that_trickles_ends_the_stream(hasty: Server) -> None:
    with Talk(hasty) as talk:
        talk.peer.settimeout(0.05)
        line = iter(line_of(b"a line that trickles"))

        def is_refused() -> bool:
            talk.send(bytes([next(line)]))
            try:
                return talk.line() is not None
            except TimeoutError:
                return False

        wait_until(is_refused, "the end of the stream")
    assert versions_of(hasty, b"a line that trickles") is None


def test_a_stream_lives_longer_than_a_request_may_take_to_arrive(hasty: Server) -> None:
    begun_s = time.monotonic()
    with Talk(hasty) as talk:
        count = 0
        while time.monotonic() - begun_s < 1.0:
            talk.send(line_of(b"a long life %d" % count))
            assert talk.line() is not None
            count += 1
        talk.end()
        assert talk.rest() == [{"Done": count}]


def test_a_client_that_does_not_read_holds_little_and_is_cut_off(start_server: StartServer, tmp_path: Path) -> None:
    slow = start_server(tmp_path, "--unread-timeout-s", "2")
    before = slow.resident_bytes()
    sent = 0
    with Talk(slow, peer=connect_narrowly(slow)) as talk:
        talk.peer.settimeout(1)
        lines = b"".join(line_of(b"unread %d" % number) for number in range(1000))
        try:
            while sent < 1_000_000:
                talk.send(lines)
                sent += 1000
        except OSError:
            pass
        assert sent < 200_000
        # Others are served meanwhile.
        assert slow.add(b"of another client").status_code == 201
        assert slow.resident_bytes() - before < 100 << 20
        ended = select.poll()
        ended.register(talk.peer, select.POLLHUP)
        wait_until(lambda: bool(ended.poll(0)), "the stream to be cut off")
        receipts = talk.rest()
    assert not talk.is_complete
    assert len(receipts) <= events_in(slow) - 1


# Who may, and how fast


def test_a_key_needs_the_role_and_loses_it_in_the_middle(start_server: StartServer, tmp_path: Path) -> None:
    closed = start_server(tmp_path)
    operator = new_key(closed, "--role", "operate")
    appender = new_key(closed, "--role", "append", key=operator)
    prover = new_key(closed, "--role", "prove", key=operator)
    for key, status in (("", 401), (prover, 403)):
        headers = {"Api-Key": key} if key else {}
        answer = httpx.post(f"{closed.url}/events/stream", content=line_of(b"x"), headers=headers)
        assert answer.status_code == status
    with Talk(closed, f"Api-Key: {appender}") as talk:
        talk.send(line_of(b"with a valid key"))
        assert talk.line() is not None
        key_id = appender.split("_")[1]
        done = qed("keys", "revoke", key_id, QED_ENDPOINTS=closed.url, QED_API_KEY=operator)
        assert done.returncode == 0, done.stderr
        talk.send(line_of(b"with a revoked key"))
        talk.end()
        (last,) = talk.rest()
    assert (last["error"], last["Acknowledged"], last["Unknown"]) == ("unauthorized", 1, 0)
    closed.key = prover
    assert versions_of(closed, b"with a revoked key") is None


def test_a_stream_waits_for_the_rate_of_its_key(start_server: StartServer, tmp_path: Path) -> None:
    closed = start_server(tmp_path)
    operator = new_key(closed, "--role", "operate")
    key = new_key(closed, "--role", "append", "--events-per-s", "100", key=operator)
    begun_s = time.monotonic()
    with Talk(closed, f"Api-Key: {key}") as talk:
        talk.send(b"".join(line_of(b"%d" % number) for number in range(250)))
        talk.end()
        assert talk.rest()[-1] == {"Done": 250}
    # The first 100 are added at once.
    assert time.monotonic() - begun_s > 1.2


def test_a_rate_that_takes_long_ends_the_stream_and_says_when(start_server: StartServer, tmp_path: Path) -> None:
    closed = start_server(tmp_path)
    operator = new_key(closed, "--role", "operate")
    key = new_key(closed, "--role", "append", "--events-per-s", "0.05", key=operator)
    with Talk(closed, f"Api-Key: {key}") as talk:
        talk.send(line_of(b"first") + line_of(b"second"))
        receipt, last = talk.rest_until_error()
    assert_receipts([receipt], [b"first"])
    assert (last["error"], last["Acknowledged"], last["Unknown"], last["RetryAfter"]) == ("rate_limited", 1, 0, 20)


def test_unfinished_lines_count_among_the_bodies_that_arrive(start_server: StartServer, tmp_path: Path) -> None:
    small = start_server(tmp_path, "--max-body-bytes", "100000", "--max-buffered-bytes", "150000")
    with Talk(small) as first, Talk(small) as second:
        first.send(line_of(b"of the first"))
        assert first.line() is not None
        for talk in (first, second):
            talk.send(b" " * 90_000)
        (last,) = second.rest_until_error()
        assert (last["error"], last["Acknowledged"], last["Unknown"]) == ("overloaded", 0, 0)
        first.send(line_of(b"of the first, too"))
        assert first.line() is not None


def test_an_idle_stream_gives_way_and_says_what_is_in(start_server: StartServer, tmp_path: Path) -> None:
    full = start_server(tmp_path, "--max-connections", "3")
    talks = [Talk(full) for _ in range(3)]
    for number, talk in enumerate(talks):
        talk.send(line_of(b"%d" % number))
        assert talk.line() is not None
    with Talk(full, peer=connect(full, "127.0.0.2")) as newcomer:
        newcomer.end()
        assert newcomer.rest() == [{"Done": 0}]
    (last,) = talks[0].rest_until_error()
    assert (last["error"], last["Acknowledged"], last["Unknown"]) == ("unavailable", 1, 0)
    for talk in talks[1:]:
        talk.end()
        assert talk.rest() == [{"Done": 1}]
    for talk in talks:
        talk.peer.close()


# Stops


def test_a_stop_ends_a_stream_and_says_what_is_in(start_server: StartServer, tmp_path: Path) -> None:
    stopped = start_server(tmp_path)
    with Talk(stopped) as talk:
        talk.send(line_of(b"before the stop") + b'{"Event')
        receipt = talk.line()
        assert receipt is not None
        stopped.process.terminate()
        *others, last = talk.rest_until_error()
        assert others == []
    assert (last["error"], last["Acknowledged"], last["Unknown"]) == ("unavailable", 1, 0)
    assert "stopping" in last["message"]
    assert stopped.wait() == 0
    stopped.start()
    assert versions_of(stopped, b"before the stop") == receipt["Version"]
    assert events_in(stopped) == 1


def test_a_stop_in_full_flow_answers_what_was_submitted(start_server: StartServer, tmp_path: Path) -> None:
    stopped = start_server(tmp_path)
    with Talk(stopped) as talk:
        is_over = threading.Event()

        def send() -> None:
            number = 0
            try:
                while not is_over.is_set():
                    talk.send(b"".join(line_of(b"%d" % (number + place)) for place in range(500)))
                    number += 500
            except OSError:
                pass

        sender = threading.Thread(target=send)
        sender.start()
        receipts = [talk.line() for _ in range(2000)]
        stopped.process.terminate()
        while (line := talk.line()) is not None and "error" not in line:
            receipts.append(line)
        is_over.set()
        sender.join()
    assert line is not None
    assert (line["error"], line["Acknowledged"], line["Unknown"]) == ("unavailable", len(receipts), 0)
    assert stopped.wait() == 0
    stopped.start()
    assert events_in(stopped) == len(receipts)


def test_a_follower_names_the_leader_before_anything_is_sent(tmp_path: Path) -> None:
    cluster = new_cluster(tmp_path, 3)
    try:
        cluster.start()
        leader, follower = cluster.leader(), cluster.follower()
        with connect(follower) as peer:
            peer.sendall(request_head("Expect: 100-continue", query="?receipt=committed"))
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += peer.recv(65536)
        assert answer.startswith(b"HTTP/1.1 307 ")
        assert f"location: {leader.url}/events/stream?receipt=committed\r\n".encode() in answer
    finally:
        cluster.forget()


def test_a_stream_over_tls(tmp_path: Path) -> None:
    secure = Secure(tmp_path)
    try:
        events = [b"over tls %d" % number for number in range(3000)]
        with Talk(secure.server, f"Api-Key: {secure.key_for('append')}", ca=secure.ca_file) as talk:
            talk.send(b"".join(map(line_of, events)))
            talk.end()
            *receipts, last = talk.rest()
        assert last == {"Done": 3000}
        assert_receipts(receipts, events)
    finally:
        secure.server.forget()


def test_a_leader_that_loses_the_others_says_how_many_lines_are_in_doubt(tmp_path: Path) -> None:
    cluster = new_cluster(tmp_path, 3)
    try:
        cluster.start()
        leader = cluster.leader()
        with Talk(leader) as talk:
            talk.send(line_of(b"acknowledged"))
            assert talk.line() is not None
            for other in cluster.others(leader):
                other.pause()
            talk.send(line_of(b"in doubt") + line_of(b"in doubt, too") + line_of(b"unfinished")[:20])
            (last,) = talk.rest_until_error()
            for other in cluster.others(leader):
                other.resume()
        assert last["error"] in {"outcome_unknown", "unavailable"}
        assert (last["Acknowledged"], last["Unknown"]) == (1, 2)
        cluster.wait_whole()
        assert versions_of(cluster.leader(), b"acknowledged") == 0
        assert versions_of(cluster.leader(), b"unfinished") is None
    finally:
        cluster.forget()
