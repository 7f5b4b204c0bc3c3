"""Files of the transparency log that were asked for lately. They never change, so a file that is kept stays right."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

__all__ = ["File", "TileCache"]

_OVERHEAD_BYTES: Final = 1024
"""What a file takes besides its body, at most."""


class File(NamedTuple):
    """A file as it is sent.

    Attributes:
        headers: All headers except its length.
        etag: Its entity tag; None if it has none.
        body: Its content.
    """

    headers: tuple[tuple[bytes, bytes], ...]
    etag: bytes | None
    body: bytes


class TileCache:
    """Files by key. When there is no room, those go that were not asked for the longest."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._files: OrderedDict[tuple[str, bool], File] = OrderedDict()

    def get(self, key: tuple[str, bool]) -> File | None:
        """Return a file, if it is kept."""
        file = self._files.get(key)
        if file is not None:
            self._files.move_to_end(key)
        return file

    def put(self, key: tuple[str, bool], file: File) -> None:
        """Keep a file."""
        self._bytes += _size(file) - (_size(self._files.pop(key)) if key in self._files else 0)
        self._files[key] = file
        while self._bytes > self._limit_bytes:
            self._bytes -= _size(self._files.popitem(last=False)[1])


def _size(file: File) -> int:
    return len(file.body) + _OVERHEAD_BYTES
