"""The high-water note: what a member has promised, in a file outside its data folder."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

import msgspec

from qed._files import read_regular, replace_file
from qed.server.config import SettingsError
from qed.server.logs import Line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qed._qed import Status

__all__ = ["HighWater", "Keeper", "read_high_water"]

_log = logging.getLogger(__name__)

_NOTE_BYTES_MAX: Final = 4096
_INTERVAL_S: Final = 1.0
"""How often the note is written, if anything has changed: a sync of its own for each event would halve the adds."""


class HighWater(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a member has promised at least.

    Attributes:
        member: Its number, as 16 hexadecimal digits.
        term: A term that it has reached.
        index: An entry that it has applied.
    """

    member: str
    term: int
    index: int

    @property
    def number(self) -> int:
        """The number of the member."""
        return int(self.member, 16)


def read_high_water(path: Path) -> HighWater | None:
    """Return the note in a file, or None if there is no file.

    Raises:
        SettingsError: It is not a note, or cannot be read.
    """
    try:
        note = msgspec.json.decode(read_regular(path, _NOTE_BYTES_MAX), type=HighWater)
        is_valid = min(note.term, note.index) >= 0 and 0 < note.number < 1 << 64
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise SettingsError(f"cannot read {path}: {exc.strerror}") from exc
    except ValueError as exc:
        raise SettingsError(f"expected a high-water note in {path}: {exc}") from exc
    if not is_valid or max(note.term, note.index) >= 1 << 64:
        raise SettingsError(f"expected a high-water note in {path}, found numbers out of range")
    return note


class Keeper:
    """What writes the note of a running member."""

    def __init__(self, path: Path, status: Callable[[], Status]) -> None:
        self._path = path
        self._status = status
        self._written: HighWater | None = None
        self._has_failed = False

    async def run(self) -> None:
        """Write the note now and then, until this is cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL_S)
            with contextlib.suppress(OSError):
                await asyncio.get_running_loop().run_in_executor(None, self.write)

    def write(self) -> None:
        """Write the note, if anything has changed. Blocks."""
        status = self._status()
        note = HighWater(f"{status.id:016x}", status.term, status.applied_index)
        if note == self._written:
            return
        try:
            replace_file(self._path, msgspec.json.encode(note) + b"\n", mode=0o600)
        except OSError as exc:
            if not self._has_failed:
                _log.error(Line("cannot write", path=self._path, reason=exc.strerror))
            self._has_failed = True
            return
        self._written, self._has_failed = note, False
