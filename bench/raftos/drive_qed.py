"""Plays the schedules on this project's own engine.

A node is a process: the crate `engine`, one member with its data folder on disk. A crash kills it.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from history import Observation
from play import Message, Player
from schedules import SCHEDULES

if TYPE_CHECKING:
    from schedules import Schedule

ROOT = Path(__file__).resolve().parents[2]
# The schedules are written for an engine without pre-vote and check-quorum, and reach furthest without them: a member
# that hears a leader votes for nobody else, and with pre-vote it takes more messages to stand. The last is how
# `qed-server` runs.
SWITCHES = ((), ("check-quorum",), ("check-quorum", "pre-vote"))


def drive_qed() -> dict[str, dict[str, str]]:
    """Build the engine, play every schedule with every setting, and return the broken promises of each schedule."""
    program = build()
    broken: dict[str, dict[str, str]] = {schedule.name: {} for schedule in SCHEDULES}
    for switches in SWITCHES:
        for schedule in SCHEDULES:
            for promise, evidence in play(program, schedule, switches).items():
                broken[schedule.name].setdefault(promise, evidence)
    return broken


def build() -> Path:
    """Return the engine, compiled; cargo says where it is."""
    command = ["cargo", "build", "--release", "--quiet", "--manifest-path", "bench/raftos/engine/Cargo.toml"]
    command += ["--target-dir", "target", "--locked", "--message-format=json-render-diagnostics"]
    done = subprocess.run(command, cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE)
    artifacts = [json.loads(line) for line in done.stdout.splitlines()]
    return next(Path(artifact["executable"]) for artifact in artifacts if artifact.get("executable"))


def play(program: Path, schedule: Schedule, switches: tuple[str, ...]) -> dict[str, str]:
    """Return the promises that qed breaks in `schedule`, each with what was seen."""
    with tempfile.TemporaryDirectory(prefix="qed-") as folder:
        cluster = QedCluster(program, schedule.nodes, Path(folder), switches)
        try:
            return Player(schedule, cluster).play().broken
        finally:
            cluster.close()


class Engine:
    """The process of one node, and its last reported state."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            self.answer = self._read()
        except RuntimeError:
            self.kill()
            raise

    def ask(self, step: dict[str, str]) -> dict[str, Any]:
        """Return the result of `step`."""
        print(json.dumps(step), file=self._process.stdin, flush=True)
        self.answer = self._read()
        return self.answer

    def kill(self) -> None:
        """Kill the process without a warning."""
        self._process.kill()
        self._process.communicate()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the engine has stopped with status {self._process.wait()}")
        return json.loads(line)


class QedCluster:
    """Members of a qed cluster, for `play.Player`."""

    def __init__(self, program: Path, nodes: str, folder: Path, switches: tuple[str, ...]) -> None:
        self._program = program
        self._names = nodes
        self._folder = folder
        self._switches = switches
        self._engines: dict[str, Engine] = {}
        self._sent: list[Message] = []
        self._applied: list[tuple[str, int, str]] = []
        self._acknowledged: list[tuple[str, str]] = []

    def start(self, node: str) -> None:
        """Start a process on the folder of the node."""
        number = self._names.index(node) + 1
        command = [str(self._program), str(self._folder / node), str(number), str(len(self._names)), *self._switches]
        self._engines[node] = Engine(command)
        self._note(node, self._engines[node].answer)

    def crash(self, node: str) -> None:
        """Kill the process."""
        self._engines.pop(node).kill()

    def fire(self, node: str, timer: str) -> None:
        """Let ticks pass until the timer has expired."""
        self._ask(node, {"do": "fire", "timer": timer})

    def receive(self, message: Message) -> None:
        """Pass the message to its target."""
        self._ask(message.target, {"do": "receive", "body": str(message.body)})

    def write(self, node: str, command: str) -> None:
        """Append the command as an event."""
        self._ask(node, {"do": "write", "command": command})

    def observe(self, node: str) -> Observation:
        """Return the last reported state: nothing changes between reports."""
        answer = self._engines[node].answer
        return Observation(answer["role"], answer["term"], tuple(answer["log"]))

    def take_sent(self) -> list[Message]:
        """Return what was sent."""
        sent, self._sent = self._sent, []
        return sent

    def take_applied(self) -> list[tuple[str, int, str]]:
        """Return what was applied: the log is on disk. An index is a position in the log, not one of Raft."""
        applied, self._applied = self._applied, []
        return applied

    def take_acknowledged(self) -> list[tuple[str, str]]:
        """Return the appends whose snapshots were returned."""
        acknowledged, self._acknowledged = self._acknowledged, []
        return acknowledged

    def close(self) -> None:
        """Kill all running processes."""
        for node in list(self._engines):
            self.crash(node)

    def _ask(self, node: str, step: dict[str, str]) -> None:
        self._note(node, self._engines[node].ask(step))

    def _note(self, node: str, answer: dict[str, Any]) -> None:
        for sent in answer["sent"]:
            target = self._names[sent["target"] - 1]
            self._sent.append(Message(sent["kind"], node, target, sent["term"], sent["is_granted"], sent["body"]))
        self._applied += [(node, index, command) for index, command in answer["applied"]]
        self._acknowledged += [(node, command) for command in answer["acknowledged"]]
