"""How long things took, counted in plain numbers: less than a microsecond each."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

__all__ = ["Durations"]


class Durations:
    """A distribution of durations in seconds. Only one thread may add to it.

    Attributes:
        ends: Upper ends of its parts.
        counts: How many were in each part.
        sum: Their sum.
    """

    __slots__ = ("counts", "sum")

    ends: Final = (
        *(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
        *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
    )

    def __init__(self) -> None:
        self.counts = [0] * (len(self.ends) + 1)
        self.sum = 0.0

    def add(self, duration_s: float) -> None:
        """Count a duration."""
        self.counts[bisect_left(self.ends, duration_s)] += 1
        self.sum += duration_s
