"""A log, its proofs, and clients that ask its witnesses."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from qed.policy import Policy
from qed.server.back_off import BackOff
from qed.server.witness_client import WitnessClient
from signing import NOW, WITNESSES
from witnesses import ForeignLog, consistency

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scripted_http import Request

__all__ = [
    "FINGERPRINT",
    "LIMIT_S",
    "W1",
    "W2",
    "W3",
    "Chronicle",
    "client_of",
    "close_clients",
    "log_of",
    "old_of",
    "policy_of",
]

W1, W2, W3 = WITNESSES
FINGERPRINT: Final = hashlib.sha256(b"log.example.com/cosigned").hexdigest()
"""What stands for the log in the paths of witnesses."""
LIMIT_S: Final = 0.5
"""How long a round may take that waits for someone who never answers."""


def log_of(size: int) -> ForeignLog:
    """Return a log with so many leaves."""
    log = ForeignLog("log.example.com/cosigned")
    log.grow(size)
    return log


class Chronicle:
    """Proofs of a log, and which ones were asked for."""

    def __init__(self, log: ForeignLog) -> None:
        self._log = log
        self.asked: list[tuple[int, int]] = []

    async def consistency(self, old: int, new: int) -> Sequence[bytes]:
        """Return a proof, as the log would."""
        self.asked.append((old, new))
        return consistency(self._log.leaves[:new], old)


def policy_of(log: ForeignLog, *witnesses: str, quorum: str = "all") -> Policy:
    """Return a policy with lines of witnesses, each a name, a vkey and perhaps a URL, and a group `all` of them."""
    names = " ".join(line.split(" ")[0] for line in witnesses)
    lines = [f"log {log.vkey}", *(f"witness {line}" for line in witnesses), f"group all all {names}"]
    return Policy("\n".join([*lines, f"quorum {quorum}", ""]).encode())


_clients: list[WitnessClient] = []


def client_of(policy: Policy, **options: object) -> WitnessClient:
    """Return a client at a fixed time, whose waits are as short as chance allows. `close_clients` closes it."""
    client = WitnessClient(
        policy,
        clock=lambda: NOW,
        back_off=lambda: BackOff(clock=lambda: 0.0, chance=lambda: 0.0),
        **options,  # type: ignore[arg-type]  # those of the class
    )
    _clients.append(client)
    return client


async def close_clients() -> None:
    """Close the clients that were made since the last time."""
    while _clients:
        await _clients.pop().aclose()


def old_of(request: Request) -> int:
    """Return the size from which a request starts."""
    return int(request.body.split(b"\n")[0].removeprefix(b"old "))
