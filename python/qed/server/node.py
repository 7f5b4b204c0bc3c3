"""One member of the log as its callers see it: adds that wait for a majority, proofs that wait for a thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from qed import __version__
from qed._limits import NOT_SIGNED, NOT_WITNESSED, VERSION_LIMIT
from qed._wire import ACCEPTS_DIGESTS, Info, SignerRow, Signers
from qed.errors import (
    BackupError,
    ClusterError,
    LogError,
    MembershipRefused,
    NotLeader,
    QedError,
    SigningError,
    Unavailable,
    UnknownVersion,
    WriteRefused,
)
from qed.server.acts import KeyCreated, KeyRevoked, TokenCreated, encode, now
from qed.server.api_keys import ApiKey
from qed.server.handshake import LeaderRequest
from qed.server.high_water import Keeper
from qed.server.logs import Line
from qed.server.members import NO_LEADER, Members, address_by, url_by
from qed.server.observation import Observation
from qed.server.opening import open_member
from qed.server.peers import Peers
from qed.server.rates import UNLIMITED
from qed.server.receipt_maker import ReceiptMaker
from qed.server.signing_parts import open_signing
from qed.server.tokens import Token
from qed.server.waiting import ADD, PROOF, READ, TASK, Waiting, complete

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from qed._qed import Act, Added, BulkMembership, Digest, Replica, TilePath
    from qed._wire import Cluster, Shards
    from qed.server.acts import Act as Deed
    from qed.server.acts import Author
    from qed.server.config import Settings
    from qed.server.credentials import Credentials
    from qed.server.families import Family
    from qed.server.rates import Rates

__all__ = ["EmptyLog", "Node", "NotTaken"]

_log = logging.getLogger(__name__)

T = TypeVar("T")

_VERSION_WAIT_S: Final = 1.0
"""How long a proof waits for a version that this member does not have yet."""
_FULL_BYTES: Final = 1 << 20
"""A disk with less room than this is full: the store grows by more at once."""
_ACTS_AT_ONCE: Final = 1000
_TRANSFER_ELECTIONS: Final = 2
"""Election time-outs within which leadership is handed over."""


class EmptyLog(UnknownVersion):
    """The log holds no event yet, so there is no version to prove anything at."""


class NotTaken(WriteRefused):
    """The insertion was refused before any part was accepted: a retry, here or elsewhere, cannot add it twice."""


class Node:
    """One member. All methods except `open` and `close_now` must be called in the thread of the event loop.

    An add returns once its events are synced on a majority. A call that fails has changed nothing, except an add that
    times out or loses its leader: it may still be committed.

    Attributes:
        settings: The settings of the server.
        keys: The API keys of the cluster.
        published: The newest published checkpoint.
        observation: What is measured of this member.
    """

    def __init__(self, settings: Settings, replica: Replica, credentials: Credentials | None) -> None:
        self.settings = settings
        self._replica = replica
        limits = settings.limits
        self._waiting = Waiting(limits.request_timeout_s, max_proofs=limits.max_waiting_proofs)
        self._members = Members(replica, settings, credentials.pin if credentials else None)
        self._peers = Peers(settings, replica, self._waiting, self._members, credentials, on_removed=self._note_removed)
        self.keys = self._peers.keys
        self._receipts = ReceiptMaker(replica, self._waiting)
        self._signing = open_signing(settings, replica, self._receipts, self._members, self._peers)
        self.published = self._peers.published
        self.observation = Observation(
            settings, replica, self._members, waiting=self._waiting, peers=self._peers, signing=self._signing
        )
        self._publishing: asyncio.Task[None] | None = None
        self._failure: str | None = None
        self._on_failure: Callable[[], None] = lambda: None
        self._is_retired = False
        self._is_closed = False
        self._note = None if settings.high_water is None else Keeper(settings.high_water, replica.status)
        self._noting: asyncio.Task[None] | None = None
        self._has_caught_up = False
        self._catching_up: asyncio.Task[None] | None = None

    @classmethod
    def open(cls, settings: Settings) -> Node:
        """Return the node whose log is in `settings.data_dir`. Blocks.

        Raises:
            Exception: As `open_member`.
        """
        return cls(settings, *open_member(settings))

    async def start(self, on_failure: Callable[[], None], listener: socket.socket | None) -> None:
        """Start to serve on the running event loop.

        Args:
            on_failure: Called once if the disk fails, or the cluster has removed this member: it must then stop.
            listener: A socket bound to `settings.raft_addr`; None for a member that is alone.
        """
        self._on_failure = on_failure
        loop = asyncio.get_running_loop()
        self._waiting.start()
        loop.add_reader(self._replica.wake_fd, self._collect)
        if self._note is not None:
            self._noting = asyncio.create_task(self._note.run())
        await self._peers.start(listener)
        await self.published.load()
        if self._signing is None and self._peers.signers.log is not None:
            _log.warning(Line("this log is signed, but this member does not sign", log=self._peers.signers.log))
        if self._signing is not None:
            self._publishing = loop.create_task(self._signing.publishing.run())
        if list(self._members.by_number) == [self._members.number]:
            await self._replay()
            self._has_caught_up = True
        else:
            self._catching_up = loop.create_task(self._catch_up_once())

    async def _replay(self) -> None:
        """Apply what was synced but not applied when this member, the only one of its cluster, last stopped.

        It becomes leader in a moment. A member of a larger cluster might not, so it serves what it has, and catches up.
        """
        # If a write fails, this member stops for that reason.
        with contextlib.suppress(ClusterError, WriteRefused, TimeoutError):
            async with asyncio.timeout(4 * self.settings.pace.election_ms / 1000):
                await self.catch_up()

    async def _catch_up_once(self) -> None:
        """Wait for a leader that confirms what was acknowledged, however long that takes."""
        while not self._has_caught_up:
            await self._members.wait_until(lambda: self._members.leader is not None)
            try:
                await self.catch_up()
            except WriteRefused:
                return
            except ClusterError:
                await asyncio.sleep(self.settings.pace.election_ms / 1000)
            else:
                self._has_caught_up = True

    async def reload(self) -> None:
        """Read the secret or the certificates of this member again. If they cannot be used, it keeps what it has."""
        await self._peers.reload()

    async def retire(self) -> None:
        """Hand leadership over, then fail every read that waits for other members: this member is about to stop."""
        if self._is_retired:
            return
        self._is_retired = True
        try:
            if self._failure is None and self.is_leader and self._members.others():
                await self._peers.leader_requests.hand_over()
        finally:
            self._waiting.refuse(READ, "this member is stopping")

    async def close(self) -> None:
        """Retire, finish every insertion that was accepted, answer it, and release the data folder."""
        await self.retire()
        if self._noting is not None:
            self._noting.cancel()
        if self._catching_up is not None:
            self._catching_up.cancel()
        if self._publishing is not None:
            self._publishing.cancel()
        self._peers.stop()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self.close_now)
        loop.remove_reader(self._replica.wake_fd)
        self._collect()
        self._waiting.stop()
        await self._peers.close()
        if self._signing is not None:
            await self._signing.aclose()

    def close_now(self) -> None:
        """Finish every insertion that was accepted, and release the data folder. Blocks; a second call does nothing."""
        if not self._is_closed:
            self._replica.close()
            if self._signing is not None:
                self._signing.close()
            if self._note is not None:
                self._note.write()
            self._is_closed = True

    @property
    def failure(self) -> str | None:
        """Why the node accepts no more insertions, or None while it does."""
        return self._failure

    @property
    def alarm(self) -> str | None:
        """Why the node must not answer: its log lacks or contradicts what a majority acknowledged. None if it may."""
        return self._members.status.alarm or self.published.contradiction

    @property
    def is_leader(self) -> bool:
        """Whether this member accepts insertions."""
        return self._members.is_leader

    @property
    def is_settled(self) -> bool:
        """Whether this member votes, and has caught up with its cluster since it started, and so with its keys.

        While it was down, a key may have been made that closes the cluster.
        """
        return self._has_caught_up and self._members.number in self._members.status.voters

    def __len__(self) -> int:
        return len(self._replica)

    def families(self) -> Iterator[Family]:
        """Yield what is measured of this member."""
        is_well = self._failure is None and self.alarm is None
        return self.observation.families(is_well=is_well, is_settled=self.is_settled)

    def way_of(self, host: str, *, is_management: bool) -> str:
        """Return the name of the way in by which a request with this `Host` header came."""
        return self.settings.ways("mgmt" if is_management else "http").name_of(host)

    def leader_url(self, way: str = "") -> str | None:
        """Return the base URL of the leader for those who came by `way`, or None if no leader can be reached."""
        leader = self._members.leader
        return None if leader is None else url_by(way, leader.http_addr)

    async def add(self, events: Sequence[bytes | Digest], *, if_absent: bool = False) -> Added:
        """Add `events` as one atomic batch and return their snapshots, synced on a majority.

        Args:
            events: At least one event, or the digest of one; the first occurrence wins among equal ones.
            if_absent: For an event that is in the log already, return its first snapshot and add nothing.

        Returns:
            One snapshot an event, and whether anything was added.

        Raises:
            Overloaded: The queue is full.
            NotLeader: Another member is the leader, or there is none; nothing was accepted.
            NotTaken: An earlier write or sync failed, or the node is closing.
            OutcomeUnknown: Leadership was lost. The events may still be committed.
            WriteRefused: This write or sync failed. The events may still be committed.
            ForkGuard: The log lost entries that it had signed.
            Unavailable: No result in time. The events may still be committed.
        """
        future: asyncio.Future[Added] = asyncio.get_running_loop().create_future()
        return await self._add(events, future, None, if_absent=if_absent)

    async def begin_add(
        self, events: Sequence[bytes | Digest], *, if_absent: bool, has_receipt: bool
    ) -> asyncio.Future[tuple[Added, bytes | QedError | None]]:
        """Submit `events` as `add` does, and return before they are added.

        Args:
            events: As for `add`.
            if_absent: As for `add`.
            has_receipt: Whether to sign for them, as `add_with_receipt` does.

        Returns:
            The future of what `add_with_receipt` returns; without a receipt, its second part is None.

        Raises:
            Exception: As `add`, for events that were not submitted. The future has the others.
        """
        future: asyncio.Future[tuple[Added, bytes | QedError | None]] = asyncio.get_running_loop().create_future()
        then = self._with_receipt(future) if has_receipt else lambda added: complete(future, (added, None))
        await self.require_addable()
        self._submit(events, future, then, if_absent=if_absent)
        return future

    async def require_addable(self) -> None:
        """Check that this member accepts insertions now.

        Raises:
            Exception: As `add`, if it does not.
        """
        if self._failure is not None:
            raise NotTaken(self._failure)
        if not self.is_leader:
            raise self._not_leader()
        if self._signing is not None:
            await self._signing.require_addable()

    async def add_with_receipt(
        self, events: Sequence[bytes | Digest], *, if_absent: bool = False
    ) -> tuple[Added, bytes | QedError | None]:
        """Add `events` as `add` does, and sign for them.

        Returns:
            What `add` returns; and the receipt of what was added, as JSON, or why there is none, or None if nothing was
            added.

        Raises:
            Exception: As `add`. A receipt that cannot be had is no exception: the events are committed.
        """
        future: asyncio.Future[tuple[Added, bytes | QedError | None]] = asyncio.get_running_loop().create_future()
        return await self._add(events, future, self._with_receipt(future), if_absent=if_absent)

    def _with_receipt(self, future: asyncio.Future[tuple[Added, bytes | QedError | None]]) -> Callable[[Added], None]:
        """Return what completes a future with what was added and its receipt.

        The task of the request wakes up once, for both. Waking it for each took a tenth of all the time of an add.
        """

        def then(added: Added) -> None:
            first, end = added.added
            if first == end:
                complete(future, (added, None))
            else:
                self._ask_receipt(first, end, lambda receipt: complete(future, (added, receipt)))

        return then

    async def _add(
        self,
        events: Sequence[bytes | Digest],
        future: asyncio.Future[T],
        then: Callable[[Added], None] | None,
        *,
        if_absent: bool,
    ) -> T:
        await self.require_addable()
        self._submit(events, future, then, if_absent=if_absent)
        try:
            return await future
        except NotLeader as exc:
            raise self._not_leader() from exc

    def _submit(
        self,
        events: Sequence[bytes | Digest],
        future: asyncio.Future[T],
        then: Callable[[Added], None] | None,
        *,
        if_absent: bool,
    ) -> None:
        ticket = self._waiting.enter_with(ADD, future, then)
        try:
            self._replica.submit(ticket, events, if_absent=if_absent)
        except WriteRefused as exc:
            self._waiting.leave(ticket)
            raise NotTaken(str(exc)) from exc
        except Exception:
            self._waiting.leave(ticket)
            raise

    def published_note(self) -> bytes | None:
        """Return the newest published checkpoint, or None if there is none yet.

        Raises:
            Unavailable: The log is not that of the cluster.
        """
        self.require_sound()
        return self.published.note

    async def receipt(self, first: int, end: int, *, is_witnessed: bool = False) -> bytes:
        """Return the receipt, as JSON, for versions of one commit batch.

        A leader that signs does so now. Otherwise the receipt rests on the newest published checkpoint.

        Args:
            first: The first version.
            end: The one after the last.
            is_witnessed: Whether it must rest on the published checkpoint.

        Raises:
            SigningError: The log is not signed, or the versions are not of one batch, or too many.
            NotLeader: The leader can give it, and this member cannot yet.
        """
        self.require_sound()
        if self._signing is not None and self.is_leader and not is_witnessed:
            future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            self._ask_receipt(first, end, lambda receipt: complete(future, receipt))
            return await future
        checkpoint = self.published.checkpoint
        if checkpoint is not None and end <= checkpoint.size:
            return await self._receipts.of_published(first, end, checkpoint)
        if self.is_leader or checkpoint is None:
            raise SigningError(NOT_SIGNED)
        raise self._not_leader()

    def _ask_receipt(self, first: int, end: int, deliver: Callable[[bytes | QedError], None]) -> None:
        if self.alarm is not None:
            deliver(Unavailable(self.alarm))
        elif self._signing is None:
            deliver(SigningError(NOT_SIGNED))
        else:
            self._signing.signing.ask_receipt(first, end, deliver)

    async def await_witnessed(self, size: int, wait_s: float) -> None:
        """Return once witnesses have cosigned a published checkpoint of this many entries or more.

        Raises:
            SigningError: They have not in time, or the log has no witnesses.
        """
        if self._signing is None or not self._signing.has_witnesses:
            raise SigningError("this log has no witnesses: its servers were started without --policy")
        try:
            async with asyncio.timeout(wait_s):
                await self.published.wait_for(size)
        except TimeoutError as exc:
            raise SigningError(NOT_WITNESSED) from exc

    async def catch_up(self) -> None:
        """Return once this member's log holds everything that was acknowledged when this was called.

        Raises:
            Unavailable: No leader confirmed it in time, or a write or sync has failed.
        """
        self.require_sound()
        try:
            await self._peers.leader_requests.catch_up()
        except NotLeader as exc:
            raise Unavailable(NO_LEADER) from exc

    async def await_version(self, version: int) -> None:
        """Return once the log holds `version`, or after a while."""
        self.require_sound()
        if version < len(self._replica):
            return
        ticket, future = self._waiting.enter(READ)
        events = min(version + 1, VERSION_LIMIT - 1)
        self._replica.await_events(ticket, events, int(_VERSION_WAIT_S * 1000) // self.settings.pace.tick_ms)
        await future

    async def membership(self, digest: Digest, *, version: int | None = None, key: bytes | None = None) -> bytes:
        """Return, as JSON, the proof that `digest` is in the log, or that it is not.

        Args:
            digest: Digest of the event.
            version: The version to prove at; None, or one beyond the log, is the latest.
            key: The event itself, to be echoed.

        Returns:
            A proof from one consistent view of the log.

        Raises:
            AddedLater: The event was first added after `version`.
            EmptyLog: There is no version yet.
            Overloaded: Too many proofs wait already.
            Unavailable: No result in time.
        """
        self.require_sound()
        if version is not None:
            await self.await_version(version)
        ticket, answer = self._waiting.enter(PROOF)
        self._replica.ask_membership(ticket, digest, version=version, key=key)
        return await self._receive(answer)

    async def bulk_membership(self, question: BulkMembership) -> bytes:
        """Return, as JSON, the proof which of many events are in the log, as of its last version.

        Raises:
            EmptyLog: There is no version yet.
            Overloaded: Too many proofs wait already. This one counts as many as it has keys.
            Unavailable: No result in time.
        """
        self.require_sound()
        ticket, answer = self._waiting.enter(PROOF, count=len(question.keys))
        self._replica.ask_bulk(ticket, question)
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
        ticket, answer = self._waiting.enter(PROOF)
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
        ticket, answer = self._waiting.enter(PROOF)
        self._replica.ask_snapshot(ticket, version)
        return await self._receive(answer)

    async def tile(self, path: TilePath) -> bytes:
        """Return a file of the log as a transparency log.

        Raises:
            UnknownVersion: The log does not have that many entries yet.
            Overloaded: Too many proofs wait already.
            Unavailable: No result in time, or the log is not that of the cluster.
        """
        self.require_sound()
        ticket, answer = self._waiting.enter(PROOF)
        self._replica.ask_tile(ticket, path)
        return await self._receive(answer)

    @property
    def log_name(self) -> str:
        """The name of the log; empty before this member is admitted to its cluster."""
        return self._members.cluster or ""

    def begin_backup(self, since: bytes | None) -> bytes:
        """Return the beginning of a backup of this member's log.

        Args:
            since: The place in an earlier backup from which to continue it; None for a backup of everything.

        Raises:
            BackupError: `since` is no place in a backup.
            PageError: The log does not continue that backup.
            Unavailable: This member's log is not that of the cluster.
        """
        self.require_sound()
        return self._replica.begin_backup(
            since=since,
            log=self.log_name,
            node_id=self._members.own.name,
            software=__version__,
            created_s=int(time.time()),
        )

    async def backup_part(self, after: bytes, *, until: int | None = None) -> bytes:
        """Return what follows a place in a backup: a page, and its end once it has enough events.

        Args:
            after: The place.
            until: The number of events after which the backup may end; None, or one beyond the log, is all of them.

        Raises:
            BackupError: `after` is no place in a backup.
            PageError: The log does not continue what is before it.
            Overloaded: Too many proofs wait already.
            Unavailable: No result in time.
        """
        self.require_sound()
        ticket, answer = self._waiting.enter(PROOF)
        try:
            self._replica.ask_backup(ticket, after, until=until)
        except BackupError:
            self._waiting.leave(ticket)
            raise
        return await answer

    @property
    def image(self) -> tuple[int, str | None]:
        """How many events' trees came from the tree image at the start, and why it was not used if it was unfit."""
        return self._replica.image()

    def describe(self, way: str = "") -> Info:
        """Return this member's addresses, for those who came by `way`, and the length of its log."""
        own, events = self._members.own, len(self._replica)
        return Info(
            node_id=own.name,
            raft_addr=own.raft_addr,
            mgmt_addr=address_by(way, own.mgmt_addr),
            http_addr=address_by(way, own.http_addr),
            metrics_addr=own.metrics_addr,
            version=__version__,
            current_version=events - 1 if events else None,
            events=events,
            log=self.log_name,
            accepts=[ACCEPTS_DIGESTS],
            continues=self._members.status.continues,
        )

    def topology(self, way: str = "") -> Shards:
        """Return the members, including those that are down, and their leader, for those who came by `way`."""
        return self._members.topology(way)

    def cluster(self, way: str = "") -> Cluster:
        """Return the cluster as this member sees it; a leader also knows the others' progress."""
        return self._members.view(way, events=len(self._replica))

    async def history(self, after: int) -> list[Act]:
        """Return the acts that this member has applied after the entry `after`, oldest first; none after the last.

        Returns:
            The next acts, as many as one answer may hold.

        Raises:
            CorruptLog: A row cannot be read.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, self._replica.acts, after, _ACTS_AT_ONCE)

    async def record(self, deed: Deed, author: Author) -> None:
        """Have the leader record a deed that its author asks for. When this returns, a majority has synced it.

        Raises:
            OutcomeUnknown: Leadership was lost. It may still be recorded.
            ClusterError: There is no leader.
        """
        await self._peers.leader_requests.ask_leader(
            LeaderRequest("record", who=author.who, origin=author.origin, act=encode(deed)), author.key
        )

    async def gather_key_uses(self) -> list[str]:
        """Ask the other members when they last accepted each key, and note it; return those that did not answer."""
        return await self._peers.key_uses.gather()

    async def create_key(
        self, roles: list[str], name: str, expires: datetime | None, author: Author, *, rates: Rates = UNLIMITED
    ) -> ApiKey:
        """Make an API key. When this returns, the members have its hash, and this one accepts it.

        Args:
            roles: What it may be used for.
            name: What the operator calls it; may be empty.
            expires: When it expires; None for never.
            author: Who asks for it.
            rates: Its own rates.

        Returns:
            The key, whose text is stored nowhere.

        Raises:
            OutcomeUnknown: Leadership was lost. A key that nobody has may be in the table.
            ClusterError: There is no leader.
        """
        key = ApiKey.make()
        await self.record(
            KeyCreated(
                who=author.who,
                origin=author.origin,
                when=now(),
                id=key.id,
                name=name,
                roles=roles,
                hash=key.hash,
                public_key=key.public_key,
                expires=expires,
                events_per_s=rates.events_per_s,
                requests_per_s=rates.requests_per_s,
            ),
            author,
        )
        await self._wait_for_act(lambda: self.keys.find(key.id) is not None)
        return key

    def signers(self) -> Signers:
        """Return the name of the log and its keys."""
        known = self._peers.signers
        return Signers(known.log, [SignerRow(one.vkey, one.since, one.until) for one in known.signers])

    async def retire_signer(self, key_id: str, author: Author) -> None:
        """Have the leader retire a key of the log. When this returns, it signs nothing any more.

        Raises:
            MembershipRefused: There is no such key, no other would sign, or the leader does not sign.
            ClusterError: There is no leader.
        """
        request = LeaderRequest("retire", name=key_id, who=author.who, origin=author.origin)
        await self._peers.leader_requests.ask_leader(request, author.key)

        def is_applied() -> bool:
            return all(f"+{key_id}+" not in vkey for vkey in self._peers.signers.active)

        await self._wait_for_act(is_applied)

    async def revoke_key(self, public: str, author: Author) -> None:
        """Revoke an API key. When this returns, this member no longer accepts it, and soon no member does.

        Args:
            public: Its id.
            author: Who asks for it.

        Raises:
            MembershipRefused: There is no such key, or nobody could make keys any more.
            ClusterError: There is no leader.
        """
        key = self.keys.find(public)
        if key is None:
            raise MembershipRefused("there is no key with this id")
        may_be_last = self.settings.can_do_without_keys
        act = KeyRevoked(who=author.who, origin=author.origin, when=now(), id=public, may_be_last=may_be_last)
        await self.record(act, author)
        await self._wait_for_act(lambda: key.is_revoked)

    async def _wait_for_act(self, is_applied: Callable[[], bool]) -> None:
        """Return once this member has applied an act that the leader has recorded, or after a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_VERSION_WAIT_S):
                await self._members.wait_until(is_applied)

    async def remove(self, name: str, author: Author) -> None:
        """Have the leader remove the member called `name`, as `author` asks.

        Raises:
            MembershipRefused: There is no such member, or it is the last voter.
            ClusterError: There is no leader, or another change is under way.
        """
        await self._peers.leader_requests.ask_leader(
            LeaderRequest("remove", name=name, who=author.who, origin=author.origin), author.key
        )

    async def replace(self, name: str, author: Author) -> None:
        """Let the next server that asks for admission as `name` take the place of that member, as `author` asks.

        Raises:
            MembershipRefused: There is no such member, or it is alive.
            ClusterError: There is no leader.
        """
        await self._peers.leader_requests.ask_leader(
            LeaderRequest("replace", name=name, who=author.who, origin=author.origin), author.key
        )

    async def create_token(self, name: str | None, ttl_s: int, author: Author) -> tuple[Token, TokenCreated]:
        """Return a new token, with which one server can join, once the members know of it.

        Args:
            name: The node id of the server; None for any.
            ttl_s: For how many seconds it is valid.
            author: Who asks for it.

        Raises:
            MembershipRefused: This cluster has no authority of its own to sign certificates.
            ClusterError: There is no leader.
        """
        authority = self._peers.authority_pin
        if authority is None:
            raise MembershipRefused("tokens need a cluster secret: start the members with --cluster-secret-file")
        token, moment = Token.make(authority), now()
        act = TokenCreated(
            who=author.who,
            origin=author.origin,
            when=moment,
            id=token.id,
            name=name,
            public_key=token.public_key,
            expires=moment + timedelta(seconds=ttl_s),
        )
        await self.record(act, author)
        return token, act

    async def transfer(self, name: str | None, author: Author) -> None:
        """Have the leader hand over to the member called `name`, or to any, and return once that is done.

        Args:
            name: Name of the member.
            author: Who asks for it.

        Raises:
            MembershipRefused: There is no such member.
            ClusterError: There is no leader, or no member to hand over to.
        """
        members, before = self._members, self._members.leader_name
        request = LeaderRequest("transfer", name=name or "", who=author.who, origin=author.origin)
        await self._peers.leader_requests.ask_leader(request, author.key)
        try:
            async with asyncio.timeout(_TRANSFER_ELECTIONS * self.settings.pace.election_ms / 1000):
                await members.wait_until(lambda: before == name or members.leader_name not in {None, before})
        except TimeoutError as exc:
            raise Unavailable("leadership was not handed over in time") from exc

    def require_sound(self) -> None:
        """Check that this member may answer.

        Raises:
            Unavailable: The log is not that of the cluster.
        """
        if self.alarm is not None:
            raise Unavailable(self.alarm)

    def _not_leader(self) -> NotLeader:
        url = None if self.is_leader else self.leader_url()
        return NotLeader(f"insertions go to the leader, {self._members.leader_name}" if url else NO_LEADER, url)

    async def _receive(self, answer: asyncio.Future[bytes]) -> bytes:
        try:
            return await answer
        except UnknownVersion as exc:
            if not len(self._replica):
                raise EmptyLog("the log is empty: there is nothing to prove yet") from exc
            raise

    def _collect(self) -> None:
        """Give every result that is ready to the request that waits for it, and every message to its stream."""
        delivery = self._replica.drain()
        self._peers.send(delivery)
        for completion in delivery.completions:
            self._waiting.settle(completion.ticket, completion.result)
        reason = self._replica.failure()
        if reason is not None and self._failure is None:
            self._fail(reason)
        if delivery.is_status_new and not self._is_closed:
            try:
                self._peers.note_status()
            except LogError as exc:
                # An act that cannot be read may revoke a key.
                self._fail(str(exc))

    def _note_removed(self, reason: str) -> None:
        if self._failure is None:
            self._fail(reason)

    def _fail(self, cause: str) -> None:
        reason = self._failure = cause + self._note_on_room()
        _log.error(Line("stopping", reason=reason))
        self._waiting.fail(ADD, lambda: WriteRefused(reason))
        # A replica that has failed would never answer, and waiting requests would delay the end of this process.
        self._waiting.refuse(READ, reason)
        self._waiting.refuse(TASK, reason)
        self._on_failure()

    def _note_on_room(self) -> str:
        """Return what to add to the reason of a failure: the store does not always know that its disk is full."""
        try:
            free = shutil.disk_usage(self.settings.data_dir).free
        except OSError:
            return ""
        return f"; its disk is full, with {free:,} bytes left" if free < _FULL_BYTES else ""
