"""Administration of the cluster, through the management address that a server reports, or that of another member."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

from qed._client import calls
from qed._client.attempts import Send, ask, learn
from qed._client.calls import Answer
from qed._client.failures import Failure, FailureKind, Outcome, none_answered, require_repeatable, served
from qed._client.topology import member_url
from qed.errors import ProtocolError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Generator

    from qed._client.calls import Call
    from qed._client.topology import Topology
    from qed._wire import Cluster, ClusterMember
    from qed.history import Act

__all__ = ["administer", "found", "history", "member_alarm", "member_status", "overview"]

_T = TypeVar("_T")

_NOT_TRUSTED: Final = (
    "it is not on the host of a given endpoint and has not proven itself, so it gets no key: use https, or trust the "
    "members"
)

_AGAIN_S: Final = (0.05, 0.1, 0.2, 0.4, 0.8)
"""How long to wait before each further attempt at a management address whose connections are cut."""
_HISTORY_LIMIT_BYTES: Final = 256 << 20
"""What a client reads of a history at most: a hostile server could go on without end."""


def administer(call: Call[_T], topology: Topology) -> Generator[Send, Outcome, _T]:
    """Yield requests until a member answers at its management address; return the call's result.

    Args:
        call: The call.
        topology: As for `found`.

    Yields:
        As `found`.

    Returns:
        The result of the call.

    Raises:
        QedError: The answer is an error, or no server answered.
    """
    return (yield from found(call, topology))[1]


def found(call: Call[_T], topology: Topology) -> Generator[Send, Outcome, tuple[str, _T]]:
    """Yield requests until a member answers at its management address; return that address and the call's result.

    Args:
        call: The call.
        topology: The servers to ask. If none of the given ones helps, the members that they list are asked.

    Yields:
        The next request. Send its outcome into the generator.

    Returns:
        The base URL of the management address, and the result of the call.

    Raises:
        QedError: The answer is an error, or no server answered.
    """
    failures: dict[str, Failure] = {}
    has_asked_for_members = False
    while True:
        base = next((url for url in topology.everyone() if url not in failures), None)
        if base is None and topology.has_answered and not has_asked_for_members:
            has_asked_for_members = True
            yield from learn(topology)
        elif base is None:
            raise none_answered(failures)
        else:
            management, outcome = yield from _ask(call, topology, base)
            if isinstance(outcome, Answer):
                return management, call.result(outcome)
            failures[base] = outcome


def overview(topology: Topology) -> Generator[Send, Outcome, Cluster]:
    """Yield requests; return the cluster as its leader sees it, which knows most, or else as another member does."""
    cluster = yield from administer(calls.cluster(), topology)
    leader = next((member for member in cluster.members if member.node_id == cluster.leader_id), None)
    if leader is None or leader.node_id == cluster.node_id:
        return cluster
    base = member_url(topology.given[0], leader.mgmt_addr)
    seen = None if base is None or not topology.may_manage(base) else (yield from ask(calls.cluster(), base))
    return cluster if seen is None or isinstance(seen, Failure) else seen


def history(topology: Topology, after: Act | None) -> Generator[Send, Outcome, list[Act]]:
    """Yield requests; return all acts after `after`, in order, checked to be one chain from there on.

    Raises:
        VerificationError: An act does not continue the chain.
        ProtocolError: There is no end to it.
    """
    acts: list[Act] = []
    size_bytes = 0
    while found := (yield from administer(calls.history(acts[-1] if acts else after), topology)):
        acts += found
        size_bytes += sum(len(act.body) for act in found)
        if size_bytes > _HISTORY_LIMIT_BYTES:
            raise ProtocolError(f"expected a history of at most {_HISTORY_LIMIT_BYTES} bytes, found more", status=200)
    return acts


def member_status(member: ClusterMember, topology: Topology) -> Generator[Send, Outcome, Cluster]:
    """Yield a request, and return the cluster as `member` itself sees it.

    Args:
        member: The member, as another member described it.
        topology: The given servers; the scheme of the first is used, and its host if the member has no other.

    Yields:
        The only request.

    Returns:
        The cluster.

    Raises:
        Unavailable: The member's management address is invalid, does not answer, or belongs to another member.
    """
    base = _management(member, topology)
    seen = yield from ask(calls.cluster(), base)
    if isinstance(seen, Failure):
        raise Unavailable(f"{base}: {seen.cause}")
    if seen.node_id != member.node_id:
        raise Unavailable(f"{base}: expected {calls.plain(member.node_id)}, found {calls.plain(seen.node_id)}")
    return seen


def member_alarm(member: ClusterMember, topology: Topology) -> Generator[Send, Outcome, str | None]:
    """Yield a request, and return why `member` does not serve, or None if it does; as `member_status`."""
    base = _management(member, topology)
    outcome = yield Send(calls.alarm(), base)
    if isinstance(outcome, Failure):
        raise Unavailable(f"{base}: {outcome.cause}")
    return calls.alarm().result(outcome)


def _management(member: ClusterMember, topology: Topology) -> str:
    """Return the base URL of a member's management address; raise `Unavailable` if it must not be asked."""
    base = member_url(topology.given[0], member.mgmt_addr)
    if base is None:
        raise Unavailable(f"the management address {calls.plain(member.mgmt_addr)!r} is invalid")
    if not topology.may_manage(base):
        raise Unavailable(f"{base}: {_NOT_TRUSTED}")
    return base


def _ask(call: Call[_T], topology: Topology, base: str) -> Generator[Send, Outcome, tuple[str, Outcome]]:
    """Ask the server at `base` for its management address, and send the call there.

    Return that address, and the answer or why there is none; raise if the call may have been carried out and must not
    be repeated.
    """
    info = yield from ask(calls.info(), base)
    if isinstance(info, Failure):
        if not info.kind.is_answer:
            topology.note_down(base)
        return "", info
    topology.note_answer(base)
    management = member_url(base, info.mgmt_addr)
    if management is None:
        cause = f"its management address {calls.plain(info.mgmt_addr)!r} is invalid"
        return "", Failure(FailureKind.UNAVAILABLE, cause)
    if not topology.may_manage(management):
        return "", Failure(FailureKind.UNAVAILABLE, f"management address {management}: {_NOT_TRUSTED}")
    outcome = yield from _insist(call, management)
    if isinstance(outcome, Failure):
        outcome = replace(outcome, cause=f"management address {management}: {outcome.cause}")
        require_repeatable(call, base, outcome)
    return management, outcome


def _insist(call: Call[_T], management: str) -> Generator[Send, Outcome, Outcome]:
    """Send the call to a management address, and again if the connection was cut before an answer.

    All its connections may be in use by strangers at the host of the operator: each new one closes the oldest, which
    may be this one before its request is admitted.
    """
    outcome = served((yield Send(call, management)))
    for delay_s in _AGAIN_S:
        if not isinstance(outcome, Failure) or not _may_be_cut(call, outcome):
            break
        outcome = served((yield Send(call, management, delay_s)))
    return outcome


def _may_be_cut(call: Call[_T], failure: Failure) -> bool:
    is_lost = failure.kind is FailureKind.UNANSWERED and call.is_repeatable
    return is_lost or failure.kind is FailureKind.UNAVAILABLE
