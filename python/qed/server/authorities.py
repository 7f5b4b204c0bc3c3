"""Whose certificates each member accepts, as the history has it: a change of the cluster secret is an act.

Only a member itself knows its files, so each records its own change, through the leader. A member that cannot reach the
others, because its secret is not theirs, cannot record it either: nobody talks to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qed.server.acts import Admitted, Founded, Rebuilt, Recovered, Replaced, Restored, SecretChanged, now, number_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from qed.server.acts import Act
    from qed.server.members import Members

__all__ = ["Authorities"]


class Authorities:
    """The authorities that members accept, folded from the acts of the cluster, and those that this one does."""

    def __init__(self, members: Members, accepted: Callable[[], tuple[bytes, ...]]) -> None:
        """Follow the history from its beginning on.

        Args:
            members: The members, as this one knows them.
            accepted: Returns the SHA-256 of the public keys of the authorities that this member accepts, sorted.
        """
        self._members = members
        self._accepted = accepted
        self._first: list[bytes] | None = None
        """What members accept that the history does not mention: those of a cluster that is older than this record."""
        self._latest: list[bytes] | None = None
        self._is_begun = False
        self._of: dict[str, list[bytes]] = {}
        """What members accept, by their numbers."""

    def own(self) -> list[bytes]:
        """Return the authorities that this member accepts, as acts name them."""
        return list(self._accepted())

    def fold(self, act: Act | None) -> None:
        """Apply the next act of the history; those that are not about members or authorities change nothing."""
        self._is_begun = True
        match act:
            case Founded() if act.authorities is not None:
                self._note(act.member, act.authorities)
            case SecretChanged():
                self._note(act.member, act.authorities)
            case Admitted() | Replaced() if self._latest is not None:
                # It was admitted by its certificate, so it accepts those that the others do.
                self._of[act.member] = self._latest
            case Restored() | Rebuilt() | Recovered():
                self._first = self._latest

    def change(self) -> SecretChanged | None:
        """Return the act that this member has to record: it accepts others than the history says. None if it does not.

        A history that mentions no authorities is one of an earlier build. Its leader records the first, if there are
        acts at all: members of the first builds would stop at one.
        """
        members, accepted = self._members, self.own()
        known = self._of.get(number_text(members.number), self._first)
        is_told = known is not None or (self._is_begun and members.is_leader)
        if known == accepted or not is_told:
            return None
        own = members.own
        return SecretChanged(
            who=own.name,
            origin=own.raft_addr,
            when=now(),
            name=own.name,
            member=number_text(members.number),
            authorities=accepted,
        )

    def _note(self, member: str, authorities: list[bytes]) -> None:
        self._latest = self._of[member] = authorities
        if self._first is None:
            self._first = authorities
