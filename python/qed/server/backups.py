"""Backups of this member's log: parts that an operator fetches, and whole ones that the server keeps in a folder."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar
from urllib.parse import parse_qs

from qed._limits import BACKUP_EVENTS_PER_S, U64_LIMIT
from qed._wire import ENCODER, DecodeError, KeptBackup
from qed.backups import BackupFolder
from qed.errors import BackupError, Overloaded
from qed.server.bodies import ClientGone
from qed.server.endpoints import author_of, send_json
from qed.server.logs import Line

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive, Scope, Send

    from qed.backups import Backup, Draft
    from qed.server.bodies import Bodies
    from qed.server.node import Node

__all__ = ["BackupPart", "Change", "Keeper", "ListBackups"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

_log = logging.getLogger(__name__)

_NUMBER: Final = re.compile(r"[0-9]{1,20}")
_NUMBER_LIMIT: Final = 2**32
_MOST_PARAMETERS: Final = 16
_CURSOR: Final = re.compile(r"(?:[0-9a-f]{2}){1,256}")
_BINARY: Final = (b"content-type", b"application/octet-stream")


def _query(scope: Scope) -> dict[str, str]:
    """Return the parameters in the query of a request, each of which may occur once.

    Raises:
        DecodeError: One occurs twice, or there are too many.
    """
    text = scope["query_string"].decode("latin-1")
    try:
        found = parse_qs(text, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS)
    except ValueError as exc:
        raise DecodeError(f"expected a query with at most {_MOST_PARAMETERS} parameters") from exc
    for name, values in found.items():
        if len(values) > 1:
            raise DecodeError(f"expected the parameter {name} once, found it {len(values)} times")
    return {name: values[0] for name, values in found.items()}


def _number(query: dict[str, str], name: str, limit: int) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text) or int(text) >= limit:
        raise DecodeError(f"expected {name} to be a number below {limit}, found {text!r}")
    return int(text)


def _cursor(query: dict[str, str], name: str) -> bytes | None:
    text = query.get(name)
    if text is None:
        return None
    if not _CURSOR.fullmatch(text):
        raise DecodeError(f"expected {name} to be the hex digits of a place in a backup")
    return bytes.fromhex(text)


class Keeper:
    """The backups that this server keeps."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.folder = BackupFolder(node.settings.backups_dir)
        self._is_busy = False
        self._making: KeptBackup | None = None
        """How far the backup is that is being made. A draft itself is locked while something is written to it."""

    async def create(self, since: int | None, events_per_s: int = BACKUP_EVENTS_PER_S) -> KeptBackup:
        """Make a backup of everything, or of what is new since another one.

        Args:
            since: The number of the other one.
            events_per_s: The highest rate: clients need the processor too.

        Raises:
            NoSuchBackup: There is none with this number.
            Overloaded: A backup is being made.
            BackupError: It cannot be written.
            PageError: The log does not continue that backup.
        """
        if self._is_busy:
            raise Overloaded("another backup is being made")
        self._is_busy = True
        try:
            made = await self._create(since, events_per_s)
        finally:
            self._is_busy = False
            self._making = None
        _log.info(Line("backup made", number=made.number, events=made.events, size_bytes=made.size_bytes))
        return self._kept(made)

    async def _create(self, since: int | None, events_per_s: int) -> Backup:
        run, node = _in_thread, self.node
        base = None if since is None else await run(self.folder.backup, since)
        if base is not None and base.log != node.log_name:
            raise BackupError(f"backup {since} is of log {base.log}, this is log {node.log_name}")
        draft = await run(self.folder.draft, node.log_name, base)
        begun_s = int(time.time())
        try:
            if draft.cursor is None:
                await run(draft.write, node.begin_backup(None if base is None else base.cursor))
            before = draft.events
            while not draft.is_whole:
                self._making = await self._progress(draft, begun_s)
                # Clients need the processor too.
                await asyncio.sleep((draft.events - before) / events_per_s)
                cursor, before = draft.cursor, draft.events
                assert cursor is not None, "the beginning of a backup has been written"  # noqa: S101 - for mypy
                await run(draft.write, await node.backup_part(cursor))
            return await run(draft.finish)
        finally:
            draft.close()

    async def kept(self) -> list[KeptBackup]:
        """Return those that can be read, and the one that is being made, and log an error for each of the others.

        Raises:
            BackupError: The folder cannot be read.
        """
        readable, unreadable = await _in_thread(self.folder.contents)
        for exc in unreadable:
            _log.error(Line("backup unreadable", reason=exc))
        found = [self._kept(backup) for backup in readable]
        making = self._making
        # It may have got its number a moment ago.
        is_listed = making is None or any(backup.id == making.id for backup in found)
        return found if is_listed or making is None else [*found, making]

    async def _progress(self, draft: Draft, begun_s: int) -> KeptBackup:
        """Return how far a backup is."""
        base, events = draft.base, draft.events
        return KeptBackup(
            id=draft.number,
            timestamp=begun_s,
            size=await _in_thread(draft.size_bytes),
            num_files=1,
            metadata=str(events - 1) if events else "",
            node_id=self.node.settings.node_id,
            log=self.node.log_name,
            events=events,
            base=None if base is None else base.hex(),
            identity="",
            total_events=max(len(self.node), events),
        )

    async def delete(self, number: int) -> None:
        """Delete a backup.

        Raises:
            NoSuchBackup: There is none with this number.
            BackupError: Another one continues it, or it is being made.
        """
        if self._making is not None and self._making.id == number:
            raise BackupError(f"backup {number} is being made: delete it when that is done")
        await _in_thread(self.folder.delete, number)
        _log.info(Line("backup deleted", number=number))

    def _kept(self, backup: Backup) -> KeptBackup:
        return KeptBackup(
            id=backup.number or 0,
            timestamp=backup.created_s,
            size=backup.size_bytes,
            num_files=1,
            metadata=str(backup.events - 1) if backup.events else "",
            node_id=backup.node_id,
            log=backup.log,
            events=backup.events,
            base=None if backup.base is None else backup.base.hex(),
            identity=backup.identity.hex(),
        )


async def _in_thread(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Do what waits for a disk in a thread.

    Raises:
        BackupError: As for `work`, or the operating system refused.
    """
    try:
        return await asyncio.to_thread(work, *args, **kwargs)
    except OSError as exc:
        raise BackupError(f"{exc.filename}: {exc.strerror}" if exc.filename else str(exc)) from exc


def _note(event: str, scope: Scope) -> None:
    """Log who asks for it. Backups leave no row in the history: a member whose cluster is lost can still make one."""
    author = author_of(scope)
    _log.info(Line(event, who=author.who, origin=author.origin))


class BackupPart:
    """`GET /backups/part`: 200 with the bytes that come next in a backup.

    Without a parameter, its beginning; with `since`, that of a backup that continues another one; with `after`, what
    follows that place, and the end of the backup once it has more than `until` events, or all of them.
    """

    def __init__(self, node: Node) -> None:
        self._node = node

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        """Read out a part."""
        query = _query(scope)
        after, since = _cursor(query, "after"), _cursor(query, "since")
        if after is None:
            _note("backup read out", scope)
            part = self._node.begin_backup(since)
        else:
            part = await self._node.backup_part(after, until=_number(query, "until", U64_LIMIT))
        headers = [_BINARY, (b"content-length", b"%d" % len(part))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": part})


class Change:
    """`POST /backup`: 200 with the backup that the server has made and keeps; with `since`, one that continues another.

    With `rate`, at most so many events a second are read.

    `DELETE /backup?backupID=N`: 204 once that backup is deleted. The caller's key must be valid by everything that the
    cluster has acknowledged. To make a backup, it suffices that this member accepts it: its cluster may be lost.
    """

    def __init__(self, keeper: Keeper, bodies: Bodies) -> None:
        self._keeper = keeper
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Make or delete a backup."""
        query = _query(scope)
        if scope["method"] == "DELETE":
            await self._delete(query, scope, receive, send)
            return
        since = _number(query, "since", _NUMBER_LIMIT)
        rate = _number(query, "rate", _NUMBER_LIMIT)
        if rate == 0:
            raise DecodeError("expected rate to be at least 1 event a second, found 0")
        # Nothing in a body has a meaning here.
        while (message := await receive()).get("more_body"):
            pass
        if message["type"] != "http.request":
            raise ClientGone
        _note("backup asked for", scope)
        await send_json(send, 200, ENCODER.encode(await self._keeper.create(since, rate or BACKUP_EVENTS_PER_S)))

    async def _delete(self, query: dict[str, str], scope: Scope, receive: Receive, send: Send) -> None:
        number = _number(query, "backupID", _NUMBER_LIMIT)
        if number is None:
            raise DecodeError("expected the parameter backupID, the number of a backup")
        # A member that is cut off may accept a key that was revoked.
        await self._bodies.read(scope, receive)
        _note("deletion of a backup asked for", scope)
        await self._keeper.delete(number)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})


class ListBackups:
    """`GET /backups`: 200 with the backups that the server keeps, and how far the one is that it makes."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    async def __call__(self, _: Scope, __: Receive, send: Send) -> None:
        """List them."""
        await send_json(send, 200, ENCODER.encode(await self._keeper.kept()))
