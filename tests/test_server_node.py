"""A node and its HTTP side over a replica that fails on command, which no real disk does."""

from __future__ import annotations

import asyncio
import base64
import os
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import httpx
import pytest

from harness.wait import LIMIT_S
from qed._qed import Act, Follower, MemberInfo
from qed.errors import CorruptLog, Overloaded, QedError
from qed.proofs import Digest
from qed.server.access import Access
from qed.server.app import build_application
from qed.server.config import Address, Limits, Settings
from qed.server.node import Node
from qed.server.slots import SLOT, Slot, Slots

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from starlette.types import Receive, Scope, Send

    from qed._qed import Replica

EVENT = {"Event": base64.b64encode(b"an event").decode()}
KEY = {"Key": EVENT["Event"]}


OWN = MemberInfo(
    name="x",
    http_addr="127.0.0.1:1",
    mgmt_addr="127.0.0.1:2",
    metrics_addr="127.0.0.1:3",
    raft_addr="127.0.0.1:4",
)


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
        # The history has begun, so nothing is missing in it.
        self.history = [Act(index=1, term=1, previous=Digest(bytes(32)), body=b"{}")]

    def status(self) -> Status:
        return Status()

    def acts(self, after: int, _: int) -> list[Act]:
        return [act for act in self.history if act.index > after]

    def act(self, ticket: int, body: bytes) -> None:
        if self.surprise is not None:
            self.has_raised.set()
            raise self.surprise
        self.history.append(Act(index=len(self.history) + 1, term=1, previous=Digest(bytes(32)), body=body))
        self.results.append((ticket, None))
        self.wake()

    def read(self, ticket: int) -> None:
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
        return Delivery([Completion(ticket, result) for ticket, result in results])

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
async def serving(
    replica: FailingReplica, data_dir: Path, limits: Limits, failures: list[str]
) -> AsyncIterator[httpx.AsyncClient]:
    """Run the application over `replica`, and record in `failures` when it asks the process to stop."""
    addresses = [Address("127.0.0.1", port) for port in range(1, 5)]
    settings = Settings(
        node_id="x",
        http_addr=addresses[0],
        mgmt_addr=addresses[1],
        metrics_addr=addresses[2],
        raft_addr=addresses[3],
        data_dir=data_dir,
        limits=limits,
    )
    node = Node(settings, cast("Replica", replica), None)
    # The transport below runs no lifespan, so this function does what the lifespan would.
    application = build_application(node, Access(settings, node.keys, lambda: True), None, on_failure=lambda: None)
    await node.start(lambda: failures.append(str(node.failure)), None)
    slots = Slots(limits.max_connections)

    async def with_slot(scope: Scope, receive: Receive, send: Send) -> None:
        scope[SLOT] = Slot(slots, "127.0.0.1", lambda *_: None)
        await application(scope, receive, send)

    transport = httpx.ASGITransport(with_slot)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
        yield http
    await node.close()
    assert replica.is_closed


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
