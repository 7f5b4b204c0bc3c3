"""The calls of the protocol: bytes to a request, the node's answer back to bytes.

Each endpoint is an ASGI application of its own. There is nothing between the socket and the node that a request does
not need: no request object, no response object, no thread. Endpoints raise exceptions; `app` turns them into answers.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

from qed import __version__, questions
from qed._limits import BULK_KEYS_MAX, U64_LIMIT
from qed._wire import (
    ADD_BULK_REQUEST,
    ADD_REQUEST,
    BULK_MEMBERSHIP_REQUEST,
    DIGEST_MEMBERSHIP_REQUEST,
    ENCODER,
    INCREMENTAL_REQUEST,
    MEMBER_REQUEST,
    MEMBERSHIP_REQUEST,
    TOKEN_REQUEST,
    DecodeError,
    History,
    HistoryRow,
    JoinToken,
    version_in,
)
from qed.errors import NotLeader, Overloaded, QedError, Unavailable, UnknownVersion, WriteRefused
from qed.proofs import Digest
from qed.server.access import CALLER
from qed.server.acts import Author
from qed.server.api_keys import ApiKey
from qed.server.bodies import RequestTooLarge
from qed.server.config import Address, SettingsError, require_node_id
from qed.server.node import NotTaken
from qed.server.receipt_calls import add_with_receipt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import Receive, Scope, Send

    from qed._qed import Added
    from qed._wire import ReceiptLevel
    from qed.server.access import Caller
    from qed.server.bodies import Bodies
    from qed.server.node import Node
    from qed.server.rates import Allowance

__all__ = [
    "Add",
    "AddBulk",
    "BulkMembership",
    "ClusterView",
    "DigestMembership",
    "Healthcheck",
    "HistoryView",
    "Incremental",
    "Information",
    "Membership",
    "NoSuchSnapshot",
    "PastSnapshot",
    "Remove",
    "Replace",
    "Topology",
    "Transfer",
    "Welcome",
    "author_of",
    "send_json",
    "way_of",
]

_CONTENT_TYPE: Final = (b"content-type", b"application/json")
_WELCOME: Final = b"""qed-server %s, a tamper-evident log.

GET /info describes this server. The calls are in docs/api.md of the package qed-log,
and `qed --help` has a client for the command line.
"""
_FIELDS: Final = 1000
"""Commas of a request beside those between its events."""
_CONSISTENCY: Final = b"consistency"
_LINEARIZABLE: Final = b"linearizable"
_AFTER: Final = re.compile(rb"(?:after=([0-9]{1,20}))?")


class NoSuchSnapshot(QedError):
    """The version is beyond the log, so it has no snapshot yet."""


async def send_json(
    send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes], more_body: bool = False
) -> None:
    """Send an answer of `status` with `body`, which is JSON.

    Args:
        send: The connection.
        status: HTTP status.
        body: The whole body.
        *headers: Headers besides content type and length.
        more_body: Leave the answer open, although it is complete.
    """
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [_CONTENT_TYPE, length, *headers]})
    await send({"type": "http.response.body", "body": body, "more_body": more_body})


def way_of(node: Node, scope: Scope) -> str:
    """Return the name of the way in by which a request came."""
    host = next((value for name, value in scope["headers"] if name == b"host"), b"")
    is_management = scope["server"][1] == node.settings.mgmt_addr.port
    return node.way_of(host.decode("latin-1"), is_management=is_management)


def author_of(scope: Scope) -> Author:
    """Return who makes a request that was admitted, and from where, for the act that records it."""
    host, port = scope["client"] or ("unknown", 0)
    caller: Caller = scope[CALLER]
    return Author(caller.name, str(Address(host, port)), ApiKey.parse(caller.presented))


async def _catch_up_if_asked(node: Node, scope: Scope) -> None:
    """If the request asks for it, wait until the node has everything that is acknowledged by now."""
    for name, value in scope["headers"]:
        if name == _CONSISTENCY:
            if value.strip().lower() != _LINEARIZABLE:
                raise DecodeError("expected the Consistency header to be linearizable")
            await node.catch_up()


class _Call(ABC):
    """A call with a body that asks for something."""

    def __init__(self, node: Node, bodies: Bodies) -> None:
        self.node = node
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await self._bodies.read(scope, receive)
        await _catch_up_if_asked(self.node, scope)
        await send_json(send, 200, await self.answer(body))

    @abstractmethod
    async def answer(self, body: bytes) -> bytes:
        """Return JSON for the request in `body`."""


class _Addition(ABC):
    """A call with a body that adds events: 201, or 200 if nothing had to be added."""

    def __init__(self, node: Node, bodies: Bodies) -> None:
        self.node = node
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        events, if_absent, level = self.parse(await self._bodies.read(scope, receive))
        caller: Caller = scope[CALLER]
        if caller.allowance is None:
            added, receipt = await self._add(events, level, if_absent=if_absent)
        else:
            added, receipt = await self._add_within(caller.allowance, events, level, if_absent=if_absent)
        body = self.spell(added) if receipt is None else self.spell_with(added, receipt)
        await send_json(send, 201 if added.is_new else 200, body)

    async def _add(
        self, events: Sequence[bytes | Digest], level: ReceiptLevel | None, *, if_absent: bool
    ) -> tuple[Added, bytes | None]:
        if level is None:
            return await self.node.add(events, if_absent=if_absent), None
        return await add_with_receipt(self.node, events, level, if_absent=if_absent)

    async def _add_within(
        self, allowance: Allowance, events: Sequence[bytes | Digest], level: ReceiptLevel | None, *, if_absent: bool
    ) -> tuple[Added, bytes | None]:
        allowance.spend_events(len(events))
        try:
            return await self._add(events, level, if_absent=if_absent)
        except (NotLeader, NotTaken, Overloaded):
            allowance.give_back_events(len(events))
            raise

    @abstractmethod
    def parse(self, body: bytes) -> tuple[Sequence[bytes | Digest], bool, ReceiptLevel | None]:
        """Return the events to add, whether only those that are not in the log yet, and which receipt is wanted."""

    @abstractmethod
    def spell(self, added: Added) -> bytes:
        """Return JSON with the snapshots of the events."""

    @abstractmethod
    def spell_with(self, added: Added, receipt: bytes) -> bytes:
        """Return a JSON object with the snapshots of the events and the fields of their receipt."""


class Add(_Addition):
    """`POST /events`: one event, answered by its snapshot."""

    def parse(self, body: bytes) -> tuple[Sequence[bytes | Digest], bool, ReceiptLevel | None]:
        """Return the event as a batch of one."""
        request = ADD_REQUEST.decode(body)
        return [request.added()], request.if_absent, request.receipt

    def spell(self, added: Added) -> bytes:
        """Return the JSON of its snapshot."""
        return added.to_json()

    def spell_with(self, added: Added, receipt: bytes) -> bytes:
        """Return the same with more fields."""
        return added.to_json().removesuffix(b"}") + b"," + receipt + b"}"


class AddBulk(_Addition):
    """`POST /events/bulk`: events as one batch, answered by an array with a snapshot an event."""

    def parse(self, body: bytes) -> tuple[Sequence[bytes | Digest], bool, ReceiptLevel | None]:
        """Return the events, which are not too many."""
        limit = self.node.settings.limits.max_bulk_events
        if body.count(b",") > limit + _FIELDS:
            # Events that are not there yet: decoding millions of empty ones would keep all others waiting.
            raise RequestTooLarge(f"expected at most {limit} events in a bulk")
        events = (request := ADD_BULK_REQUEST.decode(body)).added()
        if len(events) > limit:
            raise RequestTooLarge(f"expected at most {limit} events in a bulk, found {len(events)}")
        return events, request.if_absent, request.receipt

    def spell(self, added: Added) -> bytes:
        """Return the JSON of all snapshots."""
        return added.to_json_array()

    def spell_with(self, added: Added, receipt: bytes) -> bytes:
        """Return an object with all snapshots and their receipt."""
        return b'{"Snapshots":' + added.to_json_array() + b"," + receipt + b"}"


class Membership(_Call):
    """`POST /proofs/membership`: 200 with the proof that an event is in the log, or that it is not."""

    async def answer(self, body: bytes) -> bytes:
        """Prove whether one event is in the log."""
        request = MEMBERSHIP_REQUEST.decode(body)
        return await self.node.membership(Digest.of(request.key), version=request.version, key=request.key)


class DigestMembership(_Call):
    """`POST /proofs/digest-membership`: as `Membership`, for clients that have only the digest of the event."""

    async def answer(self, body: bytes) -> bytes:
        """Prove whether the event of one digest is in the log."""
        request = DIGEST_MEMBERSHIP_REQUEST.decode(body)
        return await self.node.membership(Digest(request.key_digest), version=request.version)


class BulkMembership:
    """`POST /proofs/membership/bulk`: 200 with one proof which of many events are in the log."""

    def __init__(self, node: Node, bodies: Bodies) -> None:
        self._node = node
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Prove it of all events at one version."""
        question = _bulk_question(await self._bodies.read(scope, receive))
        caller: Caller = scope[CALLER]
        if caller.allowance is not None:
            caller.allowance.spend_proofs(len(question.keys))
        await _catch_up_if_asked(self._node, scope)
        await send_json(send, 200, await self._node.bulk_membership(question))


def _bulk_question(body: bytes) -> questions.BulkMembership:
    too_large = f"expected at most {BULK_KEYS_MAX} keys in a bulk"
    if body.count(b",") > BULK_KEYS_MAX + _FIELDS:
        raise RequestTooLarge(too_large)
    asked = BULK_MEMBERSHIP_REQUEST.decode(body).asked()
    if len(asked) > BULK_KEYS_MAX:
        raise RequestTooLarge(f"{too_large}, found {len(asked)}")
    question = questions.BulkMembership(asked)
    if len(question.keys) < len(asked):
        raise DecodeError("expected each key once: the ends of the answer are in the order of distinct keys")
    return question


class Incremental(_Call):
    """`POST /proofs/incremental`: 200 with the proof that one version extends another."""

    async def answer(self, body: bytes) -> bytes:
        """Prove that one version extends another."""
        request = INCREMENTAL_REQUEST.decode(body)
        return await self.node.incremental(request.start, request.end)


class _Lookup(ABC):
    """A call without a body."""

    def __init__(self, node: Node) -> None:
        self.node = node

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        await _catch_up_if_asked(self.node, scope)
        await send_json(send, 200, await self.answer(scope))

    @abstractmethod
    async def answer(self, scope: Scope) -> bytes:
        """Return JSON for the path that `scope` names."""


class PastSnapshot(_Lookup):
    """`GET /snapshots/{version}`: 200 with the snapshot exactly as it was acknowledged."""

    async def answer(self, scope: Scope) -> bytes:
        """Look up one version."""
        version = version_in(scope["path_params"]["version"])
        try:
            return await self.node.snapshot(version)
        except UnknownVersion as exc:
            raise NoSuchSnapshot(str(exc)) from exc


class Information(_Lookup):
    """`GET /info`: 200 with this member's addresses and the length of its log."""

    async def answer(self, scope: Scope) -> bytes:
        """Describe this member."""
        return ENCODER.encode(self.node.describe(way_of(self.node, scope)))


class Topology(_Lookup):
    """`GET /info/shards`: 200 with the members and their leader."""

    async def answer(self, scope: Scope) -> bytes:
        """List the members."""
        return ENCODER.encode(self.node.topology(way_of(self.node, scope)))


class ClusterView(_Lookup):
    """`GET /cluster`: 200 with the cluster as this member sees it."""

    async def answer(self, scope: Scope) -> bytes:
        """List the members, and how much of the log each one has."""
        return ENCODER.encode(self.node.cluster(way_of(self.node, scope)))


class HistoryView(_Lookup):
    """`GET /cluster/history?after=N`: 200 with the next acts after an entry; none after the last."""

    async def answer(self, scope: Scope) -> bytes:
        """List acts, each with the hash of the one before."""
        query = _AFTER.fullmatch(scope["query_string"])
        after = int(query[1] or 0) if query else U64_LIMIT
        if after >= U64_LIMIT:
            raise DecodeError("expected the query after=N, with N from 0 to 2**64 - 1, or none")
        found = await self.node.history(after)
        rows = [
            HistoryRow(index=act.index, term=act.term, previous=bytes(act.previous), body=act.body) for act in found
        ]
        cluster = self.node.cluster()
        return ENCODER.encode(History(cluster.node_id, cluster.cluster_id, rows))


class _Deed(ABC):
    """A call with a body that changes the cluster, and is recorded with its author."""

    def __init__(self, node: Node, bodies: Bodies) -> None:
        self.node = node
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await self._bodies.read(scope, receive)
        await self.do(body, author_of(scope))
        await send_json(send, 200, ENCODER.encode(self.node.cluster(way_of(self.node, scope))))

    @abstractmethod
    async def do(self, body: bytes, author: Author) -> None:
        """Carry out the request in `body`."""


class Remove(_Deed):
    """`POST /cluster/remove`: 200 with the cluster once a member has left it."""

    async def do(self, body: bytes, author: Author) -> None:
        """Remove one member."""
        name = MEMBER_REQUEST.decode(body).name
        if name is None:
            raise DecodeError("expected the name of a member")
        await self.node.remove(name, author)


class Replace(_Deed):
    """`POST /cluster/replace`: 200 with the cluster once another server may take the place of a lost member."""

    async def do(self, body: bytes, author: Author) -> None:
        """Give one member up."""
        name = MEMBER_REQUEST.decode(body).name
        if name is None:
            raise DecodeError("expected the name of a member")
        await self.node.replace(name, author)


class Transfer(_Deed):
    """`POST /cluster/transfer`: 200 with the cluster once another member leads it."""

    async def do(self, body: bytes, author: Author) -> None:
        """Hand leadership over."""
        await self.node.transfer(MEMBER_REQUEST.decode(body).name, author)


class CreateToken:
    """`POST /cluster/token`: 201 with a token with which one server can join; shown only this once."""

    def __init__(self, node: Node, bodies: Bodies) -> None:
        self._node = node
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Make a token."""
        request = TOKEN_REQUEST.decode(await self._bodies.read(scope, receive))
        if request.name is not None:
            _require_node_id(request.name)
        token, act = await self._node.create_token(request.name, request.ttl_s, author_of(scope))
        created = JoinToken(token.id, token.text, act.expires, act.name)
        # Caches between client and server must not keep the token.
        await send_json(send, 201, ENCODER.encode(created), (b"cache-control", b"no-store"))


def _require_node_id(name: str) -> None:
    try:
        require_node_id(name)
    except SettingsError as exc:
        raise DecodeError(str(exc)) from exc


class Welcome:
    """`GET /`: 200 with a short text for people who open the address in a browser."""

    async def __call__(self, _: Scope, __: Receive, send: Send) -> None:
        """Name the software, its version and where it is documented."""
        text = _WELCOME % __version__.encode()
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(text))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})


class Healthcheck:
    """`HEAD /healthcheck`: 204 unless the member's disk has failed, or its log is not that of the cluster."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def __call__(self, _: Scope, __: Receive, send: Send) -> None:
        """Answer without a body.

        Raises:
            WriteRefused: The disk has failed.
            Unavailable: The log lacks or contradicts what a majority acknowledged.
        """
        if self._node.failure is not None:
            raise WriteRefused(self._node.failure)
        if self._node.alarm is not None:
            raise Unavailable(self._node.alarm)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})
