"""Why a server gave no usable answer: the kinds of failure, and what each means for the request.

An insertion may be repeated only where that cannot add twice, so the first thing to know of a failure is whether the
server may have carried out the request nevertheless.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, TypeAlias

from qed._client.calls import Answer, error_body, plain
from qed.errors import AccessRefused, NotLeader, OutcomeUnknown, Overloaded, QedError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qed._client.calls import Call

__all__ = ["Failure", "FailureKind", "Outcome", "none_answered", "require_repeatable", "served"]

_UNAUTHORIZED: Final = 401
_OVERLOADED: Final = 429
_UNAVAILABLE: Final = 503
# 502 and 504 are from a gateway and say nothing about the server behind it.
_NOT_SERVED: Final = frozenset({502, _UNAVAILABLE, 504})
_RATE_LIMITED: Final = "rate_limited"
_SIGNING: Final = frozenset({"signer", "fork_guard"})
"""The server did nothing, and neither waiting nor another server helps."""
_LEADERLESS: Final = frozenset({"no_leader", "outcome_unknown"})


class FailureKind(Enum):
    """What a failure says about the server and about the request."""

    UNAVAILABLE = auto()
    """There was no connection, or the server says that it did nothing and that another attempt may succeed."""
    CONNECT_TIMED_OUT = auto()
    """There was no connection within the time-out."""
    UNANSWERED = auto()
    """The request was sent, but no answer says whether it was carried out."""
    TIMED_OUT = auto()
    """The request was sent, and no complete answer came within the time-out."""
    OVERLOADED = auto()
    """The server's queue is full, so it did nothing."""
    RATE_LIMITED = auto()
    """The caller's key has used up its rate on this server, which did nothing and says when it will."""
    NONSENSE = auto()
    """The server answered, but not to the request."""
    REFUSED = auto()
    """The server wants a valid key, or one with another role. It did nothing."""
    NOT_LEADER = auto()
    """The server is not the leader, so it did nothing. Soon it, or the leader that it names, may accept the request."""
    FOREIGN_LEADER = auto()
    """The server names a leader that must not be asked, which waiting does not change. It did nothing."""
    OUTCOME_UNKNOWN = auto()
    """The server does not lead, or no longer, and may have carried out the request nevertheless."""

    @property
    def may_have_arrived(self) -> bool:
        """Whether the server may have carried out the request."""
        return self in {FailureKind.UNANSWERED, FailureKind.TIMED_OUT, FailureKind.OUTCOME_UNKNOWN}

    @property
    def is_timeout(self) -> bool:
        """Whether the request used its whole time-out."""
        return self in {FailureKind.CONNECT_TIMED_OUT, FailureKind.TIMED_OUT}

    @property
    def is_leaderless(self) -> bool:
        """Whether the server answered that it does not lead."""
        return self in {FailureKind.NOT_LEADER, FailureKind.FOREIGN_LEADER, FailureKind.OUTCOME_UNKNOWN}

    @property
    def is_answer(self) -> bool:
        """Whether the server is up: it answered, though not with a result."""
        refusals = {FailureKind.OVERLOADED, FailureKind.RATE_LIMITED, FailureKind.NONSENSE, FailureKind.REFUSED}
        return self.is_leaderless or self in refusals


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an endpoint gave no usable answer.

    Attributes:
        kind: What it says about the server and the request.
        cause: For people, one line.
        leader_url: The leader that the server named instead.
        retry_after_s: How long the server asked the client to wait.
    """

    kind: FailureKind
    cause: str
    leader_url: str | None = None
    retry_after_s: float = 0.0


Outcome: TypeAlias = Answer | Failure


def served(outcome: Outcome) -> Outcome:
    """Turn the statuses that mean "not now" into failures."""
    if isinstance(outcome, Failure) or outcome.status not in {*_NOT_SERVED, _OVERLOADED}:
        return outcome
    error = error_body(outcome)
    if error is not None and error.error in _SIGNING:
        return outcome
    return Failure(
        _kind_of(outcome, error.error if error else ""),
        cause=f"answered {outcome.status}" + (f": {plain(error.message)}" if error else ""),
        retry_after_s=_retry_after_s(outcome),
    )


def _kind_of(answer: Answer, code: str) -> FailureKind:
    if answer.status == _OVERLOADED:
        return FailureKind.RATE_LIMITED if code == _RATE_LIMITED else FailureKind.OVERLOADED
    # A server that stopped waiting for an insertion sends no `Retry-After`.
    did_nothing = answer.status == _UNAVAILABLE and "retry-after" in answer.headers
    match did_nothing, code in _LEADERLESS:
        case True, True:
            return FailureKind.NOT_LEADER
        case True, False:
            return FailureKind.UNAVAILABLE
        case False, True:
            return FailureKind.OUTCOME_UNKNOWN
        case _:
            return FailureKind.UNANSWERED


def _retry_after_s(answer: Answer) -> float:
    value = answer.headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdecimal() else 0.0


def require_repeatable(call: Call[object], base: str, failure: Failure) -> None:
    """Raise if `call` may have been carried out and must not be repeated."""
    if call.is_repeatable or not failure.kind.may_have_arrived:
        return
    said = f"{base}: {failure.cause}; {call.what} may have happened nevertheless"
    is_lost = failure.kind is FailureKind.OUTCOME_UNKNOWN
    raise OutcomeUnknown(said) if is_lost else Unavailable(said, may_have_happened=True)


def none_answered(failures: Mapping[str, Failure], *, may_have_happened: bool = False) -> QedError:
    """Return the exception that names every server that was asked, and its cause."""
    causes = "; ".join(f"{base}: {failure.cause}" for base, failure in failures.items())
    if may_have_happened:
        # A refusal that came last only refused a repetition.
        causes += "; the insertion may have happened nevertheless"
        return Unavailable(f"no server answered: {causes}", may_have_happened=True)
    if any(failure.kind is FailureKind.RATE_LIMITED for failure in failures.values()):
        return Overloaded(f"the rate of this key is used up: {causes}")
    if any(failure.kind is FailureKind.OVERLOADED for failure in failures.values()):
        return Overloaded(f"no server had room: {causes}")
    if all(failure.kind is FailureKind.REFUSED for failure in failures.values()):
        return AccessRefused(f"no server accepts this: {causes}", status=_UNAUTHORIZED)
    if all(failure.kind.is_leaderless for failure in failures.values()):
        named = (failure.leader_url for failure in failures.values() if failure.leader_url is not None)
        return NotLeader(f"no server leads: {causes}", next(named, None))
    return Unavailable(f"no server answered: {causes}")
