"""Plays a schedule on a cluster of any engine: the network between the nodes is here, the nodes are the engine's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from history import History, Observation
from schedules import ELECTION, VOTE_ANSWER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from schedules import Schedule, Step

# No schedule has a longer exchange than this; an engine that never stops sending is stopped.
MESSAGES_MAX = 2000
# A candidate may need several time-outs to stand again, and a term may be several elections away.
TIMEOUTS_MAX = 10


@dataclass(frozen=True)
class Message:
    """A message in flight. `body` is the engine's own; the rest is read from it."""

    kind: str
    source: str
    target: str
    term: int
    is_granted: bool
    body: object


class Cluster(Protocol):
    """The interface of an engine on which schedules are played. Every call returns when the nodes are idle."""

    def start(self, node: str) -> None:
        """Start `node` from its disk; raise if it does not start."""

    def crash(self, node: str) -> None:
        """Stop `node` without letting it finish anything."""

    def fire(self, node: str, timer: str) -> None:
        """Let `timer` expire if it is running."""

    def receive(self, message: Message) -> None:
        """Pass `message` to its target, which is running."""

    def write(self, node: str, command: str) -> None:
        """Submit `command` to `node`."""

    def observe(self, node: str) -> Observation:
        """Return the state of `node`, which is running."""

    def take_sent(self) -> list[Message]:
        """Return what was sent since the last call."""

    def take_applied(self) -> list[tuple[str, int, str]]:
        """Return node, index and command of entries applied since the last call to a state that survives a restart."""

    def take_acknowledged(self) -> list[tuple[str, str]]:
        """Return node and command of the writes acknowledged since the last call."""


class Player:
    """Plays one schedule. The network is a list; a message leaves it only by a step."""

    def __init__(self, schedule: Schedule, cluster: Cluster) -> None:
        self.schedule = schedule
        self.cluster = cluster
        self.history = History(schedule.nodes)
        self._running: set[str] = set()
        self._flight: list[Message] = []
        self._kept: dict[str, Message] = {}

    def play(self) -> History:
        """Return the observations."""
        for node in self.schedule.nodes:
            self.restart(node)
        for step in self.schedule.steps:
            self._step(step)
        if self.schedule.promise == "progress":
            self.history.end()
        return self.history

    def _step(self, step: Step) -> None:
        arguments = {key: value for key, value in step.items() if key != "do"}
        action: Callable[..., None] = getattr(self, step["do"])
        action(**arguments)

    def fire(self, node: str, timer: str) -> None:
        """See `schedules.fire`."""
        if node in self._running:
            self.cluster.fire(node, timer)
            self._watch()

    def stand(self, node: str, term: int) -> None:
        """See `schedules.stand`."""
        for _ in range(TIMEOUTS_MAX if node in self._running else 0):
            seen = self.cluster.observe(node)
            if seen.role == "leader" or seen.term > term or (seen.term == term and seen.role == "candidate"):
                return
            self.fire(node, ELECTION)

    def deliver(self, kind: str, source: str, target: str) -> None:
        """See `schedules.deliver`."""
        for message in self._find(kind, source, target):
            self._flight.remove(message)
            self._receive(message)

    def exchange(self, nodes: str) -> None:
        """See `schedules.exchange`."""
        for _ in range(MESSAGES_MAX):
            message = next((m for m in self._flight if m.source in nodes and m.target in nodes), None)
            if message is None:
                return
            self._flight.remove(message)
            self._receive(message)
        raise RuntimeError(f"{self.schedule.name}: {nodes} had not finished after {MESSAGES_MAX} messages")

    def lose(self) -> None:
        """See `schedules.lose`."""
        self._flight.clear()

    def drop(self, kind: str, source: str) -> None:
        """See `schedules.drop`."""
        self._flight = [m for m in self._flight if (m.kind, m.source) != (kind, source)]

    def hold(self, name: str, **link: str) -> None:
        """See `schedules.hold`."""
        self.copy(name, **link)
        if name in self._kept:
            self._flight.remove(self._kept[name])

    def copy(self, name: str, **link: str) -> None:
        """See `schedules.copy`."""
        for message in self._find(**link)[:1]:
            self._kept[name] = message

    def release(self, name: str) -> None:
        """See `schedules.release`."""
        if name in self._kept:
            self._receive(self._kept[name])

    def crash(self, node: str) -> None:
        """See `schedules.crash`."""
        if node in self._running:
            self._running.remove(node)
            self.cluster.crash(node)

    def restart(self, node: str) -> None:
        """See `schedules.restart`."""
        self.crash(node)
        try:
            self.cluster.start(node)
        except Exception as exc:  # noqa: BLE001 - whatever the engine raises, the node does not start
            self.history.break_("starts again", f"{node} does not start: {type(exc).__name__}")
            return
        self._running.add(node)
        self._watch()

    def write(self, node: str, command: str) -> None:
        """See `schedules.write`."""
        if node in self._running and self.cluster.observe(node).role == "leader":
            self.history.last_write = command
            self.cluster.write(node, command)
            self._watch()

    def _find(self, kind: str, source: str, target: str) -> list[Message]:
        return [m for m in self._flight if (m.kind, m.source, m.target) == (kind, source, target)]

    def _receive(self, message: Message) -> None:
        if message.target in self._running:
            self.cluster.receive(message)
            self._watch()

    def _watch(self) -> None:
        """Record what has happened; the order matters: votes before leaders, logs before acknowledgements."""
        sent = self.cluster.take_sent()
        self._flight += sent
        self._note_votes(sent)
        for node in sorted(self._running):
            self.history.observe(node, self.cluster.observe(node))
        for applied in self.cluster.take_applied():
            self.history.apply(*applied)
        for acknowledged in self.cluster.take_acknowledged():
            self.history.acknowledge(*acknowledged)

    def _note_votes(self, sent: Iterable[Message]) -> None:
        for message in sent:
            if message.kind == VOTE_ANSWER and message.is_granted:
                self.history.vote(message.source, message.target, message.term)
