"""`qed backup`: make backups of the log, show, check and delete them."""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from qed._limits import BACKUP_EVENTS_PER_S
from qed.backups import Backup, BackupFolder
from qed.cli.client import connect
from qed.cli.durations import spelt
from qed.cli.options import command, current_session, group
from qed.cli.terminal import totals
from qed.errors import BackupError, DamagedBackup, QedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from qed._client.client import Client
    from qed._wire import KeptBackup
    from qed.cli.terminal import Cell

__all__ = ["backup"]

_COLUMNS: Final = ("Id", "Created", "Events", "Since", "Bytes")
_POLL_S: Final = 0.5
"""How often a server is asked how far a backup is."""
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,9}")


@group(
    "backup",
    examples=[
        "qed backup create --to /backups",
        "qed backup create --to /backups --since 1",
        "qed backup verify /backups/2",
    ],
)
def backup() -> None:
    """Make backups of the log while it is in use, show, check and delete them.

    A backup is a file in a folder, named by its number. With --to, it is made in a folder of this machine; otherwise
    the server makes and keeps it. `qed restore` reads one into a new data folder.
    """


@command("create", examples=["qed backup create --to /backups", "qed backup create --to /backups --since 1"])
@click.option("--to", "folder", metavar="DIR", type=click.Path(file_okay=False), help="Folder of this machine.")
@click.option(
    "--since", metavar="ID", type=click.IntRange(1, 2**32 - 1), help="Back up only what was added since this backup."
)
@click.option(
    "--rate",
    metavar="N",
    type=click.IntRange(1),
    default=BACKUP_EVENTS_PER_S,
    show_default=True,
    help="Most events a second on average, so that the servers have time for their clients. Events come in parts of "
    "about 16,000, with a pause after each.",
)
def create(folder: str | None, since: int | None, rate: int) -> None:
    """Make a backup of everything that is in the log by now.

    Any member can be asked, and events can be added meanwhile. If the command ends early, the next one continues the
    backup, with any member.
    """
    session = current_session()
    terminal = session.terminal
    with connect(session.settings) as client:
        if folder is None:
            with (
                terminal.progress(client.info().events, is_logged=True) as advance,
                _following(client, totals(advance)),
            ):
                kept = client.create_backup(since=since, events_per_s=rate)
            terminal.fields(f"Created backup {kept.id} on {kept.node_id}:", _kept_fields(kept))
            terminal.records([_kept_record(kept)])
            return
        with terminal.progress(client.info().events, is_logged=True) as advance:
            report = totals(advance)
            made = client.back_up(folder, since=since, events_per_s=rate, progress=lambda events, _: report(events))
    terminal.fields(f"Created backup {made.path}:", _fields(made))
    terminal.records([_record(made)])


@command("list", examples=["qed backup list", "qed backup list /backups"])
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False), required=False)
def list_(folder: str | None) -> None:
    """List the backups in DIR, or those that the server keeps."""
    session = current_session()
    rows: list[Sequence[Cell]]
    unreadable: list[BackupError] = []
    if folder is None:
        with connect(session.settings) as client:
            kept = client.kept_backups()
        ids = {found.identity: found.id for found in kept}
        rows = [_kept_row(found, ids) for found in kept]
        records = [_kept_record(found) for found in kept]
        logs = [found.log for found in kept]
    else:
        found, unreadable = BackupFolder(folder).contents()
        numbers = {each.identity.hex(): each.number for each in found}
        rows, records = [_row(each, numbers) for each in found], [_record(each) for each in found]
        logs = [each.log for each in found]
    session.terminal.table(_COLUMNS, rows)
    # Most folders have backups of one log: a column would say the same in each row, and take half of a terminal.
    for log in dict.fromkeys(logs):
        which = ", ".join(str(row[0]) for row, its in zip(rows, logs, strict=True) if its == log)
        session.terminal.line(f"Of log {log}: {which}.")
    session.terminal.records(records)
    if unreadable:
        first, *others = unreadable
        for other in others:
            first.add_note(str(other))
        raise first


@command("show", examples=["qed backup show /backups/1"])
@click.argument("path", metavar="BACKUP", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def show(path: Path) -> None:
    """Show what BACKUP says about itself; `qed backup verify` checks it."""
    terminal = current_session().terminal
    found = Backup.read(path)
    terminal.fields(f"Received backup {path}:", _fields(found))
    terminal.records([_record(found)])


@command("verify", examples=["qed backup verify /backups/2"])
@click.argument("path", metavar="BACKUP", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def verify(path: Path) -> None:
    """Check every byte of BACKUP, and of the backups that it continues, without a server.

    Builds both trees again and compares every root in the backup with them. This takes as long as adding the events
    did, and about 110 bytes of memory an event.
    """
    terminal = current_session().terminal
    try:
        found = Backup.read(path)
        with terminal.progress(found.events) as advance:
            BackupFolder(path.parent).verify(found, progress=totals(advance))
    except DamagedBackup as exc:
        terminal.line("Check: KO")
        terminal.records([{"Check": "KO", "Reason": str(exc)}])
        raise
    terminal.fields(f"Checked backup {path}:", _fields(found))
    terminal.line("Check: OK")
    terminal.records([{"Check": "OK", **_record(found)}])


@command("delete", examples=["qed backup delete /backups/1", "qed backup delete 1"])
@click.argument("which", metavar="BACKUP")
def delete(which: str) -> None:
    """Delete BACKUP: a file, or the number of a backup that the server keeps."""
    session = current_session()
    if _NUMBER.fullmatch(which):
        with connect(session.settings) as client:
            client.delete_backup(int(which))
    else:
        path = Path(which)
        number = path.name.removesuffix(".part")
        if not _NUMBER.fullmatch(number):
            raise BackupError(f"{which}: expected a file that is named by its number")
        BackupFolder(path.parent).delete(int(number), is_unfinished=number != path.name)
    session.terminal.line(f"Deleted backup {which}.")
    session.terminal.records([{"Deleted": which}])


for _command in (create, list_, show, verify, delete):
    backup.add_command(_command)


@contextmanager
def _following(client: Client, report: Callable[[int], None]) -> Iterator[None]:
    """Report how far the backup is that a server makes, while the block waits for it."""
    is_over = threading.Event()

    def follow() -> None:
        while not is_over.wait(_POLL_S):
            # Whether the backup succeeds does not depend on this.
            with suppress(QedError):
                making = [kept.events for kept in client.kept_backups() if kept.total_events is not None]
                if making and not is_over.is_set():
                    report(making[0])

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield
    finally:
        is_over.set()
        follower.join(_POLL_S)


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _fields(found: Backup) -> list[tuple[str, object]]:
    fields: list[tuple[str, object]] = [
        ("Id", found.number or "none, the file was renamed"),
        ("Log", found.log),
        ("NodeId", found.node_id),
        ("Created", _time(found.created_s)),
        ("Events", found.events),
        ("Since", f"{found.start_events} events" if found.base else "the beginning"),
        ("Bytes", found.size_bytes),
        ("Identity", found.identity.hex()),
    ]
    if found.events:
        fields += [("HistoryDigest", found.history_digest.hex()), ("HyperDigest", found.hyper_digest.hex())]
    return fields


def _record(found: Backup) -> dict[str, object]:
    return {
        "Id": found.number,
        "Path": str(found.path),
        "Log": found.log,
        "NodeId": found.node_id,
        "Created": found.created_s,
        "Events": found.events,
        "StartEvents": found.start_events,
        "Base": found.base.hex() if found.base else None,
        "Bytes": found.size_bytes,
        "Identity": found.identity.hex(),
        "HistoryDigest": found.history_digest.hex(),
        "HyperDigest": found.hyper_digest.hex(),
    }


def _row(found: Backup, numbers: Mapping[str, int | None]) -> Sequence[Cell]:
    since = _since(found.base.hex() if found.base else None, numbers)
    created = spelt(datetime.fromtimestamp(found.created_s, UTC))
    return (str(found.number), created, str(found.events), since, str(found.size_bytes))


def _since(base: str | None, numbers: Mapping[str, int | None]) -> str:
    """Return the number of the backup that is continued, by its identity."""
    return "" if base is None else str(numbers.get(base) or "missing")


def _kept_fields(kept: KeptBackup) -> list[tuple[str, object]]:
    return [
        ("Id", kept.id),
        ("Log", kept.log),
        ("Created", _time(kept.timestamp)),
        ("Events", kept.events),
        ("Bytes", kept.size),
        ("Identity", kept.identity),
    ]


def _kept_record(kept: KeptBackup) -> dict[str, object]:
    return {
        "Id": kept.id,
        "Log": kept.log,
        "NodeId": kept.node_id,
        "Created": kept.timestamp,
        "Events": kept.events,
        "Base": kept.base,
        "Bytes": kept.size,
        "Identity": kept.identity,
        **({} if kept.total_events is None else {"TotalEvents": kept.total_events}),
    }


def _kept_row(kept: KeptBackup, ids: Mapping[str, int | None]) -> Sequence[Cell]:
    events = str(kept.events) if kept.total_events is None else f"{kept.events} of {kept.total_events}"
    created = spelt(datetime.fromtimestamp(kept.timestamp, UTC))
    return (str(kept.id), created, events, _since(kept.base, ids), str(kept.size))
