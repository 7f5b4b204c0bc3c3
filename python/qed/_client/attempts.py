"""The choice of servers and the retries of a call.

`converse` is the policy for redirects, other members and retries, written as a generator: it yields requests, is sent
their outcomes, and returns the call's result. It opens no socket and never waits, so one policy serves threads and
asyncio alike, and is tested without either.

A read may be repeated whenever no answer arrived. An insertion may be repeated only where that cannot add twice: if the
connection was never established, if the server says that it added nothing (307, 429, or 503 with `Retry-After`), or
with `if_absent`. A 503 without `Retry-After` means that the server stopped waiting; it may add the event nevertheless.

A server whose rate limit is reached says when to come back, and the call waits for that, within its whole time.

If no server answers, a call soon gives up. If servers answer but the leader is missing, a new one is elected within a
second or two, so a call that needs a leader, and may be repeated, waits longer.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from qed._client import calls
from qed._client.calls import Answer, Route, protocol_error
from qed._client.defaults import DEFAULT_READ
from qed._client.failures import Failure, FailureKind, Outcome, none_answered, require_repeatable, served
from qed._client.topology import READS, is_base_url, path_of, scheme_of
from qed._wire import SHARDS, DecodeError
from qed.errors import AccessRefused, QedError

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Mapping

    from qed._client.calls import Call
from qed._client.topology import Read, Topology

__all__ = ["Policy", "Send", "ask", "converse", "learn"]

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

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Policy:
    """A caller's settings for a conversation.

    Attributes:
        attempts: How often at most to ask all endpoints while none answers, at least 1.
        patience_s: How long to keep trying while only the leader is missing, or a rate is used up.
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
    if call.route is not Route.ANY and topology.is_due():
        yield from learn(topology)
    for attempt in itertools.count(1):
        outcome = yield from _Round(call, topology, policy, attempt, delay_s).ask_each()
        if isinstance(outcome, Answer):
            return call.result(outcome)
        failures = outcome.values()
        if call.route is Route.LEADER:
            may_have_happened |= any(failure.kind.may_have_arrived for failure in failures)
        if rate_limited := [failure for failure in failures if failure.kind is FailureKind.RATE_LIMITED]:
            delay_s = min(failure.retry_after_s for failure in rate_limited) + _spread_s(attempt, LEADER_PAUSE_S)
            is_over = topology.clock() + delay_s - began_s > policy.patience_s
        elif _is_worth_waiting(call, topology, policy, failures):
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
    except AccessRefused as exc:
        return Failure(FailureKind.REFUSED, str(exc))
    except QedError as exc:
        return Failure(FailureKind.NONSENSE, str(exc))


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
        if call.route is Route.READ and topology.lacks(self.policy.read):
            # A member's advertised address may be unreachable. Later attempts therefore ask which given endpoint
            # belongs to which member.
            unlearnt = yield from learn(topology, self._take_delay_s(), is_thorough=self.attempt > 1)
            if unlearnt:
                return unlearnt
        self.turn = 0 if call.route is Route.ANY else topology.next_turn()
        while (base := self._next()) is not None:
            outcome = yield Send(call, base, self._take_delay_s())
            outcome = _noted(topology, base, self._directed(base, outcome))
            if isinstance(outcome, Answer):
                if call.route is Route.LEADER and outcome.status in call.successes:
                    topology.note_leader(base)
                return outcome
            require_repeatable(call, base, outcome)
            self.failures[base] = outcome
            if call.route is Route.LEADER and outcome.kind is FailureKind.RATE_LIMITED:
                # Only the leader has a rate for events. The others would name it again, and count requests for that.
                break
        return self.failures or _nobody(topology, self.policy)

    def _take_delay_s(self) -> float:
        delay_s, self.delay_s = self.delay_s, 0.0
        return delay_s

    def _next(self) -> str | None:
        """Return the best server that was not asked yet. The order may change when a server names the leader."""
        match self.call.route:
            case Route.LEADER:
                found = self.topology.for_insertions()
            case Route.READ:
                found = self.topology.for_reads(self.policy.read, self.turn)
            case Route.ANY:
                found = self.topology.everyone()
        return next((url for url in found if url not in self.failures and self._may_send(url)), None)

    def _may_send(self, url: str) -> bool:
        return self.topology.may_send(url, has_event=self.call.has_event)

    def _directed(self, base: str, outcome: Outcome) -> Outcome:
        """Turn answers that mean "not here, not now" into failures; after a redirect, the leader is asked next."""
        if not (self.call.route is Route.LEADER and isinstance(outcome, Answer) and outcome.status == _NOT_LEADER):
            return served(outcome)
        is_heeded = self.redirects < REDIRECTS_FOLLOWED
        self.redirects += 1
        if is_heeded:
            with contextlib.suppress(DecodeError):
                self.topology.learn(base, SHARDS.decode(outcome.body))
        leader = outcome.headers.get("location", "")
        if not leader:
            return Failure(FailureKind.NOT_LEADER, "is not the leader and names none")
        leader = _leader_url(self.call, base, outcome, leader)
        if scheme_of(leader) != scheme_of(base):
            cause = f"names a leader with another scheme, which is not followed: {leader}"
            return Failure(FailureKind.FOREIGN_LEADER, cause, leader)
        if not self._may_send(leader):
            cause = (
                f"names the leader {leader}, which is not given and has not proven itself, so it gets no key and no "
                "event: give it as an endpoint, use https, or trust the members"
            )
            return Failure(FailureKind.FOREIGN_LEADER, cause, leader)
        if is_heeded and leader not in self.failures:
            self.topology.note_leader(leader)
        return Failure(FailureKind.NOT_LEADER, f"names {leader} as the leader", leader)


def _nobody(topology: Topology, policy: Policy) -> Mapping[str, Failure]:
    """Return why no server could be asked, which happens only to a read, after a server has listed the members."""
    if policy.read == "primary":
        return {"the cluster": Failure(FailureKind.NOT_LEADER, "no leader is reachable")}
    leader = topology.leader or "a leader"
    cause = f"no member qualifies for a {policy.read} read, only {leader} is known"
    return {"the cluster": Failure(FailureKind.UNAVAILABLE, cause)}


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
    if isinstance(outcome, Failure) and not outcome.kind.is_answer:
        topology.note_down(base)
    else:
        topology.note_answer(base)
    return outcome


def _is_worth_waiting(call: Call[_T], topology: Topology, policy: Policy, failures: Collection[Failure]) -> bool:
    """Return whether only the leader is missing, so that the call can soon succeed."""
    needs_leader = call.route is Route.LEADER or (call.route is Route.READ and policy.read == "primary")
    kinds = {failure.kind for failure in failures}
    if not needs_leader or FailureKind.OVERLOADED in kinds:
        return False
    is_leader_missing = not kinds.isdisjoint({FailureKind.NOT_LEADER, FailureKind.OUTCOME_UNKNOWN})
    return is_leader_missing or (call.is_repeatable and topology.has_answered)


def _pause_s(attempt: int, failures: Collection[Failure]) -> float | None:
    """Return how long to wait before the next attempt, or None to give up.

    A caller that has waited for a whole time-out does not wait for another one.
    """
    asked_s = max(failure.retry_after_s for failure in failures)
    if asked_s > LONGEST_PAUSE_S or any(failure.kind.is_timeout for failure in failures):
        return None
    return asked_s + _spread_s(attempt, LONGEST_PAUSE_S)


def _spread_s(attempt: int, longest_s: float) -> float:
    pause_s = min(FIRST_PAUSE_S * 2 ** min(attempt - 1, 10), longest_s)
    return random.uniform(pause_s / 2, pause_s)  # noqa: S311 - spreads load, guards no secret
