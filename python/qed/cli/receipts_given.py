"""Receipts from files and folders, for commands that compare them with a log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qed._files import open_at_once
from qed.cli.signed import content_of
from qed.errors import MalformedProof, ReceiptsError
from qed.monitoring.auditing import Receipts
from qed.signed import SignedReceipt

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qed.proofs import Snapshot

__all__ = ["receipts_in"]


def receipts_in(places: Iterable[str]) -> Receipts:
    """Return the receipts in files, and in the files of folders and the folders in them.

    Args:
        places: Files and folders.

    Returns:
        All receipts. Nothing in them is verified.

    Raises:
        ReceiptsError: A file is not one of receipts.
        OSError: A file cannot be read.
    """
    signed: list[SignedReceipt] = []
    unsigned: list[Snapshot] = []
    for path in _files(places):
        try:
            with open_at_once(path) as file:
                content = content_of(file)
        except MalformedProof as exc:
            raise ReceiptsError(f"{path}: {exc}") from exc
        signed += [each for each in content.signed if isinstance(each, SignedReceipt)]
        unsigned += content.unsigned
    return Receipts(signed, unsigned)


def _files(places: Iterable[str]) -> Iterator[Path]:
    for place in map(Path, places):
        if place.is_dir():
            found = (path for path in place.rglob("*") if not path.is_dir())
            yield from sorted(path for path in found if not path.name.startswith("."))
        else:
            yield place
