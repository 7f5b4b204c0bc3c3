"""Signature lines that came from another process: nothing is used before the configured keys have verified it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qed._qed import LogKeys
from qed.errors import CertificateError, SigningError, VerificationError
from qed.server.config import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qed._qed import UnsignedCheckpoint

__all__ = ["ANSWER_BYTES", "SignedLines"]

ANSWER_BYTES: Final = 64 * 1024
"""The longest answer that is read. A line of ML-DSA-44 has 3.3 kB."""
_ED25519: Final = 1


class SignedLines:
    """The public keys with which another process signs for the log, and reading its answers.

    Attributes:
        vkeys: The public keys.
    """

    def __init__(self, vkeys: Sequence[str], origin: str) -> None:
        """Make it.

        Args:
            vkeys: The public keys, of kind 01 and 06.
            origin: The name of the log.

        Raises:
            SettingsError: They are not keys of this log, or none of them is of kind 01.
        """
        try:
            self._keys = LogKeys.parse(vkeys)
        except CertificateError as exc:
            raise SettingsError(f"a public key of the signer cannot be used: {exc}") from exc
        self.vkeys: Final[Sequence[str]] = tuple(vkeys)
        self._kinds = dict(zip(vkeys, self._keys.kinds, strict=True))
        for name in self._keys.names:
            if name != origin:
                raise SettingsError(f"expected public keys of {origin}, found one of {name}")
        if _ED25519 not in self._kinds.values():
            raise SettingsError("expected a public key of kind 01 among those of the signer: it signs receipts")

    def wanted(self, among: Sequence[str], *, is_published: bool) -> list[str]:
        """Return the keys that have to sign.

        Args:
            among: The keys that may.
            is_published: Whether all of them are needed, or those of kind 01 alone.
        """
        return [vkey for vkey in self.vkeys if vkey in among and (is_published or self._kinds[vkey] == _ED25519)]

    def read(self, checkpoint: UnsignedCheckpoint, answer: bytes, wanted: Sequence[str]) -> list[str]:
        """Return the lines by the wanted keys, in their order. All others are dropped.

        Raises:
            SigningError: A line of a known key fails, one is missing, or the answer has something else.
        """
        try:
            found = dict(checkpoint.verified_lines(answer, self._keys))
        except VerificationError as exc:
            raise SigningError(f"the signer has answered with lines that do not verify: {exc}") from exc
        missing = [vkey for vkey in wanted if vkey not in found]
        if missing:
            name, key_id, _ = missing[0].split("+", 2)
            raise SigningError(f"expected a signature by the key {name}+{key_id} from the signer, found none")
        return [found[vkey] for vkey in wanted]
