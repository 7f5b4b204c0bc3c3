"""Plays the schedules on the raftos that this interpreter has installed, and prints the findings as JSON.

`run.py` calls it with the Python of its temporary environment. Each node imports its own copy of raftos, as it
would in a separate process: raftos keeps the leader and the event loop in class attributes. A node is started by
`raftos.register` and written to by `raftos.Replicated`; its datagrams end in `Wire`, and its timers never expire by
themselves.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from history import Observation
from play import Message, Player
from schedules import APPEND, APPEND_ANSWER, RESTART_AFTER_A_WRITE, SCHEDULES, VOTE_ANSWER, VOTE_REQUEST

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from schedules import Schedule

KINDS = {
    "request_vote": VOTE_REQUEST,
    "request_vote_response": VOTE_ANSWER,
    "append_entries": APPEND,
    "append_entries_response": APPEND_ANSWER,
}
# The port has no meaning: no socket is bound.
PORT = 8000
# From a call to the datagrams it causes, raftos goes through the event loop at most half as often.
TURNS = 20


def main() -> None:
    """Play every schedule."""
    logging.disable(logging.CRITICAL)  # raftos warns that it has no cryptography, once a node
    shims = add_shims()
    print(json.dumps({"shims": shims, "raftos": {schedule.name: play(schedule) for schedule in SCHEDULES}}))


class Queue(asyncio.Queue[Any]):
    """The queue of Python 3.9, which accepted `loop`."""

    def __init__(self, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.told = loop


def add_shims() -> list[str]:
    """Restore what was removed from the standard library since raftos was written, and return the list."""
    asyncio.futures.InvalidStateError = asyncio.InvalidStateError
    asyncio.Queue = Queue
    return ["asyncio.futures.InvalidStateError (gone since 3.8)", "asyncio.Queue(loop=...) (gone since 3.10)"]


def play(schedule: Schedule) -> dict[str, str]:
    """Return the promises that raftos breaks in `schedule`, each with what was seen."""
    # The default serializer cannot read its own log, so only one schedule can use it.
    is_default = schedule is RESTART_AFTER_A_WRITE
    with tempfile.TemporaryDirectory(prefix="raftos-") as folder:
        cluster = RaftosCluster(schedule.nodes, Path(folder), is_default_serializer=is_default)
        try:
            return Player(schedule, cluster).play().broken
        finally:
            cluster.close()


class Wire:
    """The datagram transport of one node: queues datagrams for the schedule."""

    def __init__(self, send: Callable[[bytes, tuple[str, int]], None]) -> None:
        self.sendto = send

    def is_closing(self) -> bool:
        """Return that it is open: a crash does not close a socket first."""
        return False


class HandLoop(asyncio.SelectorEventLoop):
    """An event loop on which nothing is ever late: timers wait for `expire`, datagrams for the schedule."""

    def __init__(self) -> None:
        super().__init__()
        self.timers: dict[object, Callable[[], None]] = {}
        self.send: Callable[[str, bytes, tuple[str, int]], None] = lambda *_: None

    def call_later(self, _delay: float, callback: Callable[..., Any], *_: object, **__: object) -> asyncio.Handle:
        """Record which node's timer it is instead of starting it."""
        self.timers[callback.__self__] = callback
        return asyncio.Handle(callback, (), self)

    async def create_datagram_endpoint(
        self, factory: Callable[[], Any], local_addr: tuple[str, int]
    ) -> tuple[Any, Any]:
        """Connect the protocol to a `Wire`."""
        protocol = factory()
        wire = Wire(lambda datagram, target: self.send(local_addr[0], datagram, target))
        protocol.connection_made(wire)
        # raftos keeps the transport; the schedule needs the protocol, to pass on the datagrams.
        wire.protocol = protocol
        return wire, protocol

    def run(self, function: Callable[[], object]) -> object:
        """Call `function` on the loop and run it until it is idle."""

        async def turn() -> object:
            value = function()
            if asyncio.iscoroutine(value):
                value = await value
            for _ in range(TURNS):
                await asyncio.sleep(0)
            return value

        return self.run_until_complete(turn())


class RaftosCluster:
    """Nodes of raftos 0.2.6, for `play.Player`. Its errors while it handles a datagram are dropped, as asyncio does."""

    def __init__(self, nodes: str, folder: Path, *, is_default_serializer: bool) -> None:
        self._names = nodes
        self._folder = folder
        self._is_default_serializer = is_default_serializer
        self._loop = HandLoop()
        self._loop.send = self._send
        self._loop.set_exception_handler(lambda *_: None)
        self._nodes: dict[str, SimpleNamespace] = {}
        self._sent: list[Message] = []
        self._applied: list[tuple[str, int, str]] = []
        self._writes: list[tuple[str, str, asyncio.Task[None]]] = []

    def start(self, node: str) -> None:
        """Import a new copy of raftos and register one node with it."""
        package = import_afresh()
        settings: dict[str, Any] = {"log_path": str(self._folder / node)}
        if not self._is_default_serializer:
            settings["serializer"] = package.serializers.JSONSerializer
        package.configure(settings)
        addresses = [f"{name}:{PORT}" for name in self._names]
        self._loop.run(lambda: package.register(f"{node}:{PORT}", cluster=addresses, loop=self._loop))
        server = package.server.Node.nodes[0]
        self._nodes[node] = SimpleNamespace(package=package, server=server, state=server.state)
        self._listen(node)

    def _listen(self, node: str) -> None:
        """Record each command before it enters the state machine of `node`."""
        state = self._nodes[node].state
        apply = state.state_machine.apply

        def noted(command: dict[str, str]) -> None:
            self._applied.append((node, state.log.last_applied + 1, command["x"]))
            apply(command)

        state.state_machine.apply = noted

    def crash(self, node: str) -> None:
        """Forget the node with its timers and its pending calls."""
        del self._nodes[node]

    def fire(self, node: str, timer: str) -> None:
        """Let the timer of the node's present role expire, if that role has it."""
        name = {"election": "election_timer", "heartbeat": "heartbeat_timer", "quorum": "step_down_timer"}[timer]
        found = getattr(self._nodes[node].state.state, name, None)
        if found is not None:
            self._loop.run(self._loop.timers[found])

    def receive(self, message: Message) -> None:
        """Pass the datagram to the protocol of its target."""
        protocol = self._nodes[message.target].server.transport.protocol
        self._loop.call_soon(protocol.datagram_received, message.body, (message.source, PORT))
        self._loop.run(lambda: None)

    def write(self, node: str, command: str) -> None:
        """Set the one replicated value, without waiting."""
        value = self._nodes[node].package.Replicated(name="x")
        self._loop.run(lambda: self._writes.append((node, command, self._loop.create_task(value.set(command)))))

    def observe(self, node: str) -> Observation:
        """Return the state of the node's own objects."""
        state = self._nodes[node].state
        log = tuple(entry["command"]["x"] for entry in state.log.cache)
        return Observation(type(state.state).__name__.lower(), state.storage.term, log)

    def take_sent(self) -> list[Message]:
        """Return what was sent."""
        sent, self._sent = self._sent, []
        return sent

    def take_applied(self) -> list[tuple[str, int, str]]:
        """Return what was applied: the state machine of raftos is a file."""
        applied, self._applied = self._applied, []
        return applied

    def take_acknowledged(self) -> list[tuple[str, str]]:
        """Return the writes whose `set` has returned."""
        done = [write for write in self._writes if write[2].done()]
        self._writes = [write for write in self._writes if not write[2].done()]
        return [(node, command) for node, command, task in done if node in self._nodes and not task.exception()]

    def close(self) -> None:
        """Cancel pending calls."""
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run(lambda: None)
        self._loop.close()

    def _send(self, source: str, datagram: bytes, target: tuple[str, int]) -> None:
        body = self._nodes[source].package.config.serializer.unpack(datagram)
        is_granted = bool(body.get("vote_granted"))
        self._sent.append(Message(KINDS[body["type"]], source, target[0], body["term"], is_granted, datagram))


def import_afresh() -> ModuleType:
    """Return a copy of raftos that shares nothing with the copies before."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "raftos"]:
        del sys.modules[name]
    return importlib.import_module("raftos")


if __name__ == "__main__":
    main()
