"""The settings of a signer, and opening one: keys, database and submitters that fit together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from qed._qed import LogKeys
from qed.errors import CertificateError, WitnessError
from qed.witness.key_file import read_keys
from qed.witness.known_logs import KnownLog, KnownLogs
from qed.witness.opening import opened

if TYPE_CHECKING:
    from pathlib import Path

    from qed.log_keys import SigningKey
    from qed.server.addresses import Address
    from qed.server.config import ServerTls
    from qed.witness.store import Store

__all__ = ["Settings"]

_OWNER: Final = "signer"
"""What its messages call it."""
_LOG_KINDS: Final = (1, 6)
_NO_NAME: Final = ""
"""A witness must not have the name of its log; a signer has it."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a signer runs.

    Attributes:
        key: The file with the private keys of the log.
        database: The file with what it has signed.
        submitters: The public keys whose signatures a request must have: of kind 04 or 06, with names below that of the
            log.
        listen: Where it listens, or the path of a Unix socket.
        tls: Its certificate, or None for plain HTTP.
        is_new: Whether the database is made, for keys that have never signed.
        adds_keys: Whether keys that the database does not know are added, that have never signed.
    """

    key: Path
    database: Path
    submitters: tuple[str, ...]
    listen: Address | Path
    tls: ServerTls | None = None
    is_new: bool = False
    adds_keys: bool = False

    def __post_init__(self) -> None:
        if self.is_new and self.adds_keys:
            raise WitnessError("expected --new-database or --add-keys, found both")

    def open(self) -> tuple[list[SigningKey], Store, KnownLogs]:
        """Return the keys, the open database, and the log with the keys of its submitters.

        Raises:
            WitnessError: They cannot be used, or not together. No key has signed.
        """
        keys = read_keys(self.key, kinds=_LOG_KINDS, owner="log", option="--origin")
        logs = KnownLogs([self._log(keys[0].name)], witness=_NO_NAME)
        store = opened(self.key, self.database, keys, is_new=self.is_new, adds_keys=self.adds_keys, owner=_OWNER)
        return keys, store, logs

    def _log(self, origin: str) -> KnownLog:
        """Return the log whose checkpoints are signed if one of the submitters has sent them."""
        try:
            submitters = LogKeys.parse_submitters(self.submitters, origin)
        except CertificateError as exc:
            raise WitnessError(f"a submitter cannot be used: {exc}") from exc
        return KnownLog(origin, self.submitters, None, submitters)
