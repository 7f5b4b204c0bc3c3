"""The promises that the harness makes to the tests that use it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from harness.cluster import new_cluster
from harness.ports import free_ports
from harness.process import Server, StartFailed
from harness.wait import TimedOut, wait_while

if TYPE_CHECKING:
    from pathlib import Path


def test_wait_that_fails_says_what_was_seen_last() -> None:
    seen = iter(["nothing", "one of two", "one of two", *[""] * 2])
    wait_while(lambda: next(seen), "both")
    with pytest.raises(TimedOut, match=re.escape("waited 0.05 s for both, and saw last: one of two")):
        wait_while(lambda: "one of two", "both", limit_s=0.05)


def test_free_ports_differ() -> None:
    assert len(set(free_ports(100))) == 100


def test_server_that_ends_at_its_start_says_why(tmp_path: Path) -> None:
    server = Server("server0", tmp_path / "log", extra=("--http-addr", "nowhere"))
    try:
        with pytest.raises(StartFailed, match="nowhere"):
            server.start()
        assert server.has_ended_by_itself
    finally:
        server.forget()


def test_cluster_without_one_of_its_members_is_not_whole(tmp_path: Path) -> None:
    cluster = new_cluster(tmp_path, 2)
    try:
        cluster.start()
        cluster.members[1].kill()
        assert not cluster.members[1].has_ended_by_itself
        with pytest.raises(AssertionError, match="server1 does not run"):
            cluster.wait_whole()
        cluster.heal()
        assert len({member.view().applied_index for member in cluster.members}) == 1
    finally:
        cluster.forget()
