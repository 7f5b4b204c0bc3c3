"""What operators and members did to the cluster: one form for each deed, recorded as JSON in the chain of acts.

The chain itself, with its hashes, is the replica's (FORMATS.md, "Acts"). This file says what an act says.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta, Struct

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qed._qed import Replica

__all__ = [
    "ANONYMOUS",
    "Act",
    "Admitted",
    "Announced",
    "Author",
    "Founded",
    "GivenUp",
    "KeyCreated",
    "KeyRevoked",
    "Promoted",
    "Recovered",
    "Removed",
    "Replaced",
    "Restored",
    "SecretChanged",
    "TokenCreated",
    "TokenUsed",
    "Transferred",
    "acts_after",
    "decode",
    "encode",
    "now",
]

ANONYMOUS: Final = "anonymous"
"""The author of a request that came without a key."""
_ACTS_AT_ONCE: Final = 1000
_MOST_BYTES: Final = 32 * 1024

_Moment = Annotated[datetime, Meta(tz=True)]


class Author(NamedTuple):
    """Who does something, and from where.

    Attributes:
        who: Name of an API key, name of a member, or `ANONYMOUS`.
        origin: The address that the request came from, `host:port`; a member's own one if nobody asked it.
    """

    who: str
    origin: str


class _Act(Struct, frozen=True, kw_only=True, tag_field="deed"):
    """What all acts have in common.

    Attributes:
        who: The author's name.
        origin: Where the request came from; `from` in JSON.
        when: The time in UTC, by the clock of the member that was asked.
    """

    who: str
    origin: str = msgspec.field(name="from")
    when: _Moment


class Founded(_Act, frozen=True, kw_only=True, tag="founded"):
    """The history begins: the only member of a cluster leads it for the first time, or for the first time with history.

    Attributes:
        name: Name of the member.
        member: Its number, 16 hexadecimal digits; likewise in all acts.
        cluster: Name of the cluster.
        events: How many events the log held.
    """

    name: str
    member: str
    cluster: str
    events: int


class Admitted(_Act, frozen=True, kw_only=True, tag="admitted"):
    """A member was admitted. It votes once it is promoted.

    Attributes:
        name: Name of the member.
        member: Its number.
        raft_addr: Where members reach it; likewise the other addresses.
        key: SHA-256 of its public key.
    """

    name: str
    member: str
    raft_addr: str
    http_addr: str
    mgmt_addr: str
    key: bytes | None = None


class Announced(_Act, frozen=True, kw_only=True, tag="announced"):
    """A member announced new addresses or a new key. One of an earlier version announces the first key that it has.

    Attributes:
        name: Name of the member.
        member: Its number.
        raft_addr: Where members reach it from here on; likewise the other addresses.
        key: SHA-256 of its public key from here on.
    """

    name: str
    member: str
    raft_addr: str
    http_addr: str
    mgmt_addr: str
    key: bytes | None = None


class Replaced(_Act, frozen=True, kw_only=True, tag="replaced"):
    """A member was removed, and another of the same name was admitted in its place.

    Attributes:
        name: Name of both.
        replaced: Number of the member that was removed.
        member: Number of the one that was admitted.
        raft_addr: Where members reach it; likewise the other addresses.
        key: SHA-256 of its public key.
    """

    name: str
    replaced: str
    member: str
    raft_addr: str
    http_addr: str
    mgmt_addr: str
    key: bytes | None = None


class GivenUp(_Act, frozen=True, kw_only=True, tag="given_up"):
    """A member was given up for lost: for some minutes, another server may take its place.

    Attributes:
        name: Name of the member.
        member: Its number.
    """

    name: str
    member: str


class Promoted(_Act, frozen=True, kw_only=True, tag="promoted"):
    """A member has caught up, and votes. The author is the leader, which noticed it.

    Attributes:
        name: Name of the member.
        member: Its number.
    """

    name: str
    member: str


class Removed(_Act, frozen=True, kw_only=True, tag="removed"):
    """A member was removed.

    Attributes:
        name: Name of the member.
        member: Its number.
    """

    name: str
    member: str


class Transferred(_Act, frozen=True, kw_only=True, tag="transferred"):
    """Leadership was to move to another member. This is recorded first; the move may still fail.

    Attributes:
        name: Name of the member that was to lead; None for any.
        leader: Name of the member that led.
    """

    name: str | None
    leader: str


class KeyCreated(_Act, frozen=True, kw_only=True, tag="key_created"):
    """An API key was made.

    Attributes:
        id: Its public part.
        name: What the operator calls it.
        roles: What it may be used for.
        hash: SHA-256 of its secret part.
        expires: When it ends to be valid; None for never.
        events_per_s: How many events it may add in a second, on each server; None for the default of the server, as in
            acts of builds that knew no rates. They skip the rates of later ones.
        requests_per_s: Likewise its requests.
    """

    id: str
    name: str
    roles: list[str]
    hash: bytes
    expires: _Moment | None = None
    events_per_s: float | None = None
    requests_per_s: float | None = None


class KeyRevoked(_Act, frozen=True, kw_only=True, tag="key_revoked"):
    """An API key was revoked.

    Attributes:
        id: Its public part.
    """

    id: str


class TokenCreated(_Act, frozen=True, kw_only=True, tag="token_created"):
    """A token was made, with which one member can join.

    Attributes:
        id: Its public part.
        name: Name of the member that may use it; None for any.
        public_key: Its public key, Ed25519, 32 bytes.
        expires: When it ends to be valid.
    """

    id: str
    name: str | None
    public_key: bytes
    expires: _Moment


class TokenUsed(_Act, frozen=True, kw_only=True, tag="token_used"):
    """A token was exchanged for a certificate, which lets one server ask for admission. The author is that server.

    Attributes:
        id: Public part of the token.
        name: Name of the server.
        member: Its number, under which alone it can be admitted.
        key: SHA-256 of its public key.
    """

    id: str
    name: str
    member: str
    key: bytes


class SecretChanged(_Act, frozen=True, kw_only=True, tag="secret_changed"):
    """The members have a new secret.

    Attributes:
        authority: SHA-256 of the public key that the new secret leads to.
    """

    authority: bytes


class Restored(_Act, frozen=True, kw_only=True, tag="restored"):
    """The log was restored from a backup, as the only member of a new cluster.

    Attributes:
        backup: Which backup.
        cluster: Name of the cluster that was backed up.
        events: How many events the backup held.
    """

    backup: str
    cluster: str
    events: int


class Recovered(_Act, frozen=True, kw_only=True, tag="recovered"):
    """A survivor of a lost majority became the only member of a new cluster. Acknowledged events may be lost.

    Attributes:
        name: Name of the survivor.
        cluster: Name of the cluster that lost its majority.
        events: How many events the survivor held.
    """

    name: str
    cluster: str
    events: int


Act: TypeAlias = (
    Founded
    | Admitted
    | Announced
    | Replaced
    | GivenUp
    | Promoted
    | Removed
    | Transferred
    | KeyCreated
    | KeyRevoked
    | TokenCreated
    | TokenUsed
    | SecretChanged
    | Restored
    | Recovered
)

_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Act)


def now() -> datetime:
    """Return the time in UTC, to the millisecond."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def encode(act: Act) -> bytes:
    """Return the JSON of an act.

    Raises:
        ValueError: It is longer than a member could pass on to the leader.
    """
    body = _ENCODER.encode(act)
    if len(body) > _MOST_BYTES:
        raise ValueError(f"expected an act of at most {_MOST_BYTES} bytes, found {len(body)}")
    return body


def decode(body: bytes) -> Act | None:
    """Return the act that a body says, or None if this build does not know such a deed: a later build wrote it."""
    try:
        act: Act = _DECODER.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return act


def acts_after(replica: Replica, index: int) -> Iterator[tuple[int, Act | None]]:
    """Yield the acts that this member has applied after the entry `index`, with their entries. Blocks.

    Yields:
        The entry and the act; None in its place if this build does not know such a deed.

    Raises:
        CorruptLog: A row cannot be read.
        LogError: The disk failed.
    """
    while found := replica.acts(index, _ACTS_AT_ONCE):
        for act in found:
            index = act.index
            yield index, decode(act.body)
