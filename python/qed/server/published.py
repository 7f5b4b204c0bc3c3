"""The newest published checkpoint, as one member has it: verified, backed by its own log, and kept over a restart."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from qed._files import replace_file
from qed.errors import LogError, MalformedProof, PolicyError, VerificationError
from qed.policy import Policy
from qed.server.config import SettingsError
from qed.server.logs import Line
from qed.signed import trust_in

if TYPE_CHECKING:
    from pathlib import Path

    from qed._qed import Checkpoint, Replica, TrustFile
    from qed.server.signer_set import SignerSet

__all__ = ["FILE", "Published", "read_policy"]

_log = logging.getLogger(__name__)

FILE: Final = "checkpoint"
"""In the data folder: the newest published checkpoint, as a note."""
_MODE: Final = 0o600


class Published:
    """The newest published checkpoint that this member can back with tiles. It never goes back in size.

    Attributes:
        checkpoint: The checkpoint; None if there is none yet.
        taken_at: When this member has taken it over, in seconds since 1970.
        contradiction: Why this member must not answer: the log has signed another tree than this member has.
        policy: The keys of the log and its witnesses; None if nobody cosigns.
        kept: The signed checkpoint that was in the data folder at the start, whether or not this member has its tree.
            It is evidence of what the log has signed.
    """

    def __init__(self, folder: Path, replica: Replica, signers: SignerSet, policy: Policy | None = None) -> None:
        """Prepare to publish.

        Args:
            folder: The data folder.
            replica: The log.
            signers: The keys of the log.
            policy: The keys of the log and its witnesses; None if nobody cosigns.
        """
        self.policy = policy
        self._folder = folder
        self._replica = replica
        self._signers = signers
        self.kept: Checkpoint | None = None
        self._turn = asyncio.Lock()
        self._grown = asyncio.Event()
        self.checkpoint: Checkpoint | None = None
        self.taken_at = 0.0
        self.contradiction: str | None = None

    @property
    def note(self) -> bytes | None:
        """The note of the checkpoint."""
        return None if self.checkpoint is None else self.checkpoint.note.encode()

    async def wait_for(self, size: int) -> None:
        """Return once a checkpoint of this many entries or more is published."""
        while self.checkpoint is None or self.checkpoint.size < size:
            self._grown.clear()
            await self._grown.wait()

    async def load(self) -> None:
        """Take up the checkpoint that was kept at the last stop, if this member still has its tree."""
        try:
            note = await asyncio.to_thread((self._folder / FILE).read_bytes)
            self.kept = self._endorsed(note)
            await self._take(self.kept, is_kept=True)
        except FileNotFoundError:
            return
        except (OSError, LogError, VerificationError) as exc:
            _log.warning(Line("the checkpoint of the last run is not used", reason=exc))

    async def offer(self, note: bytes) -> Checkpoint | None:
        """Take a note over, if it is newer than the one that is known, and this member has its tree.

        Args:
            note: The note, which anybody may have written.

        Returns:
            The checkpoint that it has, if this member has its tree.

        Raises:
            VerificationError: The log has not signed it.
            LogError: This log cannot be read.
        """
        return await self._take(self._endorsed(note), is_kept=False)

    async def _take(self, checkpoint: Checkpoint, *, is_kept: bool) -> Checkpoint | None:
        """Take a verified checkpoint over; `is_kept` says that it is from this member's own folder."""
        size, root = checkpoint.size, checkpoint.root
        if size > len(self._replica):
            return None
        found = await asyncio.to_thread(self._replica.tree_root_at, size)
        if found != root:
            if is_kept:
                raise VerificationError("root", root.hex(), found.hex())
            await self._contradict(checkpoint, found.hex())
            return None
        async with self._turn:
            if self.checkpoint is None or self._is_newer(checkpoint, self.checkpoint):
                self.checkpoint, self.taken_at = checkpoint, time.time()
                self._grown.set()
                if not is_kept:
                    await asyncio.to_thread(self._keep, checkpoint)
        return checkpoint

    def _endorsed(self, note: bytes) -> Checkpoint:
        """Return the checkpoint in a note, verified by the keys of the log.

        Raises:
            VerificationError: None of them has signed it.
        """
        try:
            trust = self._own_trust() if self.policy is None else self.policy.trust
            return trust.endorse(note, now=int(time.time()))
        except (PolicyError, MalformedProof) as exc:
            raise VerificationError("note", "one of the log", str(exc)) from exc

    def _own_trust(self) -> TrustFile:
        """Return what trusts the keys of the log alone.

        Raises:
            VerificationError: They are not known yet.
        """
        keys = [signer.vkey for signer in self._signers.signers]
        if not keys:
            raise VerificationError("keys", "those of the log", "none: no member that signs has led yet")
        return trust_in(keys)

    @staticmethod
    def _is_newer(one: Checkpoint, other: Checkpoint) -> bool:
        return one.size > other.size or (one.size == other.size and one.note != other.note)

    def _keep(self, checkpoint: Checkpoint) -> None:
        try:
            replace_file(self._folder / FILE, checkpoint.note.encode(), mode=_MODE)
        except OSError as exc:
            _log.error(Line("the checkpoint is not kept", reason=exc.strerror or exc))

    async def _contradict(self, checkpoint: Checkpoint, found: str) -> None:
        """Stop answering, and keep the note: with this member's tree, it convicts the log or this member."""
        if self.contradiction is not None:
            return
        path = self._folder / f"contradiction-{checkpoint.size}.note"
        self.contradiction = (
            f"this member has the root {found} at {checkpoint.size} entries, but the log has signed "
            f"{checkpoint.root.hex()}; "
            f"the signed checkpoint is in {path}"
        )
        _log.error(Line("diverged", reason=self.contradiction))
        try:
            await asyncio.to_thread(replace_file, path, checkpoint.note.encode(), mode=_MODE)
        except OSError as exc:
            _log.error(Line("the signed checkpoint is not kept", reason=exc.strerror or exc))


def read_policy(path: Path) -> Policy:
    """Return the policy of this log, with its witnesses.

    Raises:
        SettingsError: It cannot be read, or is no policy.
    """
    try:
        return Policy.load(path)
    except (OSError, PolicyError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else exc
        raise SettingsError(f"cannot use the policy {path}: {reason}") from exc
