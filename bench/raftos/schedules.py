"""Schedules for a Raft engine: what the network, the clock, the clients and the crashes do, as plain JSON values.

A schedule says nothing about the engine. The nodes are named by letters. Nothing happens by itself: a message stays in
flight, and a timer waits, until a step says otherwise. A step that finds nothing to do does nothing, because an engine
that keeps Raft's promises leaves these paths early.

Kinds of message: `VOTE_REQUEST`, `VOTE_ANSWER`, `APPEND` (heartbeats too) and `APPEND_ANSWER`. Timers: `ELECTION`
(no message came from a leader, or an election had no winner), `HEARTBEAT` (a leader's) and `QUORUM` (a leader has
not heard from a majority for too long; an engine without it ignores the step). Pre-vote is off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Step = dict[str, Any]

VOTE_REQUEST = "vote request"
VOTE_ANSWER = "vote answer"
APPEND = "append"
APPEND_ANSWER = "append answer"

ELECTION = "election"
HEARTBEAT = "heartbeat"
QUORUM = "quorum"


@dataclass(frozen=True)
class Schedule:
    """A named list of steps for a cluster of `nodes`, and the promise it tests (a key of `history.PROMISES`)."""

    name: str
    nodes: str
    promise: str
    about: str
    steps: tuple[Step, ...]


def fire(node: str, timer: str) -> list[Step]:
    """Let a timer of `node` expire, if it is running."""
    return [{"do": "fire", "node": node, "timer": timer}]


def stand(node: str, term: int) -> list[Step]:
    """Let the election timer of `node` expire until the node is a candidate of `term`, or no longer can be."""
    return [{"do": "stand", "node": node, "term": term}]


def deliver(kind: str, source: str, target: str) -> list[Step]:
    """Deliver the messages of `kind` in flight from `source` to `target`, oldest first, but not the replies."""
    return [{"do": "deliver", "kind": kind, "source": source, "target": target}]


def exchange(nodes: str) -> list[Step]:
    """Deliver everything between `nodes`, replies included, until nothing is in flight between them."""
    return [{"do": "exchange", "nodes": nodes}]


def lose() -> list[Step]:
    """Drop everything in flight."""
    return [{"do": "lose"}]


def drop(kind: str, source: str) -> list[Step]:
    """Drop the messages of `kind` in flight from `source`, to any target."""
    return [{"do": "drop", "kind": kind, "source": source}]


def hold(name: str, kind: str, source: str, target: str) -> list[Step]:
    """Remove the oldest such message from the network and keep it as `name`: a delay."""
    return [{"do": "hold", "name": name, "kind": kind, "source": source, "target": target}]


def copy(name: str, kind: str, source: str, target: str) -> list[Step]:
    """Keep a copy of the oldest such message as `name` and leave it in flight: a duplicate."""
    return [{"do": "copy", "name": name, "kind": kind, "source": source, "target": target}]


def release(name: str) -> list[Step]:
    """Deliver the message kept as `name`."""
    return [{"do": "release", "name": name}]


def crash(node: str) -> list[Step]:
    """Stop `node`. Its disk stays, its memory is lost, and messages to it are lost."""
    return [{"do": "crash", "node": node}]


def restart(node: str) -> list[Step]:
    """Crash `node` if it is running, and start it from its disk."""
    return [{"do": "restart", "node": node}]


def write(node: str, command: str) -> list[Step]:
    """Submit `command` to `node`, as a client would, without waiting. All writes of a schedule differ."""
    return [{"do": "write", "node": node, "command": command}]


def elect(leader: str, term: int, voters: str) -> list[Step]:
    """Let `leader` stand for `term`; its requests reach only `voters`, which answer."""
    steps = stand(leader, term)
    for voter in voters:
        steps += deliver(VOTE_REQUEST, leader, voter)
    steps += drop(VOTE_REQUEST, leader)
    for voter in voters:
        steps += deliver(VOTE_ANSWER, voter, leader)
    return steps


def spread(leader: str, nodes: str) -> list[Step]:
    """Exchange between `nodes` over two heartbeats, after which all of them should know what is committed."""
    beat = fire(leader, HEARTBEAT) + exchange(nodes)
    return exchange(nodes) + beat + beat


def schedule(name: str, nodes: str, promise: str, about: str, *parts: list[Step]) -> Schedule:
    """Return the schedule of `parts` in a row."""
    return Schedule(name, nodes, promise, about, tuple(step for part in parts for step in part))


NOTHING_WRONG = schedule(
    "nothing wrong",
    "ABC",
    "progress",
    "Every message arrives, in order and once, and nobody crashes: this one should hold.",
    elect("A", 1, "BC"),
    *[write("A", command) + spread("A", "ABC") for command in ("w1", "w2", "w3")],
)

FORGOTTEN_VOTE = schedule(
    "forgotten vote",
    "ABC",
    "one vote",
    "C votes for A, restarts, and is asked by B in the same term; then both write.",
    elect("A", 1, "C"),
    lose(),
    restart("C"),
    elect("B", 1, "C"),
    lose(),
    write("A", "a"),
    spread("A", "AC"),
    lose(),
    write("B", "b"),
    spread("B", "BC"),
)

VOTE_AFTER_STEPPING_DOWN = schedule(
    "vote after stepping down",
    "ABC",
    "one vote",
    "A leads, loses its majority, and is asked by B for a vote in the term that A voted for itself.",
    elect("A", 1, "C"),
    lose(),
    fire("A", QUORUM),
    elect("B", 1, "A"),
)

VOTE_OF_AN_OLDER_TERM = schedule(
    "vote of an older term",
    "ABC",
    "majority elects",
    "C's vote for A in term 1 is late and arrives when A stands for term 2; B elects C in term 2.",
    stand("A", 1),
    deliver(VOTE_REQUEST, "A", "C"),
    hold("vote of term 1", VOTE_ANSWER, "C", "A"),
    lose(),
    stand("A", 2),
    lose(),
    release("vote of term 1"),
    lose(),
    elect("C", 2, "B"),
)

DUPLICATED_VOTE = schedule(
    "duplicated vote",
    "ABCDE",
    "majority elects",
    "B's vote for A arrives twice; C and D elect E in the same term.",
    stand("A", 1),
    deliver(VOTE_REQUEST, "A", "B"),
    copy("vote again", VOTE_ANSWER, "B", "A"),
    deliver(VOTE_ANSWER, "B", "A"),
    release("vote again"),
    lose(),
    elect("E", 1, "CD"),
)

EVEN_SPLIT = schedule(
    "even split",
    "ABCD",
    "majority holds",
    "Four nodes are cut in two halves, and each half is written to.",
    elect("A", 1, "B"),
    elect("C", 1, "D"),
    lose(),
    write("A", "a"),
    spread("A", "AB"),
    write("C", "c"),
    spread("C", "CD"),
)

LATE_HEARTBEAT = schedule(
    "late heartbeat",
    "ABC",
    "acknowledged stays",
    "An append from before a write arrives at B a second time after it; A dies, and C, which lacks the write, stands.",
    elect("A", 1, "C"),
    copy("late", APPEND, "A", "B"),
    write("A", "a"),
    spread("A", "AB"),
    release("late"),
    lose(),
    crash("A"),
    elect("C", 2, "B"),
    write("C", "c"),
    spread("C", "BC"),
)

# A voter is restarted before it is asked again: raftos never answers a second candidate otherwise, and Raft allows a
# restart at any time. No node is asked twice in a term.
LATE_ACKNOWLEDGEMENT = schedule(
    "late acknowledgement",
    "ABCDE",
    "acknowledged stays",
    "B's answer for an entry of term 1, since overwritten, reaches A when A leads term 3; then A and D die.",
    elect("A", 1, "DE"),
    write("A", "w1"),
    spread("A", "ABCDE"),
    write("A", "w2"),
    exchange("AB"),
    write("A", "w3"),
    deliver(APPEND, "A", "B"),
    hold("answer of term 1", APPEND_ANSWER, "B", "A"),
    lose(),
    restart("D"),
    restart("E"),
    elect("C", 2, "DE"),
    spread("C", "ABCDE"),
    write("C", "c2"),
    spread("C", "ABCDE"),
    restart("D"),
    restart("E"),
    elect("A", 3, "DE"),
    spread("A", "ABCDE"),
    write("A", "y"),
    exchange("AD"),
    release("answer of term 1"),
    fire("A", HEARTBEAT),
    exchange("AD"),
    lose(),
    crash("A"),
    crash("D"),
    restart("E"),
    elect("C", 4, "BE"),
    write("C", "z"),
    spread("C", "BCE"),
)

OVERLAPPING_WRITES = schedule(
    "overlapping writes",
    "ABC",
    "majority holds",
    "A second write reaches the leader while the first is on its way; only the first is replicated.",
    elect("A", 1, "C"),
    exchange("ABC"),
    write("A", "a"),
    deliver(APPEND, "A", "B"),
    write("A", "b"),
    deliver(APPEND_ANSWER, "B", "A"),
    deliver(APPEND, "A", "C"),
    deliver(APPEND_ANSWER, "C", "A"),
    lose(),
    crash("A"),
    elect("C", 2, "B"),
)

APPLIED_AGAIN = schedule(
    "applied again",
    "ABC",
    "applied once",
    "B restarts after three writes that it has applied.",
    elect("A", 1, "BC"),
    *[write("A", command) + spread("A", "ABC") for command in ("w1", "w2", "w3")],
    restart("B"),
    spread("A", "ABC"),
)

ENTRY_LEFT_BEHIND = schedule(
    "entry left behind",
    "ABC",
    "progress",
    "A dies with a write that only B has; B leads, and five writes reach B and C.",
    elect("A", 1, "C"),
    exchange("AB"),
    write("A", "a"),
    deliver(APPEND, "A", "B"),
    lose(),
    crash("A"),
    restart("C"),
    elect("B", 2, "C"),
    *[write("B", f"b{number}") + spread("B", "BC") for number in range(1, 6)],
)

RESTART_AFTER_A_WRITE = schedule(
    "restart after a write",
    "ABC",
    "starts again",
    "B restarts after one write.",
    elect("A", 1, "BC"),
    write("A", "w1"),
    spread("A", "ABC"),
    restart("B"),
)

SCHEDULES = (
    NOTHING_WRONG,
    FORGOTTEN_VOTE,
    VOTE_AFTER_STEPPING_DOWN,
    VOTE_OF_AN_OLDER_TERM,
    DUPLICATED_VOTE,
    EVEN_SPLIT,
    LATE_HEARTBEAT,
    LATE_ACKNOWLEDGEMENT,
    OVERLAPPING_WRITES,
    APPLIED_AGAIN,
    ENTRY_LEFT_BEHIND,
    RESTART_AFTER_A_WRITE,
)
