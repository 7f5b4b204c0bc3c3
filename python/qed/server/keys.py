"""The table of all API keys, which is folded from the acts of the cluster."""

from __future__ import annotations

import heapq
import hmac
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from qed._limits import OPERATE
from qed.server.acts import Act, KeyCreated, KeyRevoked
from qed.server.api_keys import ApiKey, is_signed
from qed.server.rates import Rates

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Key", "KeyTable"]

_NO_HASH: Final = bytes(32)
"""Compared with if there is no such key, so that the time of an answer does not say which ids exist."""


@dataclass(slots=True)
class Key:
    """One key of the table.

    Attributes:
        created: The act that made it.
        caller: What acts and log lines call it. It begins with its id, since anyone may choose a name.
        roles: What it may be used for.
        rates: Its own rates.
        ends: When it expires, in seconds since 1970.
        is_revoked: Whether it was revoked.
        last_used: When a member last accepted it, in seconds since 1970, as far as this one knows; None if it knows of
            no use. It is not stored.
    """

    created: KeyCreated
    caller: str
    roles: frozenset[str]
    rates: Rates
    ends: float
    is_revoked: bool = False
    last_used: float | None = None

    @staticmethod
    def of(act: KeyCreated) -> Key:
        """Return the key that an act made."""
        ends = math.inf if act.expires is None else act.expires.timestamp()
        caller = f"key {act.id} ({act.name})" if act.name else f"key {act.id}"
        return Key(act, caller, frozenset(act.roles), Rates(act.events_per_s, act.requests_per_s), ends)

    def is_valid(self, moment: float) -> bool:
        """Return whether it is neither revoked nor expired at `moment`, in seconds since 1970."""
        return not self.is_revoked and moment < self.ends


class KeyTable:
    """All keys that were ever made, as this member knows them.

    Attributes:
        has_keys: Whether any key was ever made.
        has_operators: Whether any key with the role `operate` was ever made. Neither becomes false again: if the last
            key is revoked or expires, a server must not open to everyone.
    """

    def __init__(self) -> None:
        self._by_id: dict[bytes, Key] = {}
        # By the text of the key. Each key has one text, so there are no more entries than keys.
        self._recognised: dict[bytes, Key] = {}
        self.has_keys = False
        self.has_operators = False

    def fold(self, act: Act | None) -> None:
        """Apply the next act of the history; those that are not about keys change nothing."""
        match act:
            case KeyCreated():
                self._by_id.setdefault(act.id.encode(), Key.of(act))
                self.has_keys = True
                self.has_operators |= OPERATE in act.roles
            case KeyRevoked() if self.refusal(act) is None:
                self._by_id[act.id.encode()].is_revoked = True

    def __iter__(self) -> Iterator[Key]:
        return iter(self._by_id.values())

    def find(self, public: str) -> Key | None:
        """Return the key with this id, valid or not."""
        return self._by_id.get(public.encode())

    def recognise(self, text: bytes) -> Key | None:
        """Return the valid key that a request presents, and note that it was used; None for anything else.

        Args:
            text: Untrusted bytes.
        """
        # A key is examined once, then found by its text. A dict compares texts only if their 64-bit hashes are equal,
        # which depend on a secret of this process, so the time of an answer says nothing about a guess.
        key = self._recognised.get(text)
        moment = time.time()
        if key is None or not key.is_valid(moment):
            self._recognised.pop(text, None)
            key = self._examine(text)
            if key is None or not key.is_valid(moment):
                return None
            self._recognised[text] = key
        key.last_used = moment
        return key

    def _examine(self, text: bytes) -> Key | None:
        presented = ApiKey.parse(text)
        if presented is None:
            return None
        key = self.find(presented.id)
        is_right = hmac.compare_digest(presented.hash, _NO_HASH if key is None else key.created.hash)
        return key if is_right else None

    def uses(self, most: int) -> dict[str, int]:
        """Return when keys were last accepted, in seconds since 1970, by id: the `most` that were used last."""
        used = ((key.last_used, key.created.id) for key in self if key.last_used is not None)
        return {public: int(moment) for moment, public in heapq.nlargest(most, used)}

    def note_uses(self, uses: Mapping[str, int]) -> None:
        """Note when another member last accepted keys. Ids that are not known are ignored.

        Args:
            uses: As `uses` returns it. A time in the future, by a clock that is ahead, is that of this call.
        """
        present = time.time()
        for public, moment in uses.items():
            key = self.find(public)
            if key is not None:
                key.last_used = max(key.last_used or 0.0, min(float(moment), present))

    def signer(self, public: str, message: bytes, signature: bytes) -> Key | None:
        """Return the valid key with which a message was signed, and note that it was used; None for anything else.

        Args:
            public: The id of the key; untrusted, as all arguments.
            message: The message.
            signature: Its signature.
        """
        key, moment = self.find(public), time.time()
        if key is None or not key.is_valid(moment) or not is_signed(key.created.public_key or b"", message, signature):
            return None
        key.last_used = moment
        return key

    def refusal(self, act: KeyRevoked) -> str | None:
        """Return why the next act of the history revokes no key, or None if it does.

        Every member decides alike: by the acts before this one, and by its own time.
        """
        key = self.find(act.id)
        if key is None:
            return "there is no key with this id"
        moment = act.when.timestamp()
        if act.may_be_last or OPERATE not in key.roles or not key.is_valid(moment):
            return None
        others = [other for other in self if other is not key and OPERATE in other.roles and other.is_valid(moment)]
        if not others:
            return "this is the last key with the role operate: make another one first"
        # One that expires would soon leave none.
        if math.isinf(key.ends) and not any(math.isinf(other.ends) for other in others):
            return "this is the last key with the role operate that does not expire: make another one first"
        return None
