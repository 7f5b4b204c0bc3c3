"""The public keys of members that were removed: their certificates admit nobody any more.

A certificate of the operator's own authority outlives the member that it was for, and nobody may have kept a list of
those to revoke. So the history is that list: it names the key of every member that was admitted and removed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qed.server.acts import Admitted, Announced, Founded, Recovered, Removed, Replaced

if TYPE_CHECKING:
    from qed.server.acts import Act

__all__ = ["FormerKeys"]


class FormerKeys:
    """The keys of former members, as SHA-256, which are folded from the acts of the cluster."""

    def __init__(self) -> None:
        self._keys_of: dict[str, set[bytes]] = {}
        """All keys that each member has had, by its number."""
        self._numbers: dict[str, str] = {}
        """The number of each member, by its name."""
        self._survived: dict[str, set[bytes]] = {}
        """The keys of a survivor, by its name: it has a new number, which the next act about it names."""
        self._former: set[bytes] = set()

    def __contains__(self, key: bytes) -> bool:
        return key in self._former

    def fold(self, act: Act | None) -> None:
        """Apply the next act of the history; those that are not about members change nothing."""
        match act:
            case Founded() | Admitted() | Announced():
                self._begin(act.member, act.name, act.key)
            case Removed():
                self._end(act.member, act.name, act.key)
            case Replaced():
                self._end(act.replaced, act.name, act.replaced_key)
                self._begin(act.member, act.name, act.key)
            case Recovered():
                number = self._numbers.pop(act.name, "")
                self._survived.setdefault(act.name, set()).update(self._keys_of.pop(number, set()))

    def _begin(self, member: str, name: str, key: bytes | None) -> None:
        self._numbers[name] = member
        keys = self._keys_of.setdefault(member, set())
        keys |= self._survived.pop(name, set())
        if key is not None:
            keys.add(key)
            # An operator may replace a lost member by one with the same certificate.
            self._former.discard(key)

    def _end(self, member: str, name: str, key: bytes | None) -> None:
        self._former |= self._keys_of.pop(member, set()) | self._survived.pop(name, set())
        if key is not None:
            self._former.add(key)
