"""The table of all tokens that were made to join with, and of their uses, folded from the acts."""

from __future__ import annotations

import time
from typing import Final

from qed.server.acts import Act, Rebuilt, Recovered, Restored, TokenCreated, TokenUsed
from qed.server.tokens import Claim

__all__ = ["TokenTable"]

_INVALID: Final = "this token is not valid"
"""The same words for a token that does not exist, and for one that the caller does not have."""
_ADMISSION_S: Final = 24 * 3600
"""How long after the use of its token a server may ask for its first admission."""


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
            case Restored() | Rebuilt() | Recovered():
                # They were for servers of the cluster that is lost.
                self._created.clear()
            case TokenUsed() if act.id not in self._used:
                self._used[act.id] = act
                self._use_of[act.key] = act

    def refusal(self, use: TokenUsed, asked: bytes, signature: bytes) -> str | None:
        """Return why a token may not be used, or None if it may unless it has expired.

        Args:
            use: The use of it, before it is recorded.
            asked: SHA-256 of the public key of the member that the new server has asked.
            signature: What the new server has sent as that of the token on its claim.
        """
        token, claim = self._created.get(use.id), Claim(use.key, asked, use.member, use.name)
        if token is None or not claim.is_signed_by(use.id, token.public_key, signature):
            return _INVALID
        if not self.is_used_by(use) and use.id in self._used:
            return "this token was used already: make another with `qed cluster token`"
        if token.name not in {None, use.name}:
            return f"this token is for {token.name}, not for {use.name}"
        return None

    def lapse(self, public: str) -> str | None:
        """Return that a token has expired, by the clock of this member; None if it has not."""
        token = self._created.get(public)
        if token is None or time.time() < token.expires.timestamp():
            return None
        return f"this token expired at {token.expires:%Y-%m-%dT%H:%M:%SZ}: make another with `qed cluster token`"

    def knows(self, public: str) -> bool:
        """Return whether a token with this public part was ever made."""
        return public in self._created

    def is_used_by(self, use: TokenUsed) -> bool:
        """Return whether a token was used by this server and not by another. It may ask again for its certificate."""
        known = self._used.get(use.id)
        return known is not None and (known.key, known.member, known.name) == (use.key, use.member, use.name)

    def admission_refusal(self, key: bytes, member: str, name: str) -> str | None:
        """Return why the owner of a key may not become a member; None if it may, or has used no token.

        The certificate that it got for the token has no end. So it is for one number and one name: once that member is
        removed, it is worth nothing. And it is for the day after the use: nobody has to remember one that never joined.

        Args:
            key: SHA-256 of the public key.
            member: The number under which it asks for admission, 16 hexadecimal digits.
            name: The name under which it asks.
        """
        use = self._use_of.get(key)
        if use is None:
            return None
        if (use.member, use.name) != (member, name):
            return "its certificate was for another member: empty the data folder, use a new token"
        if time.time() >= use.when.timestamp() + _ADMISSION_S:
            moment = f"{use.when:%Y-%m-%dT%H:%M:%SZ}"
            return f"its token was used at {moment}, a day ago or more: empty the data folder, use a new token"
        return None
