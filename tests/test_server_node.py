"""A node and its HTTP side over a replica that fails on command, which no real disk does."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest

from harness.wait import LIMIT_S
from qed._qed import Act, Follower, MemberInfo
from qed.errors import CorruptLog, NotLeader, Overloaded, QedError, Unavailable
from qed.proofs import Digest
from qed.server.access import Access
from qed.server.acts import (
    Admitted,
    Author,
    Promoted,
    TokenCreated,
    TokenUsed,
    decode,
    encode,
    now,
    number_text,
)
from qed.server.app import build_application
from qed.server.cluster_authority import ClusterAuthority
from qed.server.config import Address, Limits, Settings
from qed.server.connection import ConnectionLimit
from qed.server.credentials import of_authority
from qed.server.handshake import PROTOCOL, Hello, LeaderRequest, ask, connect
from qed.server.node import Node
from qed.server.open_streams import OpenStreams
from qed.server.slots import SLOT, Slot, Slots
from qed.server.tokens import Claim, Token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from starlette.types import Receive, Scope, Send

    from qed._qed import ClusterChange, Replica
    from qed.server.credentials import Credentials

EVENT = {"Event": base64.b64encode(b"an event").decode()}
KEY = {"Key": EVENT["Event"]}


def described(name: str, key: bytes | None = None) -> MemberInfo:
    """Return a member with addresses at which nobody is."""
    return MemberInfo(
        name=name,
        http_addr="127.0.0.1:1",
        mgmt_addr="127.0.0.1:2",
        metrics_addr="127.0.0.1:3",
        raft_addr="127.0.0.1:4",
        key=key,
    )


OWN = described("x")


@dataclass
class Status:
    """The status of a cluster of one member, the leader."""

    id: int = 7
    cluster: str = "c"
    leader: int = 7
    term: int = 1
    is_leader: bool = True
    commit_index: int = 1
    applied_index: int = 1
    members: list[tuple[int, MemberInfo]] = field(default_factory=lambda: [(7, OWN)])
    voters: list[int] = field(default_factory=lambda: [7])
    removed: list[int] = field(default_factory=list)
    followers: list[Follower] = field(default_factory=list)
    fetch_from: int | None = None
    alarm: str | None = None


@dataclass
class Completion:
    """The result of a request."""

    ticket: int
    result: Exception | None


@dataclass
class Delivery:
    """The results and messages that a replica delivers."""

    completions: list[Completion]
    messages: list[tuple[int, bytes]] = field(default_factory=list)
    invalid_messages: list[tuple[int, str]] = field(default_factory=list)
    is_status_new: bool = False


class FailingReplica:
    """A replica that accepts insertions and never commits them; it can also fail on command."""

    def __init__(self) -> None:
        self.wake_fd, self._wake = os.pipe()
        os.set_blocking(self.wake_fd, False)
        self.refusal: QedError | None = None
        self.surprise: Exception | None = None
        self.results: list[tuple[int, Exception | None]] = []
        self.reason: str | None = None
        self.tickets: list[int] = []
        self.has_taken_three = asyncio.Event()
        self.is_awaited = asyncio.Event()
        self.has_raised = asyncio.Event()
        self.is_closed = False
        self.reported = Status()
        self.is_status_new = False
        self.requests = asyncio.Semaphore(0)
        """What was requested, and answered by saying that this member does not lead."""
        self.unapplied: list[bytes] = []
        """Acts of an earlier leader, which this member applies once a majority has confirmed that it leads."""
        # The history has begun, so nothing is missing in it.
        self.history = [Act(index=1, term=1, previous=Digest(bytes(32)), body=b"{}")]

    def status(self) -> Status:
        return self.reported

    def acts(self, after: int, _: int) -> list[Act]:
        return [act for act in self.history if act.index > after]

    def act(self, ticket: int, body: bytes) -> None:
        if self.surprise is not None:
            self.has_raised.set()
            raise self.surprise
        self.apply(body)
        self.results.append((ticket, None))
        self.wake()

    def apply(self, body: bytes) -> None:
        self.history.append(Act(index=len(self.history) + 1, term=1, previous=Digest(bytes(32)), body=body))

    def request(self, ticket: int, _: ClusterChange) -> None:
        self.results.append((ticket, NotLeader("leadership is being handed over")))
        self.requests.release()
        self.wake()

    def read(self, ticket: int) -> None:
        for body in self.unapplied:
            self.apply(body)
        self.unapplied = []
        self.results.append((ticket, None))
        self.wake()

    def await_events(self, *_: int) -> None:
        self.is_awaited.set()

    def submit(self, ticket: int, _: Sequence[bytes], *, if_absent: bool = False) -> None:
        assert not if_absent
        if self.refusal is not None:
            raise self.refusal
        self.tickets.append(ticket)
        if len(self.tickets) == 3:
            self.has_taken_three.set()

    def drain(self) -> Delivery:
        with suppress(BlockingIOError):
            os.read(self.wake_fd, 1000)
        results, self.results = self.results, []
        is_status_new, self.is_status_new = self.is_status_new, False
        return Delivery([Completion(ticket, result) for ticket, result in results], is_status_new=is_status_new)

    def failure(self) -> str | None:
        return self.reason

    def ask_membership(self, ticket: int, *_: object, **__: object) -> None:
        if self.surprise is not None:
            self.results.append((ticket, self.surprise))
            self.wake()

    def wake(self) -> None:
        os.write(self._wake, b"x")

    def close(self) -> None:
        self.is_closed = True
        self.wake()

    def __len__(self) -> int:
        return 1


@pytest.fixture
def replica() -> FailingReplica:
    return FailingReplica()


@asynccontextmanager
async def running(
    replica: FailingReplica,
    data_dir: Path,
    limits: Limits | None = None,
    failures: list[str] | None = None,
    *,
    credentials: Credentials | None = None,
    listener: socket.socket | None = None,
) -> AsyncIterator[Node]:
    """Run a node over `replica`, and record in `failures` when it asks the process to stop."""
    addresses = [Address("127.0.0.1", port) for port in range(1, 5)]
    settings = Settings(
        node_id="x",
        http_addr=addresses[0],
        mgmt_addr=addresses[1],
        metrics_addr=addresses[2],
        raft_addr=addresses[3],
        data_dir=data_dir,
        limits=limits or Limits(),
    )
    node = Node(settings, cast("Replica", replica), credentials)
    await node.start(lambda: None if failures is None else failures.append(str(node.failure)), listener)
    yield node
    await node.close()
    assert replica.is_closed


@asynccontextmanager
async def serving(
    replica: FailingReplica, data_dir: Path, limits: Limits, failures: list[str]
) -> AsyncIterator[httpx.AsyncClient]:
    """Run the application over `replica`, and record in `failures` when it asks the process to stop."""
    # The transport below runs no lifespan, so this function does what the lifespan would.
    async with running(replica, data_dir, limits, failures) as node:
        access = Access(node.settings, node.keys, lambda: True)
        application = build_application(
            node, access, None, ConnectionLimit(limits), streams=OpenStreams(), on_failure=lambda: None
        )
        slots = Slots(limits.max_connections)

        async def with_slot(scope: Scope, receive: Receive, send: Send) -> None:
            scope[SLOT] = Slot(slots, "127.0.0.1", lambda *_: None)
            await application(scope, receive, send)

        transport = httpx.ASGITransport(with_slot)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
            yield http


async def test_failed_write_is_answered_503_and_stops_the_server(replica: FailingReplica, tmp_path: Path) -> None:
    failures: list[str] = []
    async with serving(replica, tmp_path, Limits(), failures) as http:
        waiting = [asyncio.create_task(http.post("/events", json=EVENT)) for _ in range(3)]
        await replica.has_taken_three.wait()
        replica.reason = "no space left on device"
        replica.wake()
        for answer in await asyncio.gather(*waiting):
            assert answer.status_code == 503
            assert answer.json() == {"error": "unavailable", "message": "no space left on device"}
        assert failures == ["no space left on device"]
        assert (await http.post("/events", json=EVENT)).status_code == 503
        assert (await http.head("/healthcheck")).status_code == 503
        assert len(replica.tickets) == 3


async def test_failed_write_answers_reads_that_wait_503(replica: FailingReplica, tmp_path: Path) -> None:
    async with serving(replica, tmp_path, Limits(), []) as http:
        waiting = asyncio.create_task(http.get("/snapshots/9"))
        await replica.is_awaited.wait()
        replica.reason = "no space left on device"
        replica.wake()
        assert (await waiting).status_code == 503
        assert (await http.get("/info", headers={"consistency": "linearizable"})).status_code == 503


async def test_full_queue_is_answered_429(replica: FailingReplica, tmp_path: Path) -> None:
    replica.refusal = Overloaded("the queue is full")
    async with serving(replica, tmp_path, Limits(), []) as http:
        answer = await http.post("/events", json=EVENT)
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "1"
        assert answer.json() == {"error": "overloaded", "message": "the queue is full"}


async def test_insertion_without_a_result_in_time_is_answered_503(replica: FailingReplica, tmp_path: Path) -> None:
    async with serving(replica, tmp_path, Limits(request_timeout_s=0.05), []) as http:
        answer = await http.post("/events", json=EVENT)
        assert answer.status_code == 503
        assert answer.json()["error"] == "unavailable"
        # A late result is dropped: no request waits for it.
        replica.results = [(replica.tickets[0], CorruptLog("late"))]
        replica.wake()


@pytest.mark.parametrize("surprise", [CorruptLog("secret path"), RuntimeError("secret"), KeyError("secret")])
async def test_unexpected_error_is_answered_500_without_details(
    replica: FailingReplica, tmp_path: Path, surprise: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    replica.surprise = surprise
    async with serving(replica, tmp_path, Limits(), []) as http:
        answer = await http.post("/proofs/membership", json=KEY)
        assert answer.status_code == 500
        assert answer.json()["error"] == "internal"
        assert "secret" not in answer.text
    assert "secret" not in caplog.text
    assert f"type={type(surprise).__name__}" in caplog.text


async def test_task_that_dies_is_logged_without_details(
    replica: FailingReplica, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # The leader has to record that the history begins.
    replica.history, replica.surprise = [], RuntimeError("secret")
    async with serving(replica, tmp_path, Limits(), []), asyncio.timeout(LIMIT_S):
        await replica.has_raised.wait()
    assert "task ended unexpectedly task=history type=RuntimeError" in caplog.text
    assert "secret" not in caplog.text


def two_members(*pins: bytes, **changes: Any) -> Status:  # noqa: ANN401  # fields of several types
    """Return the status of a cluster of two voters, with these keys."""
    own, other = pins or (None, None)
    return replace(Status(members=[(7, described("x", own)), (8, described("y", other))], voters=[7, 8]), **changes)


async def test_new_leader_repeats_no_act_that_it_has_not_applied_yet(replica: FailingReplica, tmp_path: Path) -> None:
    by = {"who": "x", "origin": "127.0.0.1:4", "name": "y", "member": number_text(8)}
    addresses = {"raft_addr": "127.0.0.1:8", "http_addr": "127.0.0.1:5", "mgmt_addr": "127.0.0.1:6"}
    promoted = encode(Promoted(**by, when=now()))
    replica.apply(encode(Admitted(**by, **addresses, when=now(), key=b"8")))
    replica.reported, replica.unapplied = two_members(), [promoted]
    async with running(replica, tmp_path) as node, asyncio.timeout(LIMIT_S):
        await node.catch_up()
        await node.catch_up()
    assert [act.body for act in replica.history if isinstance(decode(act.body), Promoted)] == [promoted]


async def test_new_leader_redeems_a_token_that_it_has_not_applied_yet(replica: FailingReplica, tmp_path: Path) -> None:
    authority = ClusterAuthority.of_secret(bytes(range(32)))
    for name in ("own", "other"):
        (tmp_path / name).mkdir()
    own, other = (of_authority(authority, tmp_path / name) for name in ("own", "other"))
    token, number, pin = Token.make(bytes(32)), number_text(9), bytes(range(32))
    created = TokenCreated(
        who="ops",
        origin="127.0.0.1:1",
        when=now(),
        id=token.id,
        name=None,
        public_key=token.public_key,
        expires=now() + timedelta(hours=1),
    )
    # As a learner, it has nothing to record that would make it catch up.
    replica.reported, replica.unapplied = two_members(own.pin, other.pin, voters=[8]), [encode(created)]
    proof = Claim(pin, other.pin, number, "z").signed_with(token)
    redeemed = LeaderRequest("redeem", name="z", id=9, key=pin, token=token.id, proof=proof, origin="127.0.0.1")
    listener = socket.create_server(("127.0.0.1", 0))
    address = Address(*listener.getsockname())
    hello = Hello(PROTOCOL, "question", "c", 8, 0, "127.0.0.1:8", run=1)
    async with running(replica, tmp_path, credentials=own, listener=listener), asyncio.timeout(LIMIT_S):
        reply = await ask(await connect(address, other, None), hello, redeemed)
    assert (reply.error, reply.message) == ("", "")
    deeds = [decode(act.body) for act in replica.history]
    assert [deed.id for deed in deeds if isinstance(deed, TokenUsed)] == [token.id]


async def test_leader_that_cannot_hand_over_waits_for_a_successor(replica: FailingReplica, tmp_path: Path) -> None:
    replica.reported = two_members()
    async with running(replica, tmp_path) as node, asyncio.timeout(LIMIT_S):
        removing = asyncio.create_task(node.remove("x", Author("ops", "127.0.0.1:1")))
        for _ in range(2):
            await replica.requests.acquire()
        # Let it see the second answer: it must not ask a third time while this member still leads.
        for _ in range(100):
            await asyncio.sleep(0)
        replica.reported, replica.is_status_new = two_members(leader=8, is_leader=False), True
        replica.wake()
        with pytest.raises(Unavailable, match="no credentials"):
            await removing
    assert replica.requests.locked()
