"""The position of each snapshot in a receipts file, small enough for files of millions."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ReceiptIndex"]


class ReceiptIndex:
    """One row per snapshot, in the order of the file: its version, offset, event and mark. A row takes 25 bytes.

    Snapshots are nearly always appended in the order of their versions, so a version is found by bisection. Once one is
    out of order, a dictionary of all versions replaces the bisection.
    """

    def __init__(self) -> None:
        """Create an empty index."""
        self._versions = array("Q")
        self._offsets = array("Q")
        self._events = array("q")
        self._marks = bytearray()
        self._rows: dict[int, int] | None = None
        self._unlinked = 0

    def __len__(self) -> int:
        return len(self._versions)

    @property
    def has_unlinked(self) -> bool:
        """Whether a snapshot is not linked."""
        return self._unlinked > 0

    def add(self, version: int, offset: int, event: int, *, is_linked: bool) -> None:
        """Add a row.

        Args:
            version: The snapshot's version, which must not be in the index yet.
            offset: The first byte of its line.
            event: Hash of its event digest.
            is_linked: Whether it is linked.
        """
        if self._rows is None and self._versions and version < self._versions[-1]:
            self._rows = {known: row for row, known in enumerate(self._versions)}
        if self._rows is not None:
            self._rows[version] = len(self._versions)
        self._versions.append(version)
        self._offsets.append(offset)
        self._events.append(event)
        self._marks.append(is_linked)
        self._unlinked += not is_linked

    def is_beyond(self, version: int) -> bool:
        """Return whether a version certainly has no row, because it is above all others and the index is in order."""
        return self._rows is None and (not self._versions or version > self._versions[-1])

    def offset_of(self, version: int) -> int | None:
        """Return the first byte of the line of a version, or None if the version has no row."""
        row = self._row(version)
        return None if row is None else self._offsets[row]

    def is_linked(self, version: int) -> bool:
        """Return whether a version has a row and its snapshot is linked."""
        row = self._row(version)
        return row is not None and bool(self._marks[row])

    def mark(self, version: int) -> None:
        """Mark the snapshot of a version as linked."""
        row = self._row(version)
        if row is not None and not self._marks[row]:
            self._marks[row] = True
            self._unlinked -= 1

    def versions_about(self, event: int) -> Iterator[int]:
        """Yield the versions whose event digest has this hash, in the order of the file."""
        row = -1
        while True:
            try:
                row = self._events.index(event, row + 1)
            except ValueError:
                return
            yield self._versions[row]

    def versions_before(self, version: int) -> Iterator[int]:
        """Yield the versions below one, in descending order."""
        if self._rows is not None:
            yield from sorted((known for known in self._rows if known < version), reverse=True)
            return
        for row in range(bisect_left(self._versions, version) - 1, -1, -1):
            yield self._versions[row]

    def unlinked(self) -> list[int]:
        """Return the versions of the snapshots that are not linked, in ascending order."""
        found = [version for version, mark in zip(self._versions, self._marks, strict=True) if not mark]
        return sorted(found)

    def newest_linked(self) -> int | None:
        """Return the newest linked version, or None if no snapshot is linked."""
        return max((version for version, mark in zip(self._versions, self._marks, strict=True) if mark), default=None)

    def lines(self) -> Iterator[tuple[int, bool]]:
        """Yield the offset of each line and whether it is linked, in the order of the file."""
        return ((offset, bool(mark)) for offset, mark in zip(self._offsets, self._marks, strict=True))

    def _row(self, version: int) -> int | None:
        if self._rows is not None:
            return self._rows.get(version)
        row = bisect_left(self._versions, version)
        return row if row < len(self._versions) and self._versions[row] == version else None
