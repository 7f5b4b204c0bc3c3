"""`qed check`: audit the data folder of a stopped server. This file opens no connection."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click
import msgspec

from qed.cli.options import command, current_session
from qed.cli.terminal import totals
from qed.errors import CorruptLog, LogError
from qed.log import Log

__all__ = ["check"]

_FORMAT_FILE: Final = "FORMAT"


@command("check", examples=["qed check ./qed-data", "qed check /var/lib/qed --json"])
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False))
def check(folder: str) -> None:
    """Audit the data folder of a stopped server.

    Rebuilds both trees from the log in DIR and compares everything stored there with them. It changes nothing,
    but the storage engine may clean up its own files, as at any start.
    """
    terminal = current_session().terminal
    # Opening the folder would create an empty log, which passes every check.
    if not (Path(folder) / _FORMAT_FILE).exists():
        raise click.ClickException(f"{folder}: expected the data folder of a log, found no file {_FORMAT_FILE} in it")
    try:
        with Log(folder) as log:
            events = len(log)
            with terminal.progress(events) as advance:
                log.check(progress=totals(advance))
            last = log.snapshot(events - 1) if events else None
    except CorruptLog as exc:
        terminal.line("Check: KO")
        terminal.records([{"Check": "KO", "Reason": str(exc)}])
        raise
    except LogError as exc:
        raise click.ClickException(str(exc)) from exc
    fields: list[tuple[str, object]] = [("Events", events)]
    if last is not None:
        fields += [("HistoryDigest", last.history_digest.hex()), ("HyperDigest", last.hyper_digest.hex())]
        fields += [("Version", last.version)]
    terminal.fields(f"Checked {folder}, a log with values:", fields)
    terminal.line("Check: OK")
    snapshot = None if last is None else msgspec.Raw(last.to_json())
    terminal.records([{"Check": "OK", "Events": events, "Snapshot": snapshot}])
