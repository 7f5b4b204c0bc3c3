"""The file with the private keys of a witness or a log, and the note beside it that they were used.

The note is what is left if the database is lost: without it, nobody could tell a used key from a new one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from qed._files import create_file
from qed.errors import CertificateError, WitnessError
from qed.log_keys import parse_log_keys
from qed.server.config import SettingsError
from qed.server.private_files import read_private

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qed.log_keys import SigningKey

__all__ = ["claim_use", "note_of_use", "note_use", "read_keys"]

_WITNESS_KINDS: Final = (4, 6)
_SUFFIX: Final = ".used"
_PUBLIC: Final = 0o644


def read_keys(
    path: Path, *, kinds: Sequence[int] = _WITNESS_KINDS, owner: str = "witness", option: str = "--witness"
) -> list[SigningKey]:
    """Return the keys in a file, all of one name.

    Args:
        path: The file.
        kinds: The kinds that they may have.
        owner: Whose they are, for messages.
        option: The option of `qed log-key generate` that makes such keys.

    Raises:
        WitnessError: The file cannot be read, others may read or change it, or it has other keys.
    """
    try:
        keys = parse_log_keys(read_private(path, f"the keys of the {owner}"))
    except SettingsError as exc:
        raise WitnessError(str(exc)) from exc
    except CertificateError as exc:
        raise WitnessError(f"{path}: {exc}") from exc
    for key in keys:
        if key.kind not in kinds:
            raise WitnessError(
                f"{path}: expected keys of kind {' and '.join(f'{kind:02}' for kind in kinds)}, found one of kind "
                f"{key.kind:02}: `qed log-key generate {option}` makes the keys of a {owner}"
            )
    return keys


def note_of_use(path: Path) -> Path:
    """Return the file that says that the keys in `path` were used. It is beside the file that links lead to."""
    path = path.resolve()
    return path.with_name(path.name + _SUFFIX)


def claim_use(path: Path, database: Path) -> bool:
    """Note, before keys sign for the first time, that they sign with this database and no other.

    Of several processes that claim the same keys at once, one succeeds.

    Returns:
        Whether there is a note. There is none if the folder cannot be written, as when it holds mounted secrets.

    Raises:
        WitnessError: The keys are in use.
    """
    try:
        return _write_note(path, database)
    except FileExistsError as exc:
        raise WitnessError(
            f"the keys in {path} have signed ({exc.filename} has their database), so they must not start with an empty "
            "database. Run without --new-database, or make new keys"
        ) from exc


def note_use(path: Path, database: Path) -> bool:
    """Note beside a key file that its keys sign, and with which database. An earlier note stays.

    Returns:
        Whether there is a note. There is none if the folder cannot be written, as when it holds mounted secrets.
    """
    try:
        return _write_note(path, database)
    except FileExistsError:
        return True


def _write_note(path: Path, database: Path) -> bool:
    text = f"The keys in {path.name} have signed. What they signed is in\n{database.absolute()}\n"
    try:
        create_file(note_of_use(path), os.fsencode(text), mode=_PUBLIC)
    except FileExistsError:
        raise
    except OSError:
        return False
    return True
