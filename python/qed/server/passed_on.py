"""Requests of operators that one member passes on to the leader, which checks for itself who asks.

A member sees the keys of those who call it. The leader must not believe it more than that: a request is signed with the
key of the caller, for this leader. Only a caller that has no key is known from the member alone, and the act says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from qed._limits import OPERATE
from qed.errors import MembershipRefused, QedError
from qed.server.acts import (
    ANONYMOUS,
    CERTIFICATE,
    REQUESTED,
    KeyCreated,
    KeyRevoked,
    SecretChanged,
    TokenCreated,
    decode,
    encode,
    now,
    number_text,
)

if TYPE_CHECKING:
    from qed.server.acts import Act
    from qed.server.api_keys import ApiKey
    from qed.server.config import Settings
    from qed.server.handshake import LeaderRequest
    from qed.server.keys import KeyTable
    from qed.server.members import Members

__all__ = ["CallerRefused", "PassedOn", "signed"]

_PREFIX: Final = b"qed passed on 1\x00"
_MOMENT: Final = "%Y-%m-%dT%H:%M:%SZ"
_MOST_CHARACTERS: Final = 512
_ENCODER: Final = msgspec.json.Encoder()


class CallerRefused(QedError):
    """The leader does not accept the caller of a request that another member has passed on."""


def signed(request: LeaderRequest, key: ApiKey | None, cluster: str, leader: int) -> LeaderRequest:
    """Return a request with the signature of its caller.

    Args:
        request: The request.
        key: The key that the caller has presented, if it has.
        cluster: Name of the cluster.
        leader: The number of the leader: another one cannot use the signature again.
    """
    if key is None:
        return request
    request = msgspec.structs.replace(request, signer=key.id, signature=b"")
    return msgspec.structs.replace(request, signature=key.sign(_message(request, cluster, leader)))


def _message(request: LeaderRequest, cluster: str, leader: int) -> bytes:
    unsigned = msgspec.structs.replace(request, signature=b"")
    return _PREFIX + f"{cluster} {leader:016x} ".encode() + _ENCODER.encode(unsigned)


class PassedOn:
    """Checks, at the leader, the requests that other members pass on."""

    def __init__(self, settings: Settings, members: Members, keys: KeyTable) -> None:
        self._settings = settings
        self._members = members
        self._keys = keys

    def checked(self, request: LeaderRequest, sender: int) -> LeaderRequest:
        """Return a request with the author that the leader vouches for, at the time of its own clock.

        Args:
            request: An operator's request, as the member `sender` passes it on.
            sender: The number of that member.

        Raises:
            CallerRefused: The caller would be refused if it asked the leader, or it did not sign this request.
            MembershipRefused: It is to record what only a leader records, or what this version does not understand.
        """
        deed = self._deed(request.act) if request.kind == "record" else None
        if isinstance(deed, SecretChanged):
            return msgspec.structs.replace(request, act=encode(self._own_deed(deed, sender)))
        who, origin = self._caller_of(request), via(request.origin, self._members.name_of(sender))
        act = b"" if deed is None else self._act(deed, who, origin)
        return msgspec.structs.replace(request, who=who, origin=origin, act=act)

    def _caller_of(self, request: LeaderRequest) -> str:
        if not request.signer:
            return self._caller_without_key(request.who)
        message = _message(request, self._members.cluster or "", self._members.number)
        key = self._keys.signer(request.signer, message, request.signature)
        # Where operators need no key, one for something else must not keep its owner out.
        if key is None or not (OPERATE in key.roles or self._is_open):
            raise self._refused("this key: it is revoked, expired, or not for operators")
        return key.caller

    def _caller_without_key(self, who: str) -> str:
        """Return what to call somebody whom only the member that was asked can know."""
        if who == ANONYMOUS and self._is_open:
            return who
        is_certificate = who.startswith(CERTIFICATE) and who.isprintable() and len(who) <= _MOST_CHARACTERS
        if is_certificate and (self._is_open or self._settings.has_client_ca):
            return who
        raise self._refused("a caller without a valid key")

    @property
    def _is_open(self) -> bool:
        """Whether this member, the leader, is open to operators without a key."""
        settings = self._settings
        return settings.is_open or not (self._keys.has_operators or settings.has_client_ca)

    def _deed(self, body: bytes) -> Act:
        """Return the deed that an act says, all of which this version understands."""
        deed = decode(body)
        if deed is None or encode(deed) != body:
            name = self._members.own.name
            raise MembershipRefused(f"{name} leads and does not know this deed: update it first")
        return deed

    def _own_deed(self, deed: SecretChanged, sender: int) -> Act:
        """Return what a member did by itself. It speaks for no other one."""
        member = self._members.by_number.get(sender)
        if member is None or deed.member != number_text(sender):
            raise MembershipRefused("a member records only its own change of authorities")
        name, origin = member.name, member.raft_addr
        return msgspec.structs.replace(deed, who=name, origin=origin, when=now(), name=name)

    def _act(self, deed: Act, who: str, origin: str) -> bytes:
        """Return the act that an operator asks for, with its author."""
        if not isinstance(deed, REQUESTED):
            raise MembershipRefused("this deed is recorded by the leader only")
        moment = now()
        if isinstance(deed, KeyCreated | TokenCreated) and deed.expires is not None and deed.expires <= moment:
            leads = f"{self._members.own.name}, which leads, is at {moment:{_MOMENT}}"
            asked = f"that of the member that was asked at {deed.when:{_MOMENT}}"
            raise MembershipRefused(
                f"it would expire at {deed.expires:{_MOMENT}}, but the clock of {leads}, and {asked}: set the clocks"
            )
        deed = msgspec.structs.replace(deed, who=who, origin=origin, when=moment)
        if isinstance(deed, KeyRevoked):
            deed = msgspec.structs.replace(deed, may_be_last=self._settings.can_do_without_keys)
        return encode(deed)

    def _refused(self, what: str) -> CallerRefused:
        return CallerRefused(f"{self._members.own.name} leads and does not accept {what}")


def via(origin: str, member: str) -> str:
    """Return where a request came from, if a member says so, which was asked first.

    Raises:
        MembershipRefused: It is not an address.
    """
    if not origin.isprintable() or not origin.isascii() or len(origin) > _MOST_CHARACTERS:
        raise MembershipRefused("expected the address of the caller")
    return f"{origin} via {member}"
