"""Durations and times: those that options accept, and how they are written for people."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

import click

__all__ = ["DurationType", "MomentType", "age", "spelt"]

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION: Final = re.compile("([1-9][0-9]{0,8})([smhd])")
_LONGEST: Final = timedelta(days=36_500)
_FORM: Final = "a whole number and s, m, h or d, such as 90d"
_AGES: Final = (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))


class DurationType(click.ParamType[timedelta]):
    """A duration such as `90d`, above zero and at most `longest`."""

    name = "duration"

    def __init__(self, longest: timedelta = _LONGEST) -> None:
        self._longest = longest

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:  # noqa: ANN401 - click's
        """Return the duration, or fail with what was expected."""
        if isinstance(value, timedelta):
            return value
        found = _duration(value)
        if found is None:
            self.fail(f"{value!r} is not a duration: expected {_FORM}", param, ctx)
        if found > self._longest:
            self.fail(f"{value!r} is too long: expected at most {self._longest.days}d", param, ctx)
        return found


class MomentType(click.ParamType[datetime]):
    """A time such as `2030-01-31`, in UTC unless it says otherwise, or a duration from or before the present."""

    name = "time"

    def __init__(self, *, is_past: bool) -> None:
        self._is_past = is_past

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:  # noqa: ANN401 - click's
        """Return the time in UTC, or fail with what was expected."""
        if isinstance(value, datetime):
            return value
        present = datetime.now(UTC).replace(microsecond=0)
        duration = _duration(value)
        if duration is not None:
            duration = DurationType().convert(value, param, ctx)
            return present - duration if self._is_past else present + duration
        try:
            moment = datetime.fromisoformat(value)
            moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is neither a duration, {_FORM}, nor a time such as 2030-01-31", param, ctx)
        if not self._is_past and moment <= present:
            self.fail(f"{value!r} is not in the future", param, ctx)
        return moment


def _duration(text: str) -> timedelta | None:
    found = _DURATION.fullmatch(text)
    return None if found is None else timedelta(**{_UNITS[found[2]]: int(found[1])})


def spelt(moment: datetime, precision: Literal["minutes", "seconds"] = "minutes") -> str:
    """Return a time for people, in UTC."""
    form = "%Y-%m-%d %H:%M UTC" if precision == "minutes" else "%Y-%m-%d %H:%M:%S UTC"
    return moment.astimezone(UTC).strftime(form)


def age(moment: datetime, present: datetime) -> str:
    """Return how long ago a time was, in the largest unit that fits: `3 hours ago`.

    Args:
        moment: The time, by the clock of a server. If that clock is ahead of this one, the age is `just now`.
        present: The present, by the clock of this machine.

    Returns:
        The age.
    """
    seconds = int((present - moment).total_seconds())
    for unit, length in _AGES:
        if count := max(seconds, 0) // length:
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"
