"""`qed drill`: attack a signed log of its own, and show which guard has noticed each attack."""

from __future__ import annotations

import re
import tempfile
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import click

from qed.cli.options import command, current_session
from qed.cli.signals import interrupted_by_signals
from qed.drill.drills import DRILLS, FOLDER_DRILLS, on_folder, on_scene
from qed.drill.guards import FolderAttack
from qed.drill.processes import DrillFailed, Processes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qed.cli.terminal import Cell, Terminal
    from qed.drill.drill import Drill, Outcome

__all__ = ["drill"]

_EXIT_UNNOTICED: Final = 1
_PRIVATE: Final = 0o700
_LONG_NAME: Final = re.compile(r"(?<=-[0-9a-f]{4})[0-9a-f]+\.jsonl?$")
"""The end of the name of a file of evidence, after as much of its digest as tells it from others of a drill."""
_A = TypeVar("_A", bound=FolderAttack)


@command(
    "drill",
    examples=[
        "qed drill",
        "qed drill --list",
        "qed drill --only fork-monitor --keep ./drill",
        "qed drill --data-dir /var/lib/qed",
    ],
    is_offline=True,
)
@click.option("--only", multiple=True, metavar="NAME", help="Carry out only this drill. Can be repeated.")
@click.option("--list", "is_list", is_flag=True, help="List the drills, and carry out none.")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep everything, evidence too, in this new folder.",
)
@click.option(
    "--data-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Damage copies of this data folder of a stopped server, in place of a log of its own.",
)
def drill(*, only: tuple[str, ...], is_list: bool, keep: Path | None, data_dir: Path | None) -> None:
    """Attack a signed log of its own, and show which guard has noticed each attack.

    A server that signs, two witnesses, a client and a monitor run in a temporary folder, on ports of this machine. Then
    files are damaged and lost, and the log is rolled back, rewritten, forked, withheld and forged. Nothing else is
    touched. The exit code is 1 if an attack was not noticed.
    """
    terminal = current_session().terminal
    if data_dir is None:
        drills = _chosen(DRILLS, only)
        start = partial(on_scene, drills=drills)
    else:
        on_copies = _chosen(FOLDER_DRILLS, only)
        drills = [*on_copies]
        start = partial(on_folder, data=data_dir, drills=on_copies)
    if is_list:
        terminal.table(["Drill", "Attack", "Guard"], [(each.name, each.attack, each.guard) for each in drills])
        terminal.records({"Drill": each.name, "Attack": each.attack, "Guard": each.guard} for each in drills)
        return
    if data_dir is not None:
        terminal.note(f"copies of {data_dir} are damaged; it is only read itself")
    began_s = time.monotonic()
    with interrupted_by_signals(), _folder(keep) as folder, Processes(folder) as run:
        outcomes = _outcomes(terminal, folder, start(run), len(drills))
    _show(terminal, outcomes, time.monotonic() - began_s, keep)
    if not all(outcome.is_noticed for outcome in outcomes):
        raise click.exceptions.Exit(_EXIT_UNNOTICED)


def _chosen(drills: Sequence[Drill[_A]], only: Sequence[str]) -> list[Drill[_A]]:
    """Return the drills with these names, by default all."""
    names = {each.name for each in drills}
    for name in only:
        if name not in names:
            raise click.UsageError(f"expected the name of a drill, as --list shows them, found {name!r}")
    return [each for each in drills if not only or each.name in only]


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """Give an empty folder, which stays only if its user wants to keep it."""
    if keep is not None:
        keep.mkdir(mode=_PRIVATE, parents=True)
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="qed-drill-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def _outcomes(terminal: Terminal, folder: Path, begun: Iterator[Outcome], count: int) -> list[Outcome]:
    """Return how the drills end, and show meanwhile how many have."""
    outcomes: list[Outcome] = []
    with terminal.activity() as say:
        say("setting up what is attacked")
        try:
            for outcome in begun:
                outcomes.append(outcome)
                terminal.records([_record(outcome, folder)])
                missed = sum(not each.is_noticed for each in outcomes)
                say(f"{len(outcomes)} of {count} attacks, {missed} not noticed; the last was {outcome.name}")
        except DrillFailed as exc:
            raise click.ClickException(f"the drill cannot begin: {exc}") from exc
    return outcomes


def _show(terminal: Terminal, outcomes: Sequence[Outcome], took_s: float, keep: Path | None) -> None:
    terminal.table(["Drill", "Noticed by", "After", "Evidence"], map(_row, outcomes))
    missed = [outcome for outcome in outcomes if not outcome.is_noticed]
    for outcome in missed:
        terminal.line(f"{outcome.name} was not noticed by {outcome.guard}: {outcome.text}")
    count = f"{len(outcomes)} attack{'' if len(outcomes) == 1 else 's'}"
    verdict = f"{len(missed)} of {count} NOT NOTICED" if missed else f"{count}, all noticed"
    terminal.line(f"{verdict}, in {took_s:.0f} s.{'' if keep is None else f' Everything is in {keep}.'}")


def _row(outcome: Outcome) -> tuple[Cell, ...]:
    guard = outcome.guard if outcome.is_noticed else "NOT NOTICED"
    evidence = "" if outcome.evidence is None else _LONG_NAME.sub("…", outcome.evidence.name)
    return (outcome.name, outcome.attack), guard, f"{outcome.after_s:.1f} s", evidence


def _record(outcome: Outcome, folder: Path) -> dict[str, object]:
    evidence = outcome.evidence
    return {
        "Drill": outcome.name,
        "Attack": outcome.attack,
        "Guard": outcome.guard,
        "Noticed": outcome.is_noticed,
        "Said": outcome.text,
        "AfterS": round(outcome.after_s, 3),
        "Evidence": None if evidence is None else str(evidence.relative_to(folder)),
    }
