"""Evidence against a log: what it has signed, though an honest log cannot have signed it (FORMATS.md, "Evidence")."""

from __future__ import annotations

import errno
import json
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from qed._files import PRIVATE, create_file, read_regular
from qed._qed import Evidence, Judgement
from qed.errors import VerificationError
from qed.signed import trust_in

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["EVIDENCE_BYTES_MAX", "Evidence", "Judgement", "Verdict", "file_name", "save_evidence"]

EVIDENCE_BYTES_MAX: Final = 2 * 1024 * 1024
"""No file of evidence is longer."""
_NAMES: Final = 16
"""How many names are tried for a file."""
_PREFIXES: Final = {"invalid-entry": "invalid-entry", "suspicion": "suspicion"}


class Verdict(StrEnum):
    """What a file of evidence shows."""

    CONVICTED = "convicted"
    """The log has done it: its signatures prove it."""
    INNOCENT = "innocent"
    """Both checkpoints can be of one honest log."""
    SUSPECTED = "suspected"
    """The log has signed both checkpoints, and whether they contradict each other is open."""
    UNREPLAYED = "unreplayed"
    """Whether the entry is wrong can be found only by replaying the entries before it."""


def file_name(evidence: Evidence) -> str:
    """Return the name of the file for some evidence. It follows from what contradicts each other."""
    return f"{_PREFIXES.get(evidence.kind, 'fork')}-{evidence.name.hex()}.json"


def save_evidence(evidence: Evidence, folder: Path) -> Path:
    """Save evidence to a file of its own, which is written once and never changed.

    Args:
        evidence: The evidence.
        folder: The folder of the file.

    Returns:
        The file. If there was one that shows the same, it is that one. Another file under its name stays, and the name
        gets a number.

    Raises:
        OSError: It cannot be written.
    """
    path = folder / file_name(evidence)
    for number in range(1, _NAMES + 1):
        place = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        try:
            create_file(place, evidence.to_json() + b"\n", mode=PRIVATE)
        except FileExistsError:
            if not _shows_the_same(place, evidence):
                continue
        return place
    raise FileExistsError(errno.EEXIST, "other files have all names of this evidence: move them away", str(path))


def _shows_the_same(place: Path, evidence: Evidence) -> bool:
    """Return whether a file shows what this evidence does: somebody may have put another one there."""
    try:
        found = Evidence.from_json(read_regular(place, EVIDENCE_BYTES_MAX))
        trust = trust_in(json.loads(evidence.to_json())["Vkeys"])
        is_as_strong = found.judge(trust).verdict == evidence.judge(trust).verdict
        return is_as_strong and _subject(found) == _subject(evidence)
    except (OSError, VerificationError):
        return False


def _subject(evidence: Evidence) -> tuple[object, ...]:
    return evidence.kind, evidence.name, evidence.index, evidence.replay
