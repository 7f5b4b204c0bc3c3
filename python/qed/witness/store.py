"""What a witness has cosigned, in a SQLite database: the memory that makes its signatures worth something.

A witness without it would cosign a second history of the same log. So the database is bound to the keys of the witness,
each change is synced before it is answered, and a missing database is never made silently. FORMATS.md, "Witness
database".

What is answered is in the file itself: its write-ahead log is copied into it first. So losing the log loses nothing.
"""

from __future__ import annotations

import base64
import os
import sqlite3
import stat
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Final, TypeAlias

from qed._files import PRIVATE, create_file, is_exposed
from qed.errors import WitnessError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from qed.log_keys import SigningKey

__all__ = ["MOST_EVIDENCE", "WITNESS", "Evidence", "Filing", "State", "Store", "StoreLost"]

MOST_EVIDENCE: Final = 100
"""Notes of each kind that are kept for each log. The first ones are kept: later ones must not push them out."""

WITNESS: Final = "witness"
_APPLICATION: Final = 0x71656477
"""`qedw`, which SQLite keeps in the header of the file."""
_FORMAT: Final = 1
_OLDEST_SQLITE: Final = (3, 37)
"""The first with STRICT tables."""
_PATIENCE_S: Final = 5.0
"""How long to wait for another process that has the database locked."""
_PRIVATE_UMASK: Final = 0o077
_DROPPED: Final = """CREATE TABLE IF NOT EXISTS dropped (
    origin TEXT NOT NULL, kind TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (origin, kind)
) STRICT"""
_Position: TypeAlias = tuple[int, bytes, int]
"""Size, root and time of a state."""
_SCHEMA: Final = (
    "CREATE TABLE keys (vkey TEXT PRIMARY KEY) STRICT",
    """CREATE TABLE logs (
        origin TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, note TEXT NOT NULL, time INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE evidence (
        origin TEXT NOT NULL, kind TEXT NOT NULL, size INTEGER NOT NULL, root BLOB NOT NULL, time INTEGER NOT NULL,
        note TEXT NOT NULL, last TEXT NOT NULL, PRIMARY KEY (origin, kind, size, root)
    ) STRICT""",
    _DROPPED,
)
_FORK: Final = "fork"
_UNPROVEN: Final = "unproven"


class StoreLost(WitnessError):
    """The file is no longer the one that was opened, or no longer has what was read from it."""


@dataclass(frozen=True)
class State:
    """What the witness has cosigned last of one log.

    Attributes:
        origin: The name of the log.
        size: The size of the tree.
        root: Its root, 32 bytes.
        note: The checkpoint with the signatures of the log and of the witness.
        time: The time of the cosignature, in seconds since 1970.
    """

    origin: str
    size: int
    root: bytes
    note: str
    time: int


@dataclass(frozen=True)
class Evidence:
    """A checkpoint that its log has signed, and that was not shown to extend what the witness had cosigned.

    Attributes:
        origin: The name of the log.
        kind: `fork` if the log has signed two roots of one size, `unproven` if the proof failed.
        size: The size of the tree.
        root: Its root, 32 bytes.
        time: When the witness received it, in seconds since 1970.
        note: The checkpoint with the signatures of the log.
        last: The other note of a fork; otherwise the one that the witness had cosigned last by then, or empty.
    """

    origin: str
    kind: str
    size: int
    root: bytes
    time: int
    note: str
    last: str


@dataclass(frozen=True)
class Filing:
    """How evidence was kept.

    Attributes:
        kind: `fork` or `unproven`.
        is_kept: Whether there was room for it. If not, only their number is kept.
    """

    kind: str
    is_kept: bool


class Store:
    """The open database. Each method is for one thread at a time, and other processes may have the same file open.

    Attributes:
        owner: Whose it is, for messages: a witness, or the signer of a log.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, file: tuple[int, int], owner: str) -> None:
        self._connection = connection
        self.owner = owner
        self._path = path
        # Device and inode of the file.
        self._file = file
        self._size_bytes = path.stat().st_size
        # What is committed, to notice that somebody else takes it away. The notes would need too much memory.
        self._known = {state.origin: _position(state) for state in self.states()}
        self._put: dict[str, _Position] = {}

    @classmethod
    def create(cls, path: Path, keys: Sequence[SigningKey], *, owner: str = WITNESS) -> Store:
        """Return a new, empty database that is bound to these keys.

        Args:
            path: The file.
            keys: The keys that will sign.
            owner: Whose database it is, for messages.

        Raises:
            WitnessError: The file exists, or cannot be written.
        """
        connection = sqlite3.connect(":memory:", isolation_level=None)
        try:
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute(f"PRAGMA user_version = {_FORMAT}")
            _bind(connection, keys)
            # The file appears whole or not at all: a crash must not leave a database that knows no keys.
            create_file(path, connection.serialize(), mode=PRIVATE)
        except FileExistsError as exc:
            raise WitnessError(f"{path} exists: run without --new-database") from exc
        except OSError as exc:
            raise WitnessError(f"cannot create {path}: {exc.strerror or exc}") from exc
        finally:
            connection.close()
        return cls.open(path, keys, owner=owner)

    @classmethod
    def open(
        cls, path: Path, keys: Sequence[SigningKey] | None = None, *, adds_keys: bool = False, owner: str = WITNESS
    ) -> Store:
        """Return the database in a file.

        Args:
            path: The file.
            keys: The keys that will sign, each of which must be one of the database; None to read only.
            adds_keys: Whether to add keys that the database does not have.
            owner: Whose database it is, for messages.

        Raises:
            WitnessError: It is missing, is not a whole database of a witness, or is bound to other keys.
        """
        if not path.is_file():
            raise WitnessError(
                f"expected the database {path} of the {owner}, found none: without it, the {owner} would sign a "
                "second history of a log. For a key that has never signed, give --new-database"
            )
        mode = path.stat().st_mode
        if is_exposed(mode):
            raise WitnessError(
                f"others can read or change the database {path} (mode {stat.S_IMODE(mode):04o}): run chmod 600 {path}"
            )
        try:
            # A file that replaces this one before it is opened is noticed in the first transaction.
            file = _identity(path)
            connection = _connect(path)
            _require_whole(connection, path, owner)
            if keys is not None:
                _require_keys(connection, keys, path, owner, adds_keys=adds_keys)
        except sqlite3.Error as exc:
            raise WitnessError(f"cannot use the database {path}: {exc}") from exc
        return cls(connection, path, file, owner)

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Lock the database while the block runs, then make its changes durable, all or none.

        Raises:
            sqlite3.Error: Nothing has changed; or, if the disk failed or another process reads for too long, all may be
                changed nevertheless.
            StoreLost: The path is that of another file, or of none. Nothing has changed.
        """
        self._put = {}
        # First for the sake of its message: SQLite notices some of it, and calls it an I/O error.
        self._require_file()
        with _transaction(self._connection):
            self._require_file()
            yield
        self._known |= self._put

    def _require_file(self) -> None:
        """Check that the path still leads to the open file: a witness that is started later would open another one."""
        try:
            found = _identity(self._path)
        except OSError as exc:
            raise StoreLost(f"{self._path} is missing: {exc.strerror or exc}") from exc
        if found != self._file:
            raise StoreLost(f"{self._path} was replaced by another file")
        # It never shrinks: what is deleted leaves free pages. SQLite may have the lost ones in memory, and go on.
        size_bytes = self._path.stat().st_size
        if size_bytes < self._size_bytes:
            raise StoreLost(f"{self._path} had {self._size_bytes} bytes, and was cut off to {size_bytes}")
        self._size_bytes = size_bytes

    def last(self, origin: str) -> State | None:
        """Return what was cosigned last of a log, or None.

        Raises:
            StoreLost: It is less than this process has seen.
        """
        row = self._connection.execute(
            "SELECT origin, size, root, note, time FROM logs WHERE origin = ?", (origin,)
        ).fetchone()
        state = None if row is None else State(*row)
        known = self._known.get(origin)
        if known is not None and (state is None or not _follows(_position(state), known)):
            raise StoreLost(f"{self._path} has lost what was cosigned of {origin} at size {known[0]}")
        if state is not None:
            self._known[origin] = _position(state)
        return state

    def put(self, state: State) -> int:
        """Note what is cosigned, inside a transaction.

        Evidence about this very tree is dropped: it was consistent. That about another tree of its size becomes a fork.

        Returns:
            How many forks that makes.
        """
        self._connection.execute(
            "INSERT INTO logs (origin, size, root, note, time) VALUES (?, ?, ?, ?, ?) ON CONFLICT (origin) DO UPDATE "
            "SET size = excluded.size, root = excluded.root, note = excluded.note, time = excluded.time",
            astuple(state),
        )
        self._put[state.origin] = _position(state)
        self._connection.execute(
            "DELETE FROM evidence WHERE origin = ? AND kind = 'unproven' AND size = ? AND root = ?",
            (state.origin, state.size, state.root),
        )
        # Only another tree of this size is left. Forks have no limit here: there cannot be more than unproven ones.
        done = self._connection.execute(
            "UPDATE OR REPLACE evidence SET kind = 'fork', last = ? "
            "WHERE origin = ? AND kind = 'unproven' AND size = ?",
            (state.note, state.origin, state.size),
        )
        return done.rowcount

    def keep(self, evidence: Evidence) -> Filing | None:
        """Keep evidence, inside a transaction, and return how, or None if it is known.

        One root of one size is one statement of the log, however often it is signed and sent. Two roots of one size are
        a fork, even if nothing proves which of them is true.
        """
        rows = self._connection.execute(
            "SELECT root, note FROM evidence WHERE origin = ? AND size = ?", (evidence.origin, evidence.size)
        ).fetchall()
        if any(root == evidence.root for root, _ in rows):
            return None
        if rows and evidence.kind == _UNPROVEN:
            evidence = replace(evidence, kind=_FORK, last=rows[0][1])
        (count,) = self._connection.execute(
            "SELECT count(*) FROM evidence WHERE origin = ? AND kind = ?", (evidence.origin, evidence.kind)
        ).fetchone()
        if count >= MOST_EVIDENCE:
            self._connection.execute(
                "INSERT INTO dropped (origin, kind, count) VALUES (?, ?, 1) "
                "ON CONFLICT (origin, kind) DO UPDATE SET count = count + 1",
                (evidence.origin, evidence.kind),
            )
            return Filing(evidence.kind, is_kept=False)
        self._connection.execute(
            "INSERT INTO evidence (origin, kind, size, root, time, note, last) VALUES (?, ?, ?, ?, ?, ?, ?)",
            astuple(evidence),
        )
        return Filing(evidence.kind, is_kept=True)

    def dropped(self) -> dict[tuple[str, str], int]:
        """Return of how many statements of each log and kind only the number is kept, because there was no room."""
        rows = self._connection.execute("SELECT origin, kind, count FROM dropped")
        return {(origin, kind): count for origin, kind, count in rows}

    def states(self) -> list[State]:
        """Return what was cosigned last of every log, by name."""
        rows = self._connection.execute("SELECT origin, size, root, note, time FROM logs ORDER BY origin")
        return [State(*row) for row in rows]

    def evidence(self) -> list[Evidence]:
        """Return all evidence, by log and time."""
        rows = self._connection.execute(
            "SELECT origin, kind, size, root, time, note, last FROM evidence ORDER BY origin, time, size"
        )
        return [Evidence(*row) for row in rows]

    def vkeys(self) -> list[str]:
        """Return the public keys that the database is bound to, Ed25519 first."""
        return _vkeys(self._connection)


def _connect(path: Path) -> sqlite3.Connection:
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise WitnessError(f"expected SQLite 3.37 or later, found {sqlite3.sqlite_version}")
    before = os.umask(_PRIVATE_UMASK)
    try:
        # Its journal gets the permissions of the file. The database is opened in one thread and used in another.
        connection = sqlite3.connect(path, timeout=_PATIENCE_S, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
    finally:
        os.umask(before)
    # Each transaction ends with a checkpoint, which syncs the write-ahead log and the file. FULL would sync once more.
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _position(state: State) -> _Position:
    return state.size, state.root, state.time


def _follows(state: _Position, earlier: _Position) -> bool:
    """Return whether a state may come after another: a larger tree or the same one, and no earlier time."""
    size, root, time = state
    return time >= earlier[2] and (size > earlier[0] or (size, root) == earlier[:2])


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    changes = connection.total_changes
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    if connection.total_changes != changes:
        _checkpoint(connection)


def _checkpoint(connection: sqlite3.Connection) -> None:
    """Copy the write-ahead log into the database, and sync both.

    A rollback journal would do with one file as well, but needs five syncs a transaction, and this needs two.
    """
    is_busy, frames, copied = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
    if is_busy or frames != copied:
        # Committed, as after a crash before the answer.
        busy = sqlite3.OperationalError("another process reads the database for too long")
        busy.sqlite_errorcode = sqlite3.SQLITE_BUSY
        raise busy


def _bind(connection: sqlite3.Connection, keys: Sequence[SigningKey]) -> None:
    connection.executemany("INSERT INTO keys (vkey) VALUES (?)", [(key.vkey,) for key in keys])


def _vkeys(connection: sqlite3.Connection) -> list[str]:
    return [vkey for (vkey,) in connection.execute("SELECT vkey FROM keys ORDER BY length(vkey), vkey")]


def _require_whole(connection: sqlite3.Connection, path: Path, owner: str) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION:
        raise WitnessError(f"expected the database of a {owner}, but {path} is another one")
    if found != _FORMAT:
        raise WitnessError(f"expected a database of format {_FORMAT}, but {path} has format {found}: update qed")
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise WitnessError(f"the database {path} is damaged: {verdict}")
    # SQLite has no checksums. A root that has changed would make an honest log look like a fork.
    for origin, size, root, note in connection.execute("SELECT origin, size, root, note FROM logs"):
        expected, found = [origin, str(size), base64.b64encode(root).decode()], note.split("\n", 3)[:3]
        if found != expected:
            raise WitnessError(
                f"the database {path} is damaged: expected a note of {expected}, as was cosigned, found one of {found}"
            )
    # Earlier builds did not count.
    connection.execute(_DROPPED)


def _require_keys(
    connection: sqlite3.Connection, keys: Sequence[SigningKey], path: Path, owner: str, *, adds_keys: bool
) -> None:
    bound = _vkeys(connection)
    added = [key for key in keys if key.vkey not in bound]
    if len(added) == len(keys):
        raise WitnessError(f"expected the database of this {owner}, but {path} is that of other keys")
    if not added:
        return
    if not adds_keys:
        raise WitnessError(
            f"expected keys that {path} knows, found a new one: for a key that has never signed, give --add-keys"
        )
    with _transaction(connection):
        _bind(connection, added)
