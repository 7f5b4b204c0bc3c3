"""What signs for this member: keys in a file, a signer in another process, or a command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qed._files import open_at_once
from qed.errors import CertificateError
from qed.log_keys import parse_log_keys
from qed.server.command_signer import CommandSigner
from qed.server.config import SettingsError
from qed.server.file_signer import read_signer
from qed.server.private_files import read_private
from qed.server.remote_signer import RemoteSigner

if TYPE_CHECKING:
    from pathlib import Path

    from qed.log_keys import SigningKey
    from qed.server.config import SigningSettings
    from qed.server.file_signer import Signer

__all__ = ["open_signer"]

_BYTES_MAX: Final = 64 * 1024


def open_signer(wanted: SigningSettings) -> Signer:
    """Return what signs. Nothing is asked yet.

    Raises:
        SettingsError: The keys cannot be used.
    """
    if wanted.key is not None:
        return read_signer(wanted.key, wanted.origin)
    vkeys = _public_keys(wanted)
    if wanted.signer is not None and wanted.submitter_key is not None:
        return RemoteSigner(wanted.signer, vkeys, _submitter(wanted.submitter_key))
    return CommandSigner(wanted.command, vkeys)


def _public_keys(wanted: SigningSettings) -> list[str]:
    path = wanted.public_keys
    if path is None:
        raise SettingsError("expected --public-keys")
    try:
        with open_at_once(path) as file:
            vkeys = file.read(_BYTES_MAX).decode().splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not text"
        raise SettingsError(f"cannot read the public keys of the log from {path}: {reason}") from exc
    for vkey in vkeys:
        if vkey.partition("+")[0] != wanted.origin:
            raise SettingsError(f"expected public keys of {wanted.origin} in {path}, found another line")
    return vkeys


def _submitter(path: Path) -> SigningKey:
    try:
        return parse_log_keys(read_private(path, "the key of the submitter"))[0]
    except CertificateError as exc:
        raise SettingsError(f"{path}: {exc}") from exc
