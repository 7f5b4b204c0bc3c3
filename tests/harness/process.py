"""One `qed-server`: it keeps its folder and its addresses when its process is restarted."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx

from harness.ports import ports_of_server
from harness.wait import LIMIT_S, wait_while
from qed._wire import CLUSTER, INFO, SHARDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qed._wire import Cluster, Info, Shards

__all__ = ["COMMAND", "Server", "StartFailed", "run_to_exit", "start_process"]

COMMAND: Final = str(Path(sys.executable).with_name("qed-server"))

_ANY_PORT: Final = 0
_LISTENING: Final = re.compile(r"listening on (https?://\S+), data in (.+), (\d+) events")


class StartFailed(AssertionError):
    """The server ended before it listened."""

    def __init__(self, returncode: int, stderr: str) -> None:
        super().__init__(f"qed-server exited with {returncode}: {stderr}")
        self.returncode = returncode
        self.stderr = stderr


def _stderr_path() -> Path:
    # Not beside the data folder, because that disk may be full.
    return Path(tempfile.gettempdir()) / f"qed-server-{secrets.token_hex(8)}.stderr"


@dataclass(eq=False)
class Server:
    """A server, whether or not its process is running.

    Attributes:
        name: Its node id.
        folder: Its data folder.
        join: Addresses of the members that it asks for admission.
        extra: Additional options; they override the others.
        secret: The file with the secret of its cluster; None for a server that is alone, or that has other credentials.
        ca: The file with the authority of its certificate for clients; None for a server without TLS for clients.
        key: The API key with which it is asked; None if it needs none.
        host: Where it listens.
        ports: The port of each service; 0 is any free one, at each start.
        command: The command that starts it. A prefix may start it elsewhere, such as in a network namespace.
        environment: Variables for its process, in addition to those of this one.
        log: The file with the stderr of all its processes.
        events: The number of events that it reported at its start.
    """

    name: str
    folder: Path
    join: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    secret: Path | None = None
    ca: Path | None = None
    key: str | None = None
    host: str = "127.0.0.1"
    ports: dict[str, int] = field(default_factory=ports_of_server)
    command: tuple[str, ...] = (COMMAND,)
    environment: Mapping[str, str] = field(default_factory=dict)
    log: Path = field(default_factory=_stderr_path)
    events: int = 0
    _url: str | None = None
    _process: subprocess.Popen[bytes] | None = None
    _stderr_start: int = 0
    _is_wanted: bool = False

    # Its addresses.

    def address(self, service: str) -> str:
        """Return the address of a service, as `host:port`."""
        return f"{self.host}:{self.ports[service]}"

    @property
    def url(self) -> str:
        """Return its base URL, such as `http://127.0.0.1:40123`. If any port is allowed, that of its last start."""
        return self._url or f"{'https' if self.ca else 'http'}://{self.address('http')}"

    @property
    def http_address(self) -> tuple[str, int]:
        """Return host and port for a plain socket."""
        url = httpx.URL(self.url)
        assert url.port is not None
        return url.host, url.port

    # Its process.

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """Return its last process, which may have ended."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process

    @property
    def is_running(self) -> bool:
        """Return whether it has a process."""
        return self._process is not None and self._process.poll() is None

    @property
    def has_ended_by_itself(self) -> bool:
        """Return whether its process has ended without being stopped or killed."""
        return self._is_wanted and not self.is_running

    @property
    def stderr(self) -> str:
        """Return everything that its last process has written to stderr."""
        return self.log.read_bytes()[self._stderr_start :].decode(errors="replace")

    def launch(self) -> None:
        """Start its process, without waiting for it."""
        assert not self.is_running, f"{self.name} runs already"
        with self.log.open("ab") as stderr:
            self._stderr_start = stderr.tell()
            self._process = subprocess.Popen(
                self._command(), stdout=subprocess.DEVNULL, stderr=stderr, env=self._environment()
            )
        self._is_wanted = True

    def start(self) -> None:
        """Start its process, and return once it listens.

        Raises:
            StartFailed: It ended before it listened.
            TimedOut: It does not listen.
        """
        self.launch()
        self.wait_listening()

    def wait_listening(self) -> None:
        """Return once the last launched process listens.

        Raises:
            StartFailed: It ended before it listened.
            TimedOut: It does not listen.
        """

        def missing() -> str:
            if not self.is_running:
                raise StartFailed(self.process.returncode, self.stderr)
            return "" if _LISTENING.search(self.stderr) else self.stderr or "nothing on stderr"

        wait_while(missing, f"{self.name} to listen")
        found = _LISTENING.search(self.stderr)
        assert found is not None
        self._url, self.events = found[1], int(found[3])

    def run_to_exit(self) -> subprocess.CompletedProcess[str]:
        """Run it, expecting it to end by itself."""
        return subprocess.run(
            self._command(), capture_output=True, text=True, timeout=LIMIT_S, check=False, env=self._environment()
        )

    def wait(self) -> int:
        """Return the exit code once its process ends by itself."""
        return self.process.wait(LIMIT_S)

    def stop(self) -> int:
        """Stop it as an operator would, with SIGTERM, and return the exit code."""
        self._is_wanted = False
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """Kill it as a crash would, if it is running, and wait for its end."""
        self._is_wanted = False
        if self.is_running:
            self.process.kill()
            self.wait()

    def pause(self) -> None:
        """Pause the process; its connections stay open."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        self.process.send_signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Delete everything in its folder. The folder may be a mount, so it stays."""
        for entry in self.folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def forget(self) -> None:
        """Kill it if it is running, and delete its stderr file."""
        self.kill()
        self.log.unlink(missing_ok=True)

    def resident_bytes(self, kind: str = "VmHWM") -> int:
        """Return the largest resident size, or with `VmRSS` the current one."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition(f"{kind}:")[2].split()[0]) * 1024

    # Its answers.

    def info(self) -> Info:
        """Return its information about itself."""
        return INFO.decode(self._ask("/info", self.http_address))

    def shards(self) -> Shards:
        """Return the members and the leader, as it knows them."""
        return SHARDS.decode(self._ask("/info/shards", self.http_address))

    def view(self, *, limit_s: float = LIMIT_S) -> Cluster:
        """Return the cluster as it sees it.

        Raises:
            OSError: It does not answer.
        """
        return CLUSTER.decode(self._ask("/cluster", (self.host, self.ports["mgmt"]), limit_s=limit_s))

    def give_up(self, name: str) -> str:
        """Ask it to let the next server that joins under a name take that member's place; return why it refused.

        Raises:
            OSError: It does not answer.
        """
        address, body = (self.host, self.ports["mgmt"]), json.dumps({"name": name}).encode()
        status, answer = self._exchange("POST", "/cluster/replace", address, body)
        return "" if status == http.HTTPStatus.OK else answer.decode()

    def count(self) -> int:
        """Return how many events its log holds."""
        return self.info().events

    def add(self, event: bytes) -> httpx.Response:
        """Add an event through it; it may redirect to the leader."""
        body = {"Event": base64.b64encode(event).decode()}
        return httpx.post(f"{self.url}/events", json=body, follow_redirects=True, timeout=LIMIT_S)

    def _command(self) -> list[str]:
        listening = [f"--{service}-addr={self.address(service)}" for service in self.ports]
        joining = [f"--raft-join-addr={address}" for address in self.join]
        own = ["--node-id", self.name, "--data-dir", str(self.folder)]
        return [*self.command, *own, *listening, *joining, *self.extra]

    def _environment(self) -> dict[str, str]:
        # A build from before secrets ignores the variable, so that benchmarks can compare with it.
        secret = {"QED_SERVER_CLUSTER_SECRET_FILE": str(self.secret)} if self.secret else {}
        return {**os.environ, **secret, **self.environment}

    def _ask(self, path: str, address: tuple[str, int], *, limit_s: float = LIMIT_S) -> bytes:
        status, body = self._exchange("GET", path, address, limit_s=limit_s)
        if status == http.HTTPStatus.SERVICE_UNAVAILABLE:
            raise ConnectionError(f"{path}: {body!r}")
        assert status == http.HTTPStatus.OK, f"{path}: {status}: {body!r}"
        return body

    def _exchange(
        self, method: str, path: str, address: tuple[str, int], body: bytes = b"", *, limit_s: float = LIMIT_S
    ) -> tuple[int, bytes]:
        """Return status and body of an answer, and close the connection."""
        connection = http.client.HTTPConnection(*address, timeout=limit_s)
        if self.ca is not None:
            context = ssl.create_default_context(cafile=self.ca)
            connection = http.client.HTTPSConnection(*address, timeout=limit_s, context=context)
        try:
            connection.request(method, path, body, headers={} if self.key is None else {"Api-Key": self.key})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as exc:
            raise ConnectionError(f"{path}: {exc!r}") from exc
        finally:
            connection.close()


def _lone(data_dir: Path, extra: tuple[str, ...]) -> Server:
    return Server(socket.gethostname(), data_dir, extra=extra, ports=dict.fromkeys(("http", "mgmt", "raft"), _ANY_PORT))


def start_process(data_dir: Path, *extra: str) -> Server:
    """Start a server on free ports, and return once it is healthy.

    Args:
        data_dir: The folder of its log.
        *extra: Further options.

    Returns:
        The running server, for the caller to stop.
    """
    server = _lone(data_dir, extra)
    try:
        server.start()
    except BaseException:
        server.forget()
        raise
    return server


def run_to_exit(data_dir: Path, *extra: str) -> subprocess.CompletedProcess[str]:
    """Run a server that is expected to end by itself."""
    return _lone(data_dir, extra).run_to_exit()
