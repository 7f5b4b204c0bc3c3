"""The key of a member: Ed25519, made with its data folder, and never sent anywhere (FORMATS.md, "Data folder")."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from qed._files import PRIVATE, create_file
from qed.server.config import SettingsError
from qed.server.private_files import read_private

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["KEY_FILE", "read_or_make_key"]

KEY_FILE: Final = "member.key"
"""PEM, PKCS#8, readable by its owner only."""


def read_or_make_key(folder: Path) -> Ed25519PrivateKey:
    """Return the key of the member whose data folder this is. The first call makes it.

    Raises:
        SettingsError: The file with the key is damaged, or others may read it.
        OSError: The folder cannot be written.
    """
    path = folder / KEY_FILE
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        with contextlib.suppress(FileExistsError):
            create_file(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=PRIVATE)
    content = read_private(path, "the key of this member")
    try:
        found = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise SettingsError(_damaged(path)) from exc
    if not isinstance(found, Ed25519PrivateKey):
        raise SettingsError(_damaged(path))
    return found


def _damaged(path: Path) -> str:
    return (
        f"expected an Ed25519 key in PEM in {path}, and it is damaged: bring it back from a copy, or delete it and let "
        "an operator accept the new key with `qed cluster replace`"
    )
