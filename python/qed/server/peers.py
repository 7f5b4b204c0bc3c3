"""The other members: answers their requests, and reacts to changes of the cluster."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from qed.errors import LogError, MembershipRefused, QedError
from qed.server.config import Address
from qed.server.fetching import Fetching
from qed.server.handshake import PROTOCOL, Hello, Reply
from qed.server.leader_requests import LeaderRequests
from qed.server.logs import Line, OncePerMinute
from qed.server.transport import Transport
from qed.server.waiting import PROOF

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine, Sequence

    from qed._qed import Delivery, Replica
    from qed.server.config import Settings
    from qed.server.handshake import LeaderRequest
    from qed.server.members import Members
    from qed.server.waiting import Waiting

__all__ = ["Peers"]

_log = logging.getLogger(__name__)


class Peers:
    """Connects a replica with the other members.

    Attributes:
        leader_requests: Carries out requests to the leader, or passes them on.
    """

    def __init__(
        self,
        settings: Settings,
        replica: Replica,
        waiting: Waiting,
        members: Members,
        *,
        on_removed: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._replica = replica
        self._waiting = waiting
        self._members = members
        self._on_removed = on_removed
        self._transport = Transport(self, self._hello, settings.raft_tls)
        self.leader_requests = LeaderRequests(
            settings, replica, waiting, members, context=self._transport.client_context, hello=self._hello
        )
        self._fetching = Fetching(replica, waiting, members, self._transport)
        self._once_per_minute = OncePerMinute()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def start(self, listener: socket.socket) -> None:
        """Accept streams on a bound socket, and connect to the members that are known."""
        await self._transport.start(listener)
        self.note_status()
        if self._members.cluster and self._settings.raft_join_addrs:
            self._run_once("probe", self._probe_joined)

    def stop(self) -> None:
        """Stop fetching pages and asking for admission. Messages of the replica are still sent."""
        for task in self._tasks.values():
            task.cancel()

    async def close(self) -> None:
        """End every stream."""
        await self._transport.close()

    def send(self, delivery: Delivery) -> None:
        """Send the messages of a delivery, and log the messages of others that were refused."""
        for receiver, message in delivery.messages:
            self._transport.send(receiver, message)
        for invalid in delivery.invalid_messages:
            name = self._members.name_of(invalid.sender)
            if self._once_per_minute.is_due(name, invalid.reason):
                _log.warning(Line("message refused", sender=name, reason=invalid.reason))

    def note_status(self) -> None:
        """Read the replica's status, and act on what has changed."""
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
            _log.info(Line("leader changed", leader=members.leader_name or "none", term=status.term))
        if before.is_leader != status.is_leader:
            _log.info(Line("leads" if status.is_leader else "follows", events=len(self._replica)))
        if status.fetch_from is not None:
            self._run_once("fetch", self._fetching.run)
        if not members.is_admitted:
            self._run_once("admission", self._seek_admission)

    # What the transport calls.

    def greet(self, hello: Hello) -> Reply:
        """Judge a hello that names the right protocol."""
        members, cluster = self._members, self._members.cluster
        if hello.sender in members.status.removed:
            name = self._settings.node_id
            message = f"according to {name}, this member was removed from the cluster; empty its data folder to rejoin"
            return Reply("removed", message)
        is_question = hello.kind == "question"
        if not is_question and hello.receiver != members.number:
            return Reply("receiver", f"this is member {members.number:016x}, not {hello.receiver:016x}")
        if cluster and hello.cluster != cluster and (hello.cluster or not is_question):
            return Reply("cluster", f"it is a member of cluster {cluster}, not {hello.cluster}")
        if not is_question:
            # A member that waits to be admitted learns the name of its cluster from any member that knows its number.
            members.cluster = hello.cluster or None
        return Reply(cluster=members.cluster or "")

    def receive(self, sender: int, messages: Sequence[bytes]) -> None:
        """Hand messages of another member to the replica."""
        name = self._members.name_of(sender)
        if self._replica.receive(messages) and self._once_per_minute.is_due(name, "malformed"):
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

    async def answer(self, request: LeaderRequest) -> Reply:
        """Carry out a request of another member, or pass it on to the leader."""
        try:
            await self.leader_requests.ask_leader(request)
        except MembershipRefused as exc:
            return Reply("refused", str(exc), self._members.cluster or "")
        except QedError as exc:
            return Reply("unavailable", str(exc), self._members.cluster or "")
        return Reply(cluster=self._members.cluster or "")

    def removed(self, message: str) -> None:
        """Note that the cluster has removed this member, or refuses to admit it."""
        self._on_removed(message)

    def _hello(self, receiver: int, kind: str) -> Hello:
        return Hello(
            protocol=PROTOCOL,
            kind=kind,  # type: ignore[arg-type]  # one of the literals, from the transport
            cluster=self._members.cluster or "",
            sender=self._members.number,
            receiver=receiver,
            raft_addr=self._members.own.raft_addr,
        )

    def _run_once(self, name: str, work: Callable[[], Coroutine[None, None, None]]) -> None:
        task = self._tasks.get(name)
        if task is None or task.done():
            self._tasks[name] = asyncio.create_task(work())

    async def _seek_admission(self) -> None:
        reason = await self.leader_requests.seek_admission()
        if reason is not None:
            self.removed(reason)

    async def _probe_joined(self) -> None:
        """Stop this member if its settings name one cluster to join, and its folder belongs to another."""
        reason = await self.leader_requests.probe_joined()
        if reason is not None:
            self.removed(reason)
