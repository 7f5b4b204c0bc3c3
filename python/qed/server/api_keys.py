"""An API key: its text, what the members store of it, and what its holder signs with it."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["ApiKey", "is_signed"]

_TEXT: Final = re.compile(rb"qed_([0-9a-f]{16})_([0-9a-f]{64})")
_ID_BYTES: Final = 8
_SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key. Its text is shown once, and its secret is stored nowhere.

    Attributes:
        id: The public part, 16 hexadecimal digits.
        secret: 32 random bytes. They are also an Ed25519 private key (RFC 8032).
    """

    id: str
    secret: bytes = field(repr=False)

    @staticmethod
    def make() -> ApiKey:
        """Return a key of 256 random bits."""
        return ApiKey(secrets.token_hex(_ID_BYTES), secrets.token_bytes(_SECRET_BYTES))

    @staticmethod
    def parse(text: bytes) -> ApiKey | None:
        """Return the key with this text, or None if it is not the text of a key. Nothing says that the key exists."""
        match = _TEXT.fullmatch(text)
        return None if match is None else ApiKey(match[1].decode(), bytes.fromhex(match[2].decode()))

    @property
    def text(self) -> str:
        """The whole key, `qed_<id>_<secret>`; the secret is 64 hexadecimal digits."""
        return f"qed_{self.id}_{self.secret.hex()}"

    @property
    def hash(self) -> bytes:
        """SHA-256 of the secret."""
        return hashlib.sha256(self.secret).digest()

    @property
    def public_key(self) -> bytes:
        """The Ed25519 public key of the secret, 32 bytes."""
        return self._private_key().public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message, 64 bytes."""
        return self._private_key().sign(message)

    def _private_key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.secret)


def is_signed(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether the owner of a public key has signed a message.

    Args:
        public_key: As `ApiKey.public_key`; anything else has signed nothing.
        message: The message.
        signature: Untrusted bytes.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
