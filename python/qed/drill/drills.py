"""All drills, and running them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

from qed.drill import answers, files, folders, histories
from qed.drill.damage import copied
from qed.drill.guards import Attack, FolderAttack
from qed.drill.impostors import Impostors
from qed.drill.scene import Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from qed.drill.drill import Drill, Outcome
    from qed.drill.processes import Processes

__all__ = ["DRILLS", "FOLDER_DRILLS", "carried_out", "on_folder", "on_scene"]

FOLDER_DRILLS: Final[Sequence[Drill[FolderAttack]]] = folders.DRILLS
"""Those that need no more than the data folder of a server."""
DRILLS: Final[Sequence[Drill[Attack]]] = (*folders.DRILLS, *files.DRILLS, *histories.DRILLS, *answers.DRILLS)
_AT_A_TIME_MAX: Final = 4
"""Each keeps about one core busy."""
_A = TypeVar("_A", bound=FolderAttack)


def on_scene(run: Processes, drills: Sequence[Drill[Attack]]) -> Iterator[Outcome]:
    """Set up an honest log with all around it, and attack it.

    Args:
        run: Runs the product. Everything is in its folder.
        drills: The attacks.

    Yields:
        How each has ended, in this order.

    Raises:
        DrillFailed: The honest log does not work, or a guard raises a false alarm.
    """
    scene = Scene(run, _made(run.folder / "scene"))
    scene.build()
    impostors = Impostors(scene, _made(run.folder / "impostors"))
    yield from carried_out(run, drills, lambda folder: Attack(scene, impostors, folder))


def on_folder(run: Processes, data: Path, drills: Sequence[Drill[FolderAttack]]) -> Iterator[Outcome]:
    """Attack copies of a data folder; otherwise as `on_scene`.

    Args:
        run: Runs the product. Everything is in its folder.
        data: The data folder of a stopped server. It is only read.
        drills: The attacks.

    Raises:
        DrillFailed: A server uses it, or it is not a whole data folder, even without an attack.
        OSError: It cannot be read.
    """
    folders.require_unused(data)
    copy = copied(data, _made(run.folder / "honest"))
    run.qed("check", copy).require()
    yield from carried_out(run, drills, lambda folder: FolderAttack(run, copy, folder))


def carried_out(run: Processes, drills: Sequence[Drill[_A]], attack_in: Callable[[Path], _A]) -> Iterator[Outcome]:
    """Carry out attacks, several at a time.

    Args:
        run: Runs the product. If somebody stops to ask for more, as after Ctrl-C, all its processes are killed.
        drills: The attacks.
        attack_in: Returns an attack whose files are in a folder.

    Yields:
        How each has ended, in this order.
    """
    attacks = _made(run.folder / "attacks")

    def carry_out(drill: Drill[_A]) -> Outcome:
        return drill.run(attack_in(_made(attacks / drill.name)))

    pool = ThreadPoolExecutor(min(_AT_A_TIME_MAX, os.cpu_count() or 1), thread_name_prefix="qed-drill")
    try:
        yield from pool.map(carry_out, drills)
    except BaseException:
        run.close()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
