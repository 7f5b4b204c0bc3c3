"""Invalid requests of clients: each is refused with a JSON error and leaves log and server as they were."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from harness.process import COMMAND, Server
from harness.wait import LIMIT_S, wait_until
from plain_http import (
    ANSWER_BYTES,
    connect,
    connect_narrowly,
    head,
    is_refused_or_cut,
    large_bulk,
    read_answer,
    read_answer_within,
    read_to_the_end,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import StartServer

EVENT = base64.b64encode(b"an event").decode()
DIGEST = base64.b64encode(bytes(32)).decode()
MIB = 1024 * 1024

CALLS = ["/events", "/events/bulk", "/proofs/membership", "/proofs/digest-membership", "/proofs/incremental"]
CALLS += ["/proofs/membership/bulk"]

NOT_EVEN_AN_OBJECT = {
    "empty": b"",
    "blank": b" \n",
    "null": b"null",
    "not JSON": b"event 0",
    "cut off": b'{"Event": "YQ==", "Events": ["YQ=="',
    "two values": b'{"Event":"","Events":[""],"Key":"","Start":0,"End":0} {}',
    "array": b"[]",
    "text": b'"YQ=="',
    "number": b"7",
    "no fields": b"{}",
    "not UTF-8": b'{"Event": "\xff\xfe"}',
    "zero bytes": bytes(100),
    "nested arrays": b"[" * 100_000,
    "nested objects": b'{"a":' * 100_000,
    "nested in an unknown field": b'{"Event":"","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "10 MB of nesting": b"[" * 10 * MIB,
}

NOT_BASE64 = ["!", "YQ", "YQ=", "Y", "YQ===", "YQ==YQ==", "Y Q=", "YQ==\n", "_-__", "é===", "\u0000", "AB=="]
NOT_A_VERSION = [
    "-1",
    "-18446744073709551616",
    "0.5",
    "1e30",
    "18446744073709551616",
    "1" * 400,
    '"1"',
    "[1]",
    "{}",
    "true",
]


def wrong_types(fields: dict[str, str], name: str, values: list[str]) -> Iterator[bytes]:
    """Return bodies with all `fields`, where the field called `name` has each of the JSON `values` in turn."""
    for value in values:
        spelt = ", ".join(f'"{key}": {value if key == name else right}' for key, right in fields.items())
        yield ("{" + spelt + "}").encode()


QUOTED_EVENT, QUOTED_DIGEST = json.dumps(EVENT), json.dumps(DIGEST)
NOT_BYTES = ["null", "7", "0.5", "true", "[]", "{}", *(json.dumps(text) for text in NOT_BASE64)]
NOT_A_DIGEST = [*NOT_BYTES, *(json.dumps(base64.b64encode(bytes(n)).decode()) for n in (0, 31, 33, 64))]
NOT_EVENTS = ["[]", "null", "7", '"YQ=="', "{}", "[null]", "[7]", '["YQ==", null]', '["YQ==", "!"]', '[["YQ=="]]']
NOT_DIGESTS = ["[]", "null", QUOTED_DIGEST, "{}", *(f"[{QUOTED_DIGEST}, {text}]" for text in NOT_A_DIGEST)]
NOT_A_FLAG = ["null", "0", "1", '"true"', "[]"]

MALFORMED = [
    *(("/events", body) for body in wrong_types({"Event": ""}, "Event", NOT_BYTES)),
    *(("/events", body) for body in wrong_types({"Event": QUOTED_EVENT, "IfAbsent": ""}, "IfAbsent", NOT_A_FLAG)),
    *(("/events/bulk", body) for body in wrong_types({"Events": ""}, "Events", NOT_EVENTS)),
    *(("/events/bulk", body) for body in wrong_types({"Events": '["YQ=="]', "IfAbsent": ""}, "IfAbsent", NOT_A_FLAG)),
    *(("/events", body) for body in wrong_types({"EventDigest": ""}, "EventDigest", NOT_A_DIGEST)),
    *(("/events/bulk", body) for body in wrong_types({"EventDigests": ""}, "EventDigests", NOT_DIGESTS)),
    ("/events", f'{{"Event": {QUOTED_EVENT}, "EventDigest": {QUOTED_DIGEST}}}'.encode()),
    ("/events", f'{{"Events": [{QUOTED_EVENT}]}}'.encode()),
    ("/events", b'{"IfAbsent": true}'),
    ("/events", f'{{"Event": {QUOTED_EVENT}, "Event": {QUOTED_EVENT}}}'.encode()),
    ("/events/bulk", f'{{"Events": [{QUOTED_EVENT}], "EventDigests": [{QUOTED_DIGEST}]}}'.encode()),
    ("/events/bulk", f'{{"Event": {QUOTED_EVENT}}}'.encode()),
    ("/events/bulk", b'{"IfAbsent": true}'),
    *(("/proofs/membership", body) for body in wrong_types({"Key": ""}, "Key", NOT_BYTES)),
    *(
        ("/proofs/membership", body)
        for body in wrong_types({"Key": QUOTED_EVENT, "Version": ""}, "Version", NOT_A_VERSION)
    ),
    *(("/proofs/digest-membership", body) for body in wrong_types({"KeyDigest": ""}, "KeyDigest", NOT_A_DIGEST)),
    *(
        ("/proofs/digest-membership", body)
        for body in wrong_types({"KeyDigest": QUOTED_DIGEST, "Version": ""}, "Version", NOT_A_VERSION)
    ),
    *(("/proofs/membership/bulk", body) for body in wrong_types({"Keys": ""}, "Keys", NOT_EVENTS)),
    *(("/proofs/membership/bulk", body) for body in wrong_types({"KeyDigests": ""}, "KeyDigests", NOT_DIGESTS)),
    ("/proofs/membership/bulk", f'{{"Keys": [{QUOTED_EVENT}], "KeyDigests": [{QUOTED_DIGEST}]}}'.encode()),
    *(
        ("/proofs/incremental", body)
        for name in ("Start", "End")
        for body in wrong_types({"Start": "0", "End": "0"}, name, [*NOT_A_VERSION, "null"])
    ),
]


CLOSING = b"GET /healthcheck HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    """Yield a client of a server whose log must not change."""
    with httpx.Client(base_url=server.url, timeout=LIMIT_S) as client:
        if server.count() == 0:
            client.post("/events", json={"Event": EVENT})
        count = server.count()
        yield client
        assert server.count() == count
        assert client.head("/healthcheck").status_code == 204


def assert_error(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    body: Any = answer.json()
    assert set(body) == {"error", "message"}
    assert body["error"] == code
    assert body["message"]


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize("body", NOT_EVEN_AN_OBJECT.values(), ids=NOT_EVEN_AN_OBJECT)
def test_body_that_is_no_request_is_refused(http: httpx.Client, path: str, body: bytes) -> None:
    assert_error(http.post(path, content=body), 400, "malformed")


def test_field_of_the_wrong_type_is_refused(http: httpx.Client) -> None:
    for path, body in MALFORMED:
        answer = http.post(path, content=body)
        assert answer.status_code == 400, (path, body[:200], answer.text)
        assert_error(answer, 400, "malformed")


@pytest.mark.parametrize(
    "text", ["-1", "+1", "1.0", "1e3", "0x1", "00", "01", "abc", "\u0661", "1_0", "%20", "18446744073709551616"]
)
def test_path_that_names_no_version_is_refused(http: httpx.Client, text: str) -> None:
    assert_error(http.get(f"/snapshots/{text}"), 400, "malformed")


# Size


@pytest.mark.usefixtures("http")
def test_declared_gigabyte_is_refused_before_it_is_sent(server: Server) -> None:
    with connect(server) as peer:
        peer.sendall(head("/events/bulk", "Content-Length: 1073741824"))
        status, headers, body = read_answer(peer)
        assert (status, json.loads(body)["error"]) == (413, "too_large")
        assert headers["connection"] == "close"
        peer.shutdown(socket.SHUT_WR)
        assert peer.recv(1) == b""


@pytest.mark.usefixtures("http")
def test_declared_gigabyte_is_refused_without_asking_for_it(server: Server) -> None:
    with connect(server) as peer:
        peer.sendall(head("/events/bulk", "Content-Length: 1073741824", "Expect: 100-continue"))
        assert read_answer(peer)[0] == 413


def test_gigabyte_without_a_length_is_refused_and_not_held(http: httpx.Client, server: Server) -> None:
    def gigabyte() -> Iterator[bytes]:
        for _ in range(1024):
            yield b"[" * MIB

    before = server.resident_bytes()
    # A client that does not read before it has sent everything may see the connection close instead of the answer.
    with contextlib.suppress(httpx.TransportError):
        assert_error(http.post("/events/bulk", content=gigabyte()), 413, "too_large")
    assert server.resident_bytes() - before < 256 * MIB


def test_body_a_little_too_large_is_refused_with_an_answer(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path, "--max-body-bytes", "100000")
    with httpx.Client(base_url=server.url) as http:
        event = base64.b64encode(bytes(90_000)).decode()
        assert_error(http.post("/events", json={"Event": event}), 413, "too_large")
        assert_error(http.post("/events", content=iter([b"[" * 60_000] * 10)), 413, "too_large")
        assert http.post("/events", json={"Event": event[:90_000]}).status_code == 201
        assert server.count() == 1


def test_bulk_of_too_many_events_is_refused(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path, "--max-bulk-events", "10")
    with httpx.Client(base_url=server.url) as http:
        assert_error(http.post("/events/bulk", json={"Events": [EVENT] * 11}), 413, "too_large")
        assert_error(http.post("/events/bulk", json={"EventDigests": [DIGEST] * 11}), 413, "too_large")
        assert server.count() == 0
        assert http.post("/events/bulk", json={"Events": [EVENT] * 10}).status_code == 201


def test_head_too_large_is_refused(http: httpx.Client, server: Server) -> None:
    assert_error(http.get("/info", headers={"Padding": "x" * 20_000}), 431, "too_large")
    assert_error(http.get("/" + "x" * 20_000), 431, "too_large")
    with connect(server) as peer:
        peer.sendall(b"GET /info HTTP/1.1\r\n")
        with contextlib.suppress(OSError):
            for _ in range(1000):
                peer.sendall(b"Padding: " + b"x" * 1000 + b"\r\n")
        assert is_refused_or_cut(peer, 431)


CHUNKED = head("/proofs/incremental", "Transfer-Encoding: chunked")
BESIDE_A_BODY = {
    "one long trailer": CHUNKED + b"0\r\nT: " + b"x" * 20_000,
    "many trailers": CHUNKED + b"0\r\n" + b"Trailer: x\r\n" * 2_000,
    "a chunk extension": CHUNKED + b"1;x=" + b"y" * 20_000,
    "many chunk extensions": CHUNKED + b"1;extension=12345678901234567890\r\n \r\n" * 2_000,
    "a chunk length": CHUNKED + b"0" * 20_000,
    "blank lines": b"\r\n" * 10_000,
}


@pytest.mark.usefixtures("http")
@pytest.mark.parametrize("sent", BESIDE_A_BODY.values(), ids=BESIDE_A_BODY)
@pytest.mark.parametrize("piece_bytes", [1_000, 100_000])
def test_what_is_not_body_has_a_limit(server: Server, sent: bytes, piece_bytes: int) -> None:
    with connect(server) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The server may answer and close before it has read the whole request.
        with contextlib.suppress(OSError):
            for start in range(0, len(sent), piece_bytes):
                peer.sendall(sent[start : start + piece_bytes])
        assert is_refused_or_cut(peer, 431)


@pytest.mark.usefixtures("http")
def test_what_follows_an_upgrade_ends_the_connection(server: Server) -> None:
    with connect(server) as peer:
        peer.sendall(head("/proofs/incremental", "Connection: upgrade", "Upgrade: none"))
        assert read_answer(peer)[0] == 400
        peer.sendall(b"x" * 20_000)
        assert b"HTTP/1.1 2" not in read_to_the_end(peer)


def test_a_body_in_small_chunks_is_taken(http: httpx.Client) -> None:
    body = json.dumps({"Start": 0, "End": 0}).encode() + b" " * 40_000
    chunks = (body[start : start + 10] for start in range(0, len(body), 10))
    assert http.post("/proofs/incremental", content=chunks).status_code == 200


@pytest.mark.usefixtures("http")
def test_many_small_requests_at_once_are_no_long_head(server: Server) -> None:
    request = b"GET /healthcheck HTTP/1.1\r\nHost: x\r\n\r\n"
    sent = request * 50 + b"GET /healthcheck HTTP/1.1\r\nHost: x\r\nPadding: " + b"x" * 15_000
    with connect(server) as peer:
        peer.sendall(sent)
        peer.sendall(b"\r\nConnection: close\r\n\r\n")
        assert read_to_the_end(peer).count(b"HTTP/1.1 204 ") == 51


@pytest.mark.usefixtures("http")
def test_requests_far_ahead_of_their_answers_end_the_connection(server: Server) -> None:
    # The first waits for a version that will never exist.
    body = b'{"Start": 0, "End": 1000000}'
    first = head("/proofs/incremental", f"Content-Length: {len(body)}") + body
    with connect(server) as peer:
        peer.sendall(first + b"GET /healthcheck HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000)
        assert b"HTTP/1.1 204 " not in read_to_the_end(peer)
    with connect(server) as peer:
        peer.sendall(first + b"GET /healthcheck HTTP/1.1\r\nHost: x\r\n\r\n" * 99 + CLOSING)
        assert read_to_the_end(peer).count(b"HTTP/1.1 204 ") == 100
    assert "Traceback" not in server.stderr
    assert "level=error" not in server.stderr


HEADS = {
    "no host": (b"GET /info HTTP/1.1\r\n", 400, "malformed"),
    "two hosts": (b"GET /info HTTP/1.1\r\nHost: a\r\nHost: a\r\n", 400, "malformed"),
    "two hosts in HTTP/1.0": (b"GET /info HTTP/1.0\r\nHost: a\r\nhost: b\r\n", 400, "malformed"),
    "a compressed body": (
        b"POST /events HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Encoding: gzip\r\n",
        415,
        "unsupported_encoding",
    ),
    "a body compressed on its way": (
        b"POST /events HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n",
        415,
        "unsupported_encoding",
    ),
    "a body compressed on its way, in two lines": (
        b"POST /events HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        415,
        "unsupported_encoding",
    ),
    "an empty host": (b"GET /info HTTP/1.1\r\nHost:\r\n", 400, "malformed"),
    "a host with a space": (b"GET /info HTTP/1.1\r\nHost: a b\r\n", 400, "malformed"),
}


@pytest.mark.usefixtures("http")
@pytest.mark.parametrize(("sent", "status", "code"), HEADS.values(), ids=HEADS)
def test_a_head_with_two_readings_is_refused(server: Server, sent: bytes, status: int, code: str) -> None:
    with connect(server) as peer:
        peer.sendall(sent + b"\r\n")
        found, _, body = read_answer(peer)
    assert (found, json.loads(body)["error"]) == (status, code)
    assert status != 415 or "gzip" in json.loads(body)["message"]


def test_a_head_with_one_reading_is_taken(http: httpx.Client, server: Server) -> None:
    range_ = {"Start": 0, "End": 0}
    assert http.post("/proofs/incremental", json=range_, headers={"Content-Encoding": "Identity"}).status_code == 200
    with connect(server) as peer:
        peer.sendall(b"GET /info HTTP/1.0\r\n\r\n")
        assert read_answer(peer)[0] == 200


# Time


def test_body_slow_to_arrive_is_refused(hasty: Server) -> None:
    with connect(hasty) as peer:
        peer.sendall(head("/events", "Content-Length: 100") + b'{"Event": ')
        status, headers, body = read_answer(peer)
        assert (status, json.loads(body)["error"], headers["connection"]) == (408, "timeout", "close")
        assert peer.recv(1) == b""
    assert hasty.count() == 0


def test_body_that_trickles_is_refused(hasty: Server) -> None:
    with connect(hasty) as peer:
        peer.sendall(head("/events", "Content-Length: 100000"))
        peer.settimeout(0.05)
        answer = b""

        def trickle() -> bool:
            nonlocal answer
            with contextlib.suppress(TimeoutError):
                peer.sendall(b" ")
                answer += peer.recv(1000)
            return bool(answer)

        wait_until(trickle, "the server to lose patience")
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_head_slow_to_arrive_is_refused(hasty: Server) -> None:
    for start in (b"", b"P", b"POST /events HTTP/1.1\r\nHost: x\r\nPadd"):
        with connect(hasty) as peer:
            peer.sendall(start)
            assert read_answer(peer)[0] == 408
            assert peer.recv(1) == b""


def test_second_request_slow_to_arrive_is_refused(hasty: Server) -> None:
    with connect(hasty) as peer:
        peer.sendall(b"GET /info HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_answer(peer)[0] == 200
        peer.sendall(b"GET /info HTTP/1.1\r\nHo")
        assert read_answer(peer)[0] == 408


def test_body_that_nobody_reads_does_not_hold_the_connection(hasty: Server) -> None:
    with connect(hasty) as peer:
        peer.sendall(head("/nowhere", "Content-Length: 1000000") + b"[" * 1000)
        assert read_answer(peer)[0] == 404
        assert peer.recv(1) == b""


# Connections


@pytest.mark.usefixtures("http")
def test_body_cut_off_adds_nothing(server: Server) -> None:
    body = json.dumps({"Event": EVENT}).encode()
    for kept in (0, 1, len(body) - 1):
        with connect(server) as peer:
            peer.sendall(head("/events", f"Content-Length: {len(body)}") + body[:kept])
    for chunk in (b"", b'5\r\n{"Eve', b"0"):
        with connect(server) as peer:
            peer.sendall(head("/events", "Transfer-Encoding: chunked") + chunk)


@pytest.mark.usefixtures("http")
@pytest.mark.parametrize(
    "request_line",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"event 0\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST /events HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /events HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /events HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST /events HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ],
)
def test_what_is_not_http_is_refused(server: Server, request_line: bytes) -> None:
    with connect(server) as peer:
        peer.sendall(request_line)
        status, _, body = read_answer(peer)
        assert (status, json.loads(body)["error"]) == (400, "malformed")
        assert peer.recv(1) == b""


def test_bodies_that_arrive_in_pieces_share_a_limit(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path, "--max-body-bytes", "1000000", "--max-buffered-bytes", "1000000")
    with connect(server) as first, connect(server) as second:
        for peer in (first, second):
            peer.sendall(head("/events", "Content-Length: 900000") + b" " * 600_000)
        answers = [refusal for peer in (first, second) if (refusal := read_answer_within(peer, 2.0))]
        assert [status for status, _, _ in answers] == [429]
        assert answers[0][1]["retry-after"] == "1"
    with httpx.Client(base_url=server.url) as http:
        assert http.post("/events", json={"Event": EVENT}).status_code == 201


def test_connections_beyond_the_limit_are_refused(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path, "--max-connections", "2")
    management = httpx.get(f"{server.url}/info").json()["mgmt_addr"]
    request = b"GET /info HTTP/1.1\r\nHost: x\r\n\r\n"

    def is_answered_alone() -> bool:
        with connect(server) as peer:
            peer.sendall(request)
            return read_answer(peer)[0] == 200

    wait_until(is_answered_alone, "the connections of the start to be gone")
    with connect(server) as first, connect(server) as second:
        for peer in (first, second):
            peer.sendall(request)
            assert read_answer(peer)[0] == 200
        with connect(server) as third:
            status, headers, body = read_answer(third)
            assert (status, json.loads(body)["error"]) == (503, "unavailable")
            assert headers["retry-after"] == "1"
        # Operators have a limit of their own.
        assert httpx.get(f"http://{management}/cluster").status_code == 200
        first.sendall(request)
        assert read_answer(first)[0] == 200
    wait_until(is_answered_alone, "room for one more")


def test_clients_leave_file_descriptors_to_the_store(tmp_path: Path) -> None:
    limited = ("/bin/sh", "-c", f"ulimit -n 64; exec '{COMMAND}' \"$@\"", "sh")
    server = Server("few", tmp_path, command=limited)
    server.start()
    try:
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(connect(server)) for _ in range(80)]
            assert {read_answer(peer)[0] for peer in peers[:64]} == {503}
            for peer in peers[64:]:
                peer.sendall(head("/events", "Content-Length: 16") + b'{"Event":"YQ=="}')
                assert read_answer(peer)[0] == 201
            with connect(server) as another:
                assert read_answer(another)[0] == 503
        wait_until(lambda: server.add(b"after").status_code == 201, "connections again")
        said = server.stderr
        assert 'event="too few file descriptors for --max-connections: raise ulimit -n" limit=64 connections=16' in said
        assert said.count("level=warning") == 3
        assert 'event="connection closed to make room" owner=127.0.0.1 limit=16' in said
        assert "event=\"connections refused\" limit=16 to_raise='ulimit -n'" in said
        assert "level=error" not in said
        assert server.stop() == 0
    finally:
        server.forget()


@pytest.mark.parametrize("last", ["Connection: close", "Connection: keep-alive"])
def test_answer_that_nobody_reads_does_not_hold_the_connection(
    start_server: StartServer, tmp_path: Path, last: str
) -> None:
    server = start_server(tmp_path, "--max-connections", "1", "--unread-timeout-s", "0.5")

    def is_answered() -> bool:
        with connect(server) as other:
            other.sendall(b"GET /info HTTP/1.1\r\nHost: x\r\n\r\n")
            return read_answer(other)[0] == 200

    wait_until(is_answered, "the connections of the start to be gone")
    with connect_narrowly(server) as peer:
        peer.sendall(large_bulk(last))
        assert peer.recv(1) == b"H"
        wait_until(is_answered, "the only place to be free")


def test_unread_answers_share_a_limit(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path, "--max-unread-bytes", "8000000", "--unread-timeout-s", "3600")
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(connect_narrowly(server)) for _ in range(6)]
        for peer in peers:
            peer.sendall(large_bulk())
            assert peer.recv(1) == b"H"
        # The system buffers a few of the 14 MB of each answer, so two exceed the limit, and the newest stays.
        answers = [b"H" + read_to_the_end(peer) for peer in peers[:-1]]
        assert max(map(len, answers)) < ANSWER_BYTES
        assert len(read_answer(peers[-1], b"H")[2]) > ANSWER_BYTES
    assert 'event="closed the oldest unread answer"' in server.stderr


def test_an_answer_that_is_read_slowly_arrives(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path, "--unread-timeout-s", "1")
    with connect_narrowly(server) as peer:
        peer.sendall(large_bulk("Connection: close"))
        received, pause, begun = 0, threading.Event(), time.monotonic()
        while data := peer.recv(65536):
            received += len(data)
            # At this pace, the whole answer takes longer than a client may stall.
            pause.wait(received / ANSWER_BYTES * 3 - (time.monotonic() - begun))
    assert received > ANSWER_BYTES


def test_a_connection_waits_until_its_answer_is_read(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    with connect_narrowly(server) as peer, httpx.Client(base_url=server.url) as http:
        peer.sendall(large_bulk() + head("/events", "Content-Length: 16", "Connection: close") + b'{"Event":"YQ=="}')
        assert peer.recv(1) == b"H"
        assert http.post("/events", json={"Event": EVENT}).json()["Version"] == 1
        assert read_to_the_end(peer).endswith(b'"Version":2}')


# Plain sockets, for input that a well-behaved client does not send


@pytest.fixture(scope="module")
def hasty(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """Yield a server that waits only briefly for a request."""
    return start_server(tmp_path_factory.mktemp("hasty"), "--request-arrival-timeout-s", "0.3")
