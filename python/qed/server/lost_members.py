"""The members that operators have given up for lost, folded from the acts: others may take their places."""

from __future__ import annotations

import time
from typing import Final

from qed.server.acts import Act, GivenUp, Removed, Replaced, number_text

__all__ = ["LostMembers"]

_REPLACEABLE_S: Final = 600
"""How long a server may take the place of a member after an operator has said so."""


class LostMembers:
    """The members that operators have given up for lost, as this member knows them."""

    def __init__(self) -> None:
        self._given_up: dict[str, GivenUp] = {}

    def fold(self, act: Act | None) -> None:
        """Apply the next act of the history; those that are not about lost members change nothing."""
        match act:
            case GivenUp():
                self._given_up[act.name] = act
            case Replaced() | Removed():
                self._given_up.pop(act.name, None)

    def may_be_replaced(self, name: str, number: int) -> bool:
        """Return whether an operator has given up this very member within the last minutes.

        It may have returned since then, which the leader checks.

        Args:
            name: Its name.
            number: Its number. Another member may have had the name before.
        """
        act = self._given_up.get(name)
        if act is None or act.member != number_text(number):
            return False
        return time.time() < act.when.timestamp() + _REPLACEABLE_S
