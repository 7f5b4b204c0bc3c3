"""The newest checkpoint of a log that was verified here, kept to notice a fork (FORMATS.md, "Memory of a verifier")."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qed._files import PRIVATE, create_file, read_regular, replace_file, require_regular
from qed._printable import printable
from qed.errors import CheckpointFork, Inconclusive, PolicyError, VerificationError
from qed.evidence import Evidence, save_evidence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qed.signed import Checkpoint, TrustFile

__all__ = ["Known", "Memory", "Recollection"]

_NOTE_BYTES_MAX: Final = 256 * 1024
_PRIVATE_FOLDER: Final = 0o700
_OF_POLICY: Final = ("origin", "signature lines")
"""Checks that a true checkpoint fails if the policy has lost its log or the keys that signed, or demands others."""
_PATIENCE_S: Final = 10.0
"""How long to wait for another process that has the file locked."""
_AGAIN_S: Final = 0.05


class Known(StrEnum):
    """How a checkpoint compares with the one that is remembered."""

    FIRST = "first"
    """Nothing was remembered of this log."""
    SAME = "same"
    """It is the one that is remembered."""
    OLDER = "older"
    """It is smaller. That it is an earlier state of the same log was not checked."""
    NEWER = "newer"
    """It is larger. That it extends the remembered one was not checked."""


@dataclass(frozen=True)
class Recollection:
    """The outcome of a comparison.

    Attributes:
        known: How the checkpoint compares with the remembered one.
        size: The size that was remembered, or None if nothing was.
        is_kept: Whether the larger of the two is remembered from here on.
    """

    known: Known
    size: int | None
    is_kept: bool = True


class Memory:
    """The largest checkpoint of each log that was verified, and the largest witnessed one. They never go back.

    A log that was caught with two histories is remembered, too: nothing that it has signed is accepted any more.

    Args:
        path: A file for one log, which need not exist; or None for a file of each log in the folder for the state of
            programs, which `XDG_STATE_HOME` names.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._given: Final = None if path is None else Path(path)

    def path_of(self, origin: str) -> Path:
        """Return the file for a log.

        Args:
            origin: The name of the log.

        Returns:
            The file. It need not exist.
        """
        if self._given is not None:
            return self._given
        named = os.environ.get("XDG_STATE_HOME", "")
        # The specification wants relative paths to be ignored.
        home = Path(named) if Path(named).is_absolute() else Path("~/.local/state").expanduser()
        return home / "qed" / "checkpoints" / hashlib.sha256(origin.encode()).hexdigest()

    def compare(self, checkpoint: Checkpoint, trust: TrustFile, *, now: int) -> Recollection:
        """Compare a verified checkpoint with the one that is remembered.

        Args:
            checkpoint: The checkpoint.
            trust: Verifies what is remembered: the file may have been edited.
            now: The current time in seconds since 1970.

        Returns:
            How the two compare.

        Raises:
            CheckpointFork: They have one size and different roots, and both were saved. Or the log was caught before.
            PolicyError: The file is about another log.
            Inconclusive: What is remembered does not meet this policy, and may have met another one.
            VerificationError: The remembered checkpoint does not verify.
            OSError: The file cannot be read.
        """
        path = self._file(checkpoint.origin)
        try:
            known = _remembered(path, trust, now)
        except (FileNotFoundError, NotADirectoryError):
            return Recollection(Known.FIRST, None)
        _require_no_fork(path, known, checkpoint)
        found = _compared(path, known, checkpoint)
        with suppress(FileNotFoundError):
            witnessed = _witnessed(path)
            _compared(witnessed, _remembered(witnessed, trust, now), checkpoint)
        return found

    def remembered(self, origin: str, trust: TrustFile, *, now: int) -> list[Checkpoint]:
        """Return the largest checkpoint that is remembered of a log, and the largest witnessed one if that is another.

        Args:
            origin: The name of the log.
            trust: As for `compare`.
            now: As for `compare`.

        Returns:
            The checkpoints; none if nothing is remembered.

        Raises:
            Inconclusive: As `compare`.
            VerificationError: A remembered checkpoint does not verify.
            OSError: A file cannot be read.
        """
        path, found = self._file(origin), []
        for each in (path, _witnessed(path)):
            with suppress(FileNotFoundError, NotADirectoryError):
                found.append(_remembered(each, trust, now))
        return found

    def convict(self, fork: CheckpointFork, evidence: Evidence) -> None:
        """Save the evidence of a fork, and remember it.

        Args:
            fork: The fork. Notes about what was saved are added to it.
            evidence: What proves it.
        """
        _save(self._file(fork.known.origin), fork, evidence)

    def _file(self, origin: str) -> Path:
        """Return the file that links lead to: it is locked and replaced, and the links stay."""
        return Path(os.path.realpath(self.path_of(origin)))

    def remember(self, checkpoint: Checkpoint, trust: TrustFile, *, now: int) -> Recollection:
        """Compare a verified checkpoint with the one that is remembered, and remember the larger one.

        Args:
            checkpoint: The checkpoint.
            trust: As for `compare`.
            now: As for `compare`.

        Returns:
            As `compare`. It is not kept if no file was given, and the folder for the state of programs is not writable.

        Raises:
            OSError: The file cannot be read or written.
            VerificationError: As `compare`.
        """
        path = self._file(checkpoint.origin)
        try:
            if self._given is None:
                path.parent.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
            while not _is_there(path):
                # Nobody sees an empty file, which would look like the first use.
                with suppress(FileExistsError):
                    create_file(path, checkpoint.note.encode(), mode=PRIVATE)
                    return Recollection(Known.FIRST, None)
            with _held(path):
                known, found = _remembered(path, trust, now), self.compare(checkpoint, trust, now=now)
                _keep_witnessed(path, known, checkpoint, trust, now)
                if found.known is Known.NEWER:
                    replace_file(path, checkpoint.note.encode(), mode=PRIVATE)
        except OSError:
            if self._given is not None:
                raise
            return replace(self.compare(checkpoint, trust, now=now), is_kept=False)
        return found


def _is_there(path: Path) -> bool:
    """Return whether the file exists.

    Raises:
        OSError: It is something else than a regular file.
    """
    try:
        require_regular(path)
    except FileNotFoundError:
        return False
    return True


def _witnessed(path: Path) -> Path:
    """Return the file for the largest witnessed checkpoint, while the largest of all is not witnessed."""
    return path.with_name(f"{path.name}.witnessed")


def _keep_witnessed(path: Path, known: Checkpoint, checkpoint: Checkpoint, trust: TrustFile, now: int) -> None:
    """Keep the largest witnessed checkpoint apart, if the memory is about to have a larger one that is not.

    Only its log vouches for that one, and may have made it up to have the witnessed one forgotten.
    """
    largest = checkpoint if checkpoint.size > known.size else known
    if largest.is_witnessed:
        return
    apart = _witnessed(path)
    kept = _remembered(apart, trust, now).size if _is_there(apart) else -1
    witnessed = [each for each in (known, checkpoint) if each.is_witnessed and each.size > kept]
    if witnessed:
        replace_file(apart, max(witnessed, key=lambda each: each.size).note.encode(), mode=PRIVATE)


def _remembered(path: Path, trust: TrustFile, now: int) -> Checkpoint:
    """Return the checkpoint in a memory.

    Raises:
        Inconclusive: It does not meet this policy.
        VerificationError: It does not verify.
        OSError: The file cannot be read.
    """
    try:
        return trust.endorse(read_regular(path, _NOTE_BYTES_MAX), now=now)
    except VerificationError as exc:
        if exc.args[0] in _OF_POLICY:
            raise Inconclusive(
                f"{path} has a checkpoint that was remembered under another policy, or that somebody has changed: {exc}"
                ". Verify with the policy of before; or, if it was you who changed the policy, move the file away"
            ) from exc
        exc.add_note(f"this is about the checkpoint that is remembered in {path}: find out who changed it")
        raise


def _compared(path: Path, known: Checkpoint, checkpoint: Checkpoint) -> Recollection:
    if known.origin != checkpoint.origin:
        raise PolicyError(f"{path} is the memory of {known.origin!r}: give another file for this log")
    if known.size == checkpoint.size and known.root != checkpoint.root:
        fork = CheckpointFork(known, checkpoint)
        _save(path, fork, Evidence.same_size(known, checkpoint))
        raise fork
    word = Known.SAME if known.size == checkpoint.size else Known.OLDER
    return Recollection(Known.NEWER if known.size < checkpoint.size else word, known.size)


def _forked(path: Path) -> Path:
    """Return the file that says that the log was caught with two histories."""
    return path.with_name(f"{path.name}.forked")


def _require_no_fork(path: Path, known: Checkpoint, checkpoint: Checkpoint) -> None:
    marker = _forked(path)
    try:
        name = read_regular(marker, _NOTE_BYTES_MAX).decode(errors="replace").strip()
    except FileNotFoundError:
        return
    text = f"fork: {known.origin} was caught with two histories before, so nothing that it signs shows anything"
    fork = CheckpointFork(known, checkpoint, text)
    evidence = marker.absolute().with_name(printable(Path(name).name) or "evidence")
    fork.add_note(f"the evidence is {evidence}. If you have a reason to believe the log again, move {marker} away")
    raise fork


def _save(memory: Path, fork: CheckpointFork, evidence: Evidence) -> None:
    """Save the evidence of a fork beside the memory, name the file in the error, and remember that there is one."""
    folder = memory.absolute().parent
    try:
        path = save_evidence(evidence, folder)
    except OSError as exc:
        fork.add_note(f"the evidence could not be saved in {folder}: {exc.strerror}")
        return
    fork.add_note(f"the evidence was saved to {path}: keep that file")
    with suppress(OSError):
        create_file(_forked(memory), f"{path.name}\n".encode(), mode=PRIVATE)


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold the file exclusively, so that of two processes the one with the larger checkpoint wins."""
    end_s = time.monotonic() + _PATIENCE_S
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            _lock(descriptor, path, end_s)
            # Another process may have replaced the file while this one waited for the lock of the old one.
            if _is_current(path, descriptor):
                yield
                return
        finally:
            os.close(descriptor)


def _lock(descriptor: int, path: Path, end_s: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            if time.monotonic() >= end_s:
                reason = f"another process has had the memory locked for {_PATIENCE_S:.0f} s"
                raise OSError(errno.EAGAIN, reason, str(path)) from exc
            time.sleep(_AGAIN_S)
        else:
            return


def _is_current(path: Path, descriptor: int) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False
