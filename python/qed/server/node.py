"""One member of the log as its callers see it: adds that wait for a majority, proofs that wait for a thread.

Whoever knows raftos finds its words here: `register`, `get_leader`, `wait_until_leader`, `on_leader`, `on_follower`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from importlib import metadata
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import msgspec

from qed._qed import Member, Replica
from qed.errors import (
    ClusterError,
    LogError,
    MembershipRefused,
    NotLeader,
    Overloaded,
    QedError,
    Unavailable,
    UnknownVersion,
    WriteRefused,
)
from qed.proofs import Added
from qed.server.config import Address, SettingsError, require_node_id
from qed.server.frames import TransportError
from qed.server.greeting import PROTOCOL, Answer, Hello, Mismatch, Question, Removed, ask, greet
from qed.server.transport import Transport
from qed.wire import Cluster, ClusterMember, Info, Shard, Shards

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine, Iterator, Sequence

    from qed._qed import Status
    from qed.proofs import Digest
    from qed.server.config import Settings

__all__ = ["EmptyLog", "Node", "NotTaken", "register"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_SWEEP_INTERVAL_S: Final = 0.5
"""How late a time-out may come. All waiting requests share one timer: a timer each costs more than a proof."""


_RETRY_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
"""How long to wait before asking for admission, or for pages, again."""
_VERSION_WAIT_S: Final = 1.0
"""How long a proof waits for a version that this member has not heard of yet."""
_EVENTS_LIMIT: Final = 2**64 - 1
_NUMBER_LIMIT: Final = 2**64
_REFUSALS_ELECTIONS: Final = 4
"""Election time-outs for which a refusal to be admitted is asked about again."""
_HAND_OVER_TRIES: Final = 3
"""Members asked to lead before this one stops without a successor: one that has just died is not missed yet."""
_NO_LEADER: Final = "no leader is known: a majority of the members must be up and reach each other"


class EmptyLog(UnknownVersion):
    """The log holds no event yet, so there is no version to prove anything at."""


class NotTaken(WriteRefused):
    """The insertion was refused before anything of it was taken: asking again, or elsewhere, cannot add it twice."""


class _Waiting(Generic[_T]):
    """Futures by ticket, oldest first: all may wait equally long, so the first to time out is the first in line."""

    def __init__(self, tickets: Iterator[int]) -> None:
        self._tickets = tickets
        self._entries: dict[int, tuple[asyncio.Future[_T], float]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def enter(self, loop: asyncio.AbstractEventLoop) -> tuple[int, asyncio.Future[_T]]:
        ticket = next(self._tickets)
        future: asyncio.Future[_T] = loop.create_future()
        self._entries[ticket] = (future, loop.time())
        return ticket, future

    def leave(self, ticket: int) -> None:
        del self._entries[ticket]

    def settle(self, ticket: int, result: _T | Exception) -> None:
        entry = self._entries.pop(ticket, None)
        # A request that timed out has left, and one whose task was cancelled at shutdown no longer listens.
        if entry is None or entry[0].done():
            return
        if isinstance(result, Exception):
            entry[0].set_exception(result)
        else:
            entry[0].set_result(result)

    def fail_entered_before(self, moment: float, reason: Callable[[], Exception]) -> None:
        while self._entries:
            ticket, (_, entered) = next(iter(self._entries.items()))
            if entered >= moment:
                return
            self.settle(ticket, reason())


class Node:
    """One member. Every method but `open` and `close_now` belongs to the thread of the event loop.

    An add returns once its events are synced on a majority. A call that fails has changed nothing, except an add that
    times out, or whose leader is lost meanwhile: that one may still be committed.
    """

    def __init__(self, settings: Settings, replica: Replica) -> None:
        self.settings = settings
        self._replica = replica
        tickets = itertools.count()
        self._adds: _Waiting[Added] = _Waiting(tickets)
        self._questions: _Waiting[bytes] = _Waiting(tickets)
        self._tasks_waiting: _Waiting[None] = _Waiting(tickets)
        self._failure: str | None = None
        self._on_failure: Callable[[], None] = lambda: None
        self._on_leader: list[Callable[[], None]] = []
        self._on_follower: list[Callable[[], None]] = []
        # Kept from `start` on: to ask for the running loop is a system call, and every request needs it.
        self._loop: asyncio.AbstractEventLoop
        self._sweeper: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._software_version = metadata.version("qed-log")
        self._status: Status = replica.status()
        self._members: dict[int, Member] = dict(self._status.members)
        self._cluster = self._status.cluster
        self._role_changed = asyncio.Event()
        self._transport = Transport(self, self._hello, settings.raft_tls)
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @classmethod
    def open(cls, settings: Settings) -> Node:
        """Return the node whose log is in `settings.data_dir`, which is made when it does not exist. Blocks.

        Raises:
            StoreLocked: Another process holds the folder.
            CorruptLog: The folder contradicts itself.
            UnsupportedFormat: The folder was written by a newer qed.
            LogError: The folder belongs to another member, or cannot join.
            OSError: The folder cannot be made, read or written.
        """
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        limits, pace = settings.limits, settings.pace
        replica = Replica.open(
            str(settings.data_dir),
            cls._description(settings),
            is_joining=bool(settings.raft_join_addrs),
            tick_ms=pace.tick_ms,
            heartbeat_ticks=pace.heartbeat_ticks,
            election_ticks=pace.election_ticks,
            grace_s=limits.shutdown_grace_s // 2,
            queue_length=limits.queue_length,
            batch_events=limits.batch_events,
            proof_threads=limits.max_concurrent_proofs,
        )
        return cls(settings, replica)

    async def start(self, on_failure: Callable[[], None], listener: socket.socket) -> None:
        """Begin to serve on the running event loop.

        Args:
            on_failure: Called once if the disk fails, or the cluster has removed this member: it must stop then.
            listener: A socket bound to `settings.raft_addr`.
        """
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        await self._transport.start(listener)
        self._loop.add_reader(self._replica.wake_fd, self._collect)
        self._sweeper = self._loop.call_later(_SWEEP_INTERVAL_S, self._sweep)
        self._note_status()
        if self._cluster and self.settings.raft_join_addrs:
            self._run_once("acquaintance", self._greet_joined)
        if list(self._members) == [self._status.id]:
            await self._replay()

    async def _greet_joined(self) -> None:
        """Stop this member if it is told to join one cluster, and its folder belongs to another."""
        for address in self.settings.raft_join_addrs:
            try:
                await greet(address, self._transport.client_context, self._hello(0, "question"))
            except (Mismatch, Removed) as exc:
                self.removed(f"{self.settings.data_dir} cannot join: {exc}")
                return
            except TransportError as exc:
                _log.debug("not greeted address=%s reason=%r", address, str(exc))

    async def _replay(self) -> None:
        """Apply what was synced but not applied when this member, which has no others, last ended.

        It leads in a moment. Others would not, so they serve what they have, and catch up.
        """
        with contextlib.suppress(ClusterError, TimeoutError):
            async with asyncio.timeout(4 * self.settings.pace.election_ms / 1000):
                await self.catch_up()

    async def close(self) -> None:
        """Hand leadership over, finish every insertion that was accepted, answer it, and release the data folder."""
        if self.is_leader and len(self._members) > 1:
            await self._hand_over()
        for task in self._tasks.values():
            task.cancel()
        await self._loop.run_in_executor(None, self.close_now)
        self._loop.remove_reader(self._replica.wake_fd)
        self._collect()
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self._transport.close()

    def close_now(self) -> None:
        """Finish every insertion that was accepted, and release the data folder. Blocks; twice is once."""
        if not self._is_closed:
            self._replica.close()
            self._is_closed = True

    @property
    def failure(self) -> str | None:
        """Why the node takes no more insertions, or None while it does."""
        return self._failure

    @property
    def is_leader(self) -> bool:
        """Whether this member takes insertions."""
        return self._status.is_leader

    def __len__(self) -> int:
        return len(self._replica)

    def on_leader(self, callback: Callable[[], None]) -> None:
        """Have `callback` called whenever this member becomes the leader."""
        self._on_leader.append(callback)

    def on_follower(self, callback: Callable[[], None]) -> None:
        """Have `callback` called whenever this member stops being the leader."""
        self._on_follower.append(callback)

    def get_leader(self) -> str | None:
        """Return the name of the leader, as far as this member knows."""
        leader = self._members.get(self._status.leader)
        return leader.name if leader else None

    async def wait_until_leader(self, name: str | None = None) -> str:
        """Return the name of the leader once there is one; if `name` is given, once that member is it."""
        while (leader := self.get_leader()) is None or (name is not None and leader != name):
            self._role_changed.clear()
            await self._role_changed.wait()
        return leader

    def leader_url(self) -> str | None:
        """Return the base URL of the leader, or None when there is none."""
        leader = self._members.get(self._status.leader)
        return f"http://{leader.http_addr}" if leader else None

    async def add(self, events: Sequence[bytes], *, if_absent: bool = False) -> Added:
        """Add `events` as one atomic batch and return their snapshots, synced on a majority.

        Args:
            events: At least one event; the first occurrence wins among equal ones.
            if_absent: Answer the first snapshot of an event that is in the log already, and add nothing for it.

        Returns:
            One snapshot an event, and whether anything was added.

        Raises:
            Overloaded: The queue is full.
            NotLeader: Another member takes insertions, or none; nothing was taken.
            NotTaken: A write or sync failed before, or the node is closing.
            OutcomeUnknown: Leadership was lost. The events may still be committed.
            WriteRefused: This write or sync failed. The events may still be committed.
            Unavailable: No result in time. The events may still be committed.
        """
        if self._failure is not None:
            raise NotTaken(self._failure)
        if not self._status.is_leader:
            raise self._not_leader()
        ticket, future = self._adds.enter(self._loop)
        try:
            self._replica.submit(ticket, events, if_absent=if_absent)
        except WriteRefused as exc:
            self._adds.leave(ticket)
            raise NotTaken(str(exc)) from exc
        except Exception:
            self._adds.leave(ticket)
            raise
        try:
            return await future
        except NotLeader as exc:
            raise self._not_leader() from exc

    async def catch_up(self) -> None:
        """Return once this member's log holds everything that was acknowledged when this was called.

        Raises:
            Unavailable: No leader said so in time, or a write or sync has failed.
        """
        ticket, future = self._enter_task()
        self._replica.read(ticket)
        try:
            await future
        except NotLeader as exc:
            raise Unavailable(_NO_LEADER) from exc

    async def await_version(self, version: int) -> None:
        """Return once the log holds `version`, or after a while."""
        if version < len(self._replica):
            return
        ticket, future = self._enter_task()
        events = min(version + 1, _EVENTS_LIMIT)
        self._replica.await_events(ticket, events, int(_VERSION_WAIT_S * 1000) // self.settings.pace.tick_ms)
        await future

    async def membership(self, digest: Digest, *, version: int | None = None, key: bytes | None = None) -> bytes:
        """Return, as JSON, the proof that `digest` is in the log, or that it is not.

        Args:
            digest: Digest of the event asked about.
            version: The version asked at; None, or one beyond the log, is the latest.
            key: The event itself, to be echoed.

        Returns:
            A proof on one consistent view of the log.

        Raises:
            AddedLater: The event was first added after `version`.
            EmptyLog: There is no version yet.
            Overloaded: Too many proofs wait already.
            Unavailable: No result in time.
        """
        if version is not None and version >= len(self._replica):
            await self._await_if_behind(version)
        ticket, answer = self._ask()
        self._replica.ask_membership(ticket, digest, version=version, key=key)
        return await self._receive(answer)

    async def incremental(self, start: int, end: int) -> bytes:
        """Return, as JSON, the proof that the log at `end` extends the log at `start`.

        Raises:
            UnknownVersion: `start` is above `end`, or `end` is beyond the log.
            EmptyLog: There is no version yet.
            Overloaded: Too many proofs wait already.
            Unavailable: No result in time.
        """
        await self._await_if_behind(end)
        ticket, answer = self._ask()
        self._replica.ask_incremental(ticket, start, end)
        return await self._receive(answer)

    async def snapshot(self, version: int) -> bytes:
        """Return, as JSON, the snapshot of `version` exactly as it was acknowledged.

        Raises:
            UnknownVersion: `version` is beyond the log.
            Overloaded: Too many proofs wait already.
            Unavailable: No result in time.
        """
        await self._await_if_behind(version)
        ticket, answer = self._ask()
        self._replica.ask_snapshot(ticket, version)
        return await self._receive(answer)

    def describe(self) -> Info:
        """Return this member's addresses and the length of its log."""
        settings, events = self.settings, len(self._replica)
        return Info(
            node_id=settings.node_id,
            raft_addr=str(settings.advertised("raft")),
            mgmt_addr=str(settings.advertised("mgmt")),
            http_addr=str(settings.advertised("http")),
            metrics_addr=str(settings.advertised("metrics")),
            version=self._software_version,
            current_version=events - 1 if events else None,
            events=events,
        )

    def topology(self) -> Shards:
        """Return the members, also those that are down, and their leader."""
        shards = {
            member.name: Shard(node_id=member.name, http_addr=member.http_addr) for member in self._members.values()
        }
        return Shards(
            node_id=self.settings.node_id, leader_id=self.get_leader() or "", uri_scheme="http", shards=shards
        )

    def cluster(self) -> Cluster:
        """Return what this member knows of its cluster; a leader also knows how far the others are."""
        status = self._replica.status()
        followers = {number: (held, is_heard) for number, held, is_heard in status.followers}
        members = []
        for number, member in status.members:
            held, is_heard = followers.get(number, (None, None))
            is_self = number == status.id
            members.append(
                ClusterMember(
                    node_id=member.name,
                    role=_role_of(status, number),
                    raft_addr=member.raft_addr,
                    http_addr=member.http_addr,
                    mgmt_addr=member.mgmt_addr,
                    is_reachable=True if is_self else is_heard,
                    entry=status.applied_index if is_self else held,
                )
            )
        return Cluster(
            node_id=self.settings.node_id,
            cluster_id=self._cluster,
            leader_id=self.get_leader() or "",
            term=status.term,
            commit_index=status.commit_index,
            applied_index=status.applied_index,
            events=len(self._replica),
            members=members,
        )

    async def remove(self, name: str) -> None:
        """Have the leader remove the member called `name`.

        Raises:
            MembershipRefused: There is no such member, or it is the last one that votes.
            ClusterError: There is no leader, or another change is under way.
        """
        await self._ask_leader(Question("remove", name=name))

    async def transfer(self, name: str | None) -> None:
        """Have the leader hand over to the member called `name`, or to any, and return once that is done.

        Raises:
            MembershipRefused: There is no such member.
            ClusterError: There is no leader, or nobody to hand over to.
        """
        before = self.get_leader()
        await self._ask_leader(Question("transfer", name=name or ""))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * self.settings.pace.election_ms / 1000):
                while self.get_leader() in {None, before} and before != name:
                    self._role_changed.clear()
                    await self._role_changed.wait()
                return
        raise Unavailable("leadership was not handed over in time")

    # What the transport asks.

    def greet(self, hello: Hello) -> Answer:
        """Judge a hello that names the right protocol."""
        status = self._status
        if hello.sender in status.removed:
            name = self.settings.node_id
            return Answer(
                "removed", f"{name} says that this member was removed from the cluster; empty its data folder"
            )
        if hello.kind == "question":
            if hello.cluster and self._cluster and hello.cluster != self._cluster:
                return Answer("cluster", f"it is a member of cluster {self._cluster}, not {hello.cluster}")
            return Answer(cluster=self._cluster)
        if hello.receiver != status.id:
            return Answer("receiver", f"member {status.id:016x} is here, not {hello.receiver:016x}")
        if self._cluster and hello.cluster != self._cluster:
            return Answer("cluster", f"it is a member of cluster {self._cluster}, not {hello.cluster}")
        # A member that waits to be admitted learns the name of its cluster from whoever knows its number.
        self._cluster = hello.cluster
        return Answer(cluster=self._cluster)

    def receive(self, sender: int, messages: Sequence[bytes]) -> None:
        """Take messages of other members."""
        if refused := self._replica.receive(messages):
            _log.warning("messages refused sender=%s count=%d", self._transport.name_of(sender), refused)

    def lost(self, receiver: int) -> None:
        """Note that messages to `receiver` may have been lost."""
        self._replica.lost(receiver)

    async def page(self, extent: bytes) -> bytes:
        """Return the page that continues `extent`."""
        ticket, answer = self._ask()
        try:
            self._replica.ask_page(ticket, extent)
        except LogError:
            self._questions.leave(ticket)
            raise
        return await answer

    async def answer(self, question: Question) -> Answer:
        """Do what another member asks, or pass it on to the leader."""
        try:
            await self._ask_leader(question)
        except MembershipRefused as exc:
            return Answer("refused", str(exc), self._cluster)
        except QedError as exc:
            return Answer("unavailable", str(exc), self._cluster)
        return Answer(cluster=self._cluster)

    def removed(self, message: str) -> None:
        """Note that the cluster has removed this member, or will not have it."""
        if self._failure is None:
            self._fail(message)

    async def _ask_leader(self, question: Question) -> None:
        """Carry a question out as the leader, or have the leader do it.

        Raises:
            MembershipRefused: The membership does not allow it.
            ClusterError: It could not be done now.
        """
        try:
            await self._carry_out(question)
        except NotLeader:
            leader = self._members.get(self._status.leader)
            if leader is None or self._status.is_leader or question.is_passed_on:
                raise Unavailable(_NO_LEADER if leader is None else "leadership is changing; try again") from None
            passed_on = msgspec.structs.replace(question, is_passed_on=True)
            try:
                await self._put(Address.parse(leader.raft_addr), passed_on)
            except TransportError as exc:
                raise Unavailable(str(exc)) from exc

    async def _carry_out(self, question: Question) -> None:
        member = _described(question) if question.wish == "admit" else None
        ticket, future = self._enter_task()
        if member is not None:
            self._replica.admit(ticket, question.id, member)
        elif question.wish == "remove":
            self._replica.remove(ticket, question.name)
        else:
            self._replica.transfer(ticket, question.name or None)
        await future

    async def _put(self, address: Address, question: Question) -> Answer:
        """Put a question to the member at `address`.

        Raises:
            TransportError: Nobody takes it there.
            MembershipRefused: The membership does not allow it.
            Unavailable: It could not be done now.
        """
        answer = await ask(address, self._transport.client_context, self._hello(0, "question"), question)
        if answer.error == "refused":
            raise MembershipRefused(answer.message)
        if answer.error:
            raise Unavailable(answer.message)
        return answer

    def _hello(self, receiver: int, kind: str) -> Hello:
        return Hello(
            protocol=PROTOCOL,
            kind=kind,  # type: ignore[arg-type]  # one of the literals, from the transport
            cluster=self._cluster,
            sender=self._status.id,
            receiver=receiver,
            raft_addr=str(self.settings.advertised("raft")),
        )

    @staticmethod
    def _description(settings: Settings) -> Member:
        return Member(
            name=settings.node_id,
            raft_addr=str(settings.advertised("raft")),
            http_addr=str(settings.advertised("http")),
            mgmt_addr=str(settings.advertised("mgmt")),
            metrics_addr=str(settings.advertised("metrics")),
        )

    # What changes by itself.

    def _note_status(self) -> None:
        """Look at what the replica knows of its cluster, and act on what is new."""
        before, status = self._status, self._replica.status()
        self._status, self._members = status, dict(status.members)
        self._cluster = status.cluster or self._cluster
        if status.id in status.removed:
            self.removed("this member was removed from the cluster")
            return
        others = {number: member for number, member in self._members.items() if number != status.id}
        self._transport.set_members(
            {number: (member.name, Address.parse(member.raft_addr)) for number, member in others.items()},
            frozenset(status.removed),
        )
        self._role_changed.set()
        if before.leader != status.leader:
            _log.info("leader changed leader=%s term=%d", self.get_leader() or "none", status.term)
        if before.is_leader != status.is_leader:
            for callback in self._on_leader if status.is_leader else self._on_follower:
                callback()
        if status.fetch_from is not None:
            self._run_once("fetch", self._fetch)
        if self._members.get(status.id) != self._description(self.settings):
            self._run_once("admission", self._seek_admission)

    def _run_once(self, name: str, work: Callable[[], Coroutine[None, None, None]]) -> None:
        task = self._tasks.get(name)
        if task is None or task.done():
            self._tasks[name] = asyncio.create_task(work())

    async def _seek_admission(self) -> None:
        """Ask members to be admitted, or to note new addresses, until they have."""
        settings, own = self.settings, self._description(self.settings)
        question = Question(
            "admit",
            name=own.name,
            id=self._status.id,
            raft_addr=own.raft_addr,
            http_addr=own.http_addr,
            mgmt_addr=own.mgmt_addr,
            metrics_addr=own.metrics_addr,
        )
        is_told, begun = False, self._loop.time()
        for attempt in itertools.count():
            if self._members.get(self._status.id) == own:
                return
            if self._status.is_leader:
                with contextlib.suppress(ClusterError):
                    await self._carry_out(question)
            known = [member.raft_addr for number, member in self._members.items() if number != self._status.id]
            for address in [*settings.raft_join_addrs, *map(Address.parse, known)]:
                try:
                    answer = await self._put(address, question)
                    self._cluster = self._cluster or answer.cluster
                    # Whoever has much to catch up with is told so again and again before it can see it.
                    _log.log(logging.DEBUG if is_told else logging.INFO, "admitted by=%s", address)
                    is_told = True
                    break
                except MembershipRefused as exc:
                    # Whoever had the name may have died a moment ago, and is not missed before an election is due.
                    if self._loop.time() - begun > _REFUSALS_ELECTIONS * self.settings.pace.election_ms / 1000:
                        self.removed(f"cannot join: {exc}")
                        return
                    break
                except (Mismatch, Removed) as exc:
                    # Where a member was there may be a stranger by now; where to join is what the operator has said.
                    if isinstance(exc, Removed) or address in settings.raft_join_addrs:
                        self.removed(f"cannot join: {exc}")
                        return
                    _log.warning("a stranger is at the address of a member address=%s reason=%r", address, str(exc))
                except (ClusterError, TransportError) as exc:
                    _log.log(logging.INFO if attempt == 0 else logging.DEBUG, "not admitted yet reason=%r", str(exc))
            await asyncio.sleep(_RETRY_S[min(attempt, len(_RETRY_S) - 1)])

    async def _fetch(self) -> None:
        """Fetch what this member lacks of the log, page by page, until it can go on with entries."""
        _log.info("catching up events=%d", len(self._replica))
        attempt = 0
        while (sender := self._status.fetch_from) is not None:
            try:
                await self._transport.fetch(sender, self._replica.extent, self._install)
                attempt = 0
            except QedError as exc:
                _log.warning("catching up is interrupted reason=%r", str(exc))
                await asyncio.sleep(_RETRY_S[min(attempt, len(_RETRY_S) - 1)])
                attempt += 1
        _log.info("caught up events=%d", len(self._replica))

    async def _install(self, page: bytes) -> bool:
        ticket, future = self._enter_task()
        try:
            self._replica.install(ticket, page)
        except LogError:
            self._tasks_waiting.leave(ticket)
            raise
        await future
        # What the driver makes of it comes a moment later.
        await asyncio.sleep(0.005)
        self._status = self._replica.status()
        return self._status.fetch_from is None

    async def _hand_over(self) -> None:
        """Make another member the leader, so that nobody has to miss this one."""
        for _ in range(_HAND_OVER_TRIES):
            with contextlib.suppress(ClusterError, TimeoutError):
                await self._carry_out(Question("transfer"))
                async with asyncio.timeout(2 * self.settings.pace.heartbeat_ms / 1000):
                    while self._status.is_leader:
                        self._role_changed.clear()
                        await self._role_changed.wait()
                    return

    def _not_leader(self) -> NotLeader:
        url = None if self._status.is_leader else self.leader_url()
        return NotLeader(f"insertions go to the leader, {self.get_leader()}" if url else _NO_LEADER, url)

    async def _await_if_behind(self, version: int) -> None:
        if version >= len(self._replica):
            await self.await_version(version)

    def _enter_task(self) -> tuple[int, asyncio.Future[None]]:
        # A replica that has failed would never answer, and whoever waits would hold up the end of this process.
        if self._failure is not None:
            raise Unavailable(self._failure)
        return self._tasks_waiting.enter(self._loop)

    def _ask(self) -> tuple[int, asyncio.Future[bytes]]:
        limit = self.settings.limits.max_waiting_proofs
        if len(self._questions) >= limit:
            raise Overloaded(f"{limit} proofs are waiting already")
        return self._questions.enter(self._loop)

    async def _receive(self, answer: asyncio.Future[bytes]) -> bytes:
        try:
            return await answer
        except UnknownVersion as exc:
            if not len(self._replica):
                raise EmptyLog("the log is empty: there is nothing to prove yet") from exc
            raise

    def _collect(self) -> None:
        """Hand every result that is ready to the request that waits for it, and every message to its stream."""
        completions, messages, is_status_new = self._replica.drain()
        for receiver, message in messages:
            self._transport.send(receiver, message)
        for ticket, result in completions:
            # An exception may be about any kind, but a ticket waits for one of them only.
            if not isinstance(result, bytes | None):
                self._adds.settle(ticket, result)
            if not isinstance(result, Added | None):
                self._questions.settle(ticket, result)
            if result is None or isinstance(result, Exception):
                self._tasks_waiting.settle(ticket, result)
        reason = self._replica.failure()
        if reason is not None and self._failure is None:
            self._fail(reason)
        if is_status_new and not self._is_closed:
            self._note_status()

    def _fail(self, reason: str) -> None:
        self._failure = reason
        _log.error("stopping reason=%r", reason)
        self._adds.fail_entered_before(float("inf"), lambda: WriteRefused(reason))
        self._tasks_waiting.fail_entered_before(float("inf"), lambda: Unavailable(reason))
        self._on_failure()

    def _sweep(self) -> None:
        """Fail what has waited too long, and come back."""
        timeout_s = self.settings.limits.request_timeout_s
        moment = self._loop.time() - timeout_s
        self._adds.fail_entered_before(
            moment, lambda: Unavailable(f"not confirmed within {timeout_s:g} s; the insertion may still be committed")
        )
        self._tasks_waiting.fail_entered_before(moment, lambda: Unavailable(f"no leader within {timeout_s:g} s"))
        self._questions.fail_entered_before(moment, lambda: Unavailable(f"no proof within {timeout_s:g} s"))
        self._sweeper = self._loop.call_later(_SWEEP_INTERVAL_S, self._sweep)


def _described(question: Question) -> Member:
    """Return the member that asks for admission.

    Raises:
        MembershipRefused: Its number, its name or an address is none. Once replicated, no member could do without.
    """
    addresses = {
        "raft_addr": question.raft_addr,
        "http_addr": question.http_addr,
        "mgmt_addr": question.mgmt_addr,
        "metrics_addr": question.metrics_addr,
    }
    try:
        require_node_id(question.name)
        for address in addresses.values():
            Address.parse(address)
    except SettingsError as exc:
        raise MembershipRefused(str(exc)) from exc
    if not 0 < question.id < _NUMBER_LIMIT:
        raise MembershipRefused(f"expected the number of a member, found {question.id}")
    return Member(name=question.name, **addresses)


def _role_of(status: Status, number: int) -> str:
    if number == status.leader:
        return "leader"
    return "follower" if number in status.voters else "learner"


async def register(settings: Settings, listener: socket.socket, *, on_failure: Callable[[], None]) -> Node:
    """Open the node that `settings` describe, start it on the running event loop, and return it.

    Args:
        settings: Everything the node is told.
        listener: A socket bound to `settings.raft_addr`.
        on_failure: Called once if the disk fails, or the cluster has removed this member.

    Raises:
        QedError: As `Node.open`.
    """
    node = await asyncio.to_thread(Node.open, settings)
    await node.start(on_failure, listener)
    return node
