"""Tokens, with each of which one server may join: their text, and the table of all, folded from the acts."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from qed.server.acts import Act, TokenCreated, TokenUsed
from qed.server.config import SettingsError
from qed.server.private_files import read_private

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Token", "TokenTable", "read_token"]

_TEXT: Final = re.compile(r"qed_join_([0-9a-f]{16})_([0-9a-f]{64})_([0-9a-f]{64})")
_ID_BYTES: Final = 8
_SECRET_BYTES: Final = 32
_INVALID: Final = "this token is not valid"
"""The same words for every token whose secret the caller does not know."""


@dataclass(frozen=True)
class Token:
    """A token. Its text goes to one new server, and only the hash of its secret is stored.

    Attributes:
        id: The public part, 16 hexadecimal digits.
        secret: 32 random bytes.
        authority: The pin of the authority that signs certificates of the cluster: the new server believes no other.
    """

    id: str
    secret: bytes = field(repr=False)
    authority: bytes

    @classmethod
    def make(cls, authority: bytes) -> Token:
        """Return a new token for the cluster with this authority."""
        return cls(secrets.token_hex(_ID_BYTES), secrets.token_bytes(_SECRET_BYTES), authority)

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
        """The token as text, `qed_join_<id>_<secret>_<authority>`."""
        return f"qed_join_{self.id}_{self.secret.hex()}_{self.authority.hex()}"

    @property
    def hash(self) -> bytes:
        """SHA-256 of its secret."""
        return hashlib.sha256(self.secret).digest()


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


class TokenTable:
    """All tokens that were ever made, and which of them were used, as this member knows them."""

    def __init__(self) -> None:
        self._created: dict[str, TokenCreated] = {}
        self._used: dict[str, TokenUsed] = {}
        self._use_of: dict[bytes, TokenUsed] = {}

    def fold(self, act: Act | None) -> None:
        """Apply the next act of the history; those that are not about tokens change nothing.

        Two leaders may record a use of one token, one after the other. The first counts, on every member.
        """
        match act:
            case TokenCreated():
                self._created.setdefault(act.id, act)
            case TokenUsed() if act.id not in self._used:
                self._used[act.id] = act
                self._use_of[act.key] = act

    def refusal(self, use: TokenUsed, proof: bytes) -> str | None:
        """Return why a token may not be used now, or None if it may.

        Args:
            use: The use of it, before it is recorded.
            proof: SHA-256 of the secret that the new server has shown.
        """
        token = self._created.get(use.id)
        if not hmac.compare_digest(proof, token.hash if token else bytes(32)) or token is None:
            return _INVALID
        if not self.is_used_by(use) and use.id in self._used:
            return "this token was used already: make another with `qed cluster token`"
        if time.time() >= token.expires.timestamp():
            return f"this token expired at {token.expires:%Y-%m-%dT%H:%M:%SZ}: make another with `qed cluster token`"
        if token.name not in {None, use.name}:
            return f"this token is for {token.name}, not for {use.name}"
        return None

    def is_used_by(self, use: TokenUsed) -> bool:
        """Return whether a token was used by this server and not by another. It may ask again for its certificate."""
        known = self._used.get(use.id)
        return known is not None and (known.key, known.member, known.name) == (use.key, use.member, use.name)

    def use_of(self, key: bytes) -> TokenUsed | None:
        """Return the use of a token by the owner of a key, or None if it has used none.

        It may join under that number and name only. So once the member is removed, its certificate is worth nothing.
        """
        return self._use_of.get(key)
