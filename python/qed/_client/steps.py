"""Series of calls as generators: they yield calls and are sent the values, so both clients can carry them out."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from qed._client.calls import Call
from qed.errors import QedError

__all__ = ["Calls", "Steps", "Together", "together"]

_T = TypeVar("_T")

Calls: TypeAlias = Generator[Call[Any], Any, _T]
"""Calls one after the other. Each is sent its value, or thrown the QedError that it ended with."""


@dataclass(frozen=True, slots=True)
class Together:
    """A step of several calls that do not depend on each other, in any order or at once.

    It is sent a list with the outcome of each: its value, or the QedError that it ended with.
    """

    calls: tuple[Call[Any], ...]


Steps: TypeAlias = Generator[Call[Any] | Together, Any, _T]
"""As `Calls`; a step may also be several calls together."""


def together(*series: Calls[Any]) -> Steps[list[Any]]:
    """Carry out several series of calls, the next call of each at the same time.

    Args:
        series: The series. None may depend on the result of another.

    Yields:
        The next call of each series that has not ended.

    Returns:
        The result of each series, in their order.

    Raises:
        QedError: A series raised it. If several did in the same step, the first of them counts.
    """
    results: list[Any] = [None] * len(series)
    outcomes: dict[int, object] = dict.fromkeys(range(len(series)))
    while True:
        pending: dict[int, Call[Any]] = {}
        for number, outcome in outcomes.items():
            try:
                pending[number] = _next(series[number], outcome)
            except StopIteration as stop:
                results[number] = stop.value
        if not pending:
            return results
        outcomes = dict(zip(pending, (yield Together(tuple(pending.values()))), strict=True))


def _next(calls: Calls[Any], outcome: object) -> Call[Any]:
    return calls.throw(outcome) if isinstance(outcome, QedError) else calls.send(outcome)
