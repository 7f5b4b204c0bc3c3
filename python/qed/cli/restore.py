"""`qed restore` and `qed recover`: a new cluster from a backup or what was published, or from a last member."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, Unpack

import click

from qed import backups
from qed.cli.options import command, current_session, policy_option
from qed.cli.places import source_at
from qed.cli.s3 import S3Given, s3_given, s3_options
from qed.cli.signals import StopRequest
from qed.cli.terminal import totals
from qed.errors import CorruptLog, LogError
from qed.evidence import save_evidence
from qed.monitoring.findings import exit_code
from qed.monitoring.restoring import restore as restore_published
from qed.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from qed.cli.terminal import Terminal
    from qed.monitoring.restoring import Restoration
    from qed.monitoring.s3 import S3Options
    from qed.signed import Checkpoint

__all__ = ["recover", "restore"]

_T = TypeVar("_T")

_DATA_DIR: Final = click.option(
    "--data-dir", metavar="DIR", type=click.Path(file_okay=False), required=True, help="The data folder of the server."
)


@command(
    "restore",
    examples=[
        "qed restore /backups/2 --data-dir ./qed-data",
        "qed restore --from-tiles s3://bucket/log --policy trust.json --data-dir new",
    ],
)
@click.argument(
    "path", metavar="[BACKUP]", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False
)
@_DATA_DIR
@click.option("--from-tiles", metavar="URL|DIR", help="Restore what a log has published there, in place of a backup.")
@policy_option("The keys of the log and its witnesses, for --from-tiles.", is_required=False)
@s3_options
def restore(
    *, path: Path | None, data_dir: str, from_tiles: str | None, policy: str | None, **s3: Unpack[S3Given]
) -> None:
    """Read BACKUP, and the backups that it continues, into a new data folder.

    The first server that is started on it begins a new cluster, of which it is the only member; others join it with
    empty folders. What was added after the backup was made is lost: clients with receipts of that see a stale or forked
    log.

    With --from-tiles, the events come from what the log has published at a URL, in a folder or in s3://BUCKET/PREFIX.
    Each is verified by the signed checkpoint, and replayed. API keys and the history of the cluster are not published.
    """
    if (path is None) is (from_tiles is None):
        raise click.UsageError("expected either BACKUP or --from-tiles")
    if path is not None:
        _restore_backup(path, data_dir)
    elif from_tiles is not None:
        if policy is None:
            raise click.UsageError("nothing is trusted: give --policy PATH, or set QED_POLICY")
        _restore_published(from_tiles, Policy.load(policy), data_dir, s3_given(s3))


def _restore_backup(path: Path, data_dir: str) -> None:
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


def _restore_published(place: str, policy: Policy, data_dir: str, s3: S3Options) -> None:
    session = current_session()
    terminal = session.terminal
    with StopRequest.heeded() as stop, ExitStack() as stack:
        # A source may be slow, and nothing is lost by an end before the folder is made.
        stop.is_patient = False
        source = source_at(place, session.settings, s3)
        stack.callback(source.close)

        def completing() -> None:
            # From here on, Ctrl-C must not make this end as if nothing had been done.
            stop.is_patient = True

        def started(checkpoint: Checkpoint) -> Callable[[int], None]:
            advance = bar.enter_context(terminal.progress(checkpoint.size, is_logged=True))

            return lambda events: advance(events, events)

        with ExitStack() as bar:
            done = _usable(lambda: restore_published(policy, source, data_dir, started=started, completing=completing))
        checkpoint, founding = done.checkpoint, done.founding
        if founding is None:
            _show_finding(done, terminal)
            return
        terminal.fields(
            f"Restored {place} into {data_dir}:",
            [
                ("OldLog", checkpoint.origin),
                ("NewLog", founding.cluster),
                ("Events", founding.events),
                ("Root", checkpoint.root.hex()),
            ],
        )
        terminal.note(
            f"what was added to the log after that was published, from version {founding.events} on, is not in it: "
            "a server that has signed more, by its sign memory, will refuse to sign. There are no API keys in it, so "
            "the server is open to this machine"
        )
        record = {"Restored": data_dir, "OldLog": checkpoint.origin, "NewLog": founding.cluster}
        terminal.records([{**record, "Events": founding.events, "Root": checkpoint.root.hex()}])


def _show_finding(done: Restoration, terminal: Terminal) -> None:
    """Show why nothing was restored, and end."""
    found = done.finding
    if found is None:
        return
    terminal.line(f"{found.kind}: {found.text}")
    if found.evidence is not None:
        terminal.line(f"  evidence: {save_evidence(found.evidence, Path().absolute())}")
    terminal.records([{"Finding": found.kind.value, "Text": found.text}])
    raise click.exceptions.Exit(exit_code([found]))


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
