"""Requests that wait for the replica, by ticket: each gets its result, or the reason that there is none."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from qed.errors import Overloaded, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qed._qed import Added

__all__ = ["ADD", "PROOF", "READ", "TASK", "Kind", "Waiting", "complete", "delays"]

T = TypeVar("T")

_SWEEP_INTERVAL_S: Final = 0.5
"""How late a time-out may be. All waiting requests share one timer: a timer each costs more than a proof."""


@dataclass(frozen=True, eq=False)
class Kind(Generic[T]):
    """A kind of request. The type parameter is the type of its result.

    Attributes:
        late: The message if there is no result in time, with a placeholder for the seconds.
    """

    late: str


ADD: Final[Kind[Added]] = Kind("not confirmed within {:g} s; the insertion may still be committed")
PROOF: Final[Kind[bytes]] = Kind("no proof within {:g} s")
READ: Final[Kind[None]] = Kind("no leader within {:g} s")
TASK: Final[Kind[None]] = Kind("not done within {:g} s")


class Waiting:
    """Futures by ticket, oldest first: all have the same time limit, so the oldest is the first to time out."""

    def __init__(self, timeout_s: float, *, max_proofs: int) -> None:
        self._timeout_s = timeout_s
        self._max_proofs = max_proofs
        self._tickets = itertools.count()
        self._entries: dict[int, tuple[asyncio.Future[Any], float, Kind[Any], Callable[[Any], None] | None, int]] = {}
        self._counts: Counter[Kind[Any]] = Counter()
        self._refusals: dict[Kind[Any], str] = {}
        # Set by `start`: getting the running loop is a system call, and every request needs it.
        self._loop: asyncio.AbstractEventLoop
        self._sweeper: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start to fail requests that have waited too long."""
        self._loop = asyncio.get_running_loop()
        self._sweeper = self._loop.call_later(_SWEEP_INTERVAL_S, self._sweep)

    def stop(self) -> None:
        """Stop the timer that fails requests."""
        if self._sweeper is not None:
            self._sweeper.cancel()

    def enter(self, kind: Kind[T], *, count: int = 1) -> tuple[int, asyncio.Future[T]]:
        """Return a new ticket, and the future of its result.

        Args:
            kind: The kind of request.
            count: As how many requests it counts.

        Raises:
            Unavailable: Requests of this kind are refused.
            Overloaded: The largest number of proofs is waiting.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        return self.enter_with(kind, future, count=count), future

    def enter_with(
        self,
        kind: Kind[T],
        future: asyncio.Future[Any],
        then: Callable[[T], None] | None = None,
        *,
        count: int = 1,
    ) -> int:
        """Return a new ticket for a future.

        Args:
            kind: The kind of request.
            future: It is completed by an exception; and by the result, if there is no `then`.
            then: Takes the result instead, and completes the future whenever it likes.
            count: As how many requests it counts. One that counts as more than may wait is accepted, too.

        Raises:
            Unavailable: Requests of this kind are refused.
            Overloaded: The largest number of proofs is waiting.
        """
        if kind in self._refusals:
            raise Unavailable(self._refusals[kind])
        if kind is PROOF and self._counts[kind] >= self._max_proofs:
            raise Overloaded(f"{self._max_proofs} proofs are waiting already")
        ticket = next(self._tickets)
        self._entries[ticket] = (future, self._loop.time(), kind, then, count)
        self._counts[kind] += count
        return ticket

    def count(self, kind: Kind[Any]) -> int:
        """Return how many requests of a kind wait."""
        return self._counts[kind]

    def leave(self, ticket: int) -> None:
        """Forget a ticket that will get no result."""
        _, _, kind, _, count = self._entries.pop(ticket)
        self._counts[kind] -= count

    def settle(self, ticket: int, result: object) -> None:
        """Complete the request of a ticket: with a value, or with the exception to raise."""
        if ticket not in self._entries:
            return  # It has timed out.
        future, _, _, then, _ = self._entries[ticket]
        self.leave(ticket)
        if future.done():
            return  # Its task was cancelled at shutdown and no longer waits.
        if then is None or isinstance(result, Exception):
            complete(future, result)
        else:
            then(result)

    def fail(self, kind: Kind[Any], reason: Callable[[], Exception]) -> None:
        """Fail every waiting request of `kind`."""
        for ticket in [ticket for ticket, (_, _, found, _, _) in self._entries.items() if found is kind]:
            self.settle(ticket, reason())

    def refuse(self, kind: Kind[Any], reason: str) -> None:
        """Fail every waiting request of `kind`, and all later ones."""
        self._refusals.setdefault(kind, reason)
        self.fail(kind, lambda: Unavailable(reason))

    def _sweep(self) -> None:
        moment = self._loop.time() - self._timeout_s
        while self._entries:
            ticket, (_, entered, kind, _, _) = next(iter(self._entries.items()))
            if entered >= moment:
                break
            self.settle(ticket, Unavailable(kind.late.format(self._timeout_s)))
        self._sweeper = self._loop.call_later(_SWEEP_INTERVAL_S, self._sweep)


def complete(future: asyncio.Future[Any], result: object) -> None:
    """Complete a future with a value, or with the exception to raise."""
    if future.done():
        return  # Its task was cancelled at shutdown and no longer waits.
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def delays(*seconds: float) -> Iterator[float]:
    """Yield how long to wait before each further attempt; the last delay repeats without end."""
    yield from seconds
    yield from itertools.repeat(seconds[-1])
