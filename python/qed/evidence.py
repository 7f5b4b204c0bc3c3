"""Evidence against a log: what it has signed, though an honest log cannot have signed it (FORMATS.md, "Evidence")."""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from qed._files import PRIVATE, create_file
from qed._qed import Evidence, Judgement

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["EVIDENCE_BYTES_MAX", "Evidence", "Judgement", "Verdict", "file_name", "save_evidence"]

EVIDENCE_BYTES_MAX: Final = 2 * 1024 * 1024
"""No file of evidence is longer."""
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
        The file.

    Raises:
        OSError: It cannot be written.
    """
    path = folder / file_name(evidence)
    with suppress(FileExistsError):
        create_file(path, evidence.to_json() + b"\n", mode=PRIVATE)
    return path
