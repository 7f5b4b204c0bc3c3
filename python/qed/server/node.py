"""One member of the log as its callers see it: adds that wait for the disk, proofs that wait for a thread."""

from __future__ import annotations

import asyncio
import itertools
import logging
from importlib import metadata
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from qed._qed import Replica
from qed.errors import Overloaded, Unavailable, UnknownVersion, WriteRefused
from qed.proofs import Added
from qed.wire import Info, Shard, Shards

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from qed.proofs import Digest
    from qed.server.config import Settings

__all__ = ["EmptyLog", "Node", "NotTaken"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_SWEEP_INTERVAL_S: Final = 0.5
"""How late a time-out may come. All waiting requests share one timer: a timer each costs more than a proof."""


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

    An add returns once its events are synced to disk. A call that fails has changed nothing, except an add that times
    out: that one may still be committed.
    """

    def __init__(self, settings: Settings, replica: Replica) -> None:
        self.settings = settings
        self._replica = replica
        tickets = itertools.count()
        self._adds: _Waiting[Added] = _Waiting(tickets)
        self._questions: _Waiting[bytes] = _Waiting(tickets)
        self._failure: str | None = None
        self._on_failure: Callable[[], None] = lambda: None
        # Kept from `start` on: to ask for the running loop is a system call, and every request needs it.
        self._loop: asyncio.AbstractEventLoop
        self._sweeper: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._software_version = metadata.version("qed-log")

    @classmethod
    def open(cls, settings: Settings) -> Node:
        """Return the node whose log is in `settings.data_dir`, which is made when it does not exist. Blocks.

        Raises:
            StoreLocked: Another process holds the folder.
            CorruptLog: The folder contradicts itself.
            UnsupportedFormat: The folder was written by a newer qed.
            OSError: The folder cannot be made, read or written.
        """
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        limits = settings.limits
        replica = Replica.open(
            str(settings.data_dir),
            queue_length=limits.queue_length,
            batch_events=limits.batch_events,
            proof_threads=limits.max_concurrent_proofs,
        )
        return cls(settings, replica)

    def start(self, on_failure: Callable[[], None]) -> None:
        """Begin to serve on the running event loop.

        Args:
            on_failure: Called once if the disk fails, after which the node refuses insertions for good.
        """
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._replica.wake_fd, self._collect)
        self._sweeper = self._loop.call_later(_SWEEP_INTERVAL_S, self._sweep)

    async def close(self) -> None:
        """Finish and sync every insertion that was accepted, answer it, and release the data folder."""
        await self._loop.run_in_executor(None, self.close_now)
        self._loop.remove_reader(self._replica.wake_fd)
        self._collect()
        if self._sweeper is not None:
            self._sweeper.cancel()

    def close_now(self) -> None:
        """Finish and sync every insertion that was accepted, and release the data folder. Blocks; twice is once."""
        if not self._is_closed:
            self._replica.close()
            self._is_closed = True

    @property
    def failure(self) -> str | None:
        """Why the node takes no more insertions, or None while it does."""
        return self._failure

    def __len__(self) -> int:
        return len(self._replica)

    async def add(self, events: Sequence[bytes], *, if_absent: bool = False) -> Added:
        """Add `events` as one atomic batch and return their snapshots, synced to disk.

        Args:
            events: At least one event; the first occurrence wins among equal ones.
            if_absent: Answer the first snapshot of an event that is in the log already, and add nothing for it.

        Returns:
            One snapshot an event, and whether anything was added.

        Raises:
            Overloaded: The queue is full.
            NotTaken: A write or sync failed before, or the node is closing.
            WriteRefused: This write or sync failed. The events may still be committed.
            Unavailable: No result in time. The events may still be committed.
        """
        if self._failure is not None:
            raise NotTaken(self._failure)
        ticket, future = self._adds.enter(self._loop)
        try:
            self._replica.submit(ticket, events, if_absent=if_absent)
        except WriteRefused as exc:
            self._adds.leave(ticket)
            raise NotTaken(str(exc)) from exc
        except Exception:
            self._adds.leave(ticket)
            raise
        return await future

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
        ticket, answer = self._ask()
        self._replica.ask_snapshot(ticket, version)
        return await self._receive(answer)

    def describe(self) -> Info:
        """Return this member's addresses and the length of its log."""
        settings, events = self.settings, len(self._replica)
        return Info(
            node_id=settings.node_id,
            raft_addr=str(settings.raft_addr),
            mgmt_addr=str(settings.mgmt_addr),
            http_addr=str(settings.http_addr),
            metrics_addr=str(settings.metrics_addr),
            version=self._software_version,
            current_version=events - 1 if events else None,
            events=events,
        )

    def topology(self) -> Shards:
        """Return the members and their leader: this one alone."""
        name = self.settings.node_id
        shard = Shard(node_id=name, http_addr=str(self.settings.http_addr))
        return Shards(node_id=name, leader_id=name, uri_scheme="http", shards={name: shard})

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
        """Hand every result that is ready to the request that waits for it."""
        for ticket, result in self._replica.drain():
            # An exception may be about either kind, but a ticket waits for one of them only.
            if not isinstance(result, bytes):
                self._adds.settle(ticket, result)
            if not isinstance(result, Added):
                self._questions.settle(ticket, result)
        reason = self._replica.failure()
        if reason is not None and self._failure is None:
            self._fail(reason)

    def _fail(self, reason: str) -> None:
        self._failure = reason
        _log.error("write failed reason=%r", reason)
        self._adds.fail_entered_before(float("inf"), lambda: WriteRefused(reason))
        self._on_failure()

    def _sweep(self) -> None:
        """Fail what has waited too long, and come back."""
        timeout_s = self.settings.limits.request_timeout_s
        moment = self._loop.time() - timeout_s
        self._adds.fail_entered_before(
            moment, lambda: Unavailable(f"not confirmed within {timeout_s:g} s; the insertion may still be committed")
        )
        self._questions.fail_entered_before(moment, lambda: Unavailable(f"no proof within {timeout_s:g} s"))
        self._sweeper = self._loop.call_later(_SWEEP_INTERVAL_S, self._sweep)
