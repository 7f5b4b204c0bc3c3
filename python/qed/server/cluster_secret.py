"""The cluster secret: random bytes that every member of a cluster knows (`--cluster-secret-file`)."""

from __future__ import annotations

import base64
import secrets
import string
from typing import TYPE_CHECKING, Final

from qed.server.config import SettingsError
from qed.server.private_files import read_private

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["LEAST_BYTES", "make_secret", "read_secret"]

LEAST_BYTES: Final = 32
"""Fewest bytes of a secret. Members prove it to whoever connects, so it must not be possible to guess it offline."""
_LEAST_DIFFERENT: Final = 8
"""Fewest different bytes: 64 random hexadecimal digits have 16 kinds, and a placeholder has one or two."""
_TEXT: Final = frozenset(string.printable.encode())


def make_secret() -> str:
    """Return a new secret as text: 32 random bytes in base64, and a newline."""
    return base64.b64encode(secrets.token_bytes(LEAST_BYTES)).decode() + "\n"


def read_secret(path: Path) -> bytes:
    """Return the secret in a file: its bytes, without the white space at the end of a text.

    Raises:
        SettingsError: The file cannot be read, others may read it, or it is too short or not random.
    """
    content = read_private(path, "the cluster secret")
    # An editor or `echo` ends a text with a newline; random bytes may end with anything.
    secret = content.rstrip() if _TEXT.issuperset(content) else content
    if len(secret) < LEAST_BYTES:
        raise SettingsError(
            f"expected a cluster secret of at least {LEAST_BYTES} bytes, but {path} holds {len(secret)}: "
            "make one with `qed cluster secret`"
        )
    if len(set(secret)) < _LEAST_DIFFERENT:
        raise SettingsError(
            f"expected a random cluster secret, but {path} repeats the same few bytes: make one with "
            "`qed cluster secret`"
        )
    return secret
