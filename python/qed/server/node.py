"""One member of the log as its callers see it: adds that wait for a majority, proofs that wait for a thread.

Whoever knows raftos finds its words here: `register`, `get_leader`, `wait_until_leader`, `on_leader`, `on_follower`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

from qed._wire import ACCEPTS_DIGESTS, VERSION_LIMIT, Info
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
from qed.server.config import Address
from qed.server.fetching import Fetching
from qed.server.greeting import PROTOCOL, Answer, Hello, Question
from qed.server.members import Members
from qed.server.opening import open_replica
from qed.server.petitions import NO_LEADER, Petitions
from qed.server.refusals import Refusals
from qed.server.transport import Transport
from qed.server.waiting import Kind, Waiting

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine, Sequence

    from qed._qed import Added, Digest, Replica
    from qed._wire import Cluster, Shards
    from qed.server.config import Settings

__all__ = ["EmptyLog", "Node", "NotTaken", "register", "software_version"]

_log = logging.getLogger(__name__)

_VERSION_WAIT_S: Final = 1.0
"""How long a proof waits for a version that this member has not heard of yet."""
_TRANSFER_ELECTIONS: Final = 2
"""Election time-outs within which leadership is handed over."""


class EmptyLog(UnknownVersion):
    """The log holds no event yet, so there is no version to prove anything at."""


class NotTaken(WriteRefused):
    """The insertion was refused before anything of it was taken: asking again, or elsewhere, cannot add it twice."""


class Node:
    """One member. Every method but `open` and `close_now` belongs to the thread of the event loop.

    An add returns once its events are synced on a majority. A call that fails has changed nothing, except an add that
    times out, or whose leader is lost meanwhile: that one may still be committed.
    """

    def __init__(self, settings: Settings, replica: Replica) -> None:
        self.settings = settings
        self._replica = replica
        self._waiting = Waiting(settings.limits.request_timeout_s)
        self._members = Members(replica, settings)
        self._transport = Transport(self, self._hello, settings.raft_tls)
        self._refusals = Refusals()
        self._petitions = Petitions(
            settings,
            replica,
            self._waiting,
            self._members,
            context=self._transport.client_context,
            hello=self._hello,
        )
        self._fetching = Fetching(replica, self._waiting, self._members, self._transport, note_status=self._note_status)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failure: str | None = None
        self._on_failure: Callable[[], None] = lambda: None
        self._on_leader: list[Callable[[], None]] = []
        self._on_follower: list[Callable[[], None]] = []
        self._is_retired = False
        self._is_closed = False

    @classmethod
    def open(cls, settings: Settings) -> Node:
        """Return the node whose log is in `settings.data_dir`. Blocks.

        Raises:
            Exception: As `open_replica`.
        """
        return cls(settings, open_replica(settings))

    async def start(self, on_failure: Callable[[], None], listener: socket.socket) -> None:
        """Begin to serve on the running event loop.

        Args:
            on_failure: Called once if the disk fails, or the cluster has removed this member: it must stop then.
            listener: A socket bound to `settings.raft_addr`.
        """
        self._on_failure = on_failure
        loop = asyncio.get_running_loop()
        self._waiting.start()
        await self._transport.start(listener)
        loop.add_reader(self._replica.wake_fd, self._collect)
        self._note_status()
        if self._members.cluster and self.settings.raft_join_addrs:
            self._run_once("acquaintance", self._greet_joined)
        if list(self._members.by_number) == [self._members.number]:
            await self._replay()

    async def _replay(self) -> None:
        """Apply what was synced but not applied when this member, which has no others, last ended.

        It leads in a moment. Others would not, so they serve what they have, and catch up.
        """
        with contextlib.suppress(ClusterError, TimeoutError):
            async with asyncio.timeout(4 * self.settings.pace.election_ms / 1000):
                await self.catch_up()

    async def retire(self) -> None:
        """Hand leadership over, then let nobody wait for what others say: this member is about to stop."""
        if self._is_retired:
            return
        self._is_retired = True
        try:
            if self._failure is None and self.is_leader and self._members.others():
                await self._petitions.hand_over()
        finally:
            self._waiting.refuse(Kind.READ, "this member is stopping")

    async def close(self) -> None:
        """Retire, finish every insertion that was accepted, answer it, and release the data folder."""
        await self.retire()
        for task in self._tasks.values():
            task.cancel()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self.close_now)
        loop.remove_reader(self._replica.wake_fd)
        self._collect()
        self._waiting.stop()
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
        return self._members.is_leader

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
        leader = self._members.leader
        return leader.name if leader else None

    async def wait_until_leader(self, name: str | None = None) -> str:
        """Return the name of the leader once there is one; if `name` is given, once that member is it."""
        while (leader := self.get_leader()) is None or (name is not None and leader != name):
            await self._members.wait_until_changed()
        return leader

    async def wait_until_changed(self) -> None:
        """Return once something that this member knows of its cluster has changed, or may have."""
        await self._members.wait_until_changed()

    def leader_url(self) -> str | None:
        """Return the base URL of the leader, or None when there is none."""
        leader = self._members.leader
        return f"http://{leader.http_addr}" if leader else None

    async def add(self, events: Sequence[bytes | Digest], *, if_absent: bool = False) -> Added:
        """Add `events` as one atomic batch and return their snapshots, synced on a majority.

        Args:
            events: At least one event, or the digest of one; the first occurrence wins among equal ones.
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
        if not self.is_leader:
            raise self._not_leader()
        ticket, future = self._waiting.enter(Kind.ADD)
        try:
            self._replica.submit(ticket, events, if_absent=if_absent)
        except WriteRefused as exc:
            self._waiting.leave(ticket)
            raise NotTaken(str(exc)) from exc
        except Exception:
            self._waiting.leave(ticket)
            raise
        try:
            added: Added = await future
        except NotLeader as exc:
            raise self._not_leader() from exc
        return added

    async def catch_up(self) -> None:
        """Return once this member's log holds everything that was acknowledged when this was called.

        Raises:
            Unavailable: No leader said so in time, or a write or sync has failed.
        """
        ticket, future = self._waiting.enter(Kind.READ)
        self._replica.read(ticket)
        try:
            await future
        except NotLeader as exc:
            raise Unavailable(NO_LEADER) from exc

    async def await_version(self, version: int) -> None:
        """Return once the log holds `version`, or after a while."""
        if version < len(self._replica):
            return
        ticket, future = self._waiting.enter(Kind.READ)
        events = min(version + 1, VERSION_LIMIT - 1)
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
        if version is not None:
            await self.await_version(version)
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
        await self.await_version(end)
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
        await self.await_version(version)
        ticket, answer = self._ask()
        self._replica.ask_snapshot(ticket, version)
        return await self._receive(answer)

    def describe(self) -> Info:
        """Return this member's addresses and the length of its log."""
        own, events = self._members.own, len(self._replica)
        return Info(
            node_id=own.name,
            raft_addr=own.raft_addr,
            mgmt_addr=own.mgmt_addr,
            http_addr=own.http_addr,
            metrics_addr=own.metrics_addr,
            version=software_version(),
            current_version=events - 1 if events else None,
            events=events,
            log=self._members.cluster,
            accepts=[ACCEPTS_DIGESTS],
        )

    def topology(self) -> Shards:
        """Return the members, also those that are down, and their leader."""
        return self._members.topology()

    def cluster(self) -> Cluster:
        """Return what this member knows of its cluster; a leader also knows how far the others are."""
        return self._members.view(events=len(self._replica))

    async def remove(self, name: str) -> None:
        """Have the leader remove the member called `name`.

        Raises:
            MembershipRefused: There is no such member, or it is the last one that votes.
            ClusterError: There is no leader, or another change is under way.
        """
        await self._petitions.ask_leader(Question("remove", name=name))

    async def transfer(self, name: str | None) -> None:
        """Have the leader hand over to the member called `name`, or to any, and return once that is done.

        Raises:
            MembershipRefused: There is no such member.
            ClusterError: There is no leader, or nobody to hand over to.
        """
        before = self.get_leader()
        await self._petitions.ask_leader(Question("transfer", name=name or ""))
        try:
            async with asyncio.timeout(_TRANSFER_ELECTIONS * self.settings.pace.election_ms / 1000):
                await self._members.wait_until(lambda: before == name or self.get_leader() not in {None, before})
        except TimeoutError as exc:
            raise Unavailable("leadership was not handed over in time") from exc

    # What the transport asks.

    def greet(self, hello: Hello) -> Answer:
        """Judge a hello that names the right protocol."""
        members, cluster = self._members, self._members.cluster
        if hello.sender in members.status.removed:
            name = self.settings.node_id
            return Answer(
                "removed", f"{name} says that this member was removed from the cluster; empty its data folder"
            )
        is_question = hello.kind == "question"
        if not is_question and hello.receiver != members.number:
            return Answer("receiver", f"member {members.number:016x} is here, not {hello.receiver:016x}")
        if cluster and hello.cluster != cluster and (hello.cluster or not is_question):
            return Answer("cluster", f"it is a member of cluster {cluster}, not {hello.cluster}")
        if not is_question:
            # A member that waits to be admitted learns the name of its cluster from whoever knows its number.
            members.cluster = hello.cluster
        return Answer(cluster=members.cluster)

    def receive(self, sender: int, messages: Sequence[bytes]) -> None:
        """Take messages of other members."""
        name = self._transport.name_of(sender)
        if self._replica.receive(messages) and self._refusals.is_due(name, "malformed"):
            _log.warning("messages refused sender=%s reason=%r", name, "they cannot be read")

    def lost(self, receiver: int) -> None:
        """Note that messages to `receiver` may have been lost."""
        self._replica.lost(receiver)

    async def page(self, extent: bytes) -> bytes:
        """Return the page that continues `extent`."""
        ticket, answer = self._ask()
        try:
            self._replica.ask_page(ticket, extent)
        except LogError:
            self._waiting.leave(ticket)
            raise
        page: bytes = await answer
        return page

    async def answer(self, question: Question) -> Answer:
        """Do what another member asks, or pass it on to the leader."""
        try:
            await self._petitions.ask_leader(question)
        except MembershipRefused as exc:
            return Answer("refused", str(exc), self._members.cluster)
        except QedError as exc:
            return Answer("unavailable", str(exc), self._members.cluster)
        return Answer(cluster=self._members.cluster)

    def removed(self, message: str) -> None:
        """Note that the cluster has removed this member, or will not have it."""
        if self._failure is None:
            self._fail(message)

    def _hello(self, receiver: int, kind: str) -> Hello:
        return Hello(
            protocol=PROTOCOL,
            kind=kind,  # type: ignore[arg-type]  # one of the literals, from the transport
            cluster=self._members.cluster,
            sender=self._members.number,
            receiver=receiver,
            raft_addr=self._members.own.raft_addr,
        )

    # What changes by itself.

    def _note_status(self) -> None:
        """Look at what the replica knows of its cluster, and act on what is new."""
        before, members = self._members.renew(), self._members
        status = members.status
        if status.id in status.removed:
            self.removed("this member was removed from the cluster")
            return
        self._transport.set_members(
            {number: (member.name, Address.parse(member.raft_addr)) for number, member in members.others().items()},
            frozenset(status.removed),
        )
        if before.leader != status.leader:
            _log.info("leader changed leader=%s term=%d", self.get_leader() or "none", status.term)
        if before.is_leader != status.is_leader:
            for callback in self._on_leader if status.is_leader else self._on_follower:
                callback()
        if status.fetch_from is not None:
            self._run_once("fetch", self._fetching.run)
        if not members.is_admitted:
            self._run_once("admission", self._seek_admission)

    def _run_once(self, name: str, work: Callable[[], Coroutine[None, None, None]]) -> None:
        task = self._tasks.get(name)
        if task is None or task.done():
            self._tasks[name] = asyncio.create_task(work())

    async def _seek_admission(self) -> None:
        reason = await self._petitions.seek_admission()
        if reason is not None:
            self.removed(reason)

    async def _greet_joined(self) -> None:
        """Stop this member if it is told to join one cluster, and its folder belongs to another."""
        reason = await self._petitions.greet_joined()
        if reason is not None:
            self.removed(reason)

    def _not_leader(self) -> NotLeader:
        url = None if self.is_leader else self.leader_url()
        return NotLeader(f"insertions go to the leader, {self.get_leader()}" if url else NO_LEADER, url)

    def _ask(self) -> tuple[int, asyncio.Future[Any]]:
        limit = self.settings.limits.max_waiting_proofs
        if self._waiting.count(Kind.PROOF) >= limit:
            raise Overloaded(f"{limit} proofs are waiting already")
        return self._waiting.enter(Kind.PROOF)

    async def _receive(self, answer: asyncio.Future[Any]) -> bytes:
        try:
            json: bytes = await answer
        except UnknownVersion as exc:
            if not len(self._replica):
                raise EmptyLog("the log is empty: there is nothing to prove yet") from exc
            raise
        return json

    def _collect(self) -> None:
        """Hand every result that is ready to the request that waits for it, and every message to its stream."""
        completions, messages, unsound, is_status_new = self._replica.drain()
        for receiver, message in messages:
            self._transport.send(receiver, message)
        for sender, fault in unsound:
            name = self._transport.name_of(sender)
            if self._refusals.is_due(name, fault):
                _log.warning("message refused sender=%s reason=%r", name, fault)
        for ticket, result in completions:
            self._waiting.settle(ticket, result)
        reason = self._replica.failure()
        if reason is not None and self._failure is None:
            self._fail(reason)
        if is_status_new and not self._is_closed:
            self._note_status()

    def _fail(self, reason: str) -> None:
        self._failure = reason
        _log.error("stopping reason=%r", reason)
        self._waiting.fail(Kind.ADD, lambda: WriteRefused(reason))
        # A replica that has failed would never answer, and whoever waits would hold up the end of this process.
        self._waiting.refuse(Kind.READ, reason)
        self._waiting.refuse(Kind.TASK, reason)
        self._on_failure()


@functools.cache
def software_version() -> str:
    """Return the version of the software, such as `1.0.0`."""
    return metadata.version("qed-log")


async def register(settings: Settings, listener: socket.socket, *, on_failure: Callable[[], None]) -> Node:
    """Open the node that `settings` describe, start it on the running event loop, and return it.

    Args:
        settings: Everything the node is told.
        listener: A socket bound to `settings.raft_addr`.
        on_failure: Called once if the disk fails, or the cluster has removed this member.

    Raises:
        QedError: As `Node.open`.
        OSError: As `Node.open`.
        SettingsError: Other members could not reach this one, or the certificates cannot be used.
    """
    node = await asyncio.to_thread(Node.open, settings)
    try:
        await node.start(on_failure, listener)
    except BaseException:
        await asyncio.to_thread(node.close_now)
        raise
    return node
