"""What operators and members did to the cluster: one form for each deed, recorded as JSON in the chain of acts.

The chain itself, with its hashes, is the replica's (FORMATS.md, "Acts"). This file says what an act says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgspec

from qed._deeds import Deed, Moment, Rebuilt, Recovered, Restored, now

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qed._qed import Replica
    from qed.server.api_keys import ApiKey

__all__ = [
    "ANONYMOUS",
    "CERTIFICATE",
    "REQUESTED",
    "Act",
    "Admitted",
    "Announced",
    "Author",
    "Founded",
    "GivenUp",
    "KeyCreated",
    "KeyRevoked",
    "Promoted",
    "Rebuilt",
    "Recovered",
    "Removed",
    "Replaced",
    "Restored",
    "SecretChanged",
    "Signer",
    "SignersChanged",
    "TokenCreated",
    "TokenUsed",
    "Transferred",
    "acts_after",
    "decode",
    "encode",
    "now",
    "number_text",
]

ANONYMOUS: Final = "anonymous"
"""The author of a request that came without a key."""
CERTIFICATE: Final = "certificate "
"""What the name of an author begins with that is known by its certificate."""
_ACTS_AT_ONCE: Final = 1000
_MOST_BYTES: Final = 32 * 1024


class Author(NamedTuple):
    """Who does something, and from where.

    Attributes:
        who: Name of an API key, name of a member, or `ANONYMOUS`.
        origin: The address that the request came from, `host:port`; a member's own one if nobody asked it.
        key: The API key that it has presented, with which it signs what is passed on to the leader; None without one.
    """

    who: str
    origin: str
    key: ApiKey | None = None


class _OfMember(Deed, frozen=True, kw_only=True):
    """An act about one member.

    Attributes:
        name: Name of the member.
        member: Its number, 16 hexadecimal digits; likewise in all acts.
    """

    name: str
    member: str


class _OfAddresses(_OfMember, frozen=True, kw_only=True):
    """An act that says how a member is reached, and known, from here on.

    Attributes:
        raft_addr: Where members reach it; likewise the other addresses.
        key: SHA-256 of its public key.
    """

    raft_addr: str
    http_addr: str
    mgmt_addr: str
    key: bytes | None = None


class Founded(_OfMember, frozen=True, kw_only=True, tag="founded"):
    """The history begins: the only member of a cluster leads it for the first time, or for the first time with history.

    Attributes:
        cluster: Name of the cluster.
        events: How many events the log held.
        key: SHA-256 of the public key of the member; None for one that is alone.
        authorities: As in `SecretChanged`; None from earlier builds.
    """

    cluster: str
    events: int
    key: bytes | None = None
    authorities: list[bytes] | None = None


class Admitted(_OfAddresses, frozen=True, kw_only=True, tag="admitted"):
    """A member was admitted. It votes once it is promoted."""


class Announced(_OfAddresses, frozen=True, kw_only=True, tag="announced"):
    """A member announced new addresses or a new key. One of an earlier version announces the first key that it has."""


class Replaced(_OfAddresses, frozen=True, kw_only=True, tag="replaced"):
    """A member was removed, and another of the same name was admitted in its place.

    Attributes:
        replaced: Number of the member that was removed.
        replaced_key: SHA-256 of the public key of that member; None from earlier builds.
    """

    replaced: str
    replaced_key: bytes | None = None


class GivenUp(_OfMember, frozen=True, kw_only=True, tag="given_up"):
    """A member was given up for lost: for some minutes, another server may take its place."""


class Promoted(_OfMember, frozen=True, kw_only=True, tag="promoted"):
    """A member has caught up, and votes. The author is the leader, which noticed it."""


class Removed(_OfMember, frozen=True, kw_only=True, tag="removed"):
    """A member was removed.

    Attributes:
        key: SHA-256 of its public key, with which nobody is admitted from here on; None from earlier builds.
    """

    key: bytes | None = None


class SecretChanged(_OfMember, frozen=True, kw_only=True, tag="secret_changed"):
    """A member accepts other certificates than before: it has another cluster secret, or another `--raft-tls-ca`.

    The author is that member. Each member records its own change, so a change of all is one act for each.

    Attributes:
        authorities: SHA-256 of the public keys of the authorities that it accepts from here on, sorted: one that is
            derived from a secret, or those of a file; none if it accepts no streams.
    """

    authorities: list[bytes]


class Transferred(Deed, frozen=True, kw_only=True, tag="transferred"):
    """Leadership was to move to another member. This is recorded first; the move may still fail.

    Attributes:
        name: Name of the member that was to lead; None for any.
        leader: Name of the member that led.
    """

    name: str | None
    leader: str


class KeyCreated(Deed, frozen=True, kw_only=True, tag="key_created"):
    """An API key was made.

    Attributes:
        id: Its public part.
        name: What the operator calls it.
        roles: What it may be used for.
        hash: SHA-256 of its secret part.
        public_key: The Ed25519 public key of its secret part; None for a key of an earlier build, which signs nothing.
        expires: When it ends to be valid; None for never.
        events_per_s: How many events it may add in a second, on each server; None for the default of the server, as in
            acts of builds that knew no rates. They skip the rates of later ones.
        requests_per_s: Likewise its requests.
    """

    id: str
    name: str
    roles: list[str]
    hash: bytes
    public_key: bytes | None = None
    expires: Moment | None = None
    events_per_s: float | None = None
    requests_per_s: float | None = None


class KeyRevoked(Deed, frozen=True, kw_only=True, tag="key_revoked"):
    """An API key was revoked, unless it was the last one with which others could be made (`KeyTable.refusal`).

    Attributes:
        id: Its public part.
        may_be_last: Whether operators can do without keys, as the leader was configured.
    """

    id: str
    may_be_last: bool = False


class TokenCreated(Deed, frozen=True, kw_only=True, tag="token_created"):
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
    expires: Moment


class TokenUsed(Deed, frozen=True, kw_only=True, tag="token_used"):
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


class Signer(msgspec.Struct, frozen=True):
    """A key with which the log signs.

    Attributes:
        vkey: The public key, as others need it to verify.
        since: The size of the log from which on it signs.
        until: The largest size that it may have signed, once it is retired; None before.
    """

    vkey: str
    since: int
    until: int | None


class SignersChanged(Deed, frozen=True, kw_only=True, tag="signers_changed"):
    """The log signs with other keys than before, or for the first time.

    Attributes:
        log: The name with which it signs, which never changes.
        signers: All keys that it ever had.
    """

    log: str
    signers: list[Signer]


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
    | SignersChanged
    | Restored
    | Rebuilt
    | Recovered
)

REQUESTED: Final = (KeyCreated, KeyRevoked, TokenCreated)
"""The deeds that a member records because an operator asks for them. Only a leader records others."""

_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Act)


def number_text(number: int) -> str:
    """Return the number of a member as acts and log lines have it: 16 hexadecimal digits."""
    return f"{number:016x}"


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
