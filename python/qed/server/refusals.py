"""What is said about those who are refused: strangers come as often as they like, and must not fill a disk with it."""

from __future__ import annotations

import time
from typing import Final

__all__ = ["Refusals"]

_SAY_AGAIN_S: Final = 60.0
_KEPT: Final = 64
"""Refusals of a minute that are said. A stranger has as many addresses as it likes."""


class Refusals:
    """Has each reason to refuse somebody said once a minute."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str], float] = {}

    def is_due(self, who: str, reason: str) -> bool:
        """Return whether to say that `who` was refused for `reason`, and take note if so."""
        moment = time.monotonic()
        self._said = {key: said for key, said in self._said.items() if moment - said < _SAY_AGAIN_S}
        if (who, reason) in self._said or len(self._said) >= _KEPT:
            return False
        self._said[who, reason] = moment
        return True
