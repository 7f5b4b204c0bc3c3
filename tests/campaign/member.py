"""One member: a `qed-server` process that is started, stopped and started again on the same folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from campaign.connection import Connection, NoReply, Request
from campaign.violation import Violation
from qed._wire import CLUSTER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from campaign.connection import Address
    from qed._wire import Cluster

__all__ = ["Member"]

_COMMAND: Final = Path(sys.executable).with_name("qed-server")
_START_LIMIT_S: Final = 30.0
_STOP_LIMIT_S: Final = 30.0
_QUESTION_LIMIT_S: Final = 1.0


@dataclass
class Member:
    """A member and its process.

    Attributes:
        index: Its number in this campaign.
        host: Where it listens.
        ports: For clients, for operators, for metrics, for members.
        data_dir: The folder of its log.
        log: The file that its stderr goes to, over all its lives.
        prefix: What its command begins with.
        environment: Variables for its process, beside those of this one.
        may_fail: Whether its disk is being filled, so that it may end by itself.
    """

    index: int
    host: str
    ports: tuple[int, int, int, int]
    data_dir: Path
    log: Path
    prefix: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    may_fail: bool = False
    _process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        """Return its node id."""
        return f"server{self.index}"

    @property
    def http_address(self) -> Address:
        """Return where clients reach it."""
        return self.host, self.ports[0]

    @property
    def raft_addr(self) -> str:
        """Return where members reach it."""
        return f"{self.host}:{self.ports[3]}"

    @property
    def is_running(self) -> bool:
        """Return whether it has a process."""
        return self._process is not None and self._process.poll() is None

    def launch(self, join: Sequence[Member] = ()) -> None:
        """Start its process; `join` are the members to ask for admission."""
        options = zip(("http", "mgmt", "metrics", "raft"), self.ports, strict=True)
        command = [*self.prefix, str(_COMMAND), "--node-id", self.name, "--data-dir", str(self.data_dir)]
        command += [f"--{name}-addr={self.host}:{port}" for name, port in options]
        command += [f"--raft-join-addr={member.raft_addr}" for member in join]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=log, env={**os.environ, **self.environment}
            )

    def await_answer(self) -> None:
        """Return once it answers.

        Raises:
            Violation: It does not.
        """
        deadline = time.monotonic() + _START_LIMIT_S
        while self.view() is None:
            if not self.is_running or time.monotonic() > deadline:
                raise Violation(f"{self.name} does not start")
            time.sleep(0.02)

    def start(self) -> None:
        """Start it on the folder it has, and return once it answers."""
        self.launch()
        self.await_answer()

    def kill(self) -> None:
        """End it as a crash would."""
        self._signal(signal.SIGKILL)
        self._wait()

    def stop(self) -> None:
        """End it as an operator would.

        Raises:
            Violation: It does not end, or not well.
        """
        self._signal(signal.SIGTERM)
        status = self._wait()
        if status and not self.may_fail:
            raise Violation(f"{self.name} exited with {status} after SIGTERM")

    def pause(self) -> None:
        """Let it do nothing, while its connections stay."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Delete everything in its folder. The folder may be a mount, so it stays."""
        for entry in self.data_dir.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def view(self) -> Cluster | None:
        """Return the cluster as it sees it, or None if it does not answer."""
        with Connection((self.host, self.ports[1]), _QUESTION_LIMIT_S) as connection:
            try:
                return CLUSTER.decode(connection.ask(Request("GET", "/cluster")).body)
            except NoReply:
                return None

    def transfer(self) -> None:
        """Ask that it lead."""
        with Connection((self.host, self.ports[1]), _QUESTION_LIMIT_S) as connection:
            try:
                connection.ask(Request("POST", "/cluster/transfer", b'{"name":"%s"}' % self.name.encode()))
            except NoReply:
                return

    def has_ended_unasked(self) -> bool:
        """Return whether its process has ended without being told to."""
        return self._process is not None and not self.is_running and not self.may_fail

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self.is_running:
            self._process.send_signal(number)

    def _wait(self) -> int:
        assert self._process is not None
        try:
            status = self._process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired as exc:
            raise Violation(f"{self.name} does not end") from exc
        self._process = None
        return status
