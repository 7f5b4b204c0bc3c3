"""Add by digest if the server can: the log keeps digests only, so an event need not leave its owner's machine.

A server that does not know digests refuses them as malformed (400) and adds nothing, so the call is sent again with
events. Before that the client asks it what it accepts: a server that knows digests refused something else, and gets no
event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias, TypeVar, get_args

from qed._client import calls
from qed._client.attempts import Send, ask, converse
from qed._client.failures import Failure, Outcome
from qed.errors import DigestsRefused, MalformedRequest
from qed.proofs import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from qed._client.attempts import Policy
    from qed._client.calls import Call
    from qed._client.topology import Topology

__all__ = ["SENDS", "Sent", "insert", "parse_sent"]

Sent: TypeAlias = Literal["digest", "event"]
"""What to send of an event: its digest if the server accepts that, or always the event."""
SENDS: Final[tuple[Sent, ...]] = get_args(Sent)

_MALFORMED: Final = 400
_ACCEPTS_DIGESTS: Final = "digests"

_T = TypeVar("_T")


def parse_sent(sent: str) -> Sent:
    """Return what to send of an event, or raise ValueError."""
    for known in SENDS:
        if sent == known:
            return known
    raise ValueError(f"expected to send one of {', '.join(SENDS)}, found {sent!r}")


def insert(
    build: Callable[[bool], Call[_T]], events: Sequence[bytes | Digest], sent: Sent, topology: Topology, policy: Policy
) -> Generator[Send, Outcome, _T]:
    """Yield requests until the events are added; return the call's result.

    Args:
        build: Builds the call; its argument says whether to send digests.
        events: The events to add.
        sent: What the caller wants to send. If only the digest of an event is given, the digest is sent in any case.
        topology: The servers; remembers that one accepts no digests.
        policy: As for `converse`.

    Yields:
        The next request. Send its outcome into the generator.

    Returns:
        The result of the call.

    Raises:
        DigestsRefused: Digests were given, and the server accepts events only.
        QedError: As for `converse`.
    """
    has_digests = any(isinstance(event, Digest) for event in events)
    if has_digests or (sent == "digest" and topology.may_accept_digests()):
        try:
            return (yield from converse(build(True), topology, policy))
        except MalformedRequest as exc:
            if exc.status != _MALFORMED or (yield from _accepts_digests(topology)):
                raise
            if has_digests:
                message = "expected a server that accepts digests, found one that accepts events only: send the events"
                raise DigestsRefused(message, status=exc.status, body=exc.body, code=exc.code) from exc
    return (yield from converse(build(False), topology, policy))


def _accepts_digests(topology: Topology) -> Generator[Send, Outcome, bool]:
    """Ask the server that just refused a call what it accepts. A server that does not answer gets no event."""
    base = topology.for_insertions()[0]
    info = yield from ask(calls.info(), base)
    if isinstance(info, Failure) or _ACCEPTS_DIGESTS in info.accepts:
        return True
    topology.note_no_digests(base)
    return False
