"""Logs as files, honest or not: checkpoint, tiles and bundles of any entries, in a folder or served from it."""

from __future__ import annotations

import gzip
import hashlib
import struct
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final

from signing import World, leaf, root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import qed

__all__ = ["Answer", "entries_of", "log_of", "publish", "serving", "tile_path"]

WIDTH: Final = 256

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""


def log_of(log: qed.Log, *sizes: int, start: int = 0) -> None:
    """Add batches of these sizes. Every seventh event of a batch repeats the one before it."""
    number = start
    for size in sizes:
        events = [b"event %d" % (number + i - (i % 7 == 6)) for i in range(size)]
        log.add_bulk(events)
        number += size


def entries_of(log: qed.Log, size: int | None = None) -> list[bytes]:
    """Return the first entries that a log publishes, by default all."""
    entries: list[bytes] = []
    total = len(log) if size is None else size
    for index in range(-(-total // WIDTH)):
        rest = bytes(log.tile(tile_path("entries", index, min(WIDTH, total - WIDTH * index))))
        while rest:
            (length,) = struct.unpack(">H", rest[:2])
            entries.append(rest[2 : 2 + length])
            rest = rest[2 + length :]
    return entries


def tile_path(level: int | str, index: int, width: int) -> str:
    """Return the path of a tile or a bundle with an index below a million."""
    groups = f"x{index // 1000:03}/{index % 1000:03}" if index >= 1000 else f"{index:03}"
    return f"tile/{level}/{groups}" + (f".p/{width}" if width < WIDTH else "")


def publish(folder: Path, entries: Sequence[bytes], *, note: str | None = None) -> World:
    """Write the files of a log with these entries, signed by its log and two witnesses, or with another note."""
    world = World(entries=list(entries))
    hashes, level = [leaf(entry) for entry in entries], 0
    while hashes:
        _write(folder, level, [b"".join(part) for part in _parts(hashes)], hashes)
        hashes = [root(part) for part in _parts(hashes) if len(part) == WIDTH]
        level += 1
    bundles = [b"".join(struct.pack(">H", len(entry)) + entry for entry in part) for part in _parts(list(entries))]
    _write(folder, "entries", bundles, entries)
    (folder / "checkpoint").parent.mkdir(parents=True, exist_ok=True)
    (folder / "checkpoint").write_text(world.note() if note is None else note)
    return world


def _parts(items: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(items), WIDTH):
        yield items[start : start + WIDTH]


def _write(folder: Path, level: int | str, contents: list[bytes], items: Sequence[bytes]) -> None:
    for index, content in enumerate(contents):
        path = folder / tile_path(level, index, min(WIDTH, len(items) - WIDTH * index))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


@contextmanager
def serving(folder: Path, change: Callable[[str, Answer], Answer] = lambda _path, answer: answer) -> Iterator[str]:
    """Serve a folder below `/log` on a port of this machine, and let a test change each answer."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.removeprefix("/log/")
            file = folder / path
            answer: Answer = (200, {}, file.read_bytes()) if file.is_file() else (404, {}, b"no such file")
            status, headers, body = change(path, answer)
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def zipped(answer: Answer) -> Answer:
    status, headers, body = answer
    return status, headers | {"Content-Encoding": "gzip"}, gzip.compress(body)
