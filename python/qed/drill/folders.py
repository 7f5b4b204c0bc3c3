"""Damage to a data folder that a server has left: one bit of each kind of file is flipped."""

from __future__ import annotations

import fcntl
import json
from typing import TYPE_CHECKING, Final

from qed.drill.damage import copied, find, flip_bit
from qed.drill.drill import Drill, drill
from qed.drill.processes import DrillFailed
from qed.drill.scene import PORTS
from qed.log import Log

if TYPE_CHECKING:
    from pathlib import Path

    from qed.drill.guards import FolderAttack, Sighting

__all__ = ["DRILLS", "require_unused"]

DRILLS: Final[list[Drill[FolderAttack]]] = []

_SERVER: Final = "start of the server"
_MEMBER: Final = "MEMBER"
_PAYLOAD_AT: Final = 24
"""Inside the first frame of a segment."""


def require_unused(data: Path) -> None:
    """Check that a folder is the data folder of a log, and that no server uses it.

    Raises:
        DrillFailed: It is not, or one does: what is in memory would be missing in a copy.
        OSError: It cannot be read.
    """
    if not (data / _MEMBER).is_file():
        raise DrillFailed(f"expected the data folder of a server, found no file {_MEMBER} in {data}")
    with (data / "store" / "lock").open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise DrillFailed(f"a server uses {data}: stop it first, or give a copy of a stopped one") from exc


def _copied(attack: FolderAttack) -> Path:
    return copied(attack.data, attack.folder)


def _last_digest(data: Path) -> bytes:
    """Return the digest of the last event of a log."""
    with Log(data) as log:
        if not len(log):
            raise DrillFailed("expected a log with events, found an empty one")
        return bytes(log.snapshot(len(log) - 1).event_digest)


def _refused(attack: FolderAttack, data: Path) -> Sighting:
    """Return why no server starts on a folder."""
    name = json.loads((attack.data / _MEMBER).read_bytes())["name"]
    attack.watch()
    server = attack.run.start("qed-server", "--data-dir", data, "--node-id", name, *PORTS)
    return attack.refuses_to_start(server, "damaged")


@drill(DRILLS, "qed check")
def folder_log(attack: FolderAttack) -> Sighting:
    """Flip a bit of an event in the stored log."""
    data = _copied(attack)
    flip_bit(*find(_last_digest(data), sorted((data / "store").rglob("*"))))
    attack.watch()
    return attack.command("check", data, words="damaged")


@drill(DRILLS, "qed check")
def folder_table(attack: FolderAttack) -> Sighting:
    """Flip a bit in the largest table of the store."""
    data = _copied(attack)
    tables = [path for path in data.glob("store/keyspaces/*/tables/*") if path.is_file()]
    if not tables:
        raise DrillFailed("expected tables in the store, found none")
    largest = max(tables, key=lambda path: path.stat().st_size)
    flip_bit(largest, largest.stat().st_size // 2)
    attack.watch()
    return attack.command("check", data, words="damaged")


@drill(DRILLS, _SERVER)
def folder_raft(attack: FolderAttack) -> Sighting:
    """Flip a bit in the Raft log."""
    data = _copied(attack)
    # A frame at the end may be torn, but not one that was synced.
    flip_bit(max((data / "raft").glob("*.wal")), _PAYLOAD_AT)
    return _refused(attack, data)


@drill(DRILLS, _SERVER)
def folder_member(attack: FolderAttack) -> Sighting:
    """Flip a bit of the member's identity."""
    data = _copied(attack)
    flip_bit(data / _MEMBER, 1)
    return _refused(attack, data)
