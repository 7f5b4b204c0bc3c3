"""The log as a transparency log, read by the tools of others: they compute its root, and make and check its proofs."""

from __future__ import annotations

import base64
import itertools
from typing import TYPE_CHECKING

import httpx
import metamorphic_log  # type: ignore[import-untyped]  # it has no types
import pytest
from tlog_scales import tiles
from tlog_scales.backend import HttpBackend
from tlog_scales.reader import TilesReader

import qed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.process import Server

_numbers = itertools.count()


@pytest.fixture
def reader(server: Server) -> Iterator[TilesReader]:
    """Return a reader of the server's log, which has some entries in large batches and in small ones."""
    for count in (1, 700, 2, 1):
        events = [base64.b64encode(b"test_tile_peers %d" % next(_numbers)).decode() for _ in range(count)]
        assert httpx.post(f"{server.url}/events/bulk", json={"Events": events}).status_code == 201
    backend = HttpBackend(f"{server.url}/log")
    reader = TilesReader(backend)
    reader.set_size(server.count())
    yield reader
    backend.session.close()


def test_others_find_every_entry_and_prove_it(reader: TilesReader, server: Server) -> None:
    size, root = server.count(), reader.calculate_root_hash()
    for index in {0, 1, 255, 256, size // 2, size - 2, size - 1}:
        entry = reader.get_entry(index)
        assert (entry[0], int.from_bytes(entry[2:10], "big")) == (1, index)
        leaf = tiles.leaf_hash(entry)
        proof = reader.get_inclusion_proof(index, size)
        proof.check(leaf, root)
        metamorphic_log.verify_inclusion(index, size, leaf, proof.node_hashes, root)
        with pytest.raises(metamorphic_log.VerifyError):
            metamorphic_log.verify_inclusion(index, size, root, proof.node_hashes, root)


def test_others_see_that_the_log_only_grows(reader: TilesReader, server: Server) -> None:
    size, root = server.count(), reader.calculate_root_hash()
    for old in {1, 256, 257, 512, size // 3, size - 1}:
        earlier = reader.mth(0, old)
        proof = reader.get_consistency_proof(old, size)
        proof.check(earlier, root)
        metamorphic_log.verify_consistency(old, size, proof.node_hashes, earlier, root)
        with pytest.raises(metamorphic_log.VerifyError):
            metamorphic_log.verify_consistency(old, size, proof.node_hashes, root, root)


class Served:
    """Serves the files of a log in this process."""

    def __init__(self, log: qed.Log) -> None:
        self._log = log

    def get(self, *path: str) -> bytes | None:
        """Return the file at a path, or None if there is none."""
        try:
            return self._log.tile("/".join(path))
        except qed.QedError:
            return None


def test_the_root_that_others_compute_is_ours() -> None:
    with qed.Log() as log:
        reader = TilesReader(Served(log))
        for count in (1, 1, 254, 1, 255, 600):
            log.add_bulk([b"test_tile_peers %d" % next(_numbers) for _ in range(count)])
            size, root = log.tree_head()
            reader.set_size(size)
            assert reader.calculate_root_hash() == bytes(root)
