"""`Client`: a client of a qed server or cluster, for threads. `async_client` has the same for asyncio.

Both only carry out steps. `calls` defines each call's request and checks its answer, `attempts` chooses servers and
retries, `topology` keeps what is known of the servers. Answers are bounded in size and time, are never decompressed,
and set no cookies.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

import httpx

from qed._client import calls
from qed._client.adding import insert, parse_sent
from qed._client.administration import administer, history, member_alarm, member_status, overview
from qed._client.attempts import Policy, Send, converse
from qed._client.backing_up import Wish, back_up, no_progress
from qed._client.bulk_examination import membership_many
from qed._client.connections import Connections, HttpSettings, Security, timeout_of
from qed._client.deadline import deadline
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
from qed._client.streaming import stream_events
from qed._client.topology import Topology
from qed._limits import BACKUP_EVENTS_PER_S
from qed.backups import BackupFolder
from qed.errors import QedError
from qed.proofs import Snapshot, digest_of
from qed.verification import require_trusted

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path
    from types import TracebackType

    from qed import policy
    from qed._client.adding import Sent
    from qed._client.calls import Call, Consistency
    from qed._client.duplex import Duplex
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

__all__ = ["Client"]

_T = TypeVar("_T")
_Step = TypeVar("_Step")
_Value = TypeVar("_Value")


class Client:
    """A client of a qed server or cluster, for threads. Safe to share between threads; also a context manager.

    A process forked from this one may keep using it: the child opens its own connections.

    One running member is enough to find the others and the leader. Insertions go to the leader, and follow it when it
    changes; reads go where `read` says. A member that does not answer is asked last for a while, then as before.

    Args:
        endpoints: Base URL of a server, or of several members of a cluster, in the order in which to ask.
        timeout_s: Longest time that one request to one server may take, including the last byte of its answer.
        api_key: Sent to every endpoint as `Api-Key`.
            Without TLS, `KeyExposedWarning` says once that others can read it, unless the server is on this machine.
        verify_tls: Check the servers' certificates. Without that, there is no `KeyExposedWarning` either.
        ca: PEM file with the authorities to trust, in place of the system's.
        certificate: PEM files with a certificate for this client and its key, for servers that map it to roles.
        trust_members: Send the key, and events, also to members that a server names without proof. By default, they go
            to the given endpoints, and to members that prove themselves by TLS.
        attempts: How often to ask all endpoints before giving up, if asking again is safe. If servers answer and only
            the leader is missing, these calls are retried for `attempts * timeout_s`: an insertion that was certainly
            not accepted, any insertion with `if_absent`, and a read from the leader.
        read: Which members to read from: the leader (`primary`), another (`secondary`), either with a preference
            (`primary-preferred`, `secondary-preferred`), or all in turn (`any`). Equally good members take turns. Until
            the leader is known, `primary-preferred` uses the first endpoint.
        send: What to send of an event: its `digest`, so that the event stays here, or the `event`. An older server that
            accepts no digests gets the event in both cases.

    Raises:
        ValueError: An endpoint is not an http or https URL, or another setting is out of range.

    Every method raises `Unavailable` if no server answers, naming each and its cause; `ProtocolError` if an answer
    violates the protocol; and its subclass `MalformedRequest` if a server refuses the request as malformed.
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
        self._connections = Connections(self._http)

    def add(self, event: bytes | Digest, *, if_absent: bool = False) -> Snapshot:
        """Add an event to the log.

        Args:
            event: The event, or its digest. The log keeps the digest only.
            if_absent: If the event is in the log already, add nothing and return its first snapshot. Repeating the
                request then has no effect, so it is retried on any member, whatever its outcome was.

        Returns:
            The event's snapshot, synced to disk on a majority, checked to be of this event.

        Raises:
            VerificationError: The snapshot is of another event, or, without `if_absent`, not newer than the receipts
                that this client knew before, through `prepare` or `keep`: the server may have added nothing.
            DigestsRefused: A digest was given, and the server accepts events only. Nothing was added.
            NotLeader: Servers answer, but none of them leads. Nothing was added, unless the message says that it may.
            OutcomeUnknown: Leadership was lost meanwhile; the event may still be added. Not with `if_absent`.
            Unavailable: No server answered. If the message says so, the event may still be added.
            Overloaded: The server's queue was full, even after the retries.
        """

        def build(is_digest_sent: bool) -> Call[Snapshot]:
            return calls.add(event, if_absent=if_absent, is_digest_sent=is_digest_sent)

        insertion = insert(build, [event], self._sent, self._topology, self._policy)
        return self._carry_out(self._growth.watched(insertion, is_if_absent=if_absent))

    def add_bulk(self, events: Iterable[bytes | Digest], *, if_absent: bool = False) -> list[Snapshot]:
        """Add events to the log, all of them or none.

        Args:
            events: At least one event or digest, in the order of their versions.
            if_absent: As for `add`, for each event on its own.

        Returns:
            One snapshot per event, in their order, with consecutive versions and one hyper digest unless `if_absent`.

        Raises:
            VerificationError: The snapshots are not of these events in this order, or not new, as for `add`.
            NotLeader: As for `add`; likewise `OutcomeUnknown` and `Unavailable`.
            Overloaded: As for `add`.
        """
        given = list(events)

        def build(is_digest_sent: bool) -> Call[list[Snapshot]]:
            return calls.add_bulk(given, if_absent=if_absent, is_digest_sent=is_digest_sent)

        insertion = insert(build, given, self._sent, self._topology, self._policy)
        return self._carry_out(self._growth.watched(insertion, is_if_absent=if_absent))

    def acknowledge(
        self, events: Iterable[bytes | Digest], *, receipt: ReceiptLevel = "committed", if_absent: bool = False
    ) -> Acknowledgement:
        """Add events, all of them or none, and return their snapshots with a receipt that the log has signed.

        Args:
            events: As for `add_bulk`.
            receipt: A `committed` receipt comes at once. For a `witnessed` one, the server waits some seconds for
                witnesses to cosign.
            if_absent: As for `add`. The receipt is about the events that were added now.

        Returns:
            The snapshots, checked as those of `add_bulk`, and the receipt, or the reason why there is none.

        Raises:
            VerificationError: As for `add_bulk`, or the receipt is about other snapshots.
            QedError: As for `add_bulk`.
        """
        given = list(events)

        def build(is_digest_sent: bool) -> Call[Acknowledgement]:
            if len(given) == 1:
                call = calls.add(given[0], if_absent=if_absent, is_digest_sent=is_digest_sent)
                return calls.with_receipt(call, receipt)
            bulk = calls.add_bulk(given, if_absent=if_absent, is_digest_sent=is_digest_sent)
            return calls.with_receipt(bulk, receipt)

        insertion = insert(build, given, self._sent, self._topology, self._policy)
        return self._carry_out(self._growth.watched(insertion, is_if_absent=if_absent))

    def add_stream(self, events: Iterable[bytes | Digest], *, if_absent: bool = False) -> Iterator[list[Snapshot]]:
        """Add events while they come, and yield their snapshots as they are acknowledged.

        Nothing happens before the first step of the iteration, which first finds a server. Each event is added for
        itself, as by `add`. A bounded number is sent ahead, so memory is constant, however many events there are. If
        the leader changes, events that were certainly not added are sent to the next one.

        Args:
            events: Events or digests, taken in a thread of their own: it may wait for the next one as long as it likes.
            if_absent: As for `add`. Events that may have been added are sent again, so that a lost connection or leader
                does not end the stream.

        Yields:
            The snapshots of the next events, at least one, in the order of the events, checked as those of `add`.

        Raises:
            StreamBroken: The stream ended early. It says how many events were acknowledged, and how many of the next
                may have been added.
            VerificationError: As for `add`.
            MalformedRequest: The server is older and has no streams (404). No event was taken.
            QedError: As for `add`, if there is no server for it. No event was taken.
        """
        for done in self._stream(events, is_if_absent=if_absent, has_receipts=False):
            yield list(done.snapshots)

    def acknowledge_stream(
        self, events: Iterable[bytes | Digest], *, if_absent: bool = False
    ) -> Iterator[Acknowledgement]:
        """Add events as `add_stream` does, with receipts that the log has signed.

        Args:
            events: As for `add_stream`.
            if_absent: As for `add_stream`.

        Yields:
            The snapshots of the next events, and the committed receipt for those of them that were added now, or why
            there is none.

        Raises:
            VerificationError: As for `add_stream`, or a receipt is about other snapshots.
            QedError: As for `add_stream`.
        """
        return self._stream(events, is_if_absent=if_absent, has_receipts=True)

    @overload
    def ask(
        self, question: Membership, *, consistency: Consistency | None = None
    ) -> MembershipProof | AbsenceProof: ...
    @overload
    def ask(self, question: Extension, *, consistency: Consistency | None = None) -> IncrementalProof: ...
    def ask(self, question: Question, *, consistency: Consistency | None = None) -> Answer:
        """Ask a question and return a server's claim; `qed.verify` checks what it proves.

        Args:
            question: The question.
            consistency: As for `membership`.

        Returns:
            The claim with its proof. The only check made is that it answers the question.

        Raises:
            VerificationError: The answer is for another question, or is not a proof.
            AddedLater: The event was first added after the version asked.
            UnknownVersion: The log is empty or does not reach the range, or the range starts after its end.
        """
        return self._perform(calls.ask(question, consistency=consistency))

    @overload
    def verify(
        self, question: Membership, trusted: Trusted, *, consistency: Consistency | None = None
    ) -> Present | Absent: ...
    @overload
    def verify(self, question: Extension, trusted: Trusted, *, consistency: Consistency | None = None) -> Extends: ...
    def verify(self, question: Question, trusted: Trusted, *, consistency: Consistency | None = None) -> Finding:
        """Ask a question, verify the answer and return the finding.

        After a stale answer the question is asked once more, as a linearizable read. Versions without a trusted root
        are linked to the trusted ones by incremental proofs. That links history roots only, so `is_linked` is False if
        a finding relies on a newer hyper root.

        Args:
            question: The question.
            trusted: The roots that the caller trusts, such as its receipts.
            consistency: As for `membership`.

        Returns:
            The finding.

        Raises:
            StaleAnswer: The log ends before the newest trusted snapshot or the version asked: it was rolled back.
            ContradictsReceipt: The answer denies what a trusted snapshot states about the event.
            ForkDetected: The server has another snapshot of the newest trusted version.
            VerificationError: A check failed; the message names it.
            TypeError: Nothing is trusted; to accept the server's own word, use `examine`.
            QedError: As for `ask`.
        """
        require_trusted(trusted)
        return finding_of(self.examine(question, trusted, consistency=consistency))

    def examine(
        self, question: Question, trusted: Trusted | None, *, consistency: Consistency | None = None
    ) -> Examination:
        """Ask a question and return the answer together with the finding, or with the reason why there is none.

        Args:
            question: The question.
            trusted: The roots that the caller trusts. None accepts the server's own word, and the finding says so.
            consistency: As for `membership`.

        Returns:
            The outcome. An answer that does not verify is evidence worth keeping.

        Raises:
            QedError: The server refused, or could not be reached.
        """
        return self._follow(examine(question, trusted, consistency))

    def prepare(self, receipts: Receipts) -> None:
        """Check that receipts are of this server's log, so that nothing is added whose receipt could not be kept.

        The log's name is compared, and receipts that were never linked are proven and marked so. `keep` does the same;
        call this before the first `add`.

        Args:
            receipts: One's receipts of this log.

        Raises:
            VerificationError: The receipts do not belong to the server's log.
            ReceiptsError: The receipts are of another log.
            OSError: The file cannot be written.
        """
        self._follow(prepare(receipts, self._growth))

    def keep(self, receipts: Receipts, snapshots: Snapshot | Sequence[Snapshot]) -> None:
        """Prove that snapshots extend the log of the receipts, and append them.

        An incremental proof links the newest to the last receipt and shows its event at its version; a membership proof
        shows it in the hyper tree, unless others have added since. Every history digest of a bulk is recomputed.

        Args:
            receipts: The caller's receipts of this log.
            snapshots: The snapshots that `add` or `add_bulk` returned.

        Raises:
            VerificationError: The snapshots do not extend the log of the receipts, or this client added them, without
                `if_absent`, at versions that the receipts had reached before. Nothing was appended.
            ReceiptsError: The receipts are of another log. Nothing was appended.
            OSError: The file cannot be written.
        """
        self._follow(keep(receipts, [snapshots] if isinstance(snapshots, Snapshot) else snapshots, self._growth))

    def membership(
        self, event: bytes | Digest, *, version: int | None = None, consistency: Consistency | None = None
    ) -> MembershipProof | AbsenceProof:
        """Ask whether an event is in the log.

        Args:
            event: The event, or its digest. Only the digest is sent.
            version: The version to ask at; by default the latest.
            consistency: With `linearizable`, nothing that was acknowledged before, to any client, is missing. Without
                it, a member answers from its own log, which may be slightly behind the leader's.

        Returns:
            The claim that the event is in the log, or that it is not, with its proof. `qed.verify` checks it.

        Raises:
            VerificationError: The answer is for another event or version, or is not a proof.
            AddedLater: The event was first added after `version`.
            UnknownVersion: The log is empty.
        """
        return self._perform(calls.membership(digest_of(event), version=version, consistency=consistency))

    def membership_many(
        self,
        events: Iterable[bytes | Digest],
        trusted: Trusted | policy.Policy | None,
        *,
        consistency: Consistency | None = None,
        memory: Memory | None = None,
    ) -> list[Present | Absent]:
        """Ask which of many events are in the log, verify the answers, and return what they prove.

        Events are asked for 1,000 at a time, each bulk at the newest version that the answering member has, which is
        the `as_of` of its findings. The findings of one bulk are about one state of the log; those of a later bulk may
        be about a later state. Each is what `verify` finds for that event alone, at a fraction of the time and bytes.

        Args:
            events: The events, or their digests, in any order. Only digests are sent. One that is repeated has as many
                findings.
            trusted: The roots that the caller trusts, such as its receipts; newer ones are linked, as by `verify`. With
                a `qed.Policy`, the log must sign what each bulk is about, at the level that the policy requires. None
                accepts the server's own word, and the findings say so.
            consistency: As for `membership`, for each bulk.
            memory: With a policy, where the newest checkpoint is remembered, as for `Policy.verify`.

        Returns:
            A finding for each event, in their order.

        Raises:
            StaleAnswer: The log ends before the newest trusted snapshot: it was rolled back.
            ContradictsReceipt: An answer denies what a trusted snapshot states about an event.
            ForkDetected: The server has another snapshot of the newest trusted version.
            VerificationError: A check failed; the message names it. Then nothing is proven about any of the events.
            SigningError: With a policy: the log is not signed, is not witnessed in time, or grows too quickly.
            UnknownVersion: The log is empty.
            MalformedRequest: The server is an older one, which does not know the call.
            TypeError: `trusted` is something else.
        """
        return self._follow(membership_many(events, trusted, consistency, memory))

    def incremental(self, start: int, end: int, *, consistency: Consistency | None = None) -> IncrementalProof:
        """Ask for the proof that the log at `end` extends the log at `start`.

        Args:
            start: The earlier version.
            end: The later version.
            consistency: As for `membership`.

        Returns:
            The claim with its proof, of this range.

        Raises:
            VerificationError: The answer is for another range, or is not a proof.
            UnknownVersion: The range starts after its end, or ends beyond the log.
        """
        return self._perform(calls.incremental(start, end, consistency=consistency))

    def receipt(self, version: int, *, last: int | None = None, level: ReceiptLevel = "committed") -> SignedReceipt:
        """Return the signed receipt for past versions of one commit batch.

        Args:
            version: The first version.
            last: The last version; by default the same.
            level: A `witnessed` receipt may take some seconds.

        Returns:
            The receipt, not verified: `qed.Policy` verifies it.

        Raises:
            UnknownVersion: The log does not have the versions yet.
            SigningError: The log is not signed, is not witnessed in time, or the versions are of several batches.
        """
        return self._perform(calls.receipt(version, last=last, level=level))

    def signed_answer(
        self, question: Question, *, level: ReceiptLevel = "witnessed", consistency: Consistency | None = None
    ) -> SignedBundle:
        """Ask a question, and return the answer with the signed checkpoint that it rests on.

        Args:
            question: The question. Versions in it must be at the end of a commit batch.
            level: Who must have signed. The server waits some seconds for witnesses.
            consistency: As for `membership`.

        Returns:
            A bundle that needs no server. It is not verified: `qed.Policy` verifies it.

        Raises:
            SigningError: The log is not signed, or not witnessed in time; a version is inside a commit batch; or the
                log grows so quickly that no checkpoint ends with its newest answer.
            VerificationError: The answer or a receipt is not what was asked for.
        """
        return self._follow(signed_answer(question, level, consistency))

    def snapshot(self, version: int, *, consistency: Consistency | None = None) -> Snapshot:
        """Return the snapshot of a version exactly as it was acknowledged.

        It is the server's own word: a verification against it proves nothing against the server.

        Args:
            version: The version.
            consistency: As for `membership`.

        Returns:
            Its snapshot.

        Raises:
            UnknownVersion: The version is beyond the log.
            VerificationError: The answer is the snapshot of another version.
        """
        return self._perform(calls.snapshot(version, consistency=consistency))

    def info(self) -> Info:
        """Return what one server says about itself: to see which server answers, its version and how much it holds."""
        return self._perform(calls.info())

    def shards(self) -> Shards:
        """Return the members, their public addresses and the leader: to find the servers that a client can use."""
        return self._perform(calls.shards())

    def cluster(self) -> Cluster:
        """Return the cluster as its leader sees it: for operators, to see whether every member keeps up.

        If the leader cannot be asked, another member's view is returned. Needs a management address in reach.
        """
        return self._carry_out(overview(self._topology))

    def member_status(self, member: ClusterMember) -> Cluster:
        """Return the cluster as one given member sees it: for operators, to see how far this member itself is.

        Args:
            member: The member, as returned by `cluster`.

        Returns:
            The cluster, with the progress of this member.

        Raises:
            Unavailable: The member does not answer at its management address.
        """
        return self._carry_out(member_status(member, self._topology))

    def member_alarm(self, member: ClusterMember) -> str | None:
        """Return why a member that answers does not serve: its log is not that of the cluster, or its disk has failed.

        Args:
            member: The member, as returned by `cluster`.

        Returns:
            The reason that it gives, safe to print; None if it serves.

        Raises:
            Unavailable: The member does not answer at its management address.
        """
        return self._carry_out(member_alarm(member, self._topology))

    def history(self, after: Act | None = None) -> list[Act]:
        """Return what operators and members did to the cluster, oldest first, checked to be one chain of hashes.

        Args:
            after: The last act that is known, which the chain must continue; None for the whole history.

        Returns:
            All acts after it. The `body` of each is JSON, with at least `deed`, `who`, `from` and `when`.

        Raises:
            VerificationError: The chain is broken: an act was changed, removed or inserted.
        """
        return self._carry_out(history(self._topology, after))

    def remove_member(self, name: str) -> Cluster:
        """Remove a member from the cluster. Like all changes to it, this needs a reachable management address.

        Args:
            name: Name of the member.

        Returns:
            The cluster without it.

        Raises:
            MembershipRefused: There is no such member, or it is the last one that votes.
        """
        return self._carry_out(administer(calls.remove_member(name), self._topology))

    def replace_member(self, name: str) -> Cluster:
        """Give a member up: the next server that joins under its name, within ten minutes, takes its place.

        Args:
            name: Name of the member, whose server must be down.

        Returns:
            The cluster, still with the old member.

        Raises:
            MembershipRefused: There is no such member, or it is alive.
        """
        return self._carry_out(administer(calls.replace_member(name), self._topology))

    def transfer_leadership(self, name: str | None = None) -> Cluster:
        """Make another member the leader.

        Args:
            name: Name of the member; by default any that has the whole log.

        Returns:
            The cluster under its new leader.

        Raises:
            MembershipRefused: There is no such member.
        """
        return self._carry_out(administer(calls.transfer_leadership(name), self._topology))

    def back_up(
        self,
        folder: str | os.PathLike[str],
        *,
        since: int | None = None,
        events_per_s: int = BACKUP_EVENTS_PER_S,
        progress: Callable[[int, int], object] = no_progress,
    ) -> Backup:
        """Make a backup of the log in a folder of this machine, while events are added. Constant memory.

        If a member stops, another one continues. If the call ends early, the next one with the same folder continues.

        Args:
            folder: The folder for backups, made if it does not exist.
            since: Number of a backup in it: the new one has only what was added since, and needs that one.
            events_per_s: The highest rate, so that the servers keep time for their clients.
            progress: Called with the number of events so far, and how many there are.

        Returns:
            The backup.

        Raises:
            BackupError: The folder cannot be used, or its backups are of another log.
            Unavailable: No member answered for a while.
            OSError: The folder cannot be made or read.
        """
        wish = Wish(since, events_per_s, progress)
        return self._carry_out(back_up(BackupFolder(folder), wish, self._topology))

    def kept_backups(self) -> list[KeptBackup]:
        """Return the backups that a server keeps in a folder of its own. The first endpoint that answers is asked."""
        return self._carry_out(administer(calls.kept_backups(), self._topology))

    def create_backup(self, *, since: int | None = None, events_per_s: int = BACKUP_EVENTS_PER_S) -> KeptBackup:
        """Have a server make a backup in a folder of its own. The first endpoint that answers is asked.

        Until it returns, `kept_backups` in another thread shows how far the backup is.

        Args:
            since: Number of a backup that it keeps: the new one has only what was added since, and needs that one.
            events_per_s: The highest rate.

        Returns:
            The backup.

        Raises:
            BackupError: The server has no such backup, or cannot write to its folder.
        """
        return self._carry_out(administer(calls.create_backup(since, events_per_s), self._topology))

    def delete_backup(self, number: int) -> None:
        """Have a server delete a backup that it keeps. The first endpoint that answers is asked.

        Args:
            number: Number of the backup.

        Raises:
            BackupError: The server has no such backup, or another one continues it.
        """
        self._carry_out(administer(calls.delete_backup(number), self._topology))

    def keys(self) -> Keys:
        """Return the API keys, without their secrets. Those in `unanswered` did not say when they last accepted one."""
        return self._carry_out(administer(calls.keys(), self._topology))

    def create_key(
        self,
        roles: Sequence[str],
        *,
        name: str = "",
        expires: datetime | None = None,
        events_per_s: float | None = None,
        requests_per_s: float | None = None,
    ) -> CreatedKey:
        """Make an API key. It is shown only here: the servers keep a hash of it.

        The first key closes the calls of clients to those who have none; the first one with the role `operate` closes
        the calls of operators, too.

        Args:
            roles: What the key may be used for: `append`, `prove`, `operate`, `observe`, or several of them.
            name: What to call it, in the history of the cluster and in logs.
            expires: When it expires, with a time zone; None for never.
            events_per_s: How many events it may add in a second on each server; None for the server's default.
            requests_per_s: How many requests it may make in a second on each server.

        Returns:
            The key and its id.

        Raises:
            ValueError: A role does not exist, or is repeated, or the name, the time or a rate is invalid.
        """
        call = calls.create_key(
            roles, name=name, expires=expires, events_per_s=events_per_s, requests_per_s=requests_per_s
        )
        return self._carry_out(administer(call, self._topology))

    def revoke_key(self, key_id: str) -> Keys:
        """Revoke the API key with this id, and return all keys.

        Raises:
            MembershipRefused: There is no such key, or it is the last one that can make others.
        """
        return self._carry_out(administer(calls.revoke_key(key_id), self._topology))

    def signers(self) -> Signers:
        """Return the keys with which the log signs."""
        return self._carry_out(administer(calls.signers(), self._topology))

    def retire_signer(self, key_id: str) -> Signers:
        """Retire the key of the log with this id, and return all keys. It signs nothing from then on.

        Raises:
            MembershipRefused: There is no such key, no other Ed25519 key would sign, or the leader does not sign.
        """
        return self._carry_out(administer(calls.retire_signer(key_id), self._topology))

    def create_token(self, name: str | None = None, *, ttl_s: int = 3600) -> JoinToken:
        """Make a token with which one server can join the cluster, without knowing its secret.

        Args:
            name: Node id of the server; by default any server may use the token.
            ttl_s: For how many seconds the token is valid, from 1 to 30 days.

        Returns:
            The token, which is a secret: `qed-server --join-token-file` reads it from a file.

        Raises:
            MembershipRefused: The members do not use a cluster secret, so there is nobody to sign certificates.
        """
        return self._carry_out(administer(calls.create_token(name, ttl_s), self._topology))

    def healthcheck(self) -> None:
        """Check that a server is serving; ask each endpoint once.

        Raises:
            Unavailable: No server is.
        """
        self._carry_out(converse(calls.healthcheck(), self._topology, Policy()))

    def close(self) -> None:
        """Close all connections. The client cannot be used again."""
        self._connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _follow(self, steps: Steps[_T]) -> _T:
        return _run(steps, self._take_step)

    def _take_step(self, step: Call[Any] | Together) -> object:
        if isinstance(step, Together):
            # One after the other: this thread has one connection, and to open another takes as long as a call.
            return [self._outcome_of(call) for call in step.calls]
        return self._perform(step)

    def _outcome_of(self, call: Call[Any]) -> object:
        try:
            return self._perform(call)
        except QedError as exc:
            return exc

    def _perform(self, call: Call[_T]) -> _T:
        return self._carry_out(converse(call, self._topology, self._policy))

    def _carry_out(self, conversation: Generator[Send, Outcome, _T]) -> _T:
        return _run(conversation, self._take)

    def _stream(
        self, events: Iterable[bytes | Digest], *, is_if_absent: bool, has_receipts: bool
    ) -> Iterator[Acknowledgement]:
        ledger = Ledger(self._growth, self._sent, is_if_absent=is_if_absent, has_receipts=has_receipts)
        call = calls.stream(has_event=self._sent == "event", has_receipts=has_receipts)

        def connect() -> Duplex:
            opened: list[Duplex] = []
            _run(converse(call, self._topology, self._policy), lambda step: self._open_stream(step, call, opened))
            return opened[-1]

        yield from stream_events(events, ledger, connect, self._timeout_s)

    def _open_stream(self, step: Send, call: Call[None], opened: list[Duplex]) -> Outcome:
        """Carry out a step; if it opens the stream, keep its connection."""
        if step.call is not call:
            return self._take(step)
        if step.delay_s:
            time.sleep(step.delay_s)
        self._exposure.note(step.url)
        try:
            duplex = self._connections.dial(step.url, self._timeout_s)
        except (httpx.TransportError, httpx.InvalidURL) as exc:
            return never_sent(failure_of(exc, self._timeout_s, self._http.shown_to(step.url)))
        answer = duplex.answer(step.url)
        if answer.status in call.successes:
            opened.append(duplex)
            return answer
        duplex.close()
        return never_sent(answer)

    def _take(self, step: Send) -> Outcome:
        call = step.call
        if step.delay_s:
            time.sleep(step.delay_s)
        timeout_s = call.timeout_s or self._timeout_s
        self._exposure.note(step.url)
        try:
            with (
                self._connections.turns,
                deadline(timeout_s),
                self._connections.http.stream(
                    call.method, step.url, content=call.body, headers=call.headers, timeout=timeout_of(timeout_s)
                ) as response,
            ):
                inbox = Inbox(response, call.answer_limit_bytes)
                for part in response.iter_raw():
                    inbox.take(part)
                return inbox.answer()
        except (httpx.TransportError, httpx.InvalidURL) as exc:
            return failure_of(exc, timeout_s, self._http.shown_to(step.url))


def _run(steps: Generator[_Step, _Value, _T], carry_out: Callable[[_Step], _Value]) -> _T:
    """Carry out everything that `steps` yields, and return its result. It is given each value, or the error instead."""
    try:
        step = next(steps)
        while True:
            try:
                value = carry_out(step)
            except QedError as exc:
                step = steps.throw(exc)
            else:
                step = steps.send(value)
    except StopIteration as stop:
        result: _T = stop.value
        return result
