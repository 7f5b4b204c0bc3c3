"""When to ask again what has failed: after a wait that doubles, with some chance in it."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LONG", "SHORT", "BackOff", "Waits"]

_LEAST: Final = 0.5
"""The part of a wait that is certain. The rest is left to chance, so that many do not ask again together."""
_MOST_DOUBLINGS: Final = 40
"""More would be beyond every limit."""


@dataclass(frozen=True)
class Waits:
    """How long the waits are.

    Attributes:
        first_s: The first wait, in seconds. Each further one is twice as long.
        most_s: The longest.
    """

    first_s: float
    most_s: float


SHORT: Final = Waits(1.0, 600.0)
"""For what ends by itself, such as an outage."""
LONG: Final = Waits(60.0, 4 * 3600.0)
"""For what only people can repair."""


class BackOff:
    """The waits before one service is asked again."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random
    ) -> None:
        """Begin without a wait.

        Args:
            clock: Seconds that never go back.
            chance: A number from 0 up to 1.
        """
        self._clock = clock
        self._chance = chance
        self._waits = SHORT
        self._failures = 0
        self._due_at = clock()

    def wait_s(self) -> float:
        """Return how many seconds are left until the service may be asked again; 0 if it may be asked."""
        return max(0.0, self._due_at - self._clock())

    def fail(self, waits: Waits, *, least_s: float = 0.0) -> None:
        """Note a failure.

        Args:
            waits: How long the waits after such a failure are. Those of another kind begin anew.
            least_s: How long the service asked to wait.
        """
        self._failures = self._failures + 1 if waits == self._waits else 1
        self._waits = waits
        longest_s = min(waits.most_s, waits.first_s * 2.0 ** min(self._failures - 1, _MOST_DOUBLINGS))
        wait_s = longest_s * (_LEAST + (1 - _LEAST) * self._chance())
        self._due_at = self._clock() + max(wait_s, least_s)

    def reset(self) -> None:
        """Forget all failures."""
        self._failures = 0
        self._due_at = self._clock()
