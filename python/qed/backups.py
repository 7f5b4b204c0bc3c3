"""A folder of backups: one file each, named by its number; and reading backups into a new data folder.

The files are in FORMATS.md, "Backups". A backup may continue another one in the same folder, and needs that one.
"""

from __future__ import annotations

import os
import re
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from qed import _qed
from qed._deeds import Recovered, Restored, now, user
from qed.errors import BackupError, DamagedBackup, LogError

if TYPE_CHECKING:
    from collections.abc import Callable

    from qed._deeds import Deed
    from qed._qed import BackupFile, Founding, Survivor
    from qed.proofs import Digest

__all__ = ["Backup", "BackupFolder", "Draft", "NoSuchBackup", "recover", "restore", "survey"]

_LAST_S: Final = 253_402_300_799
"""9999-12-31T23:59:59Z."""
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,9}")
_UNFINISHED: Final = ".part"
_MEMBER_FILE: Final = "MEMBER"
"""A folder has this file from the first start of its server on."""
_FOUNDING_FILE: Final = "FOUNDING"
"""And this one from its restoration until that start."""
_NUMBER_MOST: Final = 2**32 - 1
"""Numbers fit into 32 bits, as in the calls of BBVA QED."""


@dataclass(frozen=True, kw_only=True)
class Backup:
    """What a backup says about itself; only `BackupFolder.verify` shows whether that is true.

    Attributes:
        number: Its number in its folder, from 1 on; None if the file was renamed.
        path: Its file.
        log: Name of the log.
        node_id: Name of the member that it was made from.
        software: Version of that member's software.
        created_s: When it was begun, in seconds since 1970.
        identity: Hash of all of it.
        base: Identity of the backup that it continues, or None if it begins with the first event.
        start_events: Events in the backups that it continues.
        events: Events of the log once it is restored.
        history_digest: History root of the last of them; zeros if there is none.
        hyper_digest: Hyper root of the last of them; zeros if there is none.
        size_bytes: Length of the file.
        cursor: Where a further backup continues it.
    """

    number: int | None
    path: Path
    log: str
    node_id: str
    software: str
    created_s: int
    identity: Digest
    base: Digest | None
    start_events: int
    events: int
    history_digest: Digest
    hyper_digest: Digest
    size_bytes: int
    cursor: bytes

    @classmethod
    def read(cls, path: Path) -> Backup:
        """Return what the backup in a file says about itself.

        Raises:
            DamagedBackup: It is cut off, or names a time that is none.
            BackupError: It is not a backup, of a newer format, or cannot be read.
        """
        try:
            found = _qed.Backup.read(str(path))
        except BackupError as exc:
            raise type(exc)(f"{path}: {exc}") from exc
        if found.created_s > _LAST_S:
            raise DamagedBackup(f"{path}: expected a time before the year 10000, found {found.created_s} s after 1970")
        return cls(
            number=int(path.name) if _NUMBER.fullmatch(path.name) else None,
            path=path,
            log=found.log,
            node_id=found.node_id,
            software=found.software,
            created_s=found.created_s,
            identity=found.identity,
            base=found.base,
            start_events=found.start_events,
            events=found.events,
            history_digest=found.history_digest,
            hyper_digest=found.hyper_digest,
            size_bytes=found.size_bytes,
            cursor=found.cursor(),
        )


class NoSuchBackup(BackupError):
    """The folder has no backup with this number."""


class Draft:
    """A backup on its way into a folder. What is there when the process ends can be continued.

    Attributes:
        number: The number that it will have.
    """

    def __init__(self, file: BackupFile, number: int, path: Path) -> None:
        self._file = file
        self.number = number
        self._path = path
        self._is_open = True

    @property
    def log(self) -> str | None:
        """The name of the log, once the backup has begun."""
        return self._file.log()

    @property
    def base(self) -> Digest | None:
        """The identity of the backup that it continues, once it has begun."""
        return self._file.base()

    @property
    def cursor(self) -> bytes | None:
        """Where to continue it, once it has begun."""
        return self._file.cursor()

    @property
    def events(self) -> int:
        """How many events the log has after what is in the file."""
        return self._file.events()

    @property
    def is_whole(self) -> bool:
        """Whether its end has arrived."""
        return self._file.is_whole()

    def size_bytes(self) -> int:
        """Return the length of the file by now.

        Raises:
            OSError: The file is no longer there.
        """
        return self._path.stat().st_size

    def write(self, part: bytes) -> None:
        """Append what has arrived.

        Raises:
            DamagedBackup: It was changed on its way.
            BackupError: It cannot be written.
        """
        self._file.write(part)

    def finish(self) -> Backup:
        """Give the backup its number. Durable on return.

        Raises:
            DamagedBackup: Its end has not arrived.
            BackupError: It cannot be written.
        """
        path = self._path.with_name(str(self.number))
        self._is_open = False
        self._file.finish(str(self._path), str(path))
        return Backup.read(path)

    def close(self) -> None:
        """Close the file as it is, or delete it if the backup has not begun: there is nothing to continue."""
        if self._is_open and self.cursor is None:
            self._path.unlink(missing_ok=True)
        self._is_open = False
        self._file.close()

    def discard(self) -> None:
        """Close and delete the file."""
        # In this order: a closed file is no longer locked, and another process could begin to write to it.
        self._path.unlink(missing_ok=True)
        self.close()


class BackupFolder:
    """A folder of backups.

    Args:
        path: The folder. It is created, private to its owner, when the first backup is begun.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def contents(self) -> tuple[list[Backup], list[BackupError]]:
        """Return the backups that can be read, by number, and why each of the others cannot; none without a folder.

        Raises:
            OSError: The folder cannot be read.
        """
        readable, unreadable = [], []
        for number in self._numbers(""):
            try:
                readable.append(Backup.read(self.path / str(number)))
            except BackupError as exc:
                unreadable.append(exc)
        return readable, unreadable

    def backup(self, number: int) -> Backup:
        """Return a backup.

        Raises:
            NoSuchBackup: There is none with this number.
            BackupError: It cannot be read.
            DamagedBackup: It is cut off.
        """
        return Backup.read(self._require(number))

    def chain(self, backup: Backup) -> list[Path]:
        """Return the files of a backup and of those that it continues, in the order in which they are read.

        Raises:
            BackupError: One that it continues is not in the folder.
        """
        known = {other.identity: other for other in self.contents()[0]} if backup.base else {}
        chain = [backup.path]
        while backup.base is not None:
            if backup.base not in known:
                missing = backup.base.hex()
                raise BackupError(f"{backup.path} continues the backup {missing}, which is not in {self.path}")
            backup = known.pop(backup.base)
            chain.insert(0, backup.path)
        return chain

    def verify(self, backup: Backup, *, progress: Callable[[int], object] | None = None) -> None:
        """Check a backup, and those that it continues, byte by byte: build both trees and compare every root.

        This needs about 110 bytes of memory an event, and as much time as adding the events did.

        Args:
            backup: The backup.
            progress: Called now and then, in this thread, with the number of events checked.

        Raises:
            DamagedBackup: Something differs; the message names the first place.
            BackupError: A file cannot be read, or one that it continues is missing.
        """
        _qed.verify_backups([str(path) for path in self.chain(backup)], progress=progress)

    def delete(self, number: int, *, is_unfinished: bool = False) -> None:
        """Delete a backup, or the unfinished one with its number if there is one.

        Args:
            number: Its number.
            is_unfinished: Whether only an unfinished one may be deleted.

        Raises:
            NoSuchBackup: There is none with this number.
            BackupError: Another one continues it, or an unfinished one might.
            OSError: It cannot be deleted.
        """
        unfinished = self.path / f"{number}{_UNFINISHED}"
        if unfinished.is_file():
            unfinished.unlink()
            return
        if is_unfinished:
            raise NoSuchBackup(f"there is no unfinished backup {number} in {self.path}")
        path = self._require(number)
        backups, _ = self.contents()
        own = next((other.identity for other in backups if other.number == number), None)
        heirs = [str(other.number) for other in backups if other.base is not None and other.base == own]
        if heirs:
            raise BackupError(f"backup {number} is needed by backup {', '.join(heirs)}: delete that first")
        if begun := self._numbers(_UNFINISHED):
            raise BackupError(f"the unfinished backup {begun[0]} may need backup {number}: finish or delete that first")
        path.unlink()

    def draft(self, log: str, base: Backup | None) -> Draft:
        """Begin a backup of a log, or continue the unfinished one in the folder.

        Args:
            log: Name of the log.
            base: The backup to continue, if any.

        Returns:
            The draft. Close, finish or discard it.

        Raises:
            BackupError: The unfinished backup is of another log, or another process is writing it; or others can write
                to the folder.
            OSError: The folder cannot be made or read.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            # They could put a link in the place of a backup, and have digests written where they can read them.
            raise BackupError(f"others can write to {self.path}: chmod go-w {self.path}, or use another folder")
        unfinished = self._numbers(_UNFINISHED)
        number = unfinished[-1] if unfinished else max(self._numbers(""), default=0) + 1
        if number > _NUMBER_MOST:
            raise BackupError(f"expected numbers of at most {_NUMBER_MOST}, found {number - 1}: use another folder")
        path = self.path / f"{number}{_UNFINISHED}"
        if path.is_symlink():
            raise BackupError(f"{path} is a link: expected a file of this folder")
        try:
            file = _qed.BackupFile.open(str(path))
        except BackupError as exc:
            raise type(exc)(f"{path}: {exc}") from exc
        draft = Draft(file, number, path)
        if draft.cursor is not None and (draft.log != log or draft.base != (base.identity if base else None)):
            wanted = "continues another backup" if draft.log == log else f"is of log {draft.log}, this is log {log}"
            draft.close()
            raise BackupError(f"{path} is unfinished and {wanted}: finish it, or run qed backup delete {number}")
        return draft

    def _require(self, number: int) -> Path:
        path = self.path / str(number)
        if not path.is_file():
            raise NoSuchBackup(f"there is no backup {number} in {self.path}")
        return path

    def _numbers(self, suffix: str) -> list[int]:
        if not self.path.exists():
            return []
        names = (entry.name for entry in self.path.iterdir() if entry.name.endswith(suffix))
        stems = (name.removesuffix(suffix) for name in names)
        return sorted(int(stem) for stem in stems if _NUMBER.fullmatch(stem))


def restore(
    path: str | os.PathLike[str], data_dir: str | os.PathLike[str], *, progress: Callable[[int], object] | None = None
) -> Founding:
    """Read a backup, and those that it continues, into a new data folder.

    Args:
        path: Its file, in a folder of backups.
        data_dir: The data folder, which must not exist or must be empty.
        progress: Called now and then, in this thread, with the number of events read.

    Returns:
        The log: the name of the new cluster, which the first server on it founds, and its events.

    Raises:
        DamagedBackup: Something in it was changed, or does not lead to its roots. The folder is left empty.
        BackupError: A file cannot be read.
        LogError: The folder is not empty, or cannot be written.
    """
    backup = Backup.read(Path(path))
    chain = BackupFolder(backup.path.parent).chain(backup)
    act = Restored(
        who=user(),
        origin=socket.gethostname(),
        when=now(),
        backup=backup.identity.hex(),
        cluster=backup.log,
        events=backup.events,
    )
    return _qed.restore_backups([str(part) for part in chain], os.fspath(data_dir), act=_text(act), progress=progress)


def survey(data_dir: str | os.PathLike[str]) -> Survivor:
    """Return the stopped member in a data folder, and how far its log is.

    Args:
        data_dir: The data folder.

    Returns:
        Its name, its cluster, its events, and the last entry that it has.

    Raises:
        LogError: It is no member's folder, it is in use, or it cannot be read.
        CorruptLog: It is damaged.
    """
    folder = Path(data_dir)
    if (folder / _FOUNDING_FILE).exists() and not (folder / _MEMBER_FILE).exists():
        raise LogError(f"{folder} was restored and is a cluster of its own: start a server on it")
    if not (folder / _MEMBER_FILE).exists():
        raise LogError(f"{folder} is no member's folder: expected a file {_MEMBER_FILE} in it")
    return _qed.survey(os.fspath(data_dir))


def recover(data_dir: str | os.PathLike[str]) -> Founding:
    """Make the stopped member in a data folder the only one of a new cluster.

    Args:
        data_dir: The data folder.

    Returns:
        The new cluster, and its events: what the member had applied, and everything in its Raft log.

    Raises:
        LogError: It is no member's folder, it is in use, or it cannot be written.
        CorruptLog: It is damaged.
    """
    found = survey(data_dir)
    act = Recovered(
        who=user(),
        origin=socket.gethostname(),
        when=now(),
        name=found.name,
        cluster=found.cluster,
        events=found.events,
    )
    return _qed.recover(os.fspath(data_dir), act=_text(act))


def _text(act: Deed) -> str:
    return msgspec.json.encode(act).decode()
