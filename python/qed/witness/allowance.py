"""How many checkpoints of each log are cosigned: a bucket of tokens that fills at the rate of the log."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Allowance"]

_DAY_S: Final = 86_400.0
_LEAST_TOKENS: Final = 10.0
"""A log that may send few checkpoints a day still needs some for retries."""
_HOURS: Final = 24


class Allowance:
    """What one log may have cosigned. The bucket holds the tokens of an hour, and is full at first."""

    def __init__(self, per_day: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_day / _DAY_S
        self._room = max(per_day / _HOURS, _LEAST_TOKENS)
        self._clock = clock
        self._tokens, self._counted_at = self._room, clock()

    def wait_s(self) -> int:
        """Return after how many whole seconds the next checkpoint can be cosigned: 0 if at once."""
        moment = self._clock()
        self._tokens = min(self._tokens + (moment - self._counted_at) * self._per_s, self._room)
        self._counted_at = moment
        return 0 if self._tokens >= 1 else max(math.ceil((1 - self._tokens) / self._per_s), 1)

    def take(self) -> None:
        """Count one checkpoint that was cosigned."""
        self._tokens -= 1
