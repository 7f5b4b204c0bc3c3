"""`AsyncClient`: a qed server or a cluster, for asyncio. Same methods and answers as `Client`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

import httpx

from qed._client import calls
from qed._client.adding import insert, parse_sent
from qed._client.administration import administer, history, member_alarm, member_status, overview
from qed._client.async_connections import AsyncConnections
from qed._client.async_streaming import AsyncDuplex, stream_events
from qed._client.attempts import Policy, Send, converse
from qed._client.backing_up import Wish, back_up, no_progress
from qed._client.bulk_examination import membership_many
from qed._client.connections import HttpSettings, Security, timeout_of
from qed._client.defaults import (
    DEFAULT_ATTEMPTS,
    DEFAULT_ENDPOINT,
    DEFAULT_READ,
    DEFAULT_SEND,
    DEFAULT_TIMEOUT_S,
)
from qed._client.examination import examine, finding_of
from qed._client.exchange import Inbox, failure_of, never_sent, some_turn
from qed._client.growth import Growth
from qed._client.ledger import Ledger
from qed._client.linking import keep, prepare
from qed._client.signed_answers import signed_answer
from qed._client.steps import Together
from qed._client.topology import Topology
from qed._limits import BACKUP_EVENTS_PER_S
from qed.backups import BackupFolder
from qed.errors import QedError
from qed.proofs import Snapshot, digest_of
from qed.verification import require_trusted

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Generator, Iterable, Sequence
    from datetime import datetime
    from pathlib import Path
    from types import TracebackType

    from qed import policy
    from qed._client.adding import Sent
    from qed._client.calls import Call, Consistency
    from qed._client.examination import Examination
    from qed._client.failures import Outcome
    from qed._client.steps import Steps
    from qed._client.topology import Read
    from qed._wire import (
        Cluster,
        ClusterMember,
        CreatedKey,
        Info,
        JoinToken,
        KeptBackup,
        Keys,
        ReceiptLevel,
        Shards,
        Signers,
    )
    from qed.acknowledgement import Acknowledgement
    from qed.backups import Backup
    from qed.history import Act
    from qed.memory import Memory
    from qed.proofs import AbsenceProof, Digest, IncrementalProof, MembershipProof
    from qed.questions import Answer, Extension, Membership, Question
    from qed.receipts import Receipts
    from qed.signed import SignedBundle, SignedReceipt
    from qed.trust import Trusted
    from qed.verification import Absent, Extends, Finding, Present

__all__ = ["AsyncClient"]

_T = TypeVar("_T")
_Step = TypeVar("_Step")
_Value = TypeVar("_Value")


class AsyncClient:
    """A client of one or several qed servers, for asyncio. An asynchronous context manager; see `Client` for details.

    It opens connections of its own in each event loop that uses it. A forked child may use it too, in a new loop.

    Args:
        endpoints: As for `Client`.
        timeout_s: As for `Client`.
        api_key: As for `Client`.
        verify_tls: As for `Client`.
        ca: As for `Client`.
        certificate: As for `Client`.
        trust_members: As for `Client`.
        attempts: As for `Client`.
        read: As for `Client`.
        send: As for `Client`.

    Raises:
        ValueError: As for `Client`.
    """

    def __init__(  # noqa: PLR0913 - settings, each by its name
        self,
        endpoints: str | Sequence[str] = DEFAULT_ENDPOINT,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        api_key: str | None = None,
        verify_tls: bool = True,
        ca: str | Path | None = None,
        certificate: tuple[str | Path, str | Path] | None = None,
        trust_members: bool = False,
        attempts: int = DEFAULT_ATTEMPTS,
        read: Read = DEFAULT_READ,
        send: Sent = DEFAULT_SEND,
    ) -> None:
        security = Security.of(api_key, ca, certificate, verify_tls=verify_tls, trust_members=trust_members)
        self._topology = Topology.parse(endpoints, first_turn=some_turn(), trust=security.trust())
        self._timeout_s = timeout_s
        self._policy = Policy.of(attempts, timeout_s, read)
        self._sent = parse_sent(send)
        self._growth = Growth()
        self._exposure = security.exposure()
        self._http = HttpSettings.of(self._topology, security, timeout_s=timeout_s)
        self._connections = AsyncConnections(self._http)

    async def add(self, event: bytes | Digest, *, if_absent: bool = False) -> Snapshot:
        """Add an event to the log; see `Client.add`."""

        def build(is_digest_sent: bool) -> Call[Snapshot]:
            return calls.add(event, if_absent=if_absent, is_digest_sent=is_digest_sent)

        insertion = insert(build, [event], self._sent, self._topology, self._policy)
        return await self._carry_out(self._growth.watched(insertion, is_if_absent=if_absent))

    async def add_bulk(self, events: Iterable[bytes | Digest], *, if_absent: bool = False) -> list[Snapshot]:
        """Add events to the log, all of them or none; see `Client.add_bulk`."""
        given = list(events)

        def build(is_digest_sent: bool) -> Call[list[Snapshot]]:
            return calls.add_bulk(given, if_absent=if_absent, is_digest_sent=is_digest_sent)

        insertion = insert(build, given, self._sent, self._topology, self._policy)
        return await self._carry_out(self._growth.watched(insertion, is_if_absent=if_absent))

    async def acknowledge(
        self, events: Iterable[bytes | Digest], *, receipt: ReceiptLevel = "committed", if_absent: bool = False
    ) -> Acknowledgement:
        """Add events and ask for a receipt that the log has signed; see `Client.acknowledge`."""
        given = list(events)

        def build(is_digest_sent: bool) -> Call[Acknowledgement]:
            if len(given) == 1:
                call = calls.add(given[0], if_absent=if_absent, is_digest_sent=is_digest_sent)
                return calls.with_receipt(call, receipt)
            bulk = calls.add_bulk(given, if_absent=if_absent, is_digest_sent=is_digest_sent)
            return calls.with_receipt(bulk, receipt)

        insertion = insert(build, given, self._sent, self._topology, self._policy)
        return await self._carry_out(self._growth.watched(insertion, is_if_absent=if_absent))

    async def add_stream(
        self, events: Iterable[bytes | Digest] | AsyncIterable[bytes | Digest], *, if_absent: bool = False
    ) -> AsyncIterator[list[Snapshot]]:
        """Add events while they come, and yield their snapshots; see `Client.add_stream`.

        Args:
            events: As there, or an asynchronous iterable, taken in a task of its own. Other tasks wait while any other
                iterable makes the next event.
            if_absent: As there.

        Yields:
            The snapshots of the next events.
        """
        async for done in self._stream(events, is_if_absent=if_absent, has_receipts=False):
            yield list(done.snapshots)

    async def acknowledge_stream(
        self, events: Iterable[bytes | Digest] | AsyncIterable[bytes | Digest], *, if_absent: bool = False
    ) -> AsyncIterator[Acknowledgement]:
        """Add events while they come, with receipts that the log has signed; see `Client.acknowledge_stream`.

        Args:
            events: As for `add_stream`.
            if_absent: As there.

        Yields:
            The snapshots of the next events, and their receipt.
        """
        async for done in self._stream(events, is_if_absent=if_absent, has_receipts=True):
            yield done

    @overload
    async def ask(
        self, question: Membership, *, consistency: Consistency | None = None
    ) -> MembershipProof | AbsenceProof: ...
    @overload
    async def ask(self, question: Extension, *, consistency: Consistency | None = None) -> IncrementalProof: ...
    async def ask(self, question: Question, *, consistency: Consistency | None = None) -> Answer:
        """Ask a question; see `Client.ask`."""
        return await self._perform(calls.ask(question, consistency=consistency))

    @overload
    async def verify(
        self, question: Membership, trusted: Trusted, *, consistency: Consistency | None = None
    ) -> Present | Absent: ...
    @overload
    async def verify(
        self, question: Extension, trusted: Trusted, *, consistency: Consistency | None = None
    ) -> Extends: ...
    async def verify(self, question: Question, trusted: Trusted, *, consistency: Consistency | None = None) -> Finding:
        """Ask a question, verify the answer and return the finding; see `Client.verify`."""
        require_trusted(trusted)
        return finding_of(await self.examine(question, trusted, consistency=consistency))

    async def examine(
        self, question: Question, trusted: Trusted | None, *, consistency: Consistency | None = None
    ) -> Examination:
        """Ask a question and return the answer with the finding; see `Client.examine`."""
        return await self._follow(examine(question, trusted, consistency))

    async def prepare(self, receipts: Receipts) -> None:
        """Check that receipts are of this server's log, before anything is added; see `Client.prepare`."""
        await self._follow(prepare(receipts, self._growth))

    async def keep(self, receipts: Receipts, snapshots: Snapshot | Sequence[Snapshot]) -> None:
        """Prove that snapshots extend the log of the receipts, and append them; see `Client.keep`."""
        await self._follow(keep(receipts, [snapshots] if isinstance(snapshots, Snapshot) else snapshots, self._growth))

    async def membership(
        self, event: bytes | Digest, *, version: int | None = None, consistency: Consistency | None = None
    ) -> MembershipProof | AbsenceProof:
        """Ask whether an event is in the log; see `Client.membership`."""
        return await self._perform(calls.membership(digest_of(event), version=version, consistency=consistency))

    async def membership_many(
        self,
        events: Iterable[bytes | Digest],
        trusted: Trusted | policy.Policy | None,
        *,
        consistency: Consistency | None = None,
        memory: Memory | None = None,
    ) -> list[Present | Absent]:
        """Ask which of many events are in the log, and return what the answers prove; see `Client.membership_many`."""
        return await self._follow(membership_many(events, trusted, consistency, memory))

    async def incremental(self, start: int, end: int, *, consistency: Consistency | None = None) -> IncrementalProof:
        """Ask for the proof that the log at `end` extends the log at `start`; see `Client.incremental`."""
        return await self._perform(calls.incremental(start, end, consistency=consistency))

    async def receipt(
        self, version: int, *, last: int | None = None, level: ReceiptLevel = "committed"
    ) -> SignedReceipt:
        """Return the signed receipt for past versions; see `Client.receipt`."""
        return await self._perform(calls.receipt(version, last=last, level=level))

    async def signed_answer(
        self, question: Question, *, level: ReceiptLevel = "witnessed", consistency: Consistency | None = None
    ) -> SignedBundle:
        """Ask a question, and return the answer with the signed checkpoint it rests on; see `Client.signed_answer`."""
        return await self._follow(signed_answer(question, level, consistency))

    async def snapshot(self, version: int, *, consistency: Consistency | None = None) -> Snapshot:
        """Return the snapshot of a version exactly as it was acknowledged; see `Client.snapshot`."""
        return await self._perform(calls.snapshot(version, consistency=consistency))

    async def info(self) -> Info:
        """Return what one server says about itself; see `Client.info`."""
        return await self._perform(calls.info())

    async def shards(self) -> Shards:
        """Return the members, their public addresses and the leader; see `Client.shards`."""
        return await self._perform(calls.shards())

    async def cluster(self) -> Cluster:
        """Return the cluster as its leader sees it; see `Client.cluster`."""
        return await self._carry_out(overview(self._topology))

    async def member_status(self, member: ClusterMember) -> Cluster:
        """Return the cluster as one given member sees it; see `Client.member_status`."""
        return await self._carry_out(member_status(member, self._topology))

    async def member_alarm(self, member: ClusterMember) -> str | None:
        """Return why a member that answers does not serve; see `Client.member_alarm`."""
        return await self._carry_out(member_alarm(member, self._topology))

    async def history(self, after: Act | None = None) -> list[Act]:
        """Return what was done to the cluster, checked to be one chain of hashes; see `Client.history`."""
        return await self._carry_out(history(self._topology, after))

    async def remove_member(self, name: str) -> Cluster:
        """Remove a member from the cluster; see `Client.remove_member`."""
        return await self._carry_out(administer(calls.remove_member(name), self._topology))

    async def replace_member(self, name: str) -> Cluster:
        """Give a member up; see `Client.replace_member`."""
        return await self._carry_out(administer(calls.replace_member(name), self._topology))

    async def transfer_leadership(self, name: str | None = None) -> Cluster:
        """Make another member the leader; see `Client.transfer_leadership`."""
        return await self._carry_out(administer(calls.transfer_leadership(name), self._topology))

    async def back_up(
        self,
        folder: str | os.PathLike[str],
        *,
        since: int | None = None,
        events_per_s: int = BACKUP_EVENTS_PER_S,
        progress: Callable[[int, int], object] = no_progress,
    ) -> Backup:
        """Make a backup of the log in a folder of this machine; see `Client.back_up`. Parts are written in the loop."""
        wish = Wish(since, events_per_s, progress)
        return await self._carry_out(back_up(BackupFolder(folder), wish, self._topology))

    async def kept_backups(self) -> list[KeptBackup]:
        """Return the backups that a server keeps; see `Client.kept_backups`."""
        return await self._carry_out(administer(calls.kept_backups(), self._topology))

    async def create_backup(self, *, since: int | None = None, events_per_s: int = BACKUP_EVENTS_PER_S) -> KeptBackup:
        """Have a server make a backup; see `Client.create_backup`."""
        return await self._carry_out(administer(calls.create_backup(since, events_per_s), self._topology))

    async def delete_backup(self, number: int) -> None:
        """Have a server delete a backup; see `Client.delete_backup`."""
        await self._carry_out(administer(calls.delete_backup(number), self._topology))

    async def keys(self) -> Keys:
        """Return the API keys; see `Client.keys`."""
        return await self._carry_out(administer(calls.keys(), self._topology))

    async def create_key(
        self,
        roles: Sequence[str],
        *,
        name: str = "",
        expires: datetime | None = None,
        events_per_s: float | None = None,
        requests_per_s: float | None = None,
    ) -> CreatedKey:
        """Make an API key; see `Client.create_key`."""
        call = calls.create_key(
            roles, name=name, expires=expires, events_per_s=events_per_s, requests_per_s=requests_per_s
        )
        return await self._carry_out(administer(call, self._topology))

    async def revoke_key(self, key_id: str) -> Keys:
        """Revoke an API key; see `Client.revoke_key`."""
        return await self._carry_out(administer(calls.revoke_key(key_id), self._topology))

    async def signers(self) -> Signers:
        """Return the keys with which the log signs."""
        return await self._carry_out(administer(calls.signers(), self._topology))

    async def retire_signer(self, key_id: str) -> Signers:
        """Retire a key of the log; see `Client.retire_signer`."""
        return await self._carry_out(administer(calls.retire_signer(key_id), self._topology))

    async def create_token(self, name: str | None = None, *, ttl_s: int = 3600) -> JoinToken:
        """Make a token with which one server can join; see `Client.create_token`."""
        return await self._carry_out(administer(calls.create_token(name, ttl_s), self._topology))

    async def healthcheck(self) -> None:
        """Check that a server is serving; see `Client.healthcheck`."""
        await self._carry_out(converse(calls.healthcheck(), self._topology, Policy()))

    async def aclose(self) -> None:
        """Close the connections of the running event loop. The client cannot be used again."""
        await self._connections.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _follow(self, steps: Steps[_T]) -> _T:
        return await _run(steps, self._take_step)

    async def _take_step(self, step: Call[Any] | Together) -> object:
        if isinstance(step, Together):
            return await asyncio.gather(*map(self._outcome_of, step.calls))
        return await self._perform(step)

    async def _outcome_of(self, call: Call[Any]) -> object:
        try:
            return await self._perform(call)
        except QedError as exc:
            return exc

    async def _perform(self, call: Call[_T]) -> _T:
        return await self._carry_out(converse(call, self._topology, self._policy))

    async def _carry_out(self, conversation: Generator[Send, Outcome, _T]) -> _T:
        return await _run(conversation, self._take)

    async def _stream(
        self,
        events: Iterable[bytes | Digest] | AsyncIterable[bytes | Digest],
        *,
        is_if_absent: bool,
        has_receipts: bool,
    ) -> AsyncIterator[Acknowledgement]:
        ledger = Ledger(self._growth, self._sent, is_if_absent=is_if_absent, has_receipts=has_receipts)
        call = calls.stream(has_event=self._sent == "event", has_receipts=has_receipts)

        async def connect() -> AsyncDuplex:
            opened: list[AsyncDuplex] = []
            conversation = converse(call, self._topology, self._policy)
            await _run(conversation, lambda step: self._open_stream(step, call, opened))
            return opened[-1]

        async for done in stream_events(events, ledger, connect, self._timeout_s):
            yield done

    async def _open_stream(self, step: Send, call: Call[None], opened: list[AsyncDuplex]) -> Outcome:
        """Carry out a step; if it opens the stream, keep its connection."""
        if step.call is not call:
            return await self._take(step)
        if step.delay_s:
            await asyncio.sleep(step.delay_s)
        self._exposure.note(step.url)
        try:
            duplex = await self._connections.dial(step.url, self._timeout_s)
        except (httpx.TransportError, httpx.InvalidURL, TimeoutError) as exc:
            return never_sent(failure_of(exc, self._timeout_s, self._http.shown_to(step.url)))
        answer = duplex.answer(step.url)
        if answer.status in call.successes:
            opened.append(duplex)
            return answer
        await duplex.aclose()
        return never_sent(answer)

    async def _take(self, step: Send) -> Outcome:
        call = step.call
        if step.delay_s:
            await asyncio.sleep(step.delay_s)
        lane = self._connections.here()
        timeout_s = call.timeout_s or self._timeout_s
        self._exposure.note(step.url)
        try:
            async with (
                lane.turns,
                asyncio.timeout(timeout_s),
                lane.http.stream(
                    call.method, step.url, content=call.body, headers=call.headers, timeout=timeout_of(timeout_s)
                ) as response,
            ):
                inbox = Inbox(response, call.answer_limit_bytes)
                async for part in response.aiter_raw():
                    inbox.take(part)
                return inbox.answer()
        except (httpx.TransportError, httpx.InvalidURL, TimeoutError) as exc:
            return failure_of(exc, timeout_s, self._http.shown_to(step.url))


async def _run(steps: Generator[_Step, _Value, _T], carry_out: Callable[[_Step], Awaitable[_Value]]) -> _T:
    """Carry out everything that `steps` yields, and return its result. It is given each value, or the error instead."""
    try:
        step = next(steps)
        while True:
            try:
                value = await carry_out(step)
            except QedError as exc:
                step = steps.throw(exc)
            else:
                step = steps.send(value)
    except StopIteration as stop:
        result: _T = stop.value
        return result
