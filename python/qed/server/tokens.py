"""Tokens, with each of which one server may join. A token is a private key: it signs, and is never sent."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from qed.server.api_keys import is_signed
from qed.server.config import SettingsError
from qed.server.private_files import read_private

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Claim", "Token", "read_token"]

_TEXT: Final = re.compile(r"qed_join_([0-9a-f]{16})_([0-9a-f]{64})_([0-9a-f]{64})")
_ID_BYTES: Final = 8
_SEED_BYTES: Final = 32
_CLAIM: Final = b"qed join 1\x00"


class Claim(NamedTuple):
    """What a new server signs with a token.

    It is of no use to the member that receives it: it holds for no other key, and at no other member.

    Attributes:
        key: SHA-256 of the public key of the new server, 32 bytes.
        asked: SHA-256 of the public key of the member that it asks, 32 bytes.
        number: Its number, 16 hexadecimal digits.
        name: Its node id.
    """

    key: bytes
    asked: bytes
    number: str
    name: str

    def _message(self, token: str) -> bytes:
        # Everything before the name has a fixed length for a token that exists, so no two claims have the same bytes.
        return _CLAIM + self.key + self.asked + f"{token}{self.number}{self.name}".encode()

    def is_signed_by(self, token: str, public_key: bytes, signature: bytes) -> bool:
        """Return whether a token has signed this.

        Args:
            token: Public part of the token.
            public_key: Its public key, 32 bytes.
            signature: The signature that the new server has sent.
        """
        return is_signed(public_key, self._message(token), signature)

    def signed_with(self, token: Token) -> bytes:
        """Return the Ed25519 signature of a token on this, 64 bytes."""
        return token.key.sign(self._message(token.id))


@dataclass(frozen=True)
class Token:
    """A token. Its text goes to one new server, and the cluster stores only its public key.

    Attributes:
        id: The public part, 16 hexadecimal digits.
        seed: 32 random bytes, from which its private key is made.
        authority: The pin of the authority that signs certificates of the cluster: the new server believes no other.
    """

    id: str
    seed: bytes = field(repr=False)
    authority: bytes

    @classmethod
    def make(cls, authority: bytes) -> Token:
        """Return a new token for the cluster with this authority."""
        return cls(secrets.token_hex(_ID_BYTES), secrets.token_bytes(_SEED_BYTES), authority)

    @classmethod
    def parse(cls, text: str) -> Token:
        """Return the token written in `text`.

        Raises:
            SettingsError: It is not a token, or not a whole one. The message does not repeat it.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise SettingsError("expected a token as `qed cluster token` prints it, qed_join_…, found something else")
        return cls(match[1], bytes.fromhex(match[2]), bytes.fromhex(match[3]))

    @property
    def text(self) -> str:
        """The token as text, `qed_join_<id>_<seed>_<authority>`."""
        return f"qed_join_{self.id}_{self.seed.hex()}_{self.authority.hex()}"

    @property
    def key(self) -> Ed25519PrivateKey:
        """Its private key: Ed25519 (RFC 8032), made from the seed."""
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    @property
    def public_key(self) -> bytes:
        """Its public key, 32 bytes."""
        return self.key.public_key().public_bytes_raw()


def read_token(path: Path) -> Token:
    """Return the token in a file.

    Raises:
        SettingsError: The file cannot be read, others may read it, or it holds no token.
    """
    content = read_private(path, "the token to join with")
    try:
        return Token.parse(content.decode("ascii").strip())
    except (SettingsError, UnicodeDecodeError) as exc:
        reason = exc if isinstance(exc, SettingsError) else "expected a token, found bytes that are not text"
        raise SettingsError(f"{path}: {reason}") from exc
