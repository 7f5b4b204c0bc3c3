"""Other histories under the name of the honest log, signed with its keys; each is made when it is first needed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, TypeVar

from qed.drill.damage import copied
from qed.drill.forgery import entries_of, hide, publish
from qed.drill.processes import DrillFailed
from qed.drill.scene import LOG, TWIN, exchange

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qed.drill.processes import Server
    from qed.drill.scene import Scene

__all__ = ["Impostors"]

_Made = TypeVar("_Made", "Server", "Path")
_OK: Final = 200
_FORKED: Final = "forked"
_RECEIPTS: Final = "receipts"


class Impostors:
    """What a dishonest operator of the log runs and publishes. Any thread may ask for it.

    Args:
        scene: The honest log.
        folder: An empty folder for all of it.
    """

    def __init__(self, scene: Scene, folder: Path) -> None:
        self._scene: Final = scene
        self._folder: Final = folder
        self._lock: Final = threading.RLock()
        self._made: Final[dict[str, object]] = {}

    @property
    def rolled_back(self) -> Server:
        """A server that runs on the old copy of the data folder, with the newest sign memory."""
        return self._once("rolled-back", self._rolled_back)

    @property
    def forked(self) -> Server:
        """A server that went on from the old copies with other events, one more than the honest log has."""
        return self._once(_FORKED, self._forked)

    @property
    def forked_receipts(self) -> Path:
        """The receipts of a client of that server, for a tree as large as that of the honest log."""
        self._once(_FORKED, self._forked)
        return self._folder / _FORKED / _RECEIPTS

    @property
    def rewritten(self) -> Path:
        """A folder with the files of a log that has another event at one version, and is otherwise the same."""
        return self._once("rewritten", self._rewritten)

    @property
    def hiding(self) -> Path:
        """A folder with the files of the other log, whose hyper tree lacks its last event. Both witnesses cosigned."""
        return self._once("hiding", self._hiding)

    def _once(self, name: str, make: Callable[[Path], _Made]) -> _Made:
        with self._lock:
            if name not in self._made:
                folder = self._folder / name
                folder.mkdir()
                self._made[name] = make(folder)
            found: _Made = self._made[name]  # type: ignore[assignment]  # it was made under this name
            return found

    def _rolled_back(self, folder: Path) -> Server:
        return self._scene.serve(*self._copies(folder, self._scene.sign_memory))

    def _forked(self, folder: Path) -> Server:
        scene = self._scene
        server = scene.serve(*self._copies(folder, scene.old_memory))
        events = [f"forged {number}" for number in range(scene.size - scene.old_size)]
        scene.add(server, events, folder / _RECEIPTS)
        scene.add(server, ["one more"], folder / "more")
        scene.await_checkpoint(server, scene.size + 1)
        return server

    def _rewritten(self, folder: Path) -> Path:
        events = [*self._scene.events]
        events[1] = "rewritten"
        publish(folder, LOG, entries_of(self._scene.bulks(events)), self._scene.keys)
        return folder

    def _hiding(self, folder: Path) -> Path:
        events = [f"line {number}" for number in range(10)]
        true, false = (entries_of([[*events, last]]) for last in ("hidden", events[-1]))
        note = publish(folder, TWIN, hide(true, false), self._scene.twin_keys)
        for witness in self._scene.witnesses:
            status, lines = exchange(witness.server.url, "/add-checkpoint", b"old 0\n\n" + note)
            if status != _OK:
                raise DrillFailed(f"expected {witness.name} to cosign the first checkpoint of {TWIN}, found {status}")
            note += lines
        (folder / "checkpoint").write_bytes(note)
        return folder

    def _copies(self, folder: Path, sign_memory: Path) -> tuple[Path, Path]:
        return copied(self._scene.old_data, folder), copied(sign_memory, folder)
