"""The keys with which a log or a witness signs checkpoints, as the lines of one file. This module reads no files."""

from __future__ import annotations

import secrets
from typing import Final

from qed._qed import SigningKey
from qed.errors import CertificateError

__all__ = ["SigningKey", "content_of_log_keys", "new_log_keys", "new_witness_keys", "parse_log_keys"]

_SEED_BYTES: Final = 32
_PEM: Final = b"-----BEGIN "


def new_log_keys(origin: str) -> list[SigningKey]:
    """Return new keys of a log, one for each kind of signature.

    Args:
        origin: The name of the log, such as `log.example.com/payments`: 1 to 200 of `a-z`, `0-9`, `.`, `_`, `-` and
            `/`. It never changes.

    Returns:
        The Ed25519 key and the ML-DSA-44 key.

    Raises:
        CertificateError: No log may have this name.
    """
    return SigningKey.of_log(
        origin,
        ed25519_seed=secrets.token_bytes(_SEED_BYTES),
        ml_dsa_44_seed=secrets.token_bytes(_SEED_BYTES),
    )


def new_witness_keys(name: str) -> list[SigningKey]:
    """Return new keys of a witness, one for each kind of signature.

    Args:
        name: The name of the witness, such as `witness.example.com/w1`, of the same form as the origin of a log.

    Returns:
        The Ed25519 key for cosignatures and the ML-DSA-44 key.

    Raises:
        CertificateError: No witness may have this name.
    """
    return SigningKey.of_witness(
        name, ed25519_seed=secrets.token_bytes(_SEED_BYTES), ml_dsa_44_seed=secrets.token_bytes(_SEED_BYTES)
    )


def content_of_log_keys(keys: list[SigningKey]) -> bytes:
    """Return the content of the file that keeps these keys. It is a secret."""
    return "".join(f"{key.to_secret_text()}\n" for key in keys).encode()


def parse_log_keys(content: bytes) -> list[SigningKey]:
    """Return the keys in the content of a file.

    Args:
        content: What `content_of_log_keys` returns.

    Returns:
        The keys in the order of the file, at least one.

    Raises:
        CertificateError: It is not a file of keys of one log. The message has no part of a key.
    """
    if content.startswith(_PEM):
        raise CertificateError(
            "expected keys of `qed log-key generate`, found a file in PEM format: "
            "no such key can sign for a log or a witness, encrypted or not"
        )
    return SigningKey.parse_file(content)
