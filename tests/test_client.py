"""Clients against real servers."""

from __future__ import annotations

import asyncio
import inspect
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from both_clients import Connect, connect, open_sockets
from qed import (
    Absent,
    AsyncClient,
    Client,
    Extension,
    Membership,
    Present,
    TrustedBy,
    TrustedSnapshots,
    verify,
)
from qed.errors import (
    AddedLater,
    ForkDetected,
    MalformedRequest,
    QedError,
    StaleAnswer,
    Unavailable,
    UnknownVersion,
)
from qed.proofs import Digest, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import StartServer
    from harness.process import Server

__all__ = ["connect"]

NEVER_ADDED = b"never added"


def fresh() -> bytes:
    """Return an event that is not in the log: its test runs once for each client, on the same log."""
    return secrets.token_bytes(16)


@pytest.fixture
def client(connect: Connect, server: Server) -> Client:
    return connect(server.url)


def test_an_added_event_is_proven_against_trusted_snapshots(client: Client) -> None:
    first = client.add(b"proven")
    trusted = TrustedSnapshots(client.add(b"proven's successor"))
    found = client.verify(Membership(b"proven"), trusted)
    assert isinstance(found, Present)
    assert (found.version, found.trusted_by, found.is_linked) == (first.version, TrustedBy.SNAPSHOTS, True)
    assert verify(Membership(b"proven"), client.membership(b"proven"), trusted) == found


def test_a_past_version_is_proven_against_its_own_snapshot(client: Client) -> None:
    first, query, current = (client.add(event) for event in (b"past", b"past's query", b"past's end"))
    found = client.verify(Membership(Digest.of(b"past"), query.version), TrustedSnapshots(query, current))
    assert isinstance(found, Present)
    assert (found.version, found.as_of) == (first.version, query.version)


def test_absence_is_proven_against_the_current_snapshot(client: Client) -> None:
    current = client.add(b"something else")
    found = client.verify(Membership(NEVER_ADDED), TrustedSnapshots(current))
    assert isinstance(found, Absent)
    assert (found.as_of, found.is_linked) == (current.version, True)


def test_an_absence_beyond_what_is_trusted_is_the_servers_word(client: Client) -> None:
    older, current = client.add(b"trusted"), client.add(b"not trusted")
    found = client.verify(Membership(NEVER_ADDED), TrustedSnapshots(older))
    assert isinstance(found, Absent)
    assert (found.as_of, found.is_linked) == (current.version, False)


def test_what_lies_between_trusted_snapshots_is_tied_to_them(client: Client) -> None:
    first, second, third = (client.add(fresh()) for _ in range(3))
    for trusted in (first, second, third):
        found = client.verify(Extension(first.version, third.version), TrustedSnapshots(trusted))
        assert (found.start, found.end) == (first.version, third.version)
        past = client.verify(Membership(first.event_digest, second.version), TrustedSnapshots(trusted))
        assert isinstance(past, Present)


def test_a_version_that_the_log_does_not_reach_is_stale(client: Client) -> None:
    current = client.add(b"present")
    with pytest.raises(StaleAnswer):
        client.verify(Membership(b"present", current.version + 10**6), TrustedSnapshots(current))


def test_a_snapshot_of_another_log_is_a_fork(client: Client) -> None:
    older, current = client.add(b"true"), client.add(b"newest")
    other = Snapshot(
        event_digest=current.event_digest,
        history_digest=older.history_digest,
        hyper_digest=older.hyper_digest,
        version=current.version,
    )
    for question in (Membership(b"true"), Membership(NEVER_ADDED)):
        with pytest.raises(ForkDetected) as caught:
            client.verify(question, TrustedSnapshots(other))
        assert (caught.value.trusted, caught.value.other) == (other, current)
    with pytest.raises(ForkDetected):
        client.verify(Extension(older.version, current.version), TrustedSnapshots(older, other))


def test_a_log_is_proven_to_extend_itself(client: Client) -> None:
    start, end = client.add(b"start"), client.add(b"end")
    question, trusted = Extension(start.version, end.version), TrustedSnapshots(start, end)
    found = client.verify(question, trusted)
    assert (found.start, found.end) == (start.version, end.version)
    assert verify(question, client.incremental(start.version, end.version), trusted) == found


def test_a_bulk_gets_consecutive_versions_and_one_hyper_digest(client: Client) -> None:
    events = [b"bulk %d" % number for number in range(1000)]
    snapshots = client.add_bulk(events)
    assert [each.event_digest for each in snapshots] == [Digest.of(event) for event in events]
    assert [each.version - snapshots[0].version for each in snapshots] == list(range(1000))
    assert len({each.hyper_digest for each in snapshots}) == 1


def test_snapshots_come_back_as_they_were_acknowledged(client: Client) -> None:
    for acknowledged in [client.add(b"acknowledged"), *client.add_bulk([b"a", b"b", b"a"])]:
        assert client.snapshot(acknowledged.version) == acknowledged


def test_what_is_in_the_log_is_not_added_if_it_must_be_absent(client: Client) -> None:
    once, new = fresh(), fresh()
    first = client.add(once)
    assert client.add(once, if_absent=True) == first
    found = client.add_bulk([once, new], if_absent=True)
    assert found[0] == first
    assert found[1].version == first.version + 1
    assert client.info().events == first.version + 2


@pytest.mark.parametrize("event", [b"", bytes(1_000_000), bytes(range(256))], ids=["empty", "a megabyte", "any byte"])
def test_any_bytes_are_an_event(client: Client, event: bytes) -> None:
    current = client.add(event)
    assert current.event_digest == Digest.of(event)
    assert isinstance(client.verify(Membership(event), TrustedSnapshots(current)), Present)


def test_an_event_added_after_the_asked_version_is_neither_there_nor_absent(client: Client) -> None:
    event = fresh()
    before, after = client.add(b"before"), client.add(event)
    with pytest.raises(AddedLater) as caught:
        client.membership(event, version=before.version)
    assert caught.value.first_version == after.version


def test_versions_beyond_the_log_are_unknown(client: Client) -> None:
    last = client.add(b"last").version
    for call in (
        lambda: client.snapshot(last + 1),
        lambda: client.snapshot(2**64 - 1),
        lambda: client.incremental(0, last + 1),
        lambda: client.incremental(last, last - 1),
    ):
        with pytest.raises(UnknownVersion):
            call()


def test_a_bulk_of_nothing_is_malformed(client: Client) -> None:
    events = client.info().events
    with pytest.raises(MalformedRequest) as caught:
        client.add_bulk([])
    assert (caught.value.status, caught.value.code) == (400, "malformed")
    assert client.info().events == events


def test_text_is_no_event(client: Client) -> None:
    with pytest.raises(TypeError):
        client.add("text")  # type: ignore[arg-type]  # what a caller may try


def test_a_server_tells_about_itself(client: Client, server: Server) -> None:
    last = client.add(b"told").version
    info = client.info()
    assert (info.current_version, info.events) == (last, last + 1)
    assert server.url == f"http://{info.http_addr}"
    shards = client.shards()
    assert shards.leader_id == shards.node_id == info.node_id
    assert shards.shards[info.node_id].http_addr == info.http_addr
    client.healthcheck()


def test_an_empty_log_proves_nothing(connect: Connect, start_server: StartServer, tmp_path: Path) -> None:
    client = connect(start_server(tmp_path / "data").url)
    assert client.info().current_version is None
    for call in (lambda: client.membership(b""), lambda: client.incremental(0, 0), lambda: client.snapshot(0)):
        with pytest.raises(UnknownVersion):
            call()


def test_a_client_outlives_its_server(connect: Connect, start_server: StartServer, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    first = start_server(data_dir)
    client = connect(first.url)
    acknowledged = client.add(b"kept")
    assert first.stop() == 0
    for call in (client.healthcheck, client.info, lambda: client.add(b"lost")):
        with pytest.raises(Unavailable, match="connection refused"):
            call()
    start_server(data_dir, "--http-addr", first.url.removeprefix("http://"))
    assert client.snapshot(0) == acknowledged
    assert client.add(b"after the restart").version == 1


def test_the_next_endpoint_takes_over(connect: Connect, start_server: StartServer, tmp_path: Path) -> None:
    first, second = start_server(tmp_path / "first"), start_server(tmp_path / "second")
    client = connect(first.url, second.url)
    client.add(b"to the first")
    first.kill()
    client.add(b"to the second")
    assert second.count() == 1


def test_threads_share_a_client_and_its_connections(server: Server) -> None:
    events = [b"shared %d" % number for number in range(400)]
    others = open_sockets()
    with Client(server.url) as client, ThreadPoolExecutor(16) as threads:
        snapshots = list(threads.map(client.add, events))
        assert len(open_sockets() - others) <= 16
    assert len({each.version for each in snapshots}) == len(events)


async def test_tasks_share_a_client_and_its_connections(server: Server) -> None:
    events = [b"gathered %d" % number for number in range(400)]
    async with AsyncClient(server.url) as client:
        snapshots = await asyncio.gather(*map(client.add, events))
    assert len({each.version for each in snapshots}) == len(events)


async def test_a_cancelled_call_leaves_the_client_usable(server: Server) -> None:
    async with AsyncClient(server.url) as client:
        task = asyncio.create_task(client.add(b"cancelled"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await client.add(b"still usable")).event_digest == Digest.of(b"still usable")


def test_a_call_made_while_another_error_is_handled_names_its_own_cause(connect: Connect, tmp_path: Path) -> None:
    client = connect("http://127.0.0.1:1", attempts=1)
    try:
        (tmp_path / "missing").read_bytes()
    except FileNotFoundError:
        with pytest.raises(QedError, match="connection refused"):
            client.info()


def test_both_clients_have_the_same_methods() -> None:
    def signature(method: Callable[..., object]) -> str:
        either = " | AsyncIterable[bytes | Digest]"
        return str(inspect.signature(method)).replace(either, "").replace("AsyncIterator", "Iterator")

    def methods(kind: type) -> dict[str, str]:
        public = {name: getattr(kind, name) for name in vars(kind) if not name.startswith("_")}
        return {name.removeprefix("a") if name == "aclose" else name: signature(m) for name, m in public.items()}

    assert methods(Client) == methods(AsyncClient)
    assert inspect.signature(Client.__init__) == inspect.signature(AsyncClient.__init__)


def test_not_every_client_begins_with_the_same_member(server: Server) -> None:
    turns = set()
    for _ in range(8):
        with Client(server.url) as client:
            turns.add(client._topology.next_turn())
    assert len(turns) > 1
