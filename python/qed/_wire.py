"""The JSON forms of requests and answers, for both ends.

Field names are exact, unknown fields are ignored, byte strings travel as standard padded base64 (FORMATS.md, "JSON").
The forms of snapshots and proofs are in `qed.proofs`; this module has only what surrounds them.

Untrusted bytes are parsed once, by the decoders below, into values that cannot be wrong. For any bytes, a decoder
raises `DecodeError` and nothing else.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final, Generic, Literal, TypeAlias, TypeVar, cast

import msgspec
from msgspec import UNSET, DecodeError, Meta, Struct, UnsetType

from qed._limits import MAX_RATE_PER_S, MAX_TOKEN_TTL_S, MIN_RATE_PER_S, VERSION_LIMIT
from qed.errors import MalformedProof
from qed.proofs import Digest, Snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "ACCEPTS_DIGESTS",
    "ADD_BULK_REQUEST",
    "ADD_REQUEST",
    "BULK_MEMBERSHIP_REQUEST",
    "CLUSTER",
    "CREATED_KEY",
    "DIGEST_MEMBERSHIP_REQUEST",
    "ENCODER",
    "ERROR_BODY",
    "HISTORY",
    "INCREMENTAL_REQUEST",
    "INFO",
    "JOIN_TOKEN",
    "KEPT_BACKUP",
    "KEPT_BACKUPS",
    "KEYS",
    "KEY_REQUEST",
    "MEMBERSHIP_REQUEST",
    "MEMBER_REQUEST",
    "RECEIPT_FIELDS",
    "RETIRE_REQUEST",
    "REVOKE_REQUEST",
    "SHARDS",
    "SIGNERS",
    "STREAM_LINE",
    "TOKEN_REQUEST",
    "AddBulkRequest",
    "AddRequest",
    "BulkMembershipRequest",
    "Cluster",
    "ClusterMember",
    "CreatedKey",
    "DecodeError",
    "Decoder",
    "DigestMembershipRequest",
    "ErrorBody",
    "History",
    "HistoryRow",
    "IncrementalRequest",
    "Info",
    "JoinToken",
    "KeptBackup",
    "KeyRequest",
    "KeyRow",
    "Keys",
    "MemberRequest",
    "MembershipRequest",
    "ReceiptFields",
    "ReceiptLevel",
    "RetireRequest",
    "RevokeRequest",
    "Shard",
    "Shards",
    "SignerRow",
    "Signers",
    "StreamEnd",
    "StreamError",
    "StreamLine",
    "TokenRequest",
    "is_plain_base64",
    "snapshots_from_json",
    "version_in",
]

ACCEPTS_DIGESTS: Final = "digests"
"""Listed in `Info.accepts` if events can be added by their digests."""

# The upper bound is checked by hand in `__post_init__`: msgspec compares constraints as signed 64-bit numbers.
_Version = Annotated[int, Meta(ge=0)]
_DigestBytes = Annotated[bytes, Meta(min_length=32, max_length=32)]
_Role = Literal["append", "prove", "operate", "observe"]
ReceiptLevel: TypeAlias = Literal["committed", "witnessed"]
"""Which signed receipt somebody wants: one that the log has signed, or one that witnesses have cosigned, too."""
_Moment = Annotated[datetime, Meta(tz=True)]
_NAME_LIMIT: Final = 255
_VERSION_TEXT: Final = re.compile(r"0|[1-9][0-9]{0,19}")


def _check_version(version: int) -> None:
    if version >= VERSION_LIMIT:
        raise ValueError(f"expected a version below 2**64, found one of {version.bit_length()} bits")


def version_in(text: str) -> int:
    """Return the version in a path. Caches and logs must not see one snapshot under two names, so it has one spelling.

    Raises:
        DecodeError: It is none.
    """
    if not _VERSION_TEXT.fullmatch(text) or int(text) >= VERSION_LIMIT:
        raise DecodeError("expected a version from 0 to 2**64 - 1 in the path")
    return int(text)


class AddRequest(Struct, frozen=True, rename="pascal", omit_defaults=True):
    """The body of `POST /events`: exactly one of `event` and `event_digest`.

    Attributes:
        event: The event itself; may be empty.
        if_absent: If the event is in the log already, answer its first snapshot and add nothing.
        event_digest: The 32-byte digest of an event that is not sent.
        receipt: Which signed receipt to answer with, or None.
    """

    event: bytes | UnsetType = UNSET
    if_absent: bool = False
    event_digest: _DigestBytes | UnsetType = UNSET
    receipt: ReceiptLevel | None = None

    def __post_init__(self) -> None:
        if (self.event is UNSET) is (self.event_digest is UNSET):
            raise ValueError("expected exactly one of `Event` and `EventDigest`")

    def added(self) -> bytes | Digest:
        """Return the event or digest to add."""
        if isinstance(self.event_digest, bytes):
            return Digest(self.event_digest)
        return cast("bytes", self.event)  # `__post_init__` made sure that one is set.


class AddBulkRequest(Struct, frozen=True, rename="pascal", omit_defaults=True):
    """The body of `POST /events/bulk`: exactly one of `events` and `event_digests`.

    Attributes:
        events: At least one event, in the order of their versions.
        if_absent: As in `AddRequest`, for each event on its own.
        event_digests: At least one 32-byte digest of an event, in the order of their versions.
        receipt: As in `AddRequest`, for all events that were added.
    """

    events: Annotated[list[bytes], Meta(min_length=1)] | UnsetType = UNSET
    if_absent: bool = False
    event_digests: Annotated[list[_DigestBytes], Meta(min_length=1)] | UnsetType = UNSET
    receipt: ReceiptLevel | None = None

    def __post_init__(self) -> None:
        if (self.events is UNSET) is (self.event_digests is UNSET):
            raise ValueError("expected exactly one of `Events` and `EventDigests`")

    def added(self) -> Sequence[bytes | Digest]:
        """Return the events or digests to add, in order."""
        if isinstance(self.event_digests, list):
            return [Digest(digest) for digest in self.event_digests]
        return cast("list[bytes]", self.events)  # `__post_init__` made sure that one is set.


class ReceiptFields(Struct, frozen=True, rename="pascal"):
    """What an answer to an insertion has besides the snapshot, if a receipt was asked for.

    Attributes:
        snapshots: The snapshots of a bulk, not decoded yet.
        receipt: The receipt, likewise.
        receipt_error: Why there is none, or less than was asked for.
    """

    snapshots: msgspec.Raw | UnsetType = UNSET
    receipt: msgspec.Raw | UnsetType = UNSET
    receipt_error: str | None = None


class MembershipRequest(Struct, frozen=True, rename="pascal", omit_defaults=True):
    """The body of `POST /proofs/membership`.

    Attributes:
        key: The event.
        version: The version to prove at, or None for the latest.
    """

    key: bytes
    version: _Version | None = None

    def __post_init__(self) -> None:
        if self.version is not None:
            _check_version(self.version)


class DigestMembershipRequest(Struct, frozen=True, rename="pascal", omit_defaults=True):
    """The body of `POST /proofs/digest-membership`.

    Attributes:
        key_digest: The 32-byte digest of the event.
        version: The version to prove at, or None for the latest.
    """

    key_digest: _DigestBytes
    version: _Version | None = None

    def __post_init__(self) -> None:
        if self.version is not None:
            _check_version(self.version)


class BulkMembershipRequest(Struct, frozen=True, rename="pascal", omit_defaults=True):
    """The body of `POST /proofs/membership/bulk`: exactly one of `keys` and `key_digests`.

    Attributes:
        keys: At least one event, in any order.
        key_digests: At least one 32-byte digest of an event, in any order.
        version: None: a bulk proof is about the latest version.
    """

    keys: Annotated[list[bytes], Meta(min_length=1)] | UnsetType = UNSET
    key_digests: Annotated[list[_DigestBytes], Meta(min_length=1)] | UnsetType = UNSET
    version: None = None

    def __post_init__(self) -> None:
        if (self.keys is UNSET) is (self.key_digests is UNSET):
            raise ValueError("expected exactly one of `Keys` and `KeyDigests`")

    def asked(self) -> Sequence[bytes | Digest]:
        """Return the events or digests that are asked for."""
        if isinstance(self.key_digests, list):
            return [Digest(digest) for digest in self.key_digests]
        return cast("list[bytes]", self.keys)  # `__post_init__` made sure that one is set.


class IncrementalRequest(Struct, frozen=True, rename="pascal"):
    """The body of `POST /proofs/incremental`.

    Attributes:
        start: The earlier version.
        end: The later version. The log checks that it is not below `start`: the request is well formed either way.
    """

    start: _Version
    end: _Version

    def __post_init__(self) -> None:
        _check_version(self.start)
        _check_version(self.end)


class Info(Struct, frozen=True, kw_only=True):
    """The answer of `GET /info`: one member, as it sees itself.

    Attributes:
        node_id: Name of the member.
        raft_addr: Where its peers reach it, `host:port`.
        mgmt_addr: Where operators reach it, `host:port`.
        http_addr: Where clients reach it, `host:port`.
        metrics_addr: Where metrics are read, `host:port`.
        version: Version of the software.
        current_version: Version of the last event in its log, or None when the log is empty.
        events: How many events its log holds.
        log: Name of the log, which all members of its cluster share; empty before the member is admitted, and from
            servers that do not name it.
        accepts: What this server accepts beyond the calls that every server accepts; clients ignore unknown names.
        continues: Names of the logs that this one continues, the oldest first: it was restored from a backup, or
            recovered from one member.
    """

    node_id: str
    raft_addr: str
    mgmt_addr: str
    http_addr: str
    metrics_addr: str
    version: str
    current_version: _Version | None
    events: _Version
    log: str = ""
    accepts: list[str] = []
    continues: list[str] = []


class Shard(Struct, frozen=True, rename="camel"):
    """One member in the answer of `GET /info/shards`.

    Attributes:
        node_id: Name of the member.
        http_addr: Where clients reach it, `host:port`.
    """

    node_id: str
    http_addr: str


class Shards(Struct, frozen=True, rename="camel"):
    """The answer of `GET /info/shards`: the members and their leader.

    Attributes:
        node_id: Name of the member that answered.
        leader_id: Name of the leader, or empty when there is none.
        uri_scheme: `http` or `https`, for every member's `http_addr`.
        shards: The members by name.
    """

    node_id: str
    leader_id: str
    uri_scheme: str
    shards: dict[str, Shard]


class ClusterMember(Struct, frozen=True, kw_only=True):
    """One member in the answer of `GET /cluster`.

    Attributes:
        node_id: Name of the member.
        role: `leader`, `follower`, or `learner` for one that is catching up and does not vote yet.
        raft_addr: Where members reach it.
        http_addr: Where clients reach it.
        mgmt_addr: Where operators reach it.
        is_reachable: Whether it has answered lately; None if only the leader knows.
        entry: The last entry of the Raft log that it holds; None if only the leader knows.
    """

    node_id: str
    role: str
    raft_addr: str
    http_addr: str
    mgmt_addr: str
    is_reachable: bool | None
    entry: _Version | None


class Cluster(Struct, frozen=True, kw_only=True):
    """The answer of `GET /cluster` on the management address: the cluster as one member sees it.

    Attributes:
        node_id: Name of the member that answered.
        cluster_id: Unique name of this cluster; empty before the member is admitted.
        leader_id: Name of the leader, or empty when there is none.
        term: The Raft term, which every election raises.
        commit_index: The last entry that is known to be on a majority.
        applied_index: The last entry that is in this member's log.
        events: How many events its log holds.
        members: All members, including those that are down.
    """

    node_id: str
    cluster_id: str
    leader_id: str
    term: _Version
    commit_index: _Version
    applied_index: _Version
    events: _Version
    members: list[ClusterMember]


class HistoryRow(Struct, frozen=True):
    """One act in the answer of `GET /cluster/history`.

    Attributes:
        index: The entry of the Raft log that recorded it.
        term: The term of that entry.
        previous: The hash of the act before it, 32 bytes; zeros for the first.
        body: What it says: JSON.
    """

    index: _Version
    term: _Version
    previous: _DigestBytes
    body: bytes

    def __post_init__(self) -> None:
        _check_version(self.index)
        _check_version(self.term)


class History(Struct, frozen=True):
    """The answer of `GET /cluster/history` on the management address: some acts, in order.

    Attributes:
        node_id: Name of the member that answered.
        cluster_id: Unique name of this cluster; empty before the member is admitted.
        acts: The next acts after the entry that was asked for; none after the last.
    """

    node_id: str
    cluster_id: str
    acts: list[HistoryRow]


class KeyRequest(Struct, frozen=True, rename="pascal", omit_defaults=True):
    """The body of `POST /keys`.

    Attributes:
        roles: What the key may be used for, at least one.
        name: What the operator calls it: printable, at most 255 characters.
        expires: When it expires, in ISO 8601 with a time zone; None for never.
        events_per_s: How many events it may add in a second on each server, `MIN_RATE_PER_S` to `MAX_RATE_PER_S`; None
            for what the server grants to keys by default.
        requests_per_s: Likewise its requests.
    """

    roles: list[_Role]
    name: str = ""
    expires: str | None = None
    events_per_s: float | None = None
    requests_per_s: float | None = None

    def __post_init__(self) -> None:
        for rate in (self.events_per_s, self.requests_per_s):
            if rate is not None and not MIN_RATE_PER_S <= rate <= MAX_RATE_PER_S:
                raise ValueError(
                    f"expected a rate from {MIN_RATE_PER_S:g} to {MAX_RATE_PER_S} a second, found {rate:g}"
                )
        if not self.roles or len(set(self.roles)) < len(self.roles):
            raise ValueError("expected at least one role, and each once")
        if len(self.name) > _NAME_LIMIT or not self.name.isprintable():
            raise ValueError(f"expected a printable name of at most {_NAME_LIMIT} characters")
        _ = self.ends()

    def ends(self) -> datetime | None:
        """Return when the key expires."""
        if self.expires is None:
            return None
        ends = datetime.fromisoformat(self.expires)
        if ends.tzinfo is None:
            raise ValueError("expected a time with a time zone, such as 2030-01-31T12:00:00Z")
        try:
            return ends.astimezone(UTC)
        except OverflowError:
            raise ValueError("expected a time before the year 10000") from None


class SignerRow(Struct, frozen=True, rename="pascal"):
    """A key of the log.

    Attributes:
        vkey: The public key, as others need it to verify.
        since: The size of the log from which on it signs.
        until: The largest size that it may have signed, once it is retired; None before.
    """

    vkey: str
    since: _Version
    until: _Version | None


class Signers(Struct, frozen=True, rename="pascal"):
    """The answer to `GET /signers`.

    Attributes:
        log: The name with which the log signs; None if it never has.
        signers: All keys that it ever had under this name.
    """

    log: str | None
    signers: list[SignerRow]


class RetireRequest(Struct, frozen=True, rename="pascal"):
    """The body of `POST /signers/retire`.

    Attributes:
        id: The id of the key.
    """

    id: Annotated[str, Meta(pattern="^[0-9a-f]{8}$")]


class RevokeRequest(Struct, frozen=True, rename="pascal"):
    """The body of `POST /keys/revoke`.

    Attributes:
        id: The public part of the key.
    """

    id: str


class CreatedKey(Struct, frozen=True, rename="pascal"):
    """The answer of `POST /keys`. The key itself is shown only here.

    Attributes:
        id: Its public part, by which it is listed and revoked.
        key: The whole key, to be sent with requests.
        name: What the operator calls it.
        roles: What it may be used for.
        expires: When it expires; None for never.
        events_per_s: How many events it may add in a second on each server; None for the server's default. Servers that
            know no rates say nothing of them.
        requests_per_s: Likewise its requests.
    """

    id: str
    key: str
    name: str
    roles: list[str]
    expires: _Moment | None
    events_per_s: float | None = None
    requests_per_s: float | None = None


class KeyRow(Struct, frozen=True, rename="pascal"):
    """A key in the answer of `GET /keys`.

    Attributes:
        id: Its public part.
        name: What the operator calls it.
        roles: What it may be used for.
        created: When it was made.
        created_by: Who made it.
        expires: When it expires; None for never.
        is_revoked: Whether it was revoked.
        last_used: When a member last accepted it, as far as the member that answers knows; None if it knows of no use.
        events_per_s: As in `CreatedKey`.
        requests_per_s: As in `CreatedKey`.
    """

    id: str
    name: str
    roles: list[str]
    created: _Moment
    created_by: str
    expires: _Moment | None
    is_revoked: bool
    last_used: _Moment | None
    events_per_s: float | None = None
    requests_per_s: float | None = None


class Keys(Struct, frozen=True, rename="pascal"):
    """The answer of `GET /keys` and `POST /keys/revoke` on the management address.

    Attributes:
        node_id: Name of the member that answered.
        is_open: Whether its clients need no key.
        is_management_open: Whether its operators need none.
        refused: How many requests it has refused since it started, by the code of the answer.
        keys: All keys that were ever made.
        default_events_per_s: How many events a key without a rate of its own may add in a second on this member; None
            if that is not limited.
        default_requests_per_s: Likewise its requests.
        unanswered: Names of the members that did not say when they last accepted keys; None from a server that does not
            ask the others.
    """

    node_id: str
    is_open: bool
    is_management_open: bool
    refused: dict[str, int]
    keys: list[KeyRow]
    default_events_per_s: float | None = None
    default_requests_per_s: float | None = None
    unanswered: list[str] | None = None


class MemberRequest(Struct, frozen=True):
    """The body of `POST /cluster/remove` and `POST /cluster/transfer`.

    Attributes:
        name: Name of a member; None means any member, for a transfer.
    """

    name: str | None = None


class KeptBackup(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="pascal"):
    """One backup that a server keeps or makes, in the answers of `GET /backups` and `POST /backup`.

    The first five fields are those of BBVA QED.

    Attributes:
        id: Its number.
        timestamp: When it was begun, in seconds since 1970.
        size: Its bytes.
        num_files: 1.
        metadata: The last version in it, as text; empty if there is none.
        node_id: Name of the member.
        log: Name of the log.
        events: Events of the log once it is restored.
        base: The identity of the backup that it continues, in hex; None if it begins with the first event.
        identity: Hash of all of it, in hex; empty while it is being made.
        total_events: Only while it is being made: the events of the log, of which the backup has `events` by now.
    """

    id: int = msgspec.field(name="ID")
    timestamp: int
    size: int
    num_files: int
    metadata: str
    node_id: str
    log: str
    events: _Version
    base: str | None
    identity: str
    total_events: _Version | None = None


class TokenRequest(Struct, frozen=True):
    """The body of `POST /cluster/token`.

    Attributes:
        ttl_s: For how many seconds the token is to be valid.
        name: Node id of the server that may use it; None for any.
    """

    ttl_s: Annotated[int, Meta(ge=1, le=MAX_TOKEN_TTL_S)]
    name: str | None = None


class JoinToken(Struct, frozen=True):
    """A token with which one server can join: the answer to `POST /cluster/token`.

    Attributes:
        id: Its public part, by which the history of the cluster names it.
        token: The whole token, which is a secret.
        expires: When it ends to be valid, in UTC.
        name: Node id of the server that may use it; None for any.
    """

    id: str = msgspec.field(name="Id")
    token: str = msgspec.field(name="Token")
    expires: Annotated[datetime, Meta(tz=True)] = msgspec.field(name="Expires")
    name: str | None = msgspec.field(name="Name")


class ErrorBody(Struct, frozen=True, omit_defaults=True):
    """The body of every answer that is not a success.

    Attributes:
        error: A code for programs, such as `malformed` or `too_large`.
        message: The reason in words.
        first_version: With `added_later`, the version at which the event was first added.
    """

    error: str
    message: str
    first_version: _Version | None = msgspec.field(default=None, name="FirstVersion")

    def __post_init__(self) -> None:
        if self.first_version is not None:
            _check_version(self.first_version)


class StreamEnd(Struct, frozen=True, rename="pascal"):
    """The last line of the answer to a stream that has ended well.

    Attributes:
        done: How many lines were acknowledged: all.
    """

    done: _Version


class StreamError(
    Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename={
        "error": "error",
        "message": "message",
        "acknowledged": "Acknowledged",
        "unknown": "Unknown",
        "line": "Line",
        "retry_after": "RetryAfter",
    },
):
    """The last line of the answer to a stream that has ended early.

    Attributes:
        error: A code for programs.
        message: The reason in words.
        acknowledged: How many lines were acknowledged. They are in the log.
        unknown: How many lines after those may be in the log, now or later. All lines after these were not added.
        line: The number of the line that is wrong, from 1; None if no line is.
        retry_after: After how many seconds the next event can be added, if that is known.
    """

    error: str
    message: str
    acknowledged: _Version
    unknown: _Version
    line: _Version | None = None
    retry_after: _Version | None = None


class StreamLine(
    Struct,
    frozen=True,
    rename={
        "error": "error",
        "message": "message",
        "done": "Done",
        "acknowledged": "Acknowledged",
        "unknown": "Unknown",
        "line": "Line",
        "retry_after": "RetryAfter",
        "receipt": "Receipt",
        "receipt_error": "ReceiptError",
    },
):
    """A line of the answer to a stream that is not a snapshot: a receipt, or one of the two last lines.

    Attributes:
        receipt: The receipt of the snapshots before it, not decoded yet.
        receipt_error: Why there is none.
        done: As in `StreamEnd`.
        error: As in `StreamError`; likewise the others.
        message: See there.
        acknowledged: See there.
        unknown: See there.
        line: See there.
        retry_after: See there.
    """

    receipt: msgspec.Raw | UnsetType = UNSET
    receipt_error: str | None = None
    done: _Version | None = None
    error: str | None = None
    message: str = ""
    acknowledged: _Version = 0
    unknown: _Version = 0
    line: _Version | None = None
    retry_after: _Version | None = None

    def __post_init__(self) -> None:
        if [self.receipt is UNSET, self.done is None, self.error is None].count(False) != 1:
            raise ValueError("expected one of `Receipt`, `Done` and `error`")


_T = TypeVar("_T")


class Decoder(Generic[_T]):
    """Parses the JSON of one form.

    msgspec raises two other exceptions: RecursionError for deep nesting, UnicodeDecodeError for text that is not UTF-8.
    A server that did not catch them would answer 500, so both become `DecodeError` here.
    """

    __slots__ = ("_decoder",)

    def __init__(self, form: type[_T]) -> None:
        self._decoder = msgspec.json.Decoder(form)

    def decode(self, body: bytes) -> _T:
        """Return the value in `body`.

        Args:
            body: Untrusted bytes.

        Returns:
            The value, complete and within its limits.

        Raises:
            DecodeError: `body` is not JSON, is not of this form, or is nested too deeply.
        """
        try:
            return self._decoder.decode(body)
        except RecursionError:
            raise DecodeError("expected a flat body, found one nested too deeply") from None
        except UnicodeDecodeError as exc:
            raise DecodeError("expected utf-8 text") from exc


class RequestDecoder(Decoder[_T]):
    """Parses the JSON of a request, in which each field occurs once and each byte string is canonical base64.

    msgspec uses the last of two equal fields, and drops unused bits of the last base64 character. A proxy that signs,
    compares or limits the text of a request could then see another request than the log does.
    """

    __slots__ = ("_defaults", "_field", "_names")

    def __init__(self, form: type[_T]) -> None:
        super().__init__(form)
        fields = msgspec.structs.fields(form)  # type: ignore[arg-type]  # the forms of requests are structs
        self._defaults = [(field.name, field.default) for field in fields]
        self._names = [field.encode_name for field in fields]
        self._field = re.compile(rb'(?<!\\)"(%s)"\s*:' % "|".join(self._names).encode())

    def decode(self, body: bytes) -> _T:
        """Return the value in `body`.

        Args:
            body: Untrusted bytes.

        Returns:
            The value, complete and within its limits.

        Raises:
            DecodeError: As for `Decoder`, or a field is duplicated, or a byte string has unused bits that are set, or
                there are more than 1,000 colons.
        """
        if body.count(b":") > _MOST_COLONS:
            # While millions of fields are looked at, this process does nothing else.
            raise DecodeError(f"expected at most {_MOST_COLONS} fields")
        value = super().decode(body)
        is_escaped = b"\\" in body
        # Ordinary requests fail both quick tests, which look only at colons, escapes and padding.
        if is_escaped or self._may_repeat_a_field(body, value):
            self._require_each_field_once(body)
        if is_escaped or _DOUBTFUL_PADDING.search(body):
            _require_canonical(body, value)
        return value

    def _may_repeat_a_field(self, body: bytes, value: _T) -> bool:
        # Base64 has no colons, so there is one a field. If there are more than the fields that differ from their
        # defaults, some fields are unknown, duplicated or explicit defaults.
        colons = body.count(b":")
        return colons > 1 and colons > sum(getattr(value, name) is not default for name, default in self._defaults)

    def _require_each_field_once(self, body: bytes) -> None:
        """Check that no field of this form is duplicated. Fields inside the values of unknown fields do not count."""
        counted = self._count_fields(body)
        repeated = [name for name, count in counted.items() if count > 1]
        values = _FIELDS.decode(body).values() if repeated else ()
        for name in repeated:
            if counted[name] - sum(self._count_fields(bytes(value))[name] for value in values) > 1:
                raise DecodeError(f"expected each field once, found two of `{name}`")

    def _count_fields(self, text: bytes) -> Counter[str]:
        """Return how often each field of this form occurs in valid JSON, at any depth."""
        # A match cannot start at the closing quote of a string, because a name never lies between two strings. It
        # cannot start at an escaped quote either.
        counted = Counter(name.decode() for name in self._field.findall(text))
        if b"\\" in text:
            names = Counter(msgspec.json.decode(name) for name in _ESCAPED_NAME.findall(text))
            counted.update({name: names[name] for name in self._names})
        return counted


_MOST_COLONS: Final = 1000

# A string with an escape in it, before a colon. The quantifiers are possessive, so that no memory goes to backtracking.
_ESCAPED_NAME: Final = re.compile(rb'(?<!\\)("[^"\\]*+(?:\\.[^"\\]*+)++")\s*:')

# A padded group whose last character has unused bits that are set. It may be in an unknown field, and an escape may
# hide one, so a match only means that a closer check is needed.
_DOUBTFUL_PADDING: Final = re.compile(rb"=(?:=(?<![AQgw]==)|(?<![AEIMQUYcgkosw048=]=))")


def is_plain_base64(body: bytes) -> bool:
    """Return whether no byte string in `body` can have unused bits that are set, or be written with escapes."""
    return b"\\" not in body and _DOUBTFUL_PADDING.search(body) is None


def _require_canonical(body: bytes, value: object) -> None:
    """Check that each byte string in `body` is written as the encoder would write it."""
    found = _FIELDS.decode(body)
    for name, text in msgspec.to_builtins(value).items():
        if isinstance(text, str | list) and msgspec.json.decode(found[name]) != text:
            raise DecodeError(f"expected base64 whose unused bits are zero - at `$.{name}`")


ADD_REQUEST: Final = RequestDecoder(AddRequest)
ADD_BULK_REQUEST: Final = RequestDecoder(AddBulkRequest)
MEMBERSHIP_REQUEST: Final = RequestDecoder(MembershipRequest)
DIGEST_MEMBERSHIP_REQUEST: Final = RequestDecoder(DigestMembershipRequest)
BULK_MEMBERSHIP_REQUEST: Final = RequestDecoder(BulkMembershipRequest)
INCREMENTAL_REQUEST: Final = RequestDecoder(IncrementalRequest)
RECEIPT_FIELDS: Final = Decoder(ReceiptFields)
INFO: Final = Decoder(Info)
SHARDS: Final = Decoder(Shards)
CLUSTER: Final = Decoder(Cluster)
HISTORY: Final = Decoder(History)
KEYS: Final = Decoder(Keys)
KEY_REQUEST: Final = RequestDecoder(KeyRequest)
REVOKE_REQUEST: Final = RequestDecoder(RevokeRequest)
RETIRE_REQUEST: Final = RequestDecoder(RetireRequest)
SIGNERS: Final = Decoder(Signers)
CREATED_KEY: Final = Decoder(CreatedKey)
MEMBER_REQUEST: Final = RequestDecoder(MemberRequest)
TOKEN_REQUEST: Final = RequestDecoder(TokenRequest)
JOIN_TOKEN: Final = Decoder(JoinToken)
KEPT_BACKUP: Final = Decoder(KeptBackup)
KEPT_BACKUPS: Final = Decoder(list[KeptBackup])
ERROR_BODY: Final = Decoder(ErrorBody)
STREAM_LINE: Final = Decoder(StreamLine)
ENCODER: Final = msgspec.json.Encoder()

_ARRAY: Final = Decoder(list[msgspec.Raw])
_FIELDS: Final = Decoder(dict[str, msgspec.Raw])


def snapshots_from_json(body: bytes) -> list[Snapshot]:
    """Return the snapshots of a JSON array, in its order.

    Args:
        body: Untrusted bytes.

    Returns:
        One snapshot an element; an empty array gives an empty list.

    Raises:
        MalformedProof: `body` is not an array, or an element is not a snapshot.
    """
    try:
        elements = _ARRAY.decode(body)
    except DecodeError as exc:
        raise MalformedProof(f"not an array of snapshots: {exc}") from exc
    return [Snapshot.from_json(bytes(element)) for element in elements]
