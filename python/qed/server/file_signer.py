"""What signs the checkpoints of the log: here, keys in the memory of this process, from a file."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from qed.errors import CertificateError
from qed.log_keys import parse_log_keys
from qed.server.config import SettingsError
from qed.server.private_files import read_private

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from qed._qed import Digest, SigningKey, UnsignedCheckpoint

__all__ = ["FileSigner", "Signer", "read_signer"]

_ED25519: Final = 1
_LOG_KINDS: Final = (1, 6)


class Signer(Protocol):
    """What signs for the log.

    Attributes:
        vkeys: Its public keys.
    """

    vkeys: Sequence[str]

    async def sign(
        self,
        checkpoint: UnsignedCheckpoint,
        *,
        is_published: bool,
        time_s: int,
        consistency: Callable[[int], Awaitable[Sequence[Digest]]],
        among: Sequence[str],
    ) -> list[str]:
        """Return the lines that sign a checkpoint.

        Args:
            checkpoint: The checkpoint.
            is_published: Whether it is for everybody, with every kind of key; or for a receipt, with Ed25519 alone.
            time_s: The time of the signatures that have one, in seconds since 1970.
            consistency: Returns the proof that the checkpoint extends the tree of a smaller size.
            among: The public keys that may sign.

        Raises:
            SigningError: It did not sign.
        """


class FileSigner:
    """Keys in the memory of this process."""

    def __init__(self, keys: Sequence[SigningKey]) -> None:
        self._keys = keys
        self.vkeys: Sequence[str] = [key.vkey for key in keys]

    async def sign(
        self,
        checkpoint: UnsignedCheckpoint,
        *,
        is_published: bool,
        time_s: int,
        consistency: Callable[[int], Awaitable[Sequence[Digest]]],  # noqa: ARG002  # this signer remembers nothing
        among: Sequence[str],
    ) -> list[str]:
        """Return the lines that sign a checkpoint; see `Signer`."""
        keys = [key for key in self._keys if key.vkey in among]
        quick = [key.sign(checkpoint, time=time_s) for key in keys if key.kind == _ED25519]
        if not is_published:
            return quick
        # ML-DSA-44 takes about a millisecond.
        slow = (asyncio.to_thread(key.sign, checkpoint, time=time_s) for key in keys if key.kind != _ED25519)
        return quick + await asyncio.gather(*slow)


def read_signer(path: Path, origin: str) -> FileSigner:
    """Return the keys in a file, which must be those of the log.

    Args:
        path: A file of `qed log-key generate`.
        origin: The name of the log.

    Raises:
        SettingsError: It cannot be read, others may read it, or it has keys of another log or of a witness.
    """
    try:
        keys = parse_log_keys(read_private(path, "the keys of the log"))
    except CertificateError as exc:
        raise SettingsError(f"{path}: {exc}") from exc
    for key in keys:
        if key.name != origin:
            raise SettingsError(f"expected keys of {origin} in {path}, found one of {key.name}")
        if key.kind not in _LOG_KINDS:
            raise SettingsError(
                f"expected keys of kind 01 and 06 in {path}, found one of kind {key.kind:02}: that is for witnesses. "
                f"`qed log-key generate --origin {origin}` makes those of a log"
            )
    if not any(key.kind == _ED25519 for key in keys):
        raise SettingsError(f"expected an Ed25519 key in {path}: it signs receipts")
    return FileSigner(keys)
