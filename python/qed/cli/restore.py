"""`qed restore` and `qed recover`: a new cluster from a backup, or from a member whose majority is lost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import click

from qed import backups
from qed.cli.options import command, current_session
from qed.cli.signals import StopRequest
from qed.cli.terminal import totals
from qed.errors import CorruptLog, LogError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["recover", "restore"]

_T = TypeVar("_T")

_DATA_DIR: Final = click.option(
    "--data-dir", metavar="DIR", type=click.Path(file_okay=False), required=True, help="The data folder of the server."
)


@command("restore", examples=["qed restore /backups/2 --data-dir ./qed-data"])
@click.argument("path", metavar="BACKUP", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_DATA_DIR
def restore(path: Path, data_dir: str) -> None:
    """Read BACKUP, and the backups that it continues, into a new data folder.

    The first server that is started on it begins a new cluster, of which it is the only member; others join it with
    empty folders. What was added after the backup was made is lost: clients with receipts of that see a stale or forked
    log.
    """
    terminal = current_session().terminal
    found = backups.Backup.read(path)
    with StopRequest.heeded() as stop:
        # Once the folder is complete, Ctrl-C comes too late, and must not make this end as if nothing had been done.
        with terminal.progress(found.events) as advance:
            report = totals(advance)

            def progress(events: int) -> None:
                stop.require_none()
                report(events)

            restored = _usable(lambda: backups.restore(path, data_dir, progress=progress))
        terminal.fields(
            f"Restored {path} into {data_dir}:",
            [
                ("OldLog", found.log),
                ("NewLog", restored.cluster),
                ("Events", restored.events),
                ("Index", restored.index),
            ],
        )
        terminal.note(
            f"what was added to the log after the backup, from version {restored.events} on, is not in it. "
            "Clients with later receipts will see a stale or forked log. API keys are those of the backup: revoke "
            "again what was revoked since. Without a key in the backup, the server is open to this machine"
        )
        terminal.records(
            [{"Restored": data_dir, "OldLog": found.log, "NewLog": restored.cluster, "Events": restored.events}]
        )


@command("recover", examples=["qed recover --data-dir ./qed-data --dry-run", "qed recover --data-dir ./qed-data"])
@_DATA_DIR
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Only show how far the member's log is.")
def recover(data_dir: str, *, is_dry_run: bool) -> None:
    """Make the stopped member in a data folder the only one of a new cluster.

    Only for when a majority of the members is lost for good. Of several survivors, choose the one whose last entry has
    the highest term, and among these the highest index. No other member of the old cluster may be started again, except
    with an empty folder. Events that only the lost members had are lost: clients with receipts of them see a stale or
    forked log.
    """
    terminal = current_session().terminal
    found = _usable(lambda: backups.survey(data_dir))
    old: list[tuple[str, object]] = [("OldLog", found.cluster), ("Term", found.term), ("Index", found.index)]
    record = {"Member": found.name, "OldLog": found.cluster, "Term": found.term, "Index": found.index}
    if is_dry_run:
        terminal.fields(f"Found {found.name} in {data_dir}:", [*old, ("Events", found.events)])
        terminal.note("the last entries may hold more events. Nothing was changed")
        terminal.records([{**record, "Events": found.events}])
        return
    with StopRequest.heeded():
        founded = _usable(lambda: backups.recover(data_dir))
        new: list[tuple[str, object]] = [("NewLog", founded.cluster), ("Events", founded.events)]
        terminal.fields(f"Recovered {found.name} in {data_dir}:", [*old, *new])
        terminal.note(
            f"it is the only one of {found.members} members now. Events that it had not received, from version "
            f"{founded.events} on, are lost. Clients with receipts of them will see a stale or forked log. Start no "
            "other member of the old cluster again, except with an empty folder"
        )
        terminal.records([{"Recovered": data_dir, **record, "NewLog": founded.cluster, "Events": founded.events}])


def _usable(work: Callable[[], _T]) -> _T:
    """Do what needs a data folder; that it cannot be used is a mistake of the caller, not a refusal of a server."""
    try:
        return work()
    except CorruptLog:
        raise
    except LogError as exc:
        raise click.ClickException(str(exc)) from exc
