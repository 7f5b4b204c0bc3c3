"""Witnesses between signing and publishing: a checkpoint is published once enough of them have cosigned it."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final

from qed.errors import SigningError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from qed._qed import Checkpoint, Digest, Replica
    from qed.server.durations import Durations
    from qed.server.witness_client import WitnessClient

__all__ = ["Witnessing"]

_REFRESHES: Final = 4
"""Cosignatures are renewed after this part of the age that the policy allows: an outage of the rest is harmless."""


class Witnessing:
    """Has checkpoints cosigned.

    Attributes:
        has_quorum: Whether the policy demands witnesses.
        refresh_s: After how many seconds a checkpoint is cosigned again, though the log has not grown.
    """

    def __init__(
        self, origin: str, replica: Replica, client: WitnessClient, *, max_age_s: int | None, has_quorum: bool
    ) -> None:
        self._origin = origin
        self._replica = replica
        self._client = client
        self.has_quorum = has_quorum
        self.refresh_s = math.inf if max_age_s is None else max_age_s / _REFRESHES
        self.halt: Callable[[str], None] = lambda _: None
        """Called with the reason if a witness knows more of this log than this member."""
        self.compare: Callable[[Checkpoint, str], Awaitable[bool]] | None = None
        """Halts unless the log has the tree of a checkpoint that it has signed; returns whether it has."""

    async def consistency(self, old: int, new: int) -> Sequence[Digest]:
        """Return the proof that the log at one size extends it at another."""
        return await asyncio.to_thread(self._replica.consistency, old, new)

    async def cosigned(self, note: bytes) -> bytes:
        """Return a signed checkpoint with the cosignatures that the policy demands.

        Raises:
            SigningError: There are too few, or a witness knows more than this log has, or another history of it.
            VerificationError: The policy does not have the keys of the log.
        """
        done = await self._client.cosign(note.decode(), self)
        for outcome in done.ahead:
            self.halt(f"the witness {outcome.url} has cosigned {outcome.size} entries, more than the log has")
        if done.ahead:
            raise SigningError("a witness knows more of this log than this member")
        for outcome in done.disagreeing:
            # What the witness shows is signed by this log. Without it, the witness may just be faulty.
            newest, said = outcome.newest, f"the witness {outcome.url} has cosigned"
            if newest is not None and self.compare is not None and not await self.compare(newest, said):
                raise SigningError("a witness knows another history of this log")
        if not done.is_quorum_met:
            states = ", ".join(f"{'/'.join(outcome.names)} {outcome.kind}" for outcome in done.outcomes)
            raise SigningError(f"too few witnesses have cosigned: {states}")
        return done.note.encode()

    async def newest(self) -> list[Checkpoint]:
        """Return the newest checkpoints of this log that its witnesses show, as far as they can be reached."""
        sightings = await self._client.newest(self._origin)
        return [one.checkpoint for one in sightings if one.checkpoint is not None]

    async def newest_of_enough(self) -> list[Checkpoint]:
        """Return the same, if no checkpoint was published that none of these witnesses has cosigned.

        A witness counts if its own line is on what it shows. The others must be too few for a quorum; or none, if the
        policy has no quorum.

        Raises:
            SigningError: Too few can be reached, or show what they have cosigned.
        """
        sightings = await self._client.newest(self._origin)
        shown = [one for one in sightings if one.is_cosigned]
        others = self._client.others(shown)
        if not shown or self._client.may_publish(others):
            names = ", ".join(others)
            raise SigningError(f"others may have cosigned more, and do not show what they have cosigned: {names}")
        return [one.checkpoint for one in shown if one.checkpoint is not None]

    @property
    def times(self) -> Mapping[str, Durations]:
        """How long each witness took to answer, by its name."""
        return self._client.times

    @property
    def outcomes(self) -> Mapping[tuple[str, str], int]:
        """How often asking a witness ended in which way, by its name and the kind of the outcome."""
        return self._client.outcomes

    async def aclose(self) -> None:
        """Close the connections to the witnesses."""
        await self._client.aclose()
