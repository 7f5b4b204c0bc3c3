"""Raft's promises, checked against the observed actions of an engine.

Nothing here looks into an engine: it records messages sent, roles, terms and logs, commands applied, and writes
acknowledged. Each promise keeps the first observation that breaks it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

PROMISES = {
    "one vote": "a node votes for one candidate in a term",
    "one leader": "a term has one leader",
    "majority elects": "a leader has the votes of a majority",
    "majority holds": "a write is acknowledged when a majority holds it",
    "acknowledged stays": "every later leader has an acknowledged write",
    "same order": "all nodes apply the same command at an index",
    "applied once": "a kept state has an entry applied once",
    "progress": "a connected majority acknowledges writes",
    "starts again": "a node starts again from its disk",
}


@dataclass(frozen=True)
class Observation:
    """One running node: its role (`follower`, `candidate` or `leader`), its term, and the commands in its log."""

    role: str
    term: int
    log: tuple[str, ...]


class History:
    """The observations of a cluster of `nodes`."""

    def __init__(self, nodes: str) -> None:
        self.nodes = nodes
        self.broken: dict[str, str] = {}
        self.last_write: str | None = None
        self._votes: defaultdict[tuple[int, str], set[str]] = defaultdict(set)
        self._leaders: defaultdict[int, set[str]] = defaultdict(set)
        self._logs: dict[str, tuple[str, ...]] = dict.fromkeys(nodes, ())
        self._terms: dict[str, int] = dict.fromkeys(nodes, 0)
        self._applied: dict[int, dict[str, str]] = defaultdict(dict)
        self._acknowledged: dict[str, int] = {}

    def break_(self, promise: str, evidence: str) -> None:
        """Record that `promise` does not hold, unless an earlier observation has."""
        self.broken.setdefault(promise, evidence)

    def vote(self, voter: str, candidate: str, term: int) -> None:
        """Record that `voter` grants `candidate` its vote."""
        chosen = self._votes[term, voter]
        chosen.add(candidate)
        if len(chosen) > 1:
            self.break_("one vote", f"in term {term} {voter} voted for {' and '.join(sorted(chosen))}")

    def observe(self, node: str, seen: Observation) -> None:
        """Record the state of `node`."""
        self._logs[node] = seen.log
        self._terms[node] = seen.term
        if seen.role != "follower":
            self.vote(node, node, seen.term)
        if seen.role == "leader":
            self._lead(node, seen)

    def _lead(self, node: str, seen: Observation) -> None:
        leaders = self._leaders[seen.term]
        leaders.add(node)
        if len(leaders) > 1:
            self.break_("one leader", f"{' and '.join(sorted(leaders))} both led term {seen.term}")
        voters = {voter for (term, voter), chosen in self._votes.items() if term == seen.term and node in chosen}
        if not self._is_majority(voters):
            self.break_("majority elects", f"{node} led term {seen.term} with {len(voters)} of {len(self.nodes)} votes")
        for command, term in self._acknowledged.items():
            if term < seen.term and command not in seen.log:
                self.break_("acknowledged stays", f"{command}, acknowledged, is not in the log of leader {node}")

    def apply(self, node: str, index: int, command: str) -> None:
        """Record that `node` applies `command`, as entry `index`, to the state from which it will restart."""
        applied = self._applied[index]
        if node in applied:
            self.break_("applied once", f"{node} applied entry {index} again after a restart")
        applied.setdefault(node, command)
        commands = {**applied, node: command}
        other = next((peer for peer in self.nodes if commands.get(peer, command) != command), None)
        if other:
            evidence = f"entry {index} is {commands[other]} on {other} and {command} on {node}"
            self.break_("same order", evidence)

    def acknowledge(self, node: str, command: str) -> None:
        """Record that `node` tells its client that `command` is done. Record the nodes' logs first."""
        self._acknowledged[command] = self._terms[node]
        holders = {peer for peer in self.nodes if command in self._logs[peer]}
        if not self._is_majority(holders):
            self.break_("majority holds", f"{command} acknowledged with {len(holders)} of {len(self.nodes)} copies")

    def end(self) -> None:
        """Record that the last write, if a leader accepted it, has had all the messages it needs to be acknowledged."""
        if self.last_write and self.last_write not in self._acknowledged:
            self.break_("progress", f"{self.last_write} and what came before it was never acknowledged")

    def _is_majority(self, nodes: set[str]) -> bool:
        return len(nodes) * 2 > len(self.nodes)
