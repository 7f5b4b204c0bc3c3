"""Opening the database of a witness or a signer, so that no key signs with two of them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from qed.server.logs import Line
from qed.witness.key_file import claim_use, note_of_use, note_use
from qed.witness.store import WITNESS, Store

if TYPE_CHECKING:
    from pathlib import Path

    from qed.log_keys import SigningKey

__all__ = ["opened"]

_log: Final = logging.getLogger(__name__)


def opened(
    key: Path, database: Path, keys: list[SigningKey], *, is_new: bool, adds_keys: bool, owner: str = WITNESS
) -> Store:
    """Return the open database of keys, and note beside their file that they are used with it.

    Args:
        key: The file with the keys.
        database: The file of the database.
        keys: The keys.
        is_new: Whether the database is made, for keys that have never signed.
        adds_keys: Whether keys that the database does not know are added, that have never signed.
        owner: Whose database it is, for messages.

    Returns:
        The database. No key has signed.

    Raises:
        WitnessError: It cannot be used, or not with these keys.
    """
    if is_new:
        store, has_note = _created(key, database, keys, owner)
    else:
        store = Store.open(database, keys, adds_keys=adds_keys, owner=owner)
        has_note = note_use(key, database)
    if not has_note:
        path = note_of_use(key)
        _log.warning(Line("cannot note that the key is used: keep the database from being lost", path=path))
    return store


def _created(key: Path, database: Path, keys: list[SigningKey], owner: str) -> tuple[Store, bool]:
    """Return a new database, and whether there is a note of it."""
    # The note comes first: of two processes with different databases, only one must begin. A crash before the
    # database is there leaves keys that never sign.
    has_note = claim_use(key, database)
    try:
        return Store.create(database, keys, owner=owner), has_note
    except BaseException:
        if has_note:
            note_of_use(key).unlink(missing_ok=True)
        raise
