"""The other members: answers their requests, and reacts to changes of the cluster."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import random
from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec

from qed.errors import ClusterError, LogError, MembershipRefused, NotLeader, QedError, Unavailable
from qed.server.acts import encode
from qed.server.admissions import Admissions
from qed.server.authorities import Authorities
from qed.server.certifier import Certifier
from qed.server.config import Address, SettingsError
from qed.server.credentials import read_credentials
from qed.server.enrolment import seek_certificate
from qed.server.fetching import Fetching
from qed.server.former_keys import FormerKeys
from qed.server.handshake import PROTOCOL, Hello, LeaderRequest, Mismatch, Removed, Reply
from qed.server.history import History
from qed.server.key_uses import KeyUses
from qed.server.keys import KeyTable
from qed.server.leader_requests import LeaderRequests
from qed.server.logs import Line, OncePerMinute, where
from qed.server.opening import description
from qed.server.passed_on import CallerRefused, PassedOn, via
from qed.server.published import Published, read_policy
from qed.server.recognition import STRANGER, Recognition
from qed.server.revocation import Revocation
from qed.server.signer_set import SignerSet
from qed.server.token_table import TokenTable
from qed.server.transport import Contact, Transport
from qed.server.waiting import PROOF, delays

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from qed._qed import Checkpoint, Delivery, Replica
    from qed.server.certification import Certified, EnrolmentRequest
    from qed.server.config import Settings
    from qed.server.credentials import Credentials
    from qed.server.handshake import Kind
    from qed.server.members import Members
    from qed.server.pins import Peer
    from qed.server.waiting import Waiting

__all__ = ["Peers"]

_log = logging.getLogger(__name__)

_RECORD_S: Final = (0.1, 1.0, 2.0, 5.0, 10.0)
"""How long to wait before the leader is asked again to record something."""
_INTRODUCTION_S: Final = 1.0
"""How long to wait before asking again who the members are."""
_REFUSED_S: Final = 5.0
"""How long a member waits before it asks again for what was refused: an operator has to act first."""
_ANNOUNCEMENT_S: Final = 10.0
"""How long to ask for a new key to be recorded. Elections take a second or two; without a majority none is recorded."""


class Peers:
    """Connects a replica with the other members.

    Attributes:
        keys: The API keys of the cluster.
        key_uses: When the members last accepted each.
        leader_requests: Carries out requests to the leader, or passes them on.
        signers: The keys with which the log signs.
        published: The newest published checkpoint.
        refused_messages: How many messages no sound member would have sent, by the name of the member that did.
    """

    def __init__(
        self,
        settings: Settings,
        replica: Replica,
        waiting: Waiting,
        members: Members,
        credentials: Credentials | None,
        *,
        on_removed: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._replica = replica
        self._waiting = waiting
        self._members = members
        self._on_removed = on_removed
        self._run = random.getrandbits(63) + 1
        self._recognition = Recognition(members)
        tokens, former_keys = TokenTable(), FormerKeys()
        self._transport = Transport(self, self._hello, credentials)
        self.keys = KeyTable()
        self._passed_on = PassedOn(settings, members, self.keys)
        admissions = Admissions(members, tokens, former_keys, renew=self.renew_history)
        self.leader_requests = LeaderRequests(
            settings,
            replica,
            waiting,
            members,
            transport=self._transport,
            admissions=admissions,
            revocation=Revocation(members, self.keys, renew=self.renew_history),
        )
        self._certifier = Certifier(admissions, self.leader_requests)
        self.key_uses = KeyUses(self.keys, members, self._transport)
        self._authorities = Authorities(members, self._accepted)
        self.signers = SignerSet()
        policy = read_policy(settings.signing.policy) if settings.signing and settings.signing.policy else None
        self.published = Published(settings.data_dir, replica, self.signers, policy)
        folds = (self.keys.fold, tokens.fold, former_keys.fold, members.lost.fold, self.signers.fold)
        self._history = History(
            replica,
            members,
            self.leader_requests.record,
            catch_up=self.leader_requests.catch_up,
            authorities=self._authorities,
            folds=folds,
        )
        self._fetching = Fetching(replica, waiting, members, self._transport)
        self._once_per_minute = OncePerMinute()
        self.refused_messages: Counter[str] = Counter()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._is_enrolling = False
        self.on_checkpoint: Callable[[Checkpoint], Awaitable[None]] = _ignore
        """Called with each checkpoint that the leader has given to this member."""
        self._announced: Credentials | None = None
        """Credentials with a new key, which the cluster was asked to record."""

    async def start(self, listener: socket.socket | None) -> None:
        """Accept streams on a bound socket, if there is one, and connect to the members that are known."""
        if listener is not None and self._transport.credentials is None:
            self._is_enrolling = True
            self._run_once("enrolment", functools.partial(self._enrol_self, listener))
        elif listener is not None:
            self._transport.start(listener)
        self.note_status()
        if self._members.cluster and self._settings.raft_join_addrs:
            self._run_once("probe", self._probe_joined)

    async def reload(self) -> None:
        """Read this member's credentials again. If they cannot be used, it keeps those that it has."""
        if (running := self._tasks.get("reload")) is not None:
            # It may have read the files before they were changed again.
            await asyncio.wait([running])
        await asyncio.wait([self._run_once("reload", self._reload)])

    def stop(self) -> None:
        """Stop fetching pages and asking for admission. Messages of the replica are still sent."""
        for task in self._tasks.values():
            task.cancel()

    async def close(self) -> None:
        """End every stream."""
        await self._transport.close()

    def send(self, delivery: Delivery) -> None:
        """Send the messages of a delivery, and log the messages of others that were refused."""
        self._transport.send(delivery.messages)
        for invalid in delivery.invalid_messages:
            name = self._members.name_of(invalid.sender)
            self.refused_messages[name] += 1
            if self._once_per_minute.is_due(name, invalid.reason):
                _log.warning(Line("message refused", sender=name, reason=invalid.reason))

    def _log_alarm(self, reason: str | None) -> None:
        if reason is None:
            _log.info(Line("alarm over", events=len(self._replica)))
        else:
            _log.error(Line("alarm", reason=reason))

    def note_status(self) -> None:
        """Read the replica's status, and act on what has changed."""
        before, members = self._members.renew(), self._members
        status = members.status
        if status.id in status.removed:
            self.removed("this member was removed from the cluster")
            return
        if self._announced is not None and members.is_recorded(description(self._settings, self._announced.pin)):
            self._adopt(self._announced)
            self._announced = None
        self._transport.set_members(
            {n: Contact(member.name, Address.parse(member.raft_addr)) for n, member in members.others().items()},
            frozenset(status.removed),
        )
        if before.leader != status.leader:
            _log.info(Line("leader changed", leader=members.leader_name or "none", term=status.term))
        if before.is_leader != status.is_leader:
            _log.info(Line("leads" if status.is_leader else "follows", events=len(self._replica)))
        if before.alarm != status.alarm:
            self._log_alarm(status.alarm)
        self._history.renew()
        if status.is_leader:
            self._run_once("history", self._history.record_missing)
        if self._is_settled and self._authorities.change() is not None:
            self._run_once("authorities", self._record_authorities)
        if status.fetch_from is not None:
            self._run_once("fetch", self._fetching.run)
        if not members.is_admitted and not self._is_enrolling:
            self._run_once("admission", self._seek_admission)

    @property
    def _is_settled(self) -> bool:
        """Whether this member votes, and knows whom to tell."""
        members = self._members
        return members.number in members.status.voters and members.leader is not None

    def _accepted(self) -> tuple[bytes, ...]:
        credentials = self._transport.credentials
        return () if credentials is None else credentials.authorities

    @property
    def authority_pin(self) -> bytes | None:
        """SHA-256 of the public key of the cluster's own authority, if it has one."""
        credentials = self._transport.credentials
        return credentials.authority_pin if credentials else None

    # What the transport calls.

    def greet(self, hello: Hello, peer: Peer) -> Reply:
        """Judge a hello that names the right protocol, from a peer with a certificate of the right authority."""
        refusal = self._recognition.refusal(hello, peer)
        if refusal is STRANGER:
            # This member may have been away while that one joined.
            self._run_once("introduction", self._seek_introduction)
        if refusal is None and hello.kind != "question":
            # A member that waits to be admitted learns the name of its cluster from a member that was introduced.
            self._members.cluster = hello.cluster or None
        return refusal or Reply()

    def is_peer(self, sender: int, pin: bytes) -> bool:
        """Return whether the sender of a stream may keep it: it is not removed, and has this key."""
        return self._members.is_pin_of(sender, pin)

    def pin_of(self, member: int) -> bytes | None:
        """Return the SHA-256 of a member's public key, or None if it is not known."""
        return self._members.pin_of(member)

    def is_member(self, pin: bytes) -> bool:
        """Return whether a public key may be that of a member."""
        return self._members.is_member(pin)

    def receive(self, sender: int, messages: Sequence[bytes]) -> None:
        """Hand messages of another member to the replica."""
        if self._replica.receive(sender, messages):
            name = self._members.name_of(sender)
            if self._once_per_minute.is_due(name, "malformed"):
                _log.warning(Line("messages refused", sender=name, reason="malformed"))

    def lost(self, receiver: int) -> None:
        """Note that messages to `receiver` may have been lost."""
        self._replica.lost(receiver)

    async def page(self, extent: bytes) -> bytes:
        """Return the page that continues `extent`."""
        ticket, answer = self._waiting.enter(PROOF)
        try:
            self._replica.ask_page(ticket, extent)
        except LogError:
            self._waiting.leave(ticket)
            raise
        return await answer

    async def answer(self, request: LeaderRequest, hello: Hello, peer: Peer) -> Reply:
        """Carry out a request, or pass it on to the leader."""
        credentials = self._transport.credentials
        is_named = credentials is not None and credentials.is_named
        try:
            permitted = self._recognition.permitted(request, hello, peer, is_named=is_named)
            if permitted is None:
                return STRANGER
            if permitted.kind == "uses":
                return self.key_uses.reply()
            if permitted.kind == "checkpoint":
                return await self._take_over(permitted.note)
            if permitted.kind != "introduce":
                if not self._members.is_leader:
                    return self._recognition.direction()
                await self._carry_out(permitted, hello, peer)
        except QedError as exc:
            return _refusal(exc)
        return self._recognition.introduction()

    async def _carry_out(self, request: LeaderRequest, hello: Hello, peer: Peer) -> None:
        """Carry out, as the leader, what another member or a joining one asks for."""
        if request.kind == "redeem":
            origin = via(request.origin, self._members.name_of(hello.sender))
            # The claim of the new server names the member that it asked: no other member can use it.
            request = msgspec.structs.replace(request, origin=origin, asked=peer.pin)
        elif request.kind != "admit":
            # A new leader may not have applied yet that a key was revoked.
            await self.leader_requests.catch_up()
            self.renew_history()
            request = self._passed_on.checked(request, hello.sender)
        await self.leader_requests.carry_out(request)

    async def _take_over(self, note: bytes) -> Reply:
        """Take over what the leader has published, once this member has the tree of it."""
        checkpoint = await self.published.offer(note)
        if checkpoint is None:
            raise Unavailable("this member does not have the tree of this checkpoint")
        await self.on_checkpoint(checkpoint)
        return Reply()

    def renew_history(self) -> None:
        """Read the acts that were applied since they were read last."""
        self._history.renew()

    @property
    def transport(self) -> Transport:
        """What connects this member with the others."""
        return self._transport

    async def enrol(self, request: EnrolmentRequest, host: str) -> Certified:
        """Exchange a token for a certificate, for a new server on `host`."""
        return await self._certifier.certify(request, host, self._transport.credentials)

    def removed(self, message: str) -> None:
        """Note that the cluster has removed this member, or refuses to admit it."""
        self._on_removed(message)

    def _hello(self, receiver: int, kind: Kind) -> Hello:
        # A server that is no member yet has only heard the name of a cluster, from whoever was at an address.
        is_sure = kind != "question" or bool(self._members.by_number)
        return Hello(
            protocol=PROTOCOL,
            kind=kind,
            cluster=(self._members.cluster or "") if is_sure else "",
            sender=self._members.number,
            receiver=receiver,
            raft_addr=self._members.own.raft_addr,
            run=self._run,
        )

    def _run_once(self, name: str, work: Callable[[], Coroutine[None, None, None]]) -> asyncio.Task[None]:
        task = self._tasks.get(name)
        if task is None or task.done():
            task = self._tasks[name] = asyncio.create_task(work())
            task.add_done_callback(functools.partial(_note_death, name))
        return task

    async def _reload(self) -> None:
        try:
            fresh = read_credentials(self._settings)
        except (SettingsError, OSError) as exc:
            _log.error(Line("credentials not read again", reason=exc))
            return
        old = self._transport.credentials
        if fresh is None or old is None:
            return
        if fresh.pin == old.pin:
            self._adopt(fresh)
            self.note_status()
        else:
            await self._announce(fresh)

    async def _announce(self, fresh: Credentials) -> None:
        """Have the cluster know this member by a new key. The old one, with which it asks, proves that it may."""
        self._announced = fresh
        reason: str | Exception | None = "no leader has recorded it in time"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ANNOUNCEMENT_S):
                reason = await self.leader_requests.seek_admission(description(self._settings, fresh.pin))
        if reason is not None:
            # A request that was sent may still be carried out: then `note_status` adopts the key.
            _log.error(Line("new key not recorded", reason=reason))

    def _adopt(self, fresh: Credentials) -> None:
        """Show these credentials from now on."""
        self._members.own = description(self._settings, fresh.pin)
        self._transport.credentials = fresh
        _log.info(Line("credentials read again"))

    async def _record_authorities(self) -> None:
        """Have the leader record whose certificates this member accepts from now on, until the history says so."""
        retries = delays(*_RECORD_S)
        while self._is_settled:
            with contextlib.suppress(ClusterError, LogError):
                # Its own last act may not have been applied here yet.
                await self.leader_requests.catch_up()
                self._history.renew()
                change = self._authorities.change()
                if change is None:
                    return
                await self.leader_requests.ask_leader(LeaderRequest("record", act=encode(change)))
            await asyncio.sleep(next(retries))

    async def _enrol_self(self, listener: socket.socket) -> None:
        """Exchange the token for a certificate; then begin as any other member."""
        try:
            await seek_certificate(self._settings, self._members.number)
            credentials = read_credentials(self._settings)
        except (Mismatch, MembershipRefused, SettingsError, OSError) as exc:
            self.removed(f"cannot join: {exc}")
            return
        if credentials is not None:
            self._is_enrolling = False
            self._members.own = description(self._settings, credentials.pin)
            self._transport.credentials = credentials
            self._transport.start(listener)
            self.note_status()

    async def _seek_admission(self) -> None:
        """Seek admission until it is there. A server that is no member ends when it is refused.

        A member goes on with the addresses that are recorded: the cluster may need its vote, also to get rid of what
        is in the way. It only ends if it was removed.
        """
        members, logged, level = self._members, "", logging.INFO
        while (refusal := await self.leader_requests.seek_admission(members.own, level)) is not None:
            if isinstance(refusal, Removed) or members.number not in members.by_number:
                self.removed(f"cannot join: {refusal}")
                return
            if str(refusal) != logged:
                logged = str(refusal)
                _log.error(Line("addresses or key not recorded", reason=refusal))
            level = logging.DEBUG
            await asyncio.sleep(_REFUSED_S)

    async def _seek_introduction(self) -> None:
        await self.leader_requests.seek_introduction()
        # A stranger must not make this member ask all the time.
        await asyncio.sleep(_INTRODUCTION_S)

    async def _probe_joined(self) -> None:
        """Stop this member if its settings name one cluster to join, and its folder belongs to another."""
        reason = await self.leader_requests.probe_joined()
        if reason is not None:
            self.removed(reason)


async def _ignore(_: Checkpoint) -> None:
    """Do nothing with a checkpoint: this member has no sign memory."""


def _note_death(name: str, task: asyncio.Task[None]) -> None:
    """Log that a task ended with an exception that nobody expected: nothing else waits for it."""
    exc = None if task.cancelled() else task.exception()
    if exc is not None:
        _log.error(Line("task ended unexpectedly", task=name, **where(exc)))


def _refusal(exc: QedError) -> Reply:
    """Return the answer to a request to the leader that was not carried out."""
    if isinstance(exc, NotLeader):
        return Reply("elsewhere", "leadership is changing")
    codes = ((CallerRefused, "caller"), (MembershipRefused, "refused"))
    code = next((code for kind, code in codes if isinstance(exc, kind)), "unavailable")
    return Reply(code, str(exc))
