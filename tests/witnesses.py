"""Witness processes for tests, logs that sign for them, and the tree of RFC 6962 as its definition says."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import signal
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from commands import QED, environment
from harness.wait import LIMIT_S, wait_while

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ForeignLog", "WitnessProcess", "consistency", "key_id", "request", "root_of", "vkey_of"]

_LISTENING: Final = re.compile(r"(?:Witness|Signer of) (\S+) listens on (\S+)")


def _sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Return the tree hash of RFC 6962, section 2.1, over leaf hashes."""
    if len(leaves) < 2:
        return leaves[0] if leaves else _sha256()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return _sha256(b"\x01", root_of(leaves[:split]), root_of(leaves[split:]))


def consistency(leaves: Sequence[bytes], old: int) -> list[bytes]:
    """Return the proof that the tree over `leaves` extends the one over the first `old`: section 2.1.2."""
    return _subproof(leaves, old, is_whole=True) if 0 < old < len(leaves) else []


def _subproof(leaves: Sequence[bytes], old: int, *, is_whole: bool) -> list[bytes]:
    if old == len(leaves):
        return [] if is_whole else [root_of(leaves)]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if old <= split:
        return [*_subproof(leaves[:split], old, is_whole=is_whole), root_of(leaves[split:])]
    return [*_subproof(leaves[split:], old - split, is_whole=False), root_of(leaves[:split])]


def key_id(name: str, kind: int, public: bytes) -> bytes:
    """Return the id of a key."""
    return _sha256(name.encode(), b"\n", bytes([kind]), public)[:4]


def vkey_of(name: str, kind: int, public: bytes) -> str:
    """Return a public key as text."""
    encoded = base64.b64encode(bytes([kind]) + public).decode()
    return f"{name}+{key_id(name, kind, public).hex()}+{encoded}"


def request(old: int | str, proof: Sequence[bytes], note: str) -> bytes:
    """Return the body of a request."""
    hashes = "".join(base64.b64encode(part).decode() + "\n" for part in proof)
    return f"old {old}\n{hashes}\n{note}".encode()


@dataclass
class ForeignLog:
    """A log whose signatures share no code with the implementation.

    Attributes:
        origin: Its name.
        leaves: The hashes of its leaves.
    """

    origin: str
    leaves: list[bytes] = field(default_factory=list)
    _key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def vkey(self) -> str:
        """Return its public key."""
        return vkey_of(self.origin, 1, self._public)

    @property
    def _public(self) -> bytes:
        return self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def grow(self, count: int) -> None:
        """Append leaves."""
        start = len(self.leaves)
        self.leaves += [_sha256(b"\x00", self.origin.encode(), b"%d" % i) for i in range(start, start + count)]

    def text(self, size: int | str | None = None, root: bytes | None = None) -> str:
        """Return the text of a checkpoint: by default the newest, and otherwise whatever is asked for."""
        size = len(self.leaves) if size is None else size
        root = root_of(self.leaves[:size] if isinstance(size, int) else []) if root is None else root
        return f"{self.origin}\n{size}\n{base64.b64encode(root).decode()}\n"

    def sign(self, text: str) -> str:
        """Return the note of a text."""
        signature = key_id(self.origin, 1, self._public) + self._key.sign(text.encode())
        return f"{text}\n\u2014 {self.origin} {base64.b64encode(signature).decode()}\n"

    def request(self, old: int, size: int | None = None) -> bytes:
        """Return an honest request."""
        size = len(self.leaves) if size is None else size
        return request(old, consistency(self.leaves[:size], old), self.sign(self.text(size)))


@dataclass(eq=False)
class WitnessProcess:
    """A `qed witness run` in a folder of its own, whether or not it runs.

    Attributes:
        folder: Where its key, database and list of logs are.
        name: The name under which it signs.
        extra: Further options.
        url: Where it listens, from its last start.
    """

    folder: Path
    name: str = "witness.example.com/w1"
    extra: tuple[str, ...] = ()
    url: str = ""
    stdout: str = ""
    _process: subprocess.Popen[bytes] | None = None
    _out: Path = field(default_factory=lambda: Path(tempfile.mkstemp(prefix="witness-")[1]))
    _err: Path = field(default_factory=lambda: Path(tempfile.mkstemp(prefix="witness-")[1]))

    @property
    def key(self) -> Path:
        """Return its key file."""
        return self.folder / "witness.key"

    @property
    def database(self) -> Path:
        """Return its database."""
        return self.folder / "witness.db"

    @property
    def logs(self) -> Path:
        """Return its list of logs."""
        return self.folder / "logs.toml"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """Return its last process."""
        assert self._process is not None
        return self._process

    @property
    def stderr(self) -> str:
        """Return what its last process has written to stderr."""
        return self._err.read_text()

    def make_key(self) -> None:
        """Make its keys."""
        command = [QED, "log-key", "generate", "--witness", self.name, "--out", str(self.key)]
        subprocess.run(command, check=True, capture_output=True, timeout=LIMIT_S, env=environment())

    def vkeys(self) -> list[str]:
        """Return its public keys, Ed25519 first."""
        command = [QED, "log-key", "show", str(self.key)]
        done = subprocess.run(command, check=True, capture_output=True, timeout=LIMIT_S, env=environment())
        return done.stdout.decode().splitlines()

    def know(self, *logs: ForeignLog, per_day: int | None = None) -> None:
        """Write its list of logs."""
        rate = "" if per_day is None else f"per_day = {per_day}\n"
        self.logs.write_text("".join(f'[[log]]\nvkeys = ["{log.vkey}"]\n{rate}\n' for log in logs))

    def command(self, *extra: str) -> list[str]:
        """Return the command that starts it."""
        files = ["--key", str(self.key), "--database", str(self.database), "--listen", "127.0.0.1:0"]
        logs = ["--logs", str(self.logs)] if self.logs.exists() else []
        return [QED, "witness", "run", *files, *logs, *self.extra, *extra]

    def start(self, *extra: str) -> None:
        """Start it, and return once it listens."""
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(self.command(*extra), stdout=out, stderr=err, env=environment())

        def missing() -> str:
            assert self.process.poll() is None, self.stderr
            self.stdout = self._out.read_text()
            return "" if _LISTENING.search(self.stdout) else self.stderr or "nothing"

        wait_while(missing, "the witness to listen")
        found = _LISTENING.search(self.stdout)
        assert found is not None
        self.url = found[2]

    def refused(self, *extra: str) -> str:
        """Run it, expecting it to end by itself with the exit code for wrong usage, and return its last line."""
        done = subprocess.run(
            self.command(*extra), capture_output=True, text=True, timeout=LIMIT_S, check=False, env=environment()
        )
        assert (done.returncode, done.stdout) == (2, ""), done
        assert "Traceback" not in done.stderr
        return done.stderr.splitlines()[-1].removeprefix("qed: ")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop it, and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(LIMIT_S)

    def kill(self) -> None:
        """Kill it as a crash would, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(LIMIT_S)

    def forget(self) -> None:
        """Kill it, and delete what it has written."""
        self.kill()
        for path in (self._out, self._err):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def post(self, body: bytes, client: httpx.Client | None = None) -> httpx.Response:
        """Send a request."""
        if client is not None:
            return client.post("/add-checkpoint", content=body)
        return httpx.post(f"{self.url}/add-checkpoint", content=body, timeout=LIMIT_S)

    def last(self, origin: str) -> httpx.Response:
        """Ask for the last checkpoint of a log, as a monitor does."""
        return httpx.get(f"{self.url}/{hashlib.sha256(origin.encode()).hexdigest()}/checkpoint", timeout=LIMIT_S)
