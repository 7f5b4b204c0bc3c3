"""Clients against servers that lie, send garbage, stall, flood or redirect."""

from __future__ import annotations

import base64
import gzip
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, cast

import httpx
import msgspec
import pytest

import specimens
from adversary import Adversary, endless, error, hang, http, snapshot
from both_clients import Connect, connect
from qed import Absent, Extends, Extension, Membership, Present, Question, TrustedSnapshots, verify
from qed._client.calls import ANSWER_LIMIT_BYTES
from qed._client.examination import finding_of
from qed._client.exchange import failure_of
from qed._wire import Cluster, ClusterMember
from qed.errors import (
    AccessRefused,
    AddedLater,
    MalformedProof,
    MalformedRequest,
    NotLeader,
    Overloaded,
    ProtocolError,
    QedError,
    Unavailable,
    UnknownVersion,
    VerificationError,
)
from qed.proofs import Digest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from adversary import Play
    from qed._client.client import Client
    from qed.verification import Finding

__all__ = ["connect"]

# Long enough for an honest answer on a busy machine, short enough for a test.
SHORT_S = 0.5
# Every call to a hostile server must end by then. A client that hangs exceeds it by far.
PATIENCE_S = 20.0

CALLS: dict[str, Callable[[Client], object]] = {
    "add": lambda client: client.add(b"event"),
    "add_bulk": lambda client: client.add_bulk([b"one", b"two"]),
    "membership": lambda client: client.membership(b"event"),
    "membership_digest": lambda client: client.membership(Digest.of(b"event"), version=3),
    "incremental": lambda client: client.incremental(0, 3),
    "snapshot": lambda client: client.snapshot(3),
    "info": lambda client: client.info(),
    "shards": lambda client: client.shards(),
}
PROOFS = ("membership", "membership_digest", "incremental")
INSERTIONS = ("add", "add_bulk")

every_call = pytest.mark.parametrize("name", CALLS)


def success(name: str) -> int:
    return 201 if name in INSERTIONS else 200


def caught(connect: Connect, name: str, *plays: Play, **settings: float) -> QedError:
    """Return what a call raises against a server that answers with `plays`."""
    with Adversary(*plays) as server:
        client = connect(server.url, **settings)
        with pytest.raises(QedError) as raised:
            CALLS[name](client)
        return raised.value


NONSENSE = {
    "nothing": b"",
    "text": b"<html>it works</html>",
    "not utf-8": b"\xff\xfe\x00",
    "null": b"null",
    "a number": b"7",
    "an empty object": b"{}",
    "cut off": b'{"EventDigest": "',
    "nested arrays": b"[" * (ANSWER_LIMIT_BYTES // 2),
    "nested objects": b'{"a":' * (ANSWER_LIMIT_BYTES // 8),
    "nested and closed": b"[" * 100_000 + b"]" * 100_000,
    "nested in an unknown field": b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a huge number": b'{"Version":' + b"9" * 100_000 + b"}",
    "a lone surrogate": b'{"EventDigest":"\\ud800"}',
}


@every_call
@pytest.mark.parametrize("body", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_refused_as_what_it_is(connect: Connect, name: str, body: bytes) -> None:
    exc = caught(connect, name, http(success(name), body))
    assert type(exc) is (MalformedProof if name in PROOFS else ProtocolError)


@every_call
def test_ten_megabytes_of_nested_json_are_refused(connect: Connect, name: str) -> None:
    exc = caught(connect, name, http(success(name), b"[" * 10_000_000))
    assert isinstance(exc, ProtocolError)
    assert len(exc.body) <= 1024


@every_call
def test_an_endless_answer_is_refused_at_the_limit(connect: Connect, name: str) -> None:
    head = f"HTTP/1.1 {success(name)} OK\r\nContent-Length: 1073741824\r\n\r\n".encode()
    exc = caught(connect, name, endless(head, b" " * 65536))
    assert isinstance(exc, ProtocolError)
    assert str(ANSWER_LIMIT_BYTES)[:3] in str(exc)


def test_an_endless_error_is_refused_at_the_limit(connect: Connect) -> None:
    head = b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert isinstance(caught(connect, "info", endless(head, b"10000\r\n" + b" " * 65536 + b"\r\n")), ProtocolError)


def test_a_compressed_answer_is_refused_unopened(connect: Connect) -> None:
    body = gzip.compress(bytes(100_000_000))
    exc = caught(connect, "info", http(200, body, content_encoding="gzip"))
    assert isinstance(exc, ProtocolError)
    assert "encoding" in str(exc)


STALLS: dict[str, Play] = {
    "says nothing": hang,
    "trickles a header": endless(b"HTTP/1.1 200 OK\r\nX: ", b"x", every_s=0.05),
    "trickles a body": endless(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b" ", every_s=0.05),
    "says continue, without end": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", every_s=0.01),
    "stops in a body": http(200, b'{"x": 1}', content_length="1000000"),
}


@pytest.mark.parametrize("play", list(STALLS.values())[:-1], ids=list(STALLS)[:-1])
@pytest.mark.parametrize("name", ["info", "add"])
def test_a_server_that_stalls_holds_no_caller(connect: Connect, name: str, play: Play) -> None:
    begin_s = time.monotonic()
    exc = caught(connect, name, play, timeout_s=SHORT_S)
    assert isinstance(exc, Unavailable)
    assert "within 0.5 s" in str(exc)
    assert time.monotonic() - begin_s < PATIENCE_S


def test_a_server_that_does_not_read_holds_no_caller(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = connect(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_s=SHORT_S)
        begin_s = time.monotonic()
        with pytest.raises(Unavailable):
            client.add(bytes(30_000_000))
        assert time.monotonic() - begin_s < PATIENCE_S


def test_a_server_that_reads_slowly_holds_no_caller(connect: Connect) -> None:
    has_ended = threading.Event()

    def sip(listener: socket.socket) -> None:
        with listener.accept()[0] as connection:
            while not has_ended.wait(0.01) and connection.recv(4096):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as threads:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sipping = threads.submit(sip, listener)
        client = connect(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_s=SHORT_S)
        begin_s = time.monotonic()
        try:
            with pytest.raises(Unavailable):
                client.add(bytes(30_000_000))
        finally:
            has_ended.set()
        assert time.monotonic() - begin_s < PATIENCE_S
        sipping.result()


CUT_OFF: dict[str, Play] = {
    "before an answer": b"",
    "in the status": b"HTTP/1.1 2",
    "in the headers": b"HTTP/1.1 201 OK\r\nContent-",
    "in the body": STALLS["stops in a body"],
    "in a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{",
    "not http": b"SSH-2.0-OpenSSH_9.6\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
    "a huge header": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000 + b"\r\n\r\n{}",
}


@pytest.mark.parametrize("play", CUT_OFF.values(), ids=CUT_OFF)
def test_a_read_that_is_cut_off_is_asked_again(connect: Connect, play: Play) -> None:
    with Adversary(play, play, http(200, snapshot(b"event", 3))) as server:
        assert connect(server.url).snapshot(3).version == 3
        assert len(server.received) == 3


@pytest.mark.parametrize("play", CUT_OFF.values(), ids=CUT_OFF)
@pytest.mark.parametrize("name", INSERTIONS)
def test_an_insertion_that_is_cut_off_is_not_sent_again(connect: Connect, name: str, play: Play) -> None:
    with Adversary(play) as server, Adversary(http(201, snapshot(b"event"))) as other:
        with pytest.raises(Unavailable, match="may have happened"):
            CALLS[name](connect(server.url, other.url))
        assert (len(server.received), len(other.received)) == (1, 0)


def test_an_insertion_that_adds_only_what_is_absent_is_sent_again(connect: Connect) -> None:
    with Adversary(b"", http(200, snapshot(b"event", 3))) as server:
        assert connect(server.url).add(b"event", if_absent=True).version == 3
        assert [json.loads(received.body)["IfAbsent"] for received in server.received] == [True, True]


@pytest.mark.parametrize("status", [429, 503])
def test_an_insertion_the_server_did_not_take_is_sent_again(connect: Connect, status: int) -> None:
    with Adversary(error(status, "busy", retry_after="0"), http(201, snapshot(b"event"))) as server:
        assert connect(server.url).add(b"event").version == 0
        assert len(server.received) == 2


def test_a_server_that_stays_full_is_overloaded(connect: Connect) -> None:
    with Adversary(error(429, "overloaded", "the queue is full", retry_after="0")) as server:
        with pytest.raises(Overloaded, match="the queue is full"):
            connect(server.url).add(b"event")
        assert len(server.received) == 3


def closed_port() -> str:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


@pytest.mark.parametrize("name", ["add", "snapshot"])
def test_a_server_that_is_not_there_is_passed_over_and_remembered(connect: Connect, name: str) -> None:
    answer = http(success(name), snapshot(b"event", 3))
    with Adversary(answer) as server:
        client = connect(closed_port(), server.url)
        CALLS[name](client)
        CALLS[name](client)
        assert len(server.received) == 2


def test_an_address_that_cannot_be_is_passed_over(connect: Connect) -> None:
    with Adversary(http(201, snapshot(b"event"))) as server:
        assert connect("http://1.2.3.999", server.url).add(b"event").version == 0


def test_unavailable_names_each_endpoint_with_its_cause(connect: Connect) -> None:
    absent = closed_port()
    with Adversary(error(503, "unavailable", "stopping")) as server:
        with pytest.raises(Unavailable) as raised:
            connect(absent, server.url, attempts=1).info()
        assert f"{absent}: " in str(raised.value)
        assert "refused" in str(raised.value)
        assert f"{server.url}: answered 503: stopping" in str(raised.value)


@pytest.mark.parametrize(
    ("play", "kind"),
    [
        (error(400, "malformed"), MalformedRequest),
        (error(404, "not_found"), MalformedRequest),
        (error(404, "unknown_version"), UnknownVersion),
        (error(405, "method_not_allowed"), MalformedRequest),
        (error(408, "timeout"), ProtocolError),
        (error(412, "empty_log"), UnknownVersion),
        (error(412, "invalid_range"), UnknownVersion),
        (error(412, "something_new"), ProtocolError),
        (error(412, "added_later"), ProtocolError),
        (error(413, "too_large"), MalformedRequest),
        (error(418, "teapot"), ProtocolError),
        (error(500, "internal"), ProtocolError),
        (http(400, b"<html>"), MalformedRequest),
        (http(412, b"<html>"), ProtocolError),
        (http(401, b""), AccessRefused),
        (http(202, snapshot(b"event", 3)), ProtocolError),
        (http(204), ProtocolError),
        (http(302, location="http://127.0.0.1:1/"), ProtocolError),
        (http(999, b""), ProtocolError),
    ],
)
def test_each_status_has_its_exception(connect: Connect, play: bytes, kind: type[QedError]) -> None:
    assert type(caught(connect, "snapshot", play)) is kind


def test_added_later_names_the_first_version(connect: Connect) -> None:
    body = {"error": "added_later", "message": "first added at 9", "FirstVersion": 9}
    exc = caught(connect, "membership_digest", http(412, body))
    assert isinstance(exc, AddedLater)
    assert exc.first_version == 9


def test_a_success_without_an_insertion_is_not_taken_for_one(connect: Connect) -> None:
    assert type(caught(connect, "add", http(200, snapshot(b"event")))) is ProtocolError


@pytest.mark.parametrize("status", [400, 404, 412, 413, 429])
def test_a_4xx_leaves_the_endpoint_first(connect: Connect, status: int) -> None:
    with Adversary(error(status, "refused", retry_after="60")) as server, Adversary(http(500)) as other:
        client = connect(server.url, other.url)
        for _ in range(2):
            with pytest.raises(QedError):
                client.snapshot(3)
        assert len(server.received) == 2


def test_a_snapshot_of_another_event_is_refused(connect: Connect) -> None:
    exc = caught(connect, "add", http(201, snapshot(b"another")))
    assert isinstance(exc, VerificationError)
    assert exc.expected == Digest.of(b"event").hex()
    assert exc.computed == Digest.of(b"another").hex()


BULKS = {
    "too few": [snapshot(b"one", 0)],
    "none": [],
    "too many": [snapshot(b"one", 0), snapshot(b"two", 1), snapshot(b"two", 2)],
    "in another order": [snapshot(b"two", 0), snapshot(b"one", 1)],
    "one twice": [snapshot(b"one", 0), snapshot(b"one", 1)],
    "with a gap": [snapshot(b"one", 0), snapshot(b"two", 2)],
    "backwards": [snapshot(b"one", 1), snapshot(b"two", 0)],
    "with two hyper digests": [snapshot(b"one", 0), snapshot(b"two", 1, hyper=b"x" * 32)],
}


@pytest.mark.parametrize("body", BULKS.values(), ids=BULKS)
def test_a_bulk_answered_wrongly_is_refused(connect: Connect, body: object) -> None:
    assert type(caught(connect, "add_bulk", http(201, body))) is VerificationError


def test_a_bulk_of_what_was_there_may_have_any_versions(connect: Connect) -> None:
    body = [snapshot(b"one", 7), snapshot(b"two", 3, hyper=b"x" * 32)]
    with Adversary(http(200, body)) as server:
        found = connect(server.url).add_bulk([b"one", b"two"], if_absent=True)
        assert [each.version for each in found] == [7, 3]


@pytest.mark.parametrize("version", [-1, 2**64, 1.0, "3", None, True])
def test_a_snapshot_of_no_version_is_refused(connect: Connect, version: object) -> None:
    assert type(caught(connect, "add", http(201, snapshot(b"event") | {"Version": version}))) is ProtocolError


def test_a_snapshot_of_another_version_is_refused(connect: Connect) -> None:
    assert type(caught(connect, "snapshot", http(200, snapshot(b"event", 4)))) is VerificationError


def served(specimen: specimens.Specimen, **changed: object) -> bytes:
    return http(200, specimen.answer | changed)


def test_a_proof_for_another_event_is_refused_even_unverified(connect: Connect) -> None:
    exc = caught(connect, "membership", served(specimens.named("membership")))
    assert isinstance(exc, VerificationError)
    assert exc.expected == Digest.of(b"event").hex()


@pytest.mark.parametrize(("version", "answered"), [(None, 5), (5, 6), (5, 20), (99, 99), (99, 5)])
def test_a_proof_at_another_version_is_refused_even_unverified(
    connect: Connect, version: int | None, answered: int
) -> None:
    play = served(specimens.named("membership"), QueryVersion=answered)
    with Adversary(play) as server, pytest.raises(VerificationError):
        connect(server.url).membership(b"event 0", version=version)


def test_a_proof_of_another_range_is_refused_even_unverified(connect: Connect) -> None:
    assert isinstance(caught(connect, "incremental", served(specimens.named("incremental 2-13"))), VerificationError)


def asked(specimen: specimens.Specimen) -> tuple[Question, TrustedSnapshots]:
    """Return the question of `specimen`, and the snapshots to trust."""
    question = specimen.question
    if isinstance(question, specimens.RangeQuestion):
        start, end = specimens.trusted(question.start_snapshot), specimens.trusted(question.end_snapshot)
        return Extension(start.version, end.version), TrustedSnapshots(start, end)
    trusted = (specimens.trusted(question.query_snapshot), specimens.trusted(question.current_snapshot))
    return Membership(Digest(question.digest), question.version), TrustedSnapshots(*trusted)


def ask(client: Client, specimen: specimens.Specimen) -> Finding:
    """Ask the question of `specimen`, and verify the answer with its snapshots."""
    question, trusted = asked(specimen)
    return finding_of(client.examine(question, trusted))


# An answer at the end of the log says nothing about a version beyond it, so it is stale, not verified.
ASKED = [specimen for specimen in specimens.specimens() if specimen.name != "membership asked beyond the log"]
every_specimen = pytest.mark.parametrize("specimen", ASKED, ids=str)


@every_specimen
def test_an_honest_answer_is_verified_and_returned(connect: Connect, specimen: specimens.Specimen) -> None:
    with Adversary(served(specimen)) as server:
        found = ask(connect(server.url), specimen)
    answer = specimen.answer
    match found:
        case Present():
            latest = answer.get("LatestVersion", answer["ActualVersion"])
            claimed = (answer["ActualVersion"], latest, answer["QueryVersion"])
            assert (found.version, found.latest_version, found.as_of) == claimed
        case Absent():
            assert (answer["Exists"], found.as_of) == (False, answer["CurrentVersion"])
        case Extends():
            assert (found.start, found.end) == (answer["Start"], answer["End"])


def flipped(path: dict[str, str], position: str) -> dict[str, str]:
    value = bytearray(base64.b64decode(path[position]))
    value[-1] ^= 1
    return path | {position: base64.b64encode(value).decode()}


@every_specimen
def test_a_tampered_answer_is_never_returned(connect: Connect, specimen: specimens.Specimen) -> None:
    field = "AuditPath" if "AuditPath" in specimen.answer else "Hyper"
    path = cast("dict[str, str]", specimen.answer[field])
    plays = [served(specimen, **{field: flipped(path, position)}) for position in path]
    with Adversary(*plays) as server:
        client = connect(server.url)
        for _ in plays:
            with pytest.raises(VerificationError):
                verify(asked(specimen)[0], client.ask(asked(specimen)[0]), asked(specimen)[1])
        assert len(server.received) == len(path)
    with Adversary(plays[0], http(404)) as server, pytest.raises(VerificationError):
        ask(connect(server.url), specimen)


@pytest.mark.parametrize("specimen", [each for each in specimens.specimens() if "Exists" in each.answer], ids=str)
def test_a_flipped_exists_is_never_returned(connect: Connect, specimen: specimens.Specimen) -> None:
    exists = not specimen.answer["Exists"]
    play = served(specimen, Exists=exists, History={} if exists else None)
    with Adversary(play) as server, pytest.raises(VerificationError):
        ask(connect(server.url), specimen)


@pytest.mark.parametrize("version", [-1, 2**64])
def test_a_version_that_cannot_exist_is_not_sent(connect: Connect, version: int) -> None:
    with Adversary(b"") as server:
        client = connect(server.url)
        for call in (
            lambda: client.snapshot(version),
            lambda: client.membership(b"event", version=version),
            lambda: client.incremental(0, version),
            lambda: client.incremental(version, 0),
        ):
            with pytest.raises(ValueError, match="version"):
                call()
        assert server.received == []


def test_an_insertion_follows_one_redirect(connect: Connect) -> None:
    with Adversary(http(201, snapshot(b"event"))) as leader:
        with Adversary(http(307, {}, location=f"{leader.url}/events")) as follower:
            assert connect(follower.url, api_key="k", trust_members=True).add(b"event").version == 0
        assert [received.path for received in leader.received] == ["/events"]
        assert leader.received[0].body == follower.received[0].body
        assert leader.received[0].headers["api-key"] == "k"


def test_a_redirect_loop_ends(connect: Connect) -> None:
    with Adversary() as server:
        server.plays.append(http(307, {}, location=f"{server.url}/events"))
        with pytest.raises(NotLeader):
            connect(server.url, timeout_s=SHORT_S, attempts=1).add(b"event")
        assert len(server.received) < 10


@pytest.mark.parametrize("path", ["/elsewhere", "/events/bulk", "/events?x"])
def test_a_redirect_to_another_path_is_not_followed(connect: Connect, path: str) -> None:
    with Adversary(http(201, snapshot(b"event"))) as other:
        exc = caught(connect, "add", http(307, {}, location=other.url + path))
        assert isinstance(exc, ProtocolError)
        assert other.received == []


def test_a_redirect_to_another_scheme_is_not_followed(connect: Connect) -> None:
    assert isinstance(caught(connect, "add", http(307, {}, location="https://127.0.0.1:1/events")), NotLeader)


@pytest.mark.parametrize("location", ["http://xn--\u00e4/events", "http://a..b/events", "http://127.0.0.1:0/events"])
def test_a_redirect_to_where_nobody_can_be_ends_cleanly(connect: Connect, location: str) -> None:
    exc = caught(connect, "add", http(307, {}, location=location), timeout_s=SHORT_S)
    assert isinstance(exc, ProtocolError | Unavailable)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a self-signed certificate for 127.0.0.1, its key beside it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command to make a certificate")
    path = tmp_path_factory.mktemp("tls") / "nobody.crt"
    make = (
        f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=nobody -keyout {path}.key -out {path}"
    )
    names = ("-addext", "subjectAltName=IP:127.0.0.1")
    subprocess.run([openssl, *make.split(), *names], check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def tls(certificate: Path) -> ssl.SSLContext:
    """Give a server-side TLS context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, f"{certificate}.key")
    return context


def test_a_server_nobody_vouches_for_is_sent_nothing(connect: Connect, tls: ssl.SSLContext) -> None:
    with Adversary(http(201, snapshot(b"event")), tls=tls) as server:
        with pytest.raises(Unavailable, match="certificate"):
            connect(server.url, api_key="k").add(b"event")
        assert server.received == []
        assert connect(server.url, verify_tls=False).add(b"event").version == 0


def test_an_authority_of_the_environment_is_trusted(
    connect: Connect, tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with Adversary(http(201, snapshot(b"event")), tls=tls) as server:
        assert connect(server.url).add(b"event").version == 0


@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY"])
def test_no_proxy_stands_between_a_client_and_its_servers(
    connect: Connect, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, closed_port())
    with Adversary(http(201, snapshot(b"event"))) as server:
        assert connect(server.url, attempts=1).add(b"event").version == 0


@pytest.mark.parametrize("key", [" geheim", "geheim ", "ge\nheim", "geh\u00e4im"])
def test_an_api_key_that_cannot_be_sent_is_refused_and_not_repeated(connect: Connect, key: str) -> None:
    with pytest.raises(ValueError, match="api key") as raised:
        connect("http://127.0.0.1:1", api_key=key)
    assert "heim" not in str(raised.value)


def test_what_cannot_be_sent_did_not_arrive_and_is_not_repeated() -> None:
    failure = failure_of(httpx.LocalProtocolError("Illegal header value b' geheim'"), 1.0)
    assert (failure.kind.may_have_arrived, "geheim" in failure.cause) == (False, False)


def test_the_api_key_is_not_sent_on_in_the_open(connect: Connect, tls: ssl.SSLContext) -> None:
    with Adversary(http(201, snapshot(b"event"))) as other:
        with Adversary(http(307, location=f"{other.url}/events"), tls=tls) as server:
            with pytest.raises(NotLeader):
                connect(server.url, api_key="k", verify_tls=False).add(b"event")
            assert server.received[0].headers["api-key"] == "k"
        assert other.received == []


def test_a_stall_under_tls_holds_no_caller(connect: Connect, tls: ssl.SSLContext) -> None:
    begin_s = time.monotonic()
    with Adversary(STALLS["trickles a header"], tls=tls) as server, pytest.raises(Unavailable):
        connect(server.url, verify_tls=False, timeout_s=SHORT_S).info()
    assert time.monotonic() - begin_s < PATIENCE_S


def test_a_read_follows_no_redirect(connect: Connect) -> None:
    with Adversary(http(200, snapshot(b"event", 3))) as other:
        assert type(caught(connect, "snapshot", http(307, location=f"{other.url}/snapshots/3"))) is ProtocolError
        assert other.received == []


UNREADABLE: dict[str, Play] = {
    "compressed": http(200, b"", content_encoding="gzip"),
    "endless": endless(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65536),
    "nonsense": http(200, b"<html>"),
}


@pytest.mark.parametrize("members", UNREADABLE.values(), ids=UNREADABLE)
def test_a_list_of_members_that_cannot_be_read_is_in_nobodys_way(connect: Connect, members: Play) -> None:
    with Adversary(http(200, snapshot(b"event", 3)), members=members) as server:
        client = connect(server.url)
        assert [client.snapshot(3).version for _ in range(3)] == [3, 3, 3]


@pytest.mark.parametrize("info", UNREADABLE.values(), ids=UNREADABLE)
def test_a_server_that_says_nothing_readable_of_itself_is_passed_over_by_operators(
    connect: Connect, info: Play
) -> None:
    with Adversary(info) as server, Adversary(error(404, "not_found")) as other:
        with pytest.raises(Unavailable) as raised:
            connect(server.url, other.url).cluster()
        assert server.url in str(raised.value)
        assert other.url in str(raised.value)


def test_a_member_that_answers_for_another_is_not_taken_for_it(connect: Connect) -> None:
    with Adversary() as server:
        address = server.url.removeprefix("http://")
        member = ClusterMember(
            node_id="asked",
            role="follower",
            raft_addr=address,
            http_addr=address,
            mgmt_addr=address,
            is_reachable=True,
            entry=1,
        )
        seen = Cluster(
            node_id="other",
            cluster_id="",
            leader_id="",
            term=1,
            commit_index=1,
            applied_index=1,
            events=7,
            members=[],
        )
        server.plays += [http(200, msgspec.json.encode(seen)), http(200, b"nonsense")]
        for cause in ("expected asked, found other", "invalid body"):
            with pytest.raises(Unavailable, match=cause):
                connect(server.url).member_status(member)


def test_cookies_are_not_kept(connect: Connect) -> None:
    with Adversary(http(200, snapshot(b"event", 3), set_cookie="id=7; Path=/")) as server:
        client = connect(server.url)
        client.snapshot(3)
        client.snapshot(3)
        assert all("cookie" not in received.headers for received in server.received)


def test_only_the_digest_of_a_question_leaves_the_caller(connect: Connect) -> None:
    with Adversary(served(specimens.named("membership"))) as server:
        connect(server.url).membership(b"event 0")
        assert json.loads(server.received[0].body) == {"KeyDigest": base64.b64encode(specimens.plain(0)).decode()}


def test_a_health_check_asks_once(connect: Connect) -> None:
    with Adversary(error(503, "unavailable", retry_after="0")) as server:
        with pytest.raises(Unavailable):
            connect(server.url).healthcheck()
        assert len(server.received) == 1


@pytest.mark.parametrize(
    "settings",
    [{"timeout_s": 0}, {"timeout_s": -1}, {"timeout_s": float("nan")}, {"attempts": 0}, {"api_key": "a\r\nb"}],
)
def test_settings_out_of_range_are_refused(connect: Connect, settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        connect("http://127.0.0.1:1", **settings)
