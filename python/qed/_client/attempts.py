"""The choice of servers and the retries of a call.

`converse` is the policy for redirects, other members and retries, written as a generator: it yields requests, is sent
their outcomes, and returns the call's result. It opens no socket and never waits, so one policy serves threads and
asyncio alike, and is tested without either.

A read may be repeated whenever no answer arrived. An insertion may be repeated only where that cannot add twice: if the
connection was never established, if the server says that it added nothing (307, 429, or 503 with `Retry-After`), or
with `if_absent`. A 503 without `Retry-After` means that the server stopped waiting; it may add the event nevertheless.

If no server answers, a call soon gives up. If servers answer but the leader is missing, a new one is elected within a
second or two, so a call that needs a leader, and may be repeated, waits longer.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from qed._client import calls
from qed._client.calls import Answer, error_body, plain, protocol_error
from qed._client.defaults import DEFAULT_READ
from qed._client.topology import READS, is_base_url, path_of, scheme_of
from qed._wire import SHARDS, DecodeError
from qed.errors import NotLeader, OutcomeUnknown, Overloaded, QedError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Mapping

    from qed._client.calls import Call
from qed._client.topology import Read, Topology

__all__ = [
    "Failure",
    "Outcome",
    "Policy",
    "Send",
    "ask",
    "converse",
    "learn",
    "none_answered",
    "require_repeatable",
    "served",
]

# The pauses between attempts double from the first to the longest. Each is shortened by a random part, so that many
# clients refused together do not come back together.
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
# Without a leader no server is overloaded, and the new one should be found soon.
LEADER_PAUSE_S: Final = 0.5
# One to the leader, one more if it has changed meanwhile. After that, the servers that name leaders are not believed at
# all: each answer could name yet another server.
REDIRECTS_FOLLOWED: Final = 2

_NOT_LEADER: Final = 307
_OVERLOADED: Final = 429
_UNAVAILABLE: Final = 503
# 502 and 504 are from a gateway and say nothing about the server behind it.
_NOT_SERVED: Final = frozenset({502, _UNAVAILABLE, 504})

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Policy:
    """A caller's settings for a conversation.

    Attributes:
        attempts: How often at most to ask all endpoints while none answers, at least 1.
        patience_s: How long to keep trying while only the leader is missing.
        read: Which members a read may go to.
    """

    attempts: int = 1
    patience_s: float = 0.0
    read: Read = DEFAULT_READ

    @staticmethod
    def of(attempts: int, timeout_s: float, read: Read) -> Policy:
        """Return the policy for a caller's arguments.

        Args:
            attempts: How often to ask all endpoints, if asking again is safe.
            timeout_s: Longest time for one request.
            read: Which members a read may go to.

        Returns:
            The policy.

        Raises:
            ValueError: A setting is out of range.
        """
        if not 0 < timeout_s < float("inf"):
            raise ValueError(f"expected a time-out above 0 s, found {timeout_s}")
        if attempts < 1:
            raise ValueError(f"expected at least one attempt, found {attempts}")
        if read not in READS:
            raise ValueError(f"expected reads to be one of {', '.join(READS)}, found {read!r}")
        return Policy(attempts, attempts * timeout_s, read)


@dataclass(frozen=True, slots=True)
class Send:
    """A step: send `call` to the server at `base` after a delay of `delay_s` seconds."""

    call: Call[object]
    base: str
    delay_s: float = 0.0

    @property
    def url(self) -> str:
        """The URL to send the call to."""
        return self.base + self.call.path


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an endpoint gave no usable answer.

    Attributes:
        cause: For people, one line.
        may_have_arrived: The server may have carried out the request nevertheless.
        is_timeout: The request used its whole time-out.
        is_overload: The server answered that its queue is full.
        is_nonsense: The server answered, but not to the request.
        is_leaderless: The server answered, but is not, or is no longer, the leader.
        is_lasting: Waiting will not change it.
        leader_url: The leader that the server named instead.
        is_outcome_unknown: The server lost leadership while the insertion was under way.
        retry_after_s: How long the server asked the client to wait.
    """

    cause: str
    may_have_arrived: bool
    is_timeout: bool = False
    is_overload: bool = False
    is_nonsense: bool = False
    is_leaderless: bool = False
    is_lasting: bool = False
    leader_url: str | None = None
    is_outcome_unknown: bool = False
    retry_after_s: float = 0.0


Outcome: TypeAlias = Answer | Failure


def converse(call: Call[_T], topology: Topology, policy: Policy) -> Generator[Send, Outcome, _T]:
    """Yield requests until the call has an answer; return the call's result.

    Args:
        call: The call.
        topology: The servers to ask; learns the leader, the other members, and which servers do not answer.
        policy: How long to keep trying, and which members to prefer.

    Yields:
        The next request. Send its outcome into the generator.

    Returns:
        The result of the call, verified if the call verifies.

    Raises:
        QedError: The answer is an error, or no server answered.
    """
    began_s, delay_s, may_have_happened = topology.clock(), 0.0, False
    if call.has_preference and topology.is_due():
        yield from learn(topology)
    for attempt in itertools.count(1):
        outcome = yield from _Round(call, topology, policy, attempt, delay_s).ask_each()
        if isinstance(outcome, Answer):
            return call.result(outcome)
        failures = outcome.values()
        may_have_happened |= call.is_insertion and any(failure.may_have_arrived for failure in failures)
        if _is_worth_waiting(call, topology, policy, failures):
            delay_s = _spread_s(attempt, LEADER_PAUSE_S)
            is_over = topology.clock() + delay_s - began_s > policy.patience_s
        else:
            pause_s = _pause_s(attempt, failures)
            delay_s, is_over = pause_s or 0.0, attempt >= policy.attempts or pause_s is None
        if is_over:
            raise none_answered(outcome, may_have_happened=may_have_happened)
    raise AssertionError("itertools.count never ends")


def learn(
    topology: Topology, delay_s: float = 0.0, *, is_thorough: bool = False
) -> Generator[Send, Outcome, Mapping[str, Failure]]:
    """Ask for the members until a server lists them.

    Args:
        topology: The servers to ask; learns the members.
        delay_s: How long to wait first.
        is_thorough: Continue until every given endpoint has said which member it is.

    Yields:
        The next request.

    Returns:
        The failures of all servers if none gave a list, else an empty mapping.
    """
    failures: dict[str, Failure] = {}
    has_list = False
    for base in topology.everyone():
        if has_list and not (is_thorough and base in topology.unnamed()):
            continue
        found = _noted(topology, base, (yield from ask(calls.shards(), base, delay_s)))
        delay_s = 0.0
        if isinstance(found, Failure):
            failures[base] = found
        else:
            topology.learn(base, found)
            has_list = True
    if has_list:
        return {}
    topology.note_unlearnt()
    return failures


def ask(call: Call[_T], base: str, delay_s: float = 0.0) -> Generator[Send, Outcome, _T | Failure]:
    """Make a call whose result is optional: an unusable answer is a failure like any other.

    Args:
        call: The call.
        base: The server to ask.
        delay_s: How long to wait first.

    Yields:
        The only request.

    Returns:
        The result of the call, or why there is none.
    """
    try:
        outcome = served((yield Send(call, base, delay_s)))
        return outcome if isinstance(outcome, Failure) else call.result(outcome)
    except QedError as exc:
        return Failure(str(exc), may_have_arrived=False, is_nonsense=True)


@dataclass(slots=True)
class _Round:
    """One round through the servers with one call.

    Attributes:
        call: The call.
        topology: The servers to ask.
        policy: Which members to prefer.
        attempt: The number of the round, from 1.
        delay_s: How long to wait before the first request.
        turn: Where to start among equally good members.
        redirects: How many redirects were received.
        failures: The servers that gave no usable answer.
    """

    call: Call[object]
    topology: Topology
    policy: Policy
    attempt: int
    delay_s: float
    turn: int = 0
    redirects: int = 0
    failures: dict[str, Failure] = field(default_factory=dict)

    def ask_each(self) -> Generator[Send, Outcome, Answer | Mapping[str, Failure]]:
        """Ask the qualifying servers, best first, until one answers; else return the failure of each."""
        call, topology = self.call, self.topology
        if call.has_preference and not call.is_insertion and topology.lacks(self.policy.read):
            # A member's advertised address may be unreachable. Later attempts therefore ask which given endpoint
            # belongs to which member.
            unlearnt = yield from learn(topology, self._take_delay_s(), is_thorough=self.attempt > 1)
            if unlearnt:
                return unlearnt
        self.turn = topology.next_turn() if call.has_preference else 0
        while (base := self._next()) is not None:
            outcome = yield Send(call, base, self._take_delay_s())
            outcome = _noted(topology, base, self._directed(base, outcome))
            if isinstance(outcome, Answer):
                if call.is_insertion and outcome.status in call.successes:
                    topology.note_leader(base)
                return outcome
            require_repeatable(call, base, outcome)
            self.failures[base] = outcome
        return self.failures or _nobody(topology, self.policy)

    def _take_delay_s(self) -> float:
        delay_s, self.delay_s = self.delay_s, 0.0
        return delay_s

    def _next(self) -> str | None:
        """Return the best server that was not asked yet. The order may change when a server names the leader."""
        if self.call.is_insertion:
            found = self.topology.for_insertions()
        elif self.call.has_preference:
            found = self.topology.for_reads(self.policy.read, self.turn)
        else:
            found = self.topology.everyone()
        return next((url for url in found if url not in self.failures), None)

    def _directed(self, base: str, outcome: Outcome) -> Outcome:
        """Turn answers that mean "not here, not now" into failures; after a redirect, the leader is asked next."""
        if not (self.call.is_insertion and isinstance(outcome, Answer) and outcome.status == _NOT_LEADER):
            return served(outcome)
        is_heeded = self.redirects < REDIRECTS_FOLLOWED
        self.redirects += 1
        if is_heeded:
            with contextlib.suppress(DecodeError):
                self.topology.learn(base, SHARDS.decode(outcome.body))
        leader = outcome.headers.get("location", "")
        if not leader:
            return Failure("is not the leader and names none", may_have_arrived=False, is_leaderless=True)
        leader = _leader_url(self.call, base, outcome, leader)
        cause, is_followed = f"names {leader} as the leader", scheme_of(leader) == scheme_of(base)
        if not is_followed:
            cause = f"names a leader with another scheme, which is not followed: {leader}"
        elif is_heeded and leader not in self.failures:
            self.topology.note_leader(leader)
        return Failure(cause, may_have_arrived=False, is_leaderless=True, is_lasting=not is_followed, leader_url=leader)


def _nobody(topology: Topology, policy: Policy) -> Mapping[str, Failure]:
    """Return why no server could be asked, which happens only to a read, after a server has listed the members."""
    if policy.read == "primary":
        return {"the cluster": Failure("no leader is reachable", may_have_arrived=False, is_leaderless=True)}
    leader = topology.leader or "a leader"
    cause = f"no member qualifies for a {policy.read} read, only {leader} is known"
    return {"the cluster": Failure(cause, may_have_arrived=False)}


def _leader_url(call: Call[_T], base: str, answer: Answer, location: str) -> str:
    """Return the base URL of the leader that the server at `base` names.

    Only the same path is followed, at the root or under the prefix of `base`, so that a server cannot make a client
    post elsewhere; and only with the same scheme, since from https to http the events and the api key would be sent
    unencrypted.
    """
    leader = location.removesuffix(call.path)
    if leader == location or not is_base_url(leader) or path_of(leader) not in {"", path_of(base)}:
        raise protocol_error(answer, f"with an invalid Location: expected a leader's {call.path}")
    return leader


def _noted(topology: Topology, base: str, outcome: _T | Failure) -> _T | Failure:
    """Note whether the server serves. One that is full, is not the leader, or answers 4xx counts as serving."""
    if isinstance(outcome, Failure) and not (outcome.is_overload or outcome.is_leaderless or outcome.is_nonsense):
        topology.note_down(base)
    else:
        topology.note_answer(base)
    return outcome


def served(outcome: Outcome) -> Outcome:
    """Turn the statuses that mean "not now" into failures."""
    if isinstance(outcome, Failure) or outcome.status not in {*_NOT_SERVED, _OVERLOADED}:
        return outcome
    error = error_body(outcome)
    code = error.error if error else ""
    is_overload = outcome.status == _OVERLOADED
    took_nothing = is_overload or (outcome.status == _UNAVAILABLE and "retry-after" in outcome.headers)
    return Failure(
        cause=f"answered {outcome.status}" + (f": {plain(error.message)}" if error else ""),
        may_have_arrived=not took_nothing,
        is_overload=is_overload,
        is_leaderless=code in {"no_leader", "outcome_unknown"},
        is_outcome_unknown=code == "outcome_unknown",
        retry_after_s=_retry_after_s(outcome),
    )


def require_repeatable(call: Call[_T], base: str, failure: Failure) -> None:
    """Raise if `call` may have been carried out and must not be repeated."""
    if call.is_repeatable or not failure.may_have_arrived:
        return
    said = f"{base}: {failure.cause}; {call.what} may have happened nevertheless"
    raise OutcomeUnknown(said) if failure.is_outcome_unknown else Unavailable(said, may_have_happened=True)


def _is_worth_waiting(call: Call[_T], topology: Topology, policy: Policy, failures: Collection[Failure]) -> bool:
    """Return whether only the leader is missing, so that the call can soon succeed."""
    needs_leader = call.is_insertion or (call.has_preference and policy.read == "primary")
    if not needs_leader or any(failure.is_overload for failure in failures):
        return False
    is_leaderless = any(failure.is_leaderless and not failure.is_lasting for failure in failures)
    return is_leaderless or (call.is_repeatable and topology.has_answered)


def _retry_after_s(answer: Answer) -> float:
    value = answer.headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdecimal() else 0.0


def _pause_s(attempt: int, failures: Collection[Failure]) -> float | None:
    """Return how long to wait before the next attempt, or None to give up.

    A caller that has waited for a whole time-out does not wait for another one.
    """
    asked_s = max(failure.retry_after_s for failure in failures)
    if asked_s > LONGEST_PAUSE_S or any(failure.is_timeout for failure in failures):
        return None
    return asked_s + _spread_s(attempt, LONGEST_PAUSE_S)


def _spread_s(attempt: int, longest_s: float) -> float:
    pause_s = min(FIRST_PAUSE_S * 2 ** min(attempt - 1, 10), longest_s)
    return random.uniform(pause_s / 2, pause_s)  # noqa: S311 - spreads load, guards no secret


def none_answered(failures: Mapping[str, Failure], *, may_have_happened: bool = False) -> QedError:
    """Return the exception that names every server that was asked, and its cause."""
    causes = "; ".join(f"{base}: {failure.cause}" for base, failure in failures.items())
    if may_have_happened:
        # A refusal that came last only refused a repetition.
        causes += "; the insertion may have happened nevertheless"
        return Unavailable(f"no server answered: {causes}", may_have_happened=True)
    if any(failure.is_overload for failure in failures.values()):
        return Overloaded(f"no server had room: {causes}")
    if all(failure.is_leaderless for failure in failures.values()):
        named = (failure.leader_url for failure in failures.values() if failure.leader_url is not None)
        return NotLeader(f"no server leads: {causes}", next(named, None))
    return Unavailable(f"no server answered: {causes}")
