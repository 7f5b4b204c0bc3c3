"""The slots of a listening address: whom each open connection belongs to, and which one gives way to a new one.

A connection belongs to the address that it comes from until a request on it is admitted with a key or a certificate,
and to that one from then on. So clients that share an address, behind a proxy or on one machine, are told apart as soon
as they show who they are.
"""

from __future__ import annotations

import ipaddress
import logging
import time
from typing import TYPE_CHECKING, Final

from qed.server.logs import Line, OncePerMinute

if TYPE_CHECKING:
    from collections.abc import Callable

    from qed.server.open_streams import OpenStream

__all__ = ["SLOT", "Slot", "Slots", "address_owner"]

_log = logging.getLogger(__name__)

SLOT: Final = "qed.slot"
"""Where a scope has the `Slot` of its connection."""

_STRANGERS_PART: Final = 8
"""One eighth of the room is for connections that were not admitted yet. They take more only while there is room, so a
flood from any number of addresses closes no connection of a key. Without a part of their own, no new client could get
in while the connections of keys use all the room."""
_QUIET_S: Final = 5.0
"""A connection that has kept the server waiting for so long gives way even to another one of the same owner. Clients
that keep connections use them more often, or close them after a few seconds; for other clients than ours, closing a
connection at the moment of the next request leaves the outcome of that request unknown."""
_IPV6_CLIENT_BITS: Final = 64
"""A client usually has as many IPv6 addresses as it likes, in one network of this size."""


def address_owner(host: str) -> str:
    """Return the owner of connections from an IP address; of IPv6, all addresses of one /64 network are one owner."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if not isinstance(address, ipaddress.IPv6Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address), _IPV6_CLIENT_BITS), strict=False))


class _Share:
    """The slots of one owner.

    Attributes:
        count: How many there are.
        waiting: Those that may give way, by the moment since when; the one that has waited longest is first.
    """

    __slots__ = ("count", "waiting")

    def __init__(self) -> None:
        self.count = 0
        self.waiting: dict[Slot, float] = {}


class _Shares:
    """Slots by their owners.

    Attributes:
        count: How many slots there are.
        by_owner: The share of each owner that has any.
    """

    def __init__(self) -> None:
        self.count = 0
        self.by_owner: dict[str, _Share] = {}

    def enter(self, owner: str) -> _Share:
        """Count one more slot of an owner, and return the owner's share."""
        share = self.by_owner.setdefault(owner, _Share())
        share.count += 1
        self.count += 1
        return share

    def leave(self, owner: str) -> None:
        """Count one slot of an owner less."""
        share = self.by_owner[owner]
        share.count -= 1
        self.count -= 1
        if not share.count:
            del self.by_owner[owner]

    def of(self, owner: str) -> int:
        """Return how many slots an owner has."""
        share = self.by_owner.get(owner)
        return 0 if share is None else share.count

    def largest(self, newcomer: str) -> _Share | None:
        """Return the largest share with a slot that may give way; the owner of a new slot has one more than it had."""
        found = [(share.count + (owner == newcomer), share) for owner, share in self.by_owner.items() if share.waiting]
        return max(found, key=lambda entry: entry[0])[1] if found else None


class Slot:
    """The slot of one connection.

    It *waits* while the client is to act: to send a request or the rest of one, or to read an answer. Only then may it
    give way: closing the connection leaves no doubt about what the server did.

    Attributes:
        owner: Whom it belongs to: an address, or the name of a caller.
        stream: The stream of events on the connection, which has time limits of its own; None if there is none.
    """

    __slots__ = ("_address", "_is_admitted", "_is_waiting", "_share", "_slots", "owner", "refuse", "stream")

    def __init__(self, slots: Slots, host: str, refuse: Callable[[int, str, str], None]) -> None:
        """Prepare the slot of a connection that comes from the IP address `host`.

        Args:
            slots: Where it is counted once it is opened.
            host: The address.
            refuse: Closes the connection while the client is to act. If an answer is due, it has the status, the code
                and the message that are passed.
        """
        self.owner = self._address = address_owner(host)
        self.refuse = refuse
        self.stream: OpenStream | None = None
        self._slots = slots
        self._is_admitted = False
        self._is_waiting = True
        self._share: _Share | None = None

    def open(self) -> bool:
        """Count it, if need be in place of another one; return whether the connection may stay."""
        if not self._slots.make_room(self._address):
            return False
        self._enter()
        return True

    @property
    def is_open(self) -> bool:
        """Whether it is counted: it was opened, and has neither been closed nor given way."""
        return self._share is not None

    def close(self) -> None:
        """Stop counting it, if it is counted."""
        if self._share is not None:
            self._share.waiting.pop(self, None)
            self._share = None
            self._group.leave(self.owner)

    def admit(self, caller: str | None) -> None:
        """Note that a request on it was admitted: for a caller, or for anyone because the server is open."""
        owner = self._address if caller is None else caller
        if self._share is None or (self._is_admitted and self.owner == owner):
            return
        self.close()
        self.owner, self._is_admitted = owner, True
        self._enter()

    def work(self) -> None:
        """Note that the server is to act: a request has arrived whole."""
        self._is_waiting = False
        if self._is_admitted and self._share is not None:
            self._share.waiting.pop(self, None)

    def wait(self) -> None:
        """Note that the client is to act."""
        self._is_waiting = True
        if self._is_admitted and self._share is not None:
            # Set again in place, the key of a dict would keep its position.
            self._share.waiting.pop(self, None)
            self._share.waiting[self] = time.monotonic()

    def note_beginning(self) -> None:
        """Note that part of a request has arrived. If the client is to act, the time that it has begins again."""
        if self._is_waiting:
            self.wait()

    @property
    def _group(self) -> _Shares:
        return self._slots.admitted if self._is_admitted else self._slots.strangers

    def _enter(self) -> None:
        self._share = self._group.enter(self.owner)
        # Nothing was done on a connection that was not admitted, so it may give way at any time.
        if self._is_waiting or not self._is_admitted:
            self._share.waiting[self] = time.monotonic()


class Slots:
    """The slots of one listening address.

    While there is room, everyone may have any number of connections. When there is none left, a new connection is given
    the place of one whose owner has most, so an owner with less than an equal part of the room loses none.

    Attributes:
        room: How many connections there may be.
        strangers: Connections on which nothing was admitted yet.
        admitted: The others.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self.strangers = _Shares()
        self.admitted = _Shares()
        self._once_per_minute = OncePerMinute()

    def make_room(self, address: str) -> bool:
        """Return whether there is room for a new connection from `address`, after another one gave way if need be."""
        if self.strangers.count + self.admitted.count < self.room:
            return True
        slot = self._least_deserving(address)
        if slot is None:
            return False
        slot.close()
        if self._once_per_minute.is_due(slot.owner, "room"):
            _log.warning(Line("connection closed to make room", owner=slot.owner, limit=self.room))
        slot.refuse(503, "unavailable", f"all {self.room} connections are in use, and another client needs one")
        return True

    def _least_deserving(self, newcomer: str) -> Slot | None:
        """Return the slot that gives way to a new one, or None if the new one is refused."""
        stranger = _first(self.strangers.largest(newcomer))
        if self.strangers.count > self.room // _STRANGERS_PART:
            return stranger
        return self._admitted_one(newcomer) or stranger

    def _admitted_one(self, newcomer: str) -> Slot | None:
        share = self.admitted.largest(newcomer)
        if share is None:
            return None
        slot, since = next(iter(share.waiting.items()))
        has_less = self.strangers.of(newcomer) + self.admitted.of(newcomer) + 1 < share.count
        return slot if has_less or time.monotonic() - since > _QUIET_S else None


def _first(share: _Share | None) -> Slot | None:
    return None if share is None else next(iter(share.waiting))
