"""Rates of callers: how many requests they may make, and how many events they may add, in a second on this server.

Each rate is a bucket of tokens that fills at that rate and holds those of one second. A request takes one token, one
for a bulk proof as many as it has keys, and an addition as many as it has events. A bulk with more than the bucket
holds is accepted when the bucket is full, and leaves a debt: what follows waits until it is paid. So every bulk is
possible, and none is faster than the rate.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from qed.errors import QedError

if TYPE_CHECKING:
    from qed.server.config import Limits

__all__ = ["UNLIMITED", "Allowance", "Allowances", "RateExceeded", "Rates"]

_MOST_KEPT: Final = 1024
"""Allowances above which those that are full are dropped. An authority may sign any number of certificates."""

_ROUNDING: Final = 1e-6
"""Tokens that may be missing: after the very wait that was named, rounding can leave a little less than it takes."""


class RateExceeded(QedError):
    """The caller has used up a rate. Nothing was done.

    Attributes:
        retry_after_s: After how many whole seconds the same request can succeed, at least 1.
    """

    def __init__(self, message: str, wait_s: float) -> None:
        self.retry_after_s = max(math.ceil(wait_s), 1)
        super().__init__(f"{message}; the next is possible in {self.retry_after_s} s")


class Rates(NamedTuple):
    """What a caller may do in a second; None is not limited.

    Attributes:
        events_per_s: Events that it may add.
        requests_per_s: Requests that it may make.
    """

    events_per_s: float | None = None
    requests_per_s: float | None = None


UNLIMITED: Final = Rates()


class _Bucket:
    """Tokens of one kind, full at first."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        # With less than one token, nothing would ever be possible.
        self._most = max(per_s, 1.0)
        self._tokens = self._most
        self._filled = time.monotonic()

    @property
    def is_full(self) -> bool:
        """Whether it holds all that it can, so that a new one is the same."""
        self._fill()
        return self._tokens >= self._most

    def spend(self, cost: int, *, taken: int = 0) -> float:
        """Take `cost` tokens and return 0, or take none and return the seconds until that is possible.

        Args:
            cost: How many tokens.
            taken: How many the same request has taken before, so that the bucket cannot be full.
        """
        self._fill()
        missing = min(cost, self._most - taken) - self._tokens
        if missing > _ROUNDING:
            return missing / self._per_s
        self._tokens -= cost
        return 0.0

    def give_back(self, cost: int) -> None:
        """Put `cost` tokens back that were taken for nothing."""
        self._tokens = min(self._tokens + cost, self._most)

    def _fill(self) -> None:
        moment = time.monotonic()
        self._tokens = min(self._tokens + (moment - self._filled) * self._per_s, self._most)
        self._filled = moment


class Allowance:
    """What one caller may still do."""

    def __init__(self, rates: Rates) -> None:
        self._rates = rates
        self._events = None if rates.events_per_s is None else _Bucket(rates.events_per_s)
        self._requests = None if rates.requests_per_s is None else _Bucket(rates.requests_per_s)

    @property
    def is_full(self) -> bool:
        """Whether nothing of it is used."""
        return all(bucket is None or bucket.is_full for bucket in (self._events, self._requests))

    def spend_request(self) -> None:
        """Count one request.

        Raises:
            RateExceeded: There were too many.
        """
        wait_s = 0.0 if self._requests is None else self._requests.spend(1)
        if wait_s > 0:
            raise RateExceeded(f"this key may make {self._rates.requests_per_s:g} requests/s on this server", wait_s)

    def spend_proofs(self, count: int) -> None:
        """Count the proofs that one request asks for, as that many requests. The first is counted already.

        Raises:
            RateExceeded: There were too many.
        """
        wait_s = 0.0 if self._requests is None else self._requests.spend(count - 1, taken=1)
        if wait_s > 0:
            raise RateExceeded(f"this key may make {self._rates.requests_per_s:g} requests/s on this server", wait_s)

    @property
    def events_at_once(self) -> int | None:
        """How many events can be added without a debt; None if that is not limited."""
        return None if self._rates.events_per_s is None else max(int(self._rates.events_per_s), 1)

    def wait_for_events(self, count: int) -> float:
        """Count events that are about to be added and return 0, or count none and return how many seconds to wait."""
        return 0.0 if self._events is None else self._events.spend(count)

    def spend_events(self, count: int) -> None:
        """Count events that are about to be added.

        Raises:
            RateExceeded: There were too many.
        """
        wait_s = self.wait_for_events(count)
        if wait_s > 0:
            raise RateExceeded(f"this key may add {self._rates.events_per_s:g} events/s on this server", wait_s)

    def give_back_events(self, count: int) -> None:
        """Count events no longer that were not accepted."""
        if self._events is not None:
            self._events.give_back(count)


class Allowances:
    """The allowances of all callers of this server that have used theirs lately."""

    def __init__(self, limits: Limits) -> None:
        self._default = Rates(limits.key_events_per_s, limits.key_requests_per_s)
        self._by_name: dict[str, Allowance] = {}

    def of(self, name: str, own: Rates) -> Allowance | None:
        """Return what the caller called `name` may still do, or None if it is not limited.

        Args:
            name: The name of a key or a certificate.
            own: Its own rates. What they leave open is limited by the defaults of this server.
        """
        if own == self._default == UNLIMITED:
            return None
        allowance = self._by_name.get(name)
        if allowance is None:
            rates = Rates(*(default if own is None else own for own, default in zip(own, self._default, strict=True)))
            if len(self._by_name) >= _MOST_KEPT:
                self._by_name = {name: kept for name, kept in self._by_name.items() if not kept.is_full}
            allowance = self._by_name[name] = Allowance(rates)
        return allowance
