"""Whom to ask, and when to ask again.

`converse` is the policy for redirects, other endpoints and retries, written as a generator: it yields what to send, is
sent what came of it, and returns the call's result. It opens no socket, waits for nothing and reads no clock, so one
policy serves threads and asyncio alike, and is tested without either.

A read may be sent again whenever no answer came. An insertion may be sent again only where that cannot add twice: when
the connection was never established, when the server says that it took nothing (429, or 503 with `Retry-After`), or
with `if_absent`. A 503 without `Retry-After` is a server that gave up waiting, and may have added the event by now.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeAlias, TypeGuard, TypeVar
from urllib.parse import urlsplit

import idna

from qed.calls import Answer, Call, error_body, plain, protocol_error
from qed.errors import NotLeader, Overloaded, Unavailable

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Mapping, Sequence

__all__ = ["Endpoints", "Failure", "Send", "converse"]

# The pauses between attempts double from the first to the longest. Each is shortened by a random part, so that many
# clients refused together do not come back together.
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0

_SCHEMES: Final = frozenset({"http", "https"})
_NOT_LEADER: Final = 307
_OVERLOADED: Final = 429
_UNAVAILABLE: Final = 503
# 502 and 504 are a gateway's: they tell nothing about the server behind it.
_NOT_SERVED: Final = frozenset({502, _UNAVAILABLE, 504})

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Send:
    """A step: send the call to `url`, after waiting `delay_s`."""

    url: str
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an endpoint gave no answer that counts.

    Attributes:
        cause: For people, one line.
        may_have_arrived: The server may have carried the request out all the same.
        is_timeout: It took the whole time-out to find out.
        is_overload: The server answered that its queue is full.
        retry_after_s: How long the server asked to be left alone.
    """

    cause: str
    may_have_arrived: bool
    is_timeout: bool = False
    is_overload: bool = False
    retry_after_s: float = 0.0


_Outcome: TypeAlias = Answer | Failure


@dataclass(slots=True)
class Endpoints:
    """The servers' base URLs, asked in their order beginning with the one that served last.

    Concurrent calls share it without a lock: `_first` is one integer, and a lost update only costs one more attempt.
    """

    urls: tuple[str, ...]
    _first: int = field(default=0, repr=False)

    @staticmethod
    def parse(endpoints: str | Sequence[str]) -> Endpoints:
        """Return the endpoints the caller named.

        Args:
            endpoints: One base URL or several, such as `http://127.0.0.1:8800`.

        Returns:
            The endpoints, none of them known to be down.

        Raises:
            ValueError: None is given, or one is not a plain http or https URL.
        """
        urls = (endpoints,) if isinstance(endpoints, str) else tuple(endpoints)
        if not urls:
            raise ValueError("expected at least one endpoint")
        if not all(_is_base_url(url) for url in urls):
            raise ValueError("expected endpoints like http://host:port, without user, query or fragment")
        return Endpoints(tuple(dict.fromkeys(url.rstrip("/") for url in urls)))

    def in_order(self) -> tuple[str, ...]:
        """Return every base URL once, in the order in which to ask."""
        first = self._first
        return self.urls[first:] + self.urls[:first]

    def note_down(self, url: str) -> None:
        """Note that `url` does not serve, so that the next call begins with the one after it."""
        index = self.urls.index(url)
        if self._first == index:
            self._first = (index + 1) % len(self.urls)


def _is_base_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        # Either raises ValueError: a port that is none, a host name that could not be looked up.
        host = parts.hostname or ""
        _ = parts.port, host.encode("idna")
        if "xn--" in host:
            # httpx decodes it with this library, and only when a request is on its way.
            idna.decode(host)
    except ValueError:
        return False
    is_plain = not (parts.query or parts.fragment or "@" in parts.netloc) and url.isascii() and url.isprintable()
    return is_plain and parts.scheme in _SCHEMES and bool(parts.hostname)


def converse(call: Call[_T], endpoints: Endpoints, *, attempts: int) -> Generator[Send, _Outcome, _T]:
    """Yield what to send until the call has an answer; return the call's result.

    Args:
        call: The call.
        endpoints: The servers to ask; remembers which do not serve.
        attempts: How often to ask all of them at most, at least once.

    Yields:
        The next step. What came of it is to be sent in.

    Returns:
        The result of the call, verified where the call verifies.

    Raises:
        QedError: What the answer says, or that there was none.
    """
    delay_s = 0.0
    for attempt in range(1, attempts + 1):
        outcome = yield from _ask_each(call, endpoints, delay_s)
        if isinstance(outcome, Answer):
            return call.result(outcome)
        pause_s = _pause_s(attempt, outcome.values())
        if attempt == attempts or pause_s is None:
            raise _none_answered(outcome)
        delay_s = pause_s
    raise ValueError(f"expected at least one attempt, got {attempts}")


def _ask_each(
    call: Call[_T], endpoints: Endpoints, delay_s: float
) -> Generator[Send, _Outcome, Answer | Mapping[str, Failure]]:
    """Ask the endpoints in order until one answers; else return each one's failure."""
    failures: dict[str, Failure] = {}
    for base in endpoints.in_order():
        outcome = yield from _ask(call, base, delay_s)
        if isinstance(outcome, Answer):
            return outcome
        if not outcome.is_overload:
            endpoints.note_down(base)
        if outcome.may_have_arrived and not call.is_repeatable:
            raise Unavailable(f"{base}: {outcome.cause}; the insertion may have happened all the same")
        failures[base] = outcome
        delay_s = 0.0
    return failures


def _ask(call: Call[_T], base: str, delay_s: float) -> Generator[Send, _Outcome, _Outcome]:
    """Ask one endpoint, and for an insertion the leader it names, but no further."""
    outcome = yield Send(base + call.path, delay_s)
    if not _is_redirect(outcome, call):
        return _served(outcome)
    leader = _leader_url(call, outcome)
    outcome = yield Send(leader + call.path)
    if _is_redirect(outcome, call):
        raise NotLeader(f"{base} named {leader} as the leader, which names another", leader)
    outcome = _served(outcome)
    if isinstance(outcome, Failure):
        return replace(outcome, cause=f"named {leader} as the leader: {outcome.cause}")
    return outcome


def _is_redirect(outcome: _Outcome, call: Call[_T]) -> TypeGuard[Answer]:
    return call.is_insertion and isinstance(outcome, Answer) and outcome.status == _NOT_LEADER


def _leader_url(call: Call[_T], answer: Answer) -> str:
    """Return the base URL of the leader that a 307 names.

    Only the same path is followed, so that a server cannot make a client post elsewhere; and only under the same
    scheme, since from https to http the events and the api key would travel in the open.
    """
    location = answer.headers.get("location")
    if not location:
        raise NotLeader(f"{answer.url} is not the leader and names none")
    leader = location.removesuffix(call.path)
    if leader == location or not _is_base_url(leader):
        raise protocol_error(answer, f"with a location that is not a leader's {call.path}")
    if urlsplit(leader).scheme != urlsplit(answer.url).scheme:
        raise NotLeader(f"{answer.url} named a leader under another scheme, which is not followed: {leader}", leader)
    return leader


def _served(outcome: _Outcome) -> _Outcome:
    """Turn the statuses that say "not here, not now" into the failures they are."""
    if isinstance(outcome, Failure) or outcome.status not in {*_NOT_SERVED, _OVERLOADED}:
        return outcome
    error = error_body(outcome)
    is_overload = outcome.status == _OVERLOADED
    took_nothing = is_overload or (outcome.status == _UNAVAILABLE and "retry-after" in outcome.headers)
    return Failure(
        cause=f"answered {outcome.status}" + (f": {plain(error.message)}" if error else ""),
        may_have_arrived=not took_nothing,
        is_overload=is_overload,
        retry_after_s=_retry_after_s(outcome),
    )


def _retry_after_s(answer: Answer) -> float:
    value = answer.headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdecimal() else 0.0


def _pause_s(attempt: int, failures: Collection[Failure]) -> float | None:
    """Return how long to wait before the next attempt, or None to give up.

    Whoever has waited for a whole time-out is not made to wait for another one.
    """
    asked_s = max(failure.retry_after_s for failure in failures)
    if asked_s > LONGEST_PAUSE_S or any(failure.is_timeout for failure in failures):
        return None
    longest_s = min(FIRST_PAUSE_S * 2 ** (attempt - 1), LONGEST_PAUSE_S)
    return asked_s + random.uniform(longest_s / 2, longest_s)  # noqa: S311 - spreads load, guards no secret


def _none_answered(failures: Mapping[str, Failure]) -> Overloaded | Unavailable:
    causes = "; ".join(f"{base}: {failure.cause}" for base, failure in failures.items())
    if any(failure.is_overload for failure in failures.values()):
        return Overloaded(f"no server had room: {causes}")
    return Unavailable(f"no server answered: {causes}")
