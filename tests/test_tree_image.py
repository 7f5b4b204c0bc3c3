"""A server writes the image of its trees, starts from it, and does without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import qed
from harness.process import Server
from harness.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EVENTS = 140_000
"""Enough for an image, which small logs do without."""
BULK = 10_000
USED = "opened from the tree image"
UNUSED = "the tree image was not used"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server("one", tmp_path / "data")
    server.start()
    yield server
    server.forget()


def fill(server: Server) -> qed.Snapshot:
    """Add the events; return the snapshot of the last one."""
    with qed.Client(server.url) as client:
        for first in range(0, EVENTS, BULK):
            *_, last = client.add_bulk([f"event {number}".encode() for number in range(first, first + BULK)])
    return last


def assert_sound(server: Server, last: qed.Snapshot) -> None:
    """Require that it answers for what it acknowledged, and that a start took all of that."""
    roots = qed.TrustedSnapshots(last)
    with qed.Client(server.url) as client:
        assert client.info().events == EVENTS
        for number in (0, 77_777, EVENTS - 1):
            event = f"event {number}".encode()
            shown = qed.verify(qed.Membership(event), client.membership(event), roots)
            assert isinstance(shown, qed.Present)
            assert shown.version == number


def test_server_that_stops_writes_an_image_and_starts_from_it(server: Server) -> None:
    last = fill(server)
    assert server.stop() == 0
    image = server.folder / "trees"
    assert 12 * EVENTS < image.stat().st_size < 13 * EVENTS
    server.start()
    assert USED in server.stderr
    assert_sound(server, last)
    # Nothing has changed, so it is not written again.
    written = image.stat().st_mtime_ns
    assert server.stop() == 0
    assert image.stat().st_mtime_ns == written


def test_killed_server_starts_from_the_image_that_it_wrote_while_it_ran(server: Server) -> None:
    last = fill(server)
    wait_until((server.folder / "trees").exists, "an image")
    wait_until(lambda: not (server.folder / "trees.new").exists(), "the whole image")
    server.kill()
    server.start()
    assert USED in server.stderr or UNUSED in server.stderr
    assert_sound(server, last)


def test_damaged_image_is_passed_over_and_told(server: Server) -> None:
    last = fill(server)
    assert server.stop() == 0
    image = server.folder / "trees"
    content = bytearray(image.read_bytes())
    content[len(content) // 2] ^= 1
    image.write_bytes(content)
    server.start()
    assert UNUSED in server.stderr
    assert_sound(server, last)


def test_log_in_this_process_reads_all_events(server: Server) -> None:
    last = fill(server)
    assert server.stop() == 0
    with qed.Log(server.folder) as log:
        assert log.snapshot(EVENTS - 1) == last
        log.check()
