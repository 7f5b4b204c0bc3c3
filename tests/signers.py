"""Signer processes for tests, and the log that asks them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

import httpx

from commands import QED, environment
from harness.wait import LIMIT_S
from qed._qed import UnsignedCheckpoint
from qed.log_keys import new_witness_keys
from qed.proofs import Digest
from witnesses import ForeignLog, WitnessProcess, consistency, request, root_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qed.log_keys import SigningKey

__all__ = ["ORIGIN", "SignedLog", "SignerProcess"]

ORIGIN: Final = "log.example.com/signed"


@dataclass
class SignedLog(ForeignLog):
    """A log whose signatures come from a signer. Its own key is not used.

    Attributes:
        submitter: The key with which it asks.
    """

    origin: str = ORIGIN
    submitter: SigningKey = field(default_factory=lambda: new_witness_keys(f"{ORIGIN}/m/1")[0])

    def checkpoint(self, size: int | None = None) -> UnsignedCheckpoint:
        """Return a checkpoint, by default the newest."""
        size = len(self.leaves) if size is None else size
        return UnsignedCheckpoint(self.origin, size, Digest(root_of(self.leaves[:size])))

    async def proof(self, old: int) -> Sequence[Digest]:
        """Return the proof from an older size to the newest one."""
        return [Digest(node) for node in consistency(self.leaves, old)]

    def submission(self, old: int, size: int | None = None, *, submitter: SigningKey | None = None) -> bytes:
        """Return an honest request to a signer."""
        checkpoint = self.checkpoint(size)
        line = (submitter or self.submitter).sign(checkpoint, time=1)
        note = checkpoint.to_note([line]).decode()
        return request(old, consistency(self.leaves[: checkpoint.size], old), note)


@dataclass(eq=False)
class SignerProcess(WitnessProcess):
    """A `qed signer run` in a folder of its own, whether or not it runs, on a Unix socket unless `is_remote`."""

    name: str = ORIGIN
    submitters: tuple[str, ...] = ()
    is_remote: bool = False

    @cached_property
    def socket(self) -> str:
        """Return the path of its socket."""
        return str(self.folder / "s")

    def make_key(self) -> None:
        """Make the keys of the log."""
        command = [QED, "log-key", "generate", "--origin", self.name, "--out", str(self.key)]
        subprocess.run(command, check=True, capture_output=True, timeout=LIMIT_S, env=environment())

    def command(self, *extra: str) -> list[str]:
        """Return the command that starts it."""
        files = ["--key", str(self.key), "--database", str(self.database)]
        where = ["--listen", "127.0.0.1:0"] if self.is_remote else ["--socket", self.socket]
        asking = [part for vkey in self.submitters for part in ("--submitter", vkey)]
        return [QED, "signer", "run", *files, *where, *asking, *self.extra, *extra]

    def ask(self, body: bytes, path: str = "/add-checkpoint") -> httpx.Response:
        """Send a request."""
        with self.client() as client:
            return client.post(path, content=body)

    def client(self) -> httpx.Client:
        """Return connections to it."""
        if self.is_remote:
            return httpx.Client(base_url=self.url, timeout=LIMIT_S)
        return httpx.Client(transport=httpx.HTTPTransport(uds=self.socket), base_url="http://signer", timeout=LIMIT_S)
