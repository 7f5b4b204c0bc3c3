"""The settings of a witness, and opening one: keys, database and logs that fit together."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from qed.errors import WitnessError
from qed.server.config import Limits
from qed.witness.key_file import read_keys
from qed.witness.known_logs import KnownLog, KnownLogs, read_logs
from qed.witness.opening import opened

if TYPE_CHECKING:
    from pathlib import Path

    from qed.log_keys import SigningKey
    from qed.server.addresses import Address
    from qed.server.config import ServerTls
    from qed.witness.store import Store

__all__ = ["LIMITS", "Settings"]

_PREFIX: Final = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_COSIGNATURE: Final = 4

LIMITS: Final = Limits(
    max_body_bytes=64 * 1024,
    max_buffered_bytes=16 * 1024 * 1024,
    max_unread_bytes=16 * 1024 * 1024,
    request_arrival_timeout_s=10.0,
    shutdown_grace_s=12,
)
"""What a witness accepts. A log sends one small request after the other."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a witness runs.

    Attributes:
        key: The file with its private keys.
        database: The file with what it has cosigned.
        log_files: The files that list logs.
        vkeys: Public keys of further logs. Those of one name are of one log.
        listen: Where it listens.
        submission_prefix: The path before `/add-checkpoint`: empty, or parts with a slash before each.
        monitoring_prefix: Likewise the path before `/HASH/checkpoint`.
        tls: Its certificate, or None for plain HTTP.
        allows_extensions: Whether checkpoints may have extension lines.
        is_new: Whether the database is made, for keys that have never signed.
        adds_keys: Whether keys that the database does not know are added, that have never signed.
    """

    key: Path
    database: Path
    log_files: tuple[Path, ...]
    vkeys: tuple[str, ...]
    listen: Address
    submission_prefix: str = ""
    monitoring_prefix: str = ""
    tls: ServerTls | None = None
    allows_extensions: bool = False
    is_new: bool = False
    adds_keys: bool = False

    def __post_init__(self) -> None:
        for prefix in (self.submission_prefix, self.monitoring_prefix):
            if not _PREFIX.fullmatch(prefix):
                raise WitnessError(f"expected a prefix such as /witness, without a slash at its end, found {prefix!r}")
        if self.is_new and self.adds_keys:
            raise WitnessError("expected --new-database or --add-keys, found both")

    def read_logs(self, witness: str) -> KnownLogs:
        """Return the logs of all files and of the vkeys.

        Args:
            witness: The name of the witness.

        Raises:
            WitnessError: A file or a vkey cannot be used.
        """
        logs = [log for path in self.log_files for log in read_logs(path)]
        by_name: dict[str, list[str]] = {}
        for vkey in self.vkeys:
            by_name.setdefault(vkey.partition("+")[0], []).append(vkey)
        return KnownLogs([*logs, *(KnownLog.of(vkeys) for vkeys in by_name.values())], witness=witness)

    def open(self) -> tuple[list[SigningKey], Store, KnownLogs]:
        """Return the keys, the open database and the logs.

        Raises:
            WitnessError: They cannot be used, or not together. No key has signed.
        """
        keys = read_keys(self.key)
        if self.allows_extensions and all(key.kind != _COSIGNATURE for key in keys):
            raise WitnessError("expected a key of kind 04 with --allow-extensions: no other kind signs extension lines")
        logs = self.read_logs(keys[0].name)
        store = opened(self.key, self.database, keys, is_new=self.is_new, adds_keys=self.adds_keys)
        return keys, store, logs
