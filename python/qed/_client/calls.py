"""The request of each call, and the checks of its answer.

Each kind of call has a function that builds a `Call` from the caller's arguments. It holds the request, and turns the
answer into a value: parsed, and checked to answer exactly this question. Nothing here opens a socket: `attempts`
chooses the servers, the clients send.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeAlias, TypeVar

from msgspec import UNSET

from qed._limits import KNOWS_NO_RECEIPTS, ROLES
from qed._printable import beginning, printable
from qed._wire import (
    CLUSTER,
    CREATED_KEY,
    ENCODER,
    ERROR_BODY,
    HISTORY,
    INFO,
    JOIN_TOKEN,
    KEPT_BACKUP,
    KEPT_BACKUPS,
    KEYS,
    RECEIPT_FIELDS,
    SHARDS,
    SIGNERS,
    AddBulkRequest,
    AddRequest,
    BulkMembershipRequest,
    Cluster,
    CreatedKey,
    DecodeError,
    DigestMembershipRequest,
    ErrorBody,
    IncrementalRequest,
    Info,
    JoinToken,
    KeptBackup,
    KeyRequest,
    Keys,
    MemberRequest,
    ReceiptFields,
    RetireRequest,
    RevokeRequest,
    Shards,
    Signers,
    TokenRequest,
    snapshots_from_json,
)
from qed.acknowledgement import Acknowledgement
from qed.errors import (
    AccessRefused,
    AddedLater,
    BackupError,
    MalformedProof,
    MalformedRequest,
    MembershipRefused,
    ProtocolError,
    QedError,
    SigningError,
    UnknownVersion,
    VerificationError,
)
from qed.history import Act, require_chain
from qed.proofs import (
    AbsenceProof,
    BulkProof,
    Digest,
    IncrementalProof,
    MembershipProof,
    Snapshot,
    digest_of,
    parse_answer,
)
from qed.questions import Answer as Claim
from qed.questions import BulkMembership, Extension, Membership, Question, require_version
from qed.signed import SignedReceipt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from qed._wire import ReceiptLevel

__all__ = [
    "ANSWER_LIMIT_BYTES",
    "SNAPSHOT_LIMIT_BYTES",
    "Answer",
    "Call",
    "Consistency",
    "Route",
    "acknowledgement_of",
    "add",
    "add_bulk",
    "ask",
    "backup_part",
    "begin_backup",
    "cluster",
    "create_backup",
    "create_key",
    "delete_backup",
    "error_body",
    "healthcheck",
    "history",
    "incremental",
    "info",
    "kept_backups",
    "keys",
    "membership",
    "membership_many",
    "plain",
    "protocol_error",
    "receipt",
    "refusal",
    "remove_member",
    "replace_member",
    "retire_signer",
    "revoke_key",
    "shards",
    "signers",
    "snapshot",
    "stream",
    "transfer_leadership",
    "with_receipt",
]

# The largest honest proof has 256 + 2 * 64 siblings of about 130 bytes each; a megabyte leaves room for future fields
# and prevents a hostile server from filling the memory.
ANSWER_LIMIT_BYTES: Final = 1 << 20
# A log of 2^32 events has some 45 hashes for a key that shares none of them.
_BULK_KEY_LIMIT_BYTES: Final = 3 << 10
_RECEIPT_EVENTS_MAX: Final = 65_536
# A snapshot is three base64 digests and a version: at most 220 bytes.
SNAPSHOT_LIMIT_BYTES: Final = 512

Consistency: TypeAlias = Literal["linearizable"]
"""The promise of a read beyond the member's own log: nothing that was acknowledged before the read is missing."""

LINEARIZABLE: Final = "linearizable"
# The largest honest part is a page that ends with a full batch of full bulks, some 20 MB.
PART_LIMIT_BYTES: Final = 1 << 26
# A server backs up a million events a second.
_BACKUP_TIMEOUT_S: Final = 3600.0
# Two digests and what is said about them.
_MESSAGE_LIMIT: Final = 300
_REFUSALS: Final[dict[int, type[ProtocolError]]] = {
    **dict.fromkeys((400, 404, 405, 413), MalformedRequest),
    **dict.fromkeys((401, 403), AccessRefused),
}
"""The statuses that say that nothing was done."""

_T_co = TypeVar("_T_co", covariant=True)


class Route(Enum):
    """Which members can answer a call."""

    LEADER = auto()
    """The leader, since the call inserts; any other answers 307 and names the leader."""
    READ = auto()
    """Those that the caller prefers to read from."""
    ANY = auto()
    """Every server: the call asks about the server itself or its cluster, not about the log."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer: header names in lower case, the body within the call's limit."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[_T_co]):
    """One request, and how its answer becomes a value.

    Attributes:
        method: HTTP method.
        path: Absolute path, without an endpoint's own prefix.
        body: JSON, or None.
        read: Parses the body of a success, or raises DecodeError or a QedError.
        successes: The statuses whose answers have a value.
        route: Which members can answer it.
        has_event: The body holds an event, not only digests.
        is_repeatable: Sending it twice has no further effect.
        is_linearizable: The member first catches up with everything that was acknowledged anywhere.
        what: The call's name in messages.
        answer_limit_bytes: Longer answers are refused.
        timeout_s: How long it may take, if that is not the client's time-out.
    """

    method: str
    path: str
    read: Callable[[bytes], _T_co]
    body: bytes | None = None
    successes: frozenset[int] = frozenset({200})
    route: Route = Route.ANY
    has_event: bool = False
    is_repeatable: bool = True
    is_linearizable: bool = False
    what: str = "the insertion"
    answer_limit_bytes: int = ANSWER_LIMIT_BYTES
    timeout_s: float | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The headers in addition to those of every request."""
        return {"Consistency": LINEARIZABLE} if self.is_linearizable else {}

    def result(self, answer: Answer) -> _T_co:
        """Return the value of an answer, checked to belong to this call.

        Args:
            answer: Any answer of the server.

        Returns:
            The value.

        Raises:
            QedError: The server refused, or its answer is malformed or belongs to another question.
        """
        if answer.status not in self.successes:
            raise refusal(answer)
        try:
            return self.read(answer.body)
        except DecodeError as exc:
            raise protocol_error(answer, f"with an invalid body: {plain(str(exc))}") from exc


def add(event: bytes | Digest, *, if_absent: bool, is_digest_sent: bool = False) -> Call[Snapshot]:
    """Return the call that adds `event`; its value is the snapshot, checked to be of this event.

    Args:
        event: The event, or its digest.
        if_absent: Do not add what is in the log already.
        is_digest_sent: Send the digest instead of the event.

    Returns:
        The call.
    """
    digest = digest_of(event)
    sent: dict[str, Any] = {"event_digest": bytes(digest)} if is_digest_sent else {"event": bytes(event)}

    def read(body: bytes) -> Snapshot:
        snapshot = _snapshot(body)
        _check_event(digest, snapshot)
        return snapshot

    return Call(
        method="POST",
        path="/events",
        body=ENCODER.encode(AddRequest(if_absent=if_absent, **sent)),
        read=read,
        successes=frozenset({200, 201} if if_absent else {201}),
        route=Route.LEADER,
        has_event=not is_digest_sent,
        is_repeatable=if_absent,
    )


def add_bulk(
    events: Sequence[bytes | Digest], *, if_absent: bool, is_digest_sent: bool = False
) -> Call[list[Snapshot]]:
    """Return the call that adds `events`; its value is one snapshot per event, checked to be theirs, in order.

    Args:
        events: The events, or their digests.
        if_absent: Do not add what is in the log already.
        is_digest_sent: Send digests instead of events.

    Returns:
        The call.
    """
    digests = [digest_of(event) for event in events]
    name, given = ("event_digests", digests) if is_digest_sent else ("events", events)
    sent: dict[str, Any] = {name: list(map(bytes, given))}

    def read(body: bytes) -> list[Snapshot]:
        snapshots = _snapshots(body)
        _check_events(digests, snapshots)
        if not if_absent:
            _check_one_batch(snapshots)
        return snapshots

    return Call(
        method="POST",
        path="/events/bulk",
        body=ENCODER.encode(AddBulkRequest(if_absent=if_absent, **sent)),
        read=read,
        successes=frozenset({200, 201} if if_absent else {201}),
        route=Route.LEADER,
        has_event=not is_digest_sent,
        is_repeatable=if_absent,
        answer_limit_bytes=ANSWER_LIMIT_BYTES + SNAPSHOT_LIMIT_BYTES * len(digests),
    )


def with_receipt(call: Call[Snapshot] | Call[list[Snapshot]], level: ReceiptLevel) -> Call[Acknowledgement]:
    """Return the call that adds the same events, and asks for a receipt of what was added.

    Its value has the same snapshots, checked as before, and a receipt whose snapshots are among them.

    Args:
        call: A call of `add` or `add_bulk`.
        level: Which receipt.

    Returns:
        The call.
    """
    body = call.body or b""

    def read(answer: bytes) -> Acknowledgement:
        # An older server does not know the field, and answers a bulk with an array.
        fields = ReceiptFields() if answer.startswith(b"[") else RECEIPT_FIELDS.decode(answer)
        found = call.read(answer if fields.snapshots is UNSET else bytes(fields.snapshots))
        snapshots = found if isinstance(found, list) else [found]
        text = b"null" if fields.receipt is UNSET else bytes(fields.receipt)
        reason = KNOWS_NO_RECEIPTS if fields.receipt is UNSET else fields.receipt_error
        return acknowledgement_of(snapshots, text, reason)

    return Call(
        method=call.method,
        path=call.path,
        body=body.removesuffix(b"}") + b',"Receipt":"' + level.encode() + b'"}',
        read=read,
        successes=call.successes,
        route=call.route,
        has_event=call.has_event,
        is_repeatable=call.is_repeatable,
        answer_limit_bytes=3 * call.answer_limit_bytes,
    )


def acknowledgement_of(snapshots: Sequence[Snapshot], text: bytes, reason: str | None) -> Acknowledgement:
    """Return an acknowledgement of these snapshots.

    Args:
        snapshots: The snapshots, checked before.
        text: The JSON of the receipt, or `null`.
        reason: Why there is none.

    Returns:
        The acknowledgement.

    Raises:
        DecodeError: The receipt is malformed.
        VerificationError: The receipt is about other snapshots.
    """
    receipt = None if text == b"null" else _signed_receipt(text)
    if receipt is not None and not set(receipt.snapshots) <= set(snapshots):
        raise VerificationError("the receipt is about other snapshots than those that were acknowledged")
    return Acknowledgement(snapshots, receipt, reason)


def stream(*, has_event: bool, has_receipts: bool) -> Call[None]:
    """Return the call that opens a stream of events. By itself it adds nothing, so it may be repeated.

    Args:
        has_event: Whether events are sent, and not only digests.
        has_receipts: Whether to ask for receipts.

    Returns:
        The call. Its answer is a success as soon as its head has arrived.
    """
    return Call(
        method="POST",
        path="/events/stream?receipt=committed" if has_receipts else "/events/stream",
        read=lambda _: None,
        route=Route.LEADER,
        has_event=has_event,
        what="the stream",
    )


def receipt(version: int, *, last: int | None, level: ReceiptLevel) -> Call[SignedReceipt]:
    """Return the call for the receipt of past versions.

    Args:
        version: The first version.
        last: The last version; None for the same.
        level: Which receipt.

    Returns:
        The call; its value is about these versions, and not verified.

    Raises:
        ValueError: A version is invalid.
    """
    end = version if last is None else last
    _check_version(version)
    _check_version(end)

    def read(body: bytes) -> SignedReceipt:
        found = _signed_receipt(body)
        versions = [snapshot.version for snapshot in found.snapshots]
        if versions != list(range(version, end + 1)):
            raise VerificationError(
                "a receipt of other versions", f"{version} to {end}", f"{versions[0]} to {versions[-1]}"
            )
        return found

    count = max(end - version + 1, 1)
    return Call(
        method="GET",
        path=f"/receipts/{version}?last={end}&level={level}",
        read=read,
        route=Route.READ,
        answer_limit_bytes=ANSWER_LIMIT_BYTES + 2 * SNAPSHOT_LIMIT_BYTES * min(count, _RECEIPT_EVENTS_MAX),
    )


def _signed_receipt(text: bytes) -> SignedReceipt:
    try:
        return SignedReceipt.from_json(text)
    except MalformedProof as exc:
        raise DecodeError(str(exc)) from exc


def ask(question: Question, *, consistency: Consistency | None = None) -> Call[Claim]:
    """Return the call that asks a question; its value is a claim about just that, with its proof, not yet verified."""
    if isinstance(question, Membership):
        return membership(question.digest, version=question.version, consistency=consistency)
    if not isinstance(question, Extension):
        raise TypeError(f"expected a question, qed.Membership or qed.Extension, found {type(question).__name__}")
    return incremental(question.start, question.end, consistency=consistency)


def membership(
    digest: Digest, *, version: int | None = None, consistency: Consistency | None = None
) -> Call[MembershipProof | AbsenceProof]:
    """Return the call that asks whether an event is in the log.

    Only the digest is sent: the server needs no more for the proof.

    Args:
        digest: The event's digest.
        version: The version to ask at, or None for the latest.
        consistency: Whether the answer must include everything acknowledged before.

    Returns:
        The call; its value answers this question, and is not verified yet.

    Raises:
        ValueError: The version or the consistency is invalid.
    """
    _check_version(version)

    def read(body: bytes) -> MembershipProof | AbsenceProof:
        proof = parse_answer(body)
        _check_asked(digest, version, proof)
        return proof

    return Call(
        method="POST",
        path="/proofs/digest-membership",
        body=ENCODER.encode(DigestMembershipRequest(bytes(digest), version)),
        read=read,
        route=Route.READ,
        is_linearizable=_is_linearizable(consistency),
    )


def membership_many(question: BulkMembership, *, consistency: Consistency | None = None) -> Call[BulkProof]:
    """Return the call that asks which of many events are in the log.

    Only their digests are sent, in ascending order, each once.

    Args:
        question: The events.
        consistency: Whether the answer must include everything acknowledged before.

    Returns:
        The call; its value says something about each key of the question, and is not verified yet.

    Raises:
        ValueError: The consistency is invalid.
    """
    keys = question.keys

    def read(body: bytes) -> BulkProof:
        proof = BulkProof.from_json(body)
        if len(proof) != len(keys):
            raise VerificationError("a proof for another number of keys", str(len(keys)), str(len(proof)))
        return proof

    return Call(
        method="POST",
        path="/proofs/membership/bulk",
        body=ENCODER.encode(BulkMembershipRequest(key_digests=list(map(bytes, keys)))),
        read=read,
        route=Route.READ,
        is_linearizable=_is_linearizable(consistency),
        answer_limit_bytes=ANSWER_LIMIT_BYTES + _BULK_KEY_LIMIT_BYTES * len(keys),
    )


def incremental(start: int, end: int, *, consistency: Consistency | None = None) -> Call[IncrementalProof]:
    """Return the call that asks for the proof that the log at `end` extends the log at `start`.

    Args:
        start: The earlier version.
        end: The later version.
        consistency: Whether the answer must include everything acknowledged before.

    Returns:
        The call; its value is of this range, and not verified yet.

    Raises:
        ValueError: A version or the consistency is invalid.
    """
    _check_version(start)
    _check_version(end)

    def read(body: bytes) -> IncrementalProof:
        proof = IncrementalProof.from_json(body)
        if (proof.start, proof.end) != (start, end):
            raise VerificationError("a proof of another range", f"{start} to {end}", f"{proof.start} to {proof.end}")
        return proof

    return Call(
        method="POST",
        path="/proofs/incremental",
        body=ENCODER.encode(IncrementalRequest(start, end)),
        read=read,
        route=Route.READ,
        is_linearizable=_is_linearizable(consistency),
    )


def snapshot(version: int, *, consistency: Consistency | None = None) -> Call[Snapshot]:
    """Return the call that asks for the snapshot of `version` as it was acknowledged."""
    _check_version(version)

    def read(body: bytes) -> Snapshot:
        found = _snapshot(body)
        if found.version != version:
            raise VerificationError("a snapshot of another version", str(version), str(found.version))
        return found

    return Call(
        method="GET",
        path=f"/snapshots/{version}",
        read=read,
        route=Route.READ,
        is_linearizable=_is_linearizable(consistency),
    )


def info() -> Call[Info]:
    """Return the call that asks a member for its own description."""
    return Call(method="GET", path="/info", read=INFO.decode)


def shards() -> Call[Shards]:
    """Return the call that asks a member for the list of members and the leader."""
    return Call(method="GET", path="/info/shards", read=SHARDS.decode)


def healthcheck() -> Call[None]:
    """Return the call that asks whether a server is serving."""
    return Call(method="HEAD", path="/healthcheck", read=lambda _: None, successes=frozenset({204}))


def alarm() -> Call[str | None]:
    """Return the call that asks a server why it does not serve; its value is None if it does."""

    def read(body: bytes) -> str | None:
        # An answer of 204 has no body.
        return plain(ERROR_BODY.decode(body).message) if body else None

    return Call(method="GET", path="/healthcheck", read=read, successes=frozenset({204, 503}))


def cluster() -> Call[Cluster]:
    """Return the call that asks a member, at its management address, how it sees its cluster."""
    return Call(method="GET", path="/cluster", read=CLUSTER.decode)


def history(last: Act | None) -> Call[list[Act]]:
    """Return the call that asks a member, at its management address, for the acts after `last`.

    Args:
        last: The last act that is known; None asks from the beginning.

    Returns:
        The call; its value is the next acts, checked to continue the chain, and empty after the last one.
    """

    def read(body: bytes) -> list[Act]:
        acts = _acts(body)
        require_chain(acts, last)
        return acts

    after = f"?after={last.index}" if last is not None else ""
    return Call(method="GET", path=f"/cluster/history{after}", read=read)


def remove_member(name: str) -> Call[Cluster]:
    """Return the call that removes the member called `name`; its value is the cluster without it."""
    return _change("remove", name)


def replace_member(name: str) -> Call[Cluster]:
    """Return the call that lets another server take the place of member `name`; its value is the cluster."""
    return _change("replace", name)


def transfer_leadership(name: str | None) -> Call[Cluster]:
    """Return the call that makes member `name`, or any other, the leader; its value is the cluster afterwards."""
    return _change("transfer", name)


def create_token(name: str | None, ttl_s: int) -> Call[JoinToken]:
    """Return the call that makes a token, with which the server `name`, or any, can join within `ttl_s` seconds."""
    return Call(
        method="POST",
        path="/cluster/token",
        body=ENCODER.encode(TokenRequest(ttl_s, name)),
        read=JOIN_TOKEN.decode,
        successes=frozenset({201}),
        is_repeatable=False,
        what="the token",
    )


def kept_backups() -> Call[list[KeptBackup]]:
    """Return the call that asks a server, at its management address, for the backups that it keeps."""
    return Call(method="GET", path="/backups", read=KEPT_BACKUPS.decode)


def create_backup(since: int | None, events_per_s: int) -> Call[KeptBackup]:
    """Return the call that has a server make a backup and keep it; `since` is the number of one that it continues.

    Raises:
        ValueError: The rate is not positive.
    """
    if events_per_s < 1:
        raise ValueError(f"expected a rate of at least 1 event a second, found {events_per_s}")
    query = f"?rate={events_per_s}" + ("" if since is None else f"&since={since}")
    return Call(
        method="POST",
        path=f"/backup{query}",
        read=KEPT_BACKUP.decode,
        is_repeatable=False,
        what="the backup",
        timeout_s=_BACKUP_TIMEOUT_S,
    )


def delete_backup(number: int) -> Call[None]:
    """Return the call that has a server delete a backup that it keeps."""
    return Call(
        method="DELETE",
        path=f"/backup?backupID={number}",
        read=lambda _: None,
        successes=frozenset({204}),
        is_repeatable=False,
        what="the deletion",
    )


def begin_backup(since: bytes | None) -> Call[bytes]:
    """Return the call for the beginning of a backup; `since` is the end of one that it continues."""
    query = "" if since is None else f"?since={since.hex()}"
    return _part(query)


def backup_part(after: bytes, until: int) -> Call[bytes]:
    """Return the call for what follows `after` in a backup, which may end after `until` events."""
    return _part(f"?after={after.hex()}&until={until}")


def _part(query: str) -> Call[bytes]:
    return Call(method="GET", path=f"/backups/part{query}", read=bytes, answer_limit_bytes=PART_LIMIT_BYTES)


def keys() -> Call[Keys]:
    """Return the call that lists the API keys."""
    return Call(method="GET", path="/keys", read=KEYS.decode)


def create_key(
    roles: Sequence[str],
    *,
    name: str,
    expires: datetime | None,
    events_per_s: float | None,
    requests_per_s: float | None,
) -> Call[CreatedKey]:
    """Return the call that makes an API key; its value has the key, which no server can show again."""
    if not set(roles) <= set(ROLES):
        raise ValueError(f"expected roles of {', '.join(ROLES)}, found {', '.join(map(repr, roles))}")
    text = None if expires is None else expires.isoformat()
    request = KeyRequest(roles, name, text, events_per_s, requests_per_s)  # type: ignore[arg-type]  # literals, as checked
    return Call(
        method="POST",
        path="/keys",
        body=ENCODER.encode(request),
        read=CREATED_KEY.decode,
        successes=frozenset({201}),
        is_repeatable=False,
        what="the change",
    )


def revoke_key(key_id: str) -> Call[Keys]:
    """Return the call that revokes the API key with this id; its value lists all keys."""
    body = ENCODER.encode(RevokeRequest(key_id))
    return Call(method="POST", path="/keys/revoke", body=body, read=KEYS.decode, what="the change")


def signers() -> Call[Signers]:
    """Return the call that asks for the keys with which the log signs."""
    return Call(method="GET", path="/signers", read=SIGNERS.decode)


def retire_signer(key_id: str) -> Call[Signers]:
    """Return the call that retires a key of the log; its value has all keys."""
    body = ENCODER.encode(RetireRequest(key_id))
    return Call(method="POST", path="/signers/retire", body=body, read=SIGNERS.decode, what="the change")


def _change(verb: str, name: str | None) -> Call[Cluster]:
    return Call(
        method="POST",
        path=f"/cluster/{verb}",
        body=ENCODER.encode(MemberRequest(name)),
        read=CLUSTER.decode,
        is_repeatable=False,
        what="the change",
    )


def _is_linearizable(consistency: Consistency | None) -> bool:
    if consistency not in {None, LINEARIZABLE}:
        raise ValueError(f"expected the consistency {LINEARIZABLE} or none, found {consistency!r}")
    return consistency is not None


def _check_version(version: int | None) -> None:
    if version is not None:
        require_version(version)


def _acts(body: bytes) -> list[Act]:
    try:
        return [
            Act(index=row.index, term=row.term, previous=Digest(row.previous), body=row.body)
            for row in HISTORY.decode(body).acts
        ]
    except ValueError as exc:  # Of the body of an act: empty or too long.
        raise DecodeError(str(exc)) from exc


def _snapshot(body: bytes) -> Snapshot:
    try:
        return Snapshot.from_json(body)
    except MalformedProof as exc:
        raise DecodeError(str(exc)) from exc


def _snapshots(body: bytes) -> list[Snapshot]:
    try:
        return snapshots_from_json(body)
    except MalformedProof as exc:
        raise DecodeError(str(exc)) from exc


def _check_event(digest: Digest, snapshot: Snapshot) -> None:
    if snapshot.event_digest != digest:
        raise VerificationError("a snapshot of another event", digest.hex(), snapshot.event_digest.hex())


def _check_events(digests: Sequence[Digest], snapshots: Sequence[Snapshot]) -> None:
    if len(snapshots) != len(digests):
        raise VerificationError("a wrong number of snapshots", str(len(digests)), str(len(snapshots)))
    for digest, found in zip(digests, snapshots, strict=True):
        _check_event(digest, found)


def _check_one_batch(snapshots: Sequence[Snapshot]) -> None:
    """Events added together have consecutive versions and one hyper digest."""
    for first, second in pairwise(snapshots):
        if second.version != first.version + 1:
            raise VerificationError("versions not consecutive", str(first.version + 1), str(second.version))
        if second.hyper_digest != first.hyper_digest:
            raise VerificationError(
                "two hyper digests in one bulk", first.hyper_digest.hex(), second.hyper_digest.hex()
            )


def _check_asked(digest: Digest, version: int | None, proof: MembershipProof | AbsenceProof) -> None:
    if proof.key_digest != digest:
        raise VerificationError("a proof for another event", digest.hex(), proof.key_digest.hex())
    asked = proof.current_version if version is None else min(version, proof.current_version)
    if proof.query_version != asked:
        raise VerificationError("a proof at another version", str(asked), str(proof.query_version))


def plain(text: str) -> str:
    """Return a server's text, safe to print: one line, bounded, no control characters."""
    shown = printable(text[: _MESSAGE_LIMIT + 1])
    return shown if len(shown) <= _MESSAGE_LIMIT else f"{beginning(shown, _MESSAGE_LIMIT - 4)} ..."


def protocol_error(answer: Answer, what: str) -> ProtocolError:
    """Return the exception for an answer outside the protocol; `what` continues "URL answered STATUS"."""
    return ProtocolError(f"{answer.url} answered {answer.status} {what}", status=answer.status, body=answer.body)


def error_body(answer: Answer) -> ErrorBody | None:
    """Return the reason that a server gave, or None if it gave none."""
    try:
        return ERROR_BODY.decode(answer.body)
    except DecodeError:
        return None


def refusal(answer: Answer) -> QedError:
    """Return the exception for an answer that is not a success."""
    error = error_body(answer)
    if error is None:
        kind = _REFUSALS.get(answer.status)
        if kind is None:
            return protocol_error(answer, "without an error body that this client understands")
        return kind(f"{answer.url} answered {answer.status}", status=answer.status, body=answer.body)
    found = _known_refusal(answer.status, error)
    if found is not None:
        return found
    kind = _REFUSALS.get(answer.status, ProtocolError)
    code = plain(error.error)
    said = f"{answer.url} answered {answer.status} {code}: {plain(error.message)}"
    return kind(said, status=answer.status, body=answer.body, code=code)


def _known_refusal(status: int, error: ErrorBody) -> QedError | None:
    message = plain(error.message)
    match status, error.error:
        case 409, "refused":
            return MembershipRefused(message)
        case (409, "backup" | "diverged") | (404, "unknown_backup"):
            return BackupError(message)
        case 412, "added_later" if error.first_version is not None:
            return AddedLater(message, error.first_version)
        case (412, "invalid_range" | "empty_log" | "unknown_version") | (404, "unknown_version"):
            return UnknownVersion(message)
        case 503, "signer" | "fork_guard":
            return SigningError(message)
    return None
