"""The requests of clients, counted: by call and status, and how long they took."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from qed.server.durations import Durations
from qed.server.families import gauge, histogram

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qed.server.families import Family


__all__ = ["SUCCESS", "Calls"]

SUCCESS: Final = "2xx"
"""The status of everything that ends well, also of 304."""


class Calls:
    """How many requests there were, and how long they took.

    Attributes:
        under_way: How many are being answered.
    """

    def __init__(self) -> None:
        self.under_way = 0
        self._times: defaultdict[tuple[str, str], Durations] = defaultdict(Durations)

    def times(self, call: str, status: str) -> Durations:
        """Return where requests are counted.

        Args:
            call: The path of the call, as in its route: there are few.
            status: `SUCCESS`, or the status of an answer that is none.
        """
        return self._times[call, status]

    def families(self) -> Iterator[Family]:
        """Yield what was counted."""
        yield histogram(
            "http_request_duration_seconds",
            "From the head of a request until its answer was given to the connection.",
            ((times, *labels) for labels, times in self._times.items() if any(times.counts)),
            labels=("call", "status"),
        )
        yield gauge("http_requests_in_flight", "Requests that are being answered.", (self.under_way,))
