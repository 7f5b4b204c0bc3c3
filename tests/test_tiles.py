"""The log as a transparency log: what a server serves, beside a model that shares no code with it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import itertools
from typing import TYPE_CHECKING, Final

import httpx
import pytest

import qed
from qed.errors import UnknownVersion
from qed.proofs import Digest
from qed.server.tile_cache import File, TileCache

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from conftest import StartServer
    from harness.process import Server

_WIDTH: Final = 256
_numbers = itertools.count()


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Return the tree hash of RFC 6962, section 2.1."""
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01", root_of(leaves[:split]), root_of(leaves[split:]))


def entries_in(bundle: bytes) -> list[bytes]:
    """Return the entries of a bundle."""
    entries, rest = [], bundle
    while rest:
        length = int.from_bytes(rest[:2], "big")
        entries.append(rest[2 : 2 + length])
        assert len(entries[-1]) == length
        rest = rest[2 + length :]
    return entries


def path_of(start: str, number: int, width: int = _WIDTH) -> str:
    """Return the path of a tile or bundle below `start`."""
    digits = f"{number:0{-(-len(str(number)) // 3) * 3}}"
    groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
    path = f"{start}/" + "/".join(["x" + group for group in groups[:-1]] + groups[-1:])
    return path if width == _WIDTH else f"{path}.p/{width}"


def paths_in(start: str, count: int) -> list[str]:
    """Return the paths of all files with `count` hashes or entries together."""
    full = [path_of(start, number) for number in range(count // _WIDTH)]
    return [*full, path_of(start, count // _WIDTH, count % _WIDTH)] if count % _WIDTH else full


def entry(version: int, event: bytes, *, is_repeat: bool, snapshot: qed.Snapshot | None) -> bytes:
    """Return an entry as FORMATS.md has it; `snapshot` is that of the end of its batch, if it is the end."""
    flags = (snapshot is not None) | is_repeat << 1
    start = bytes([1, flags]) + version.to_bytes(8, "big") + sha256(event)
    return start if snapshot is None else start + bytes(snapshot.history_digest) + bytes(snapshot.hyper_digest)


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url) as client:
        yield client


def add(http: httpx.Client, count: int) -> None:
    events = [base64.b64encode(b"test_tiles event %d" % next(_numbers)).decode() for _ in range(count)]
    assert http.post("/events/bulk", json={"Events": events}).status_code == 201


def test_tiles_of_a_log_are_those_of_the_model() -> None:
    bulks = [[b"a"], [b"b", b"b", b"c", b"b"], [b"event %d" % i for i in range(600)], [b"a"], [b"d", b"a"]]
    with qed.Log() as log:
        entries: list[bytes] = []
        assert log.tree_head() == (0, Digest(sha256()))
        for bulk in bulks:
            snapshots = log.add_bulk(bulk)
            for index, event in enumerate(bulk):
                is_last, is_repeat = index == len(bulk) - 1, event in bulk[:index]
                snapshot = snapshots[-1] if is_last else None
                entries.append(entry(len(entries), event, is_repeat=is_repeat, snapshot=snapshot))
            leaves = [sha256(b"\x00", entry) for entry in entries]
            assert log.tree_head() == (len(entries), Digest(root_of(leaves)))
        bundles = [entries_in(log.tile(path)) for path in paths_in("tile/entries", len(entries))]
        assert [entry for bundle in bundles for entry in bundle] == entries
        assert b"".join(log.tile(path) for path in paths_in("tile/0", len(leaves))) == b"".join(leaves)
        above = [root_of(leaves[:256]), root_of(leaves[256:512])]
        assert log.tile("tile/1/000.p/2") == b"".join(above)
        with pytest.raises(UnknownVersion):
            log.tile("tile/1/000.p/3")
        with pytest.raises(UnknownVersion):
            log.tile("tile/2/000.p/1")
        with pytest.raises(ValueError, match="expected a path"):
            log.tile("tile/0/0")


def test_a_reader_rebuilds_every_tree_from_the_bundles(http: httpx.Client, server: Server) -> None:
    for count in (300, 1, 1, 260):
        add(http, count)
    size = server.count()
    bundles = [entries_in(http.get(f"/log/{path}").content) for path in paths_in("tile/entries", size)]
    entries = [entry for bundle in bundles for entry in bundle]
    leaves = [sha256(b"\x00", entry) for entry in entries]
    tiles = [http.get(f"/log/{path}").content for path in paths_in("tile/0", size)]
    assert b"".join(tiles) == b"".join(leaves)
    with qed.Log() as replayed:
        batch: list[Digest] = []
        for version, found in enumerate(entries):
            assert found[0] == 1
            assert int.from_bytes(found[2:10], "big") == version
            batch.append(Digest(found[10:42]))
            if found[1] & 1:
                snapshot = replayed.add_bulk(batch)[-1]
                assert found[42:] == bytes(snapshot.history_digest) + bytes(snapshot.hyper_digest)
                batch = []
        assert not batch
        assert replayed.tree_head() == (size, Digest(root_of(leaves)))


def test_tiles_may_be_kept_and_errors_may_not(http: httpx.Client, server: Server) -> None:
    add(http, 2 * _WIDTH)
    for path, kind in [("tile/0/001", "tile"), ("tile/entries/001", "bundle"), ("tile/1/000.p/2", "tile")]:
        answer = http.get(f"/log/{path}")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/octet-stream"
        # This server is not meant for everyone, and web pages may read no server.
        assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
        assert "access-control-allow-origin" not in answer.headers
        head = http.head(f"/log/{path}")
        assert (head.status_code, head.content) == (200, b"")
        if kind == "tile":
            etag = answer.headers["etag"]
            assert etag == f'"{sha256(answer.content).hex()[:32]}"'
            assert "content-encoding" not in answer.headers
            again = http.get(f"/log/{path}", headers={"If-None-Match": etag})
            assert (again.status_code, again.content) == (304, b"")
    size = server.count()
    later = path_of("tile/0", size // _WIDTH, size % _WIDTH + 1)
    for path in (
        later,
        "tile/0/67",
        "tile/0/x000/067",
        "tile/00/067",
        "tile/0/000.p/0",
        "tile/0/000.p/08",
        "tile/64/000",
        "tile/0/000.p/256",
        "tile/0/",
        "tile",
        "",
        "nothing",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
    ):
        answer = http.get(f"/log/{path}")
        assert answer.status_code == 404, path
        assert answer.json()["error"] == "unknown_tile"
        assert answer.headers["cache-control"] == "no-store"
    answer = http.post("/log/tile/0/000")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert answer.headers["cache-control"] == "no-store"


def test_the_files_asked_for_lately_are_kept_within_a_limit() -> None:
    cache, kilobyte = TileCache(10 * 2048), bytes(1024)
    for number in range(20):
        cache.put((str(number), False), File((), None, kilobyte))
        cache.put((str(number), False), File((), None, kilobyte))
        assert cache.get(("0", False)) is not None
    kept = [number for number in range(20) if cache.get((str(number), False)) is not None]
    assert kept == [0, *range(11, 20)]
    cache.put(("large", False), File((), None, bytes(10 * 2048)))
    assert not any(cache.get((str(number), False)) for number in range(20))
    assert cache.get(("large", False)) is None
    assert cache.get(("0", True)) is None


@pytest.mark.parametrize(
    ("accepted", "is_gzipped"),
    [("gzip", True), ("br, GZIP;q=0.5", True), ("identity", False), ("gzip;q=0", False), ("gzipped", False)],
)
def test_bundles_are_compressed_for_those_who_can_read_it(
    http: httpx.Client, accepted: str, *, is_gzipped: bool
) -> None:
    add(http, _WIDTH)
    with http.stream("GET", "/log/tile/entries/000", headers={"Accept-Encoding": accepted}) as answer:
        body = b"".join(answer.iter_raw())
        assert (answer.headers.get("content-encoding") == "gzip") == is_gzipped
        assert answer.headers["vary"] == "accept-encoding"
        assert answer.headers["content-length"] == str(len(body))
    plain = http.get("/log/tile/entries/000", headers={"Accept-Encoding": "identity"}).content
    assert (gzip.decompress(body) if is_gzipped else body) == plain
    assert len(entries_in(plain)) == _WIDTH


def test_tiles_of_a_server_for_everyone_may_be_kept_by_caches_of_many(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(tmp_path, "--open")
    with httpx.Client(base_url=server.url) as http:
        add(http, 1)
        answer = http.get("/log/tile/0/000.p/1")
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"


def test_paths_that_name_no_tile_leave_room_for_proofs(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path, "--max-waiting-proofs", "4")
    with httpx.Client(base_url=server.url) as http:
        add(http, 1)
        for _ in range(10):
            assert http.get("/log/tile/0/0").status_code == 404
            assert http.get("/log/tile/5/000").status_code == 404
        assert http.get("/log/tile/0/000.p/1").status_code == 200
        assert http.get("/snapshots/0").status_code == 200
    assert server.stop() == 0
    assert "never retrieved" not in server.stderr
