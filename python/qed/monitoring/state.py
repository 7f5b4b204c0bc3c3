"""The state of a monitor, in a file that is verified whenever it is read (FORMATS.md, "State of a monitor")."""

from __future__ import annotations

import fcntl
import os
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from qed._files import PRIVATE, read_regular, replace_file
from qed.errors import MonitorError, PolicyError, VerificationError
from qed.monitoring.alerts import Pending  # noqa: TC001  # msgspec reads the annotations
from qed.monitoring.sources import CHECKPOINT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qed.signed import Checkpoint, TrustFile

__all__ = ["Seen", "State", "StateFile", "Trouble"]

_FORMAT: Final = "qed-monitor-1"
_STATE_BYTES_MAX: Final = 64 * 1024 * 1024


class Seen(msgspec.Struct, rename="pascal", kw_only=True):
    """What a source had last.

    Attributes:
        size: Size of its checkpoint.
        root: Root of its checkpoint, in hexadecimal.
        seen_at: When, in seconds since 1970.
    """

    size: int
    root: str
    seen_at: int


class Trouble(msgspec.Struct, rename="pascal", kw_only=True):
    """Something that may pass, such as a source that does not answer.

    Attributes:
        kind: What it is.
        text: For people.
        since: When it began, in seconds since 1970.
        is_told: Whether there was an alert about it.
    """

    kind: str
    text: str
    since: int
    is_told: bool = False


class State(msgspec.Struct, rename="pascal", kw_only=True):
    """What a monitor has seen and told.

    Attributes:
        format: `qed-monitor-1`.
        origin: The name of the log.
        size: Size of the newest checkpoint that extends all that was seen before it.
        root: Its root, in hexadecimal.
        note: The note; empty before the first one.
        next_entry: Number of entries that were replayed. Less than `size` if a replay was interrupted.
        history_root: The history root after them, in hexadecimal, or None.
        hyper_root: The hyper root after them, in hexadecimal, or None.
        mode: `full` or `sampled`.
        sources: What each source had last.
        troubles: What may pass, by the id of its alert.
        told: When each alert was told last, in seconds since 1970, by its id.
        outbox: Alerts that are not delivered yet.
        suppressed: The ids of alerts that are not told any more.
    """

    format: str = _FORMAT
    origin: str = ""
    size: int = 0
    root: str = ""
    note: str = ""
    next_entry: int = 0
    history_root: str | None = None
    hyper_root: str | None = None
    mode: str = "full"
    sources: dict[str, Seen] = {}
    troubles: dict[str, Trouble] = {}
    told: dict[str, int] = {}
    outbox: list[Pending] = []
    suppressed: list[str] = []


class _File(msgspec.Struct, rename="pascal", forbid_unknown_fields=True):
    state: msgspec.Raw
    crc: str


_FILE: Final = msgspec.json.Decoder(_File)
_STATE: Final = msgspec.json.Decoder(State)


class StateFile:
    """The file of a state. One process uses it at a time.

    Args:
        path: The file. It need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path: Final = path

    @property
    def copy(self) -> Path:
        """The folder beside it for the copy of the log."""
        return self.path.with_name(f"{self.path.name}.copy")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the file for this process.

        Raises:
            MonitorError: Another process holds it.
            OSError: Its lock cannot be created.
        """
        lock = self.path.with_name(f"{self.path.name}.lock")
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                raise MonitorError(f"another process uses {self.path}: one monitor needs one state") from exc
            yield
        finally:
            os.close(descriptor)

    def load(self) -> State | None:
        """Return the state; its note is not verified. None if there is no file.

        Raises:
            VerificationError: The file is damaged.
            OSError: It cannot be read.
        """
        try:
            content = read_regular(self.path, _STATE_BYTES_MAX)
        except FileNotFoundError:
            return None
        try:
            whole = _FILE.decode(content)
            state = _STATE.decode(whole.state)
        except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
            raise self._damaged(str(exc)) from exc
        if whole.crc != _crc(bytes(whole.state)) or state.format != _FORMAT:
            raise self._damaged(f"expected the checksum {_crc(bytes(whole.state))} of {_FORMAT}, found {whole.crc}")
        return state

    def verified(self, state: State, trust: TrustFile, *, now: int) -> Checkpoint | None:
        """Return the checkpoint of a state, after verifying it again: somebody may have edited the file.

        Args:
            state: The state.
            trust: Whom to trust.
            now: The current time in seconds since 1970.

        Returns:
            The checkpoint, or None if there is none yet.

        Raises:
            VerificationError: It does not verify, or is not that of the state.
            PolicyError: The state is about a log that the policy does not have.
        """
        if not state.note:
            if (state.size, state.root, state.next_entry) != (0, "", 0):
                raise self._damaged("it has a size, but no note")
            return None
        if state.origin not in trust.origins:
            raise PolicyError(f"{self.path} is the state of {state.origin!r}, which the policy does not have")
        checkpoint = trust.endorse(state.note.encode(), now=now)
        found = (checkpoint.origin, checkpoint.size, checkpoint.root.hex())
        if found != (state.origin, state.size, state.root) or not 0 <= state.next_entry <= state.size:
            raise self._damaged("its note is of another checkpoint")
        return checkpoint

    def save(self, state: State) -> None:
        """Replace the file; durable when this returns.

        Raises:
            OSError: It cannot be written.
        """
        content = msgspec.json.encode(state)
        whole = b'{"State":' + content + b',"Crc":"' + _crc(content).encode() + b'"}\n'
        replace_file(self.path, whole, mode=PRIVATE)

    def require_no_copy(self) -> None:
        """Check, where there is no state or none with a checkpoint, that no earlier monitor has left a copy of a log.

        Raises:
            VerificationError: There is one. The first checkpoint must not be believed in its place.
        """
        if (self.copy / CHECKPOINT).exists():
            raise VerificationError(
                f"there is no state with a checkpoint in {self.path}, but {self.copy} has what an earlier monitor saw: "
                "unless its first round was killed, find out who changed it. To start over, move the copy away"
            )

    def _damaged(self, reason: str) -> VerificationError:
        return VerificationError(
            f"the state in {self.path} is damaged: {reason}. Find out who changed it: qed never starts it over"
        )


def _crc(content: bytes) -> str:
    return f"{zlib.crc32(content):08x}"
