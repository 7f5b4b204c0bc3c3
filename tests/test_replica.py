"""A replica without a server around it: what is submitted, and what comes of it."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

import pytest

import qed
from qed._qed import Added, MemberInfo, Replica

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMIT_S = 30.0


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    member = MemberInfo(name="a", raft_addr="a:1", http_addr="a:2", mgmt_addr="a:3", metrics_addr="a:4")
    opened = Replica.open(
        str(tmp_path),
        member,
        high_water=None,
        is_joining=False,
        tick_ms=10,
        heartbeat_ticks=2,
        election_ticks=10,
        dead_ticks=100,
        grace_s=5,
        queue_length=1000,
        batch_events=100,
        proof_threads=1,
    )
    yield opened
    opened.close()


def added(replica: Replica, ticket: int) -> Added:
    """Return what was added under `ticket`."""
    while True:
        ready, _, _ = select.select([replica.wake_fd], [], [], LIMIT_S)
        assert ready, "nothing came"
        for completion in replica.drain().completions:
            if completion.ticket == ticket:
                assert isinstance(completion.result, Added), completion.result
                return completion.result


def test_a_digest_adds_what_its_event_adds(replica: Replica) -> None:
    events: list[bytes | qed.Digest] = [b"one", qed.Digest.of(b"two"), b"three", qed.Digest.of(b"one")]
    replica.submit(1, events)
    snapshots = added(replica, 1).snapshots
    expected = [qed.Digest.of(event) for event in (b"one", b"two", b"three", b"one")]
    assert [snapshot.event_digest for snapshot in snapshots] == expected
    replica.submit(2, [qed.Digest.of(b"three"), b"two"], if_absent=True)
    repeated = added(replica, 2)
    assert not repeated.is_new
    assert [snapshot.version for snapshot in repeated.snapshots] == [2, 1]


@pytest.mark.parametrize("event", ["text", 1, None, b"event".hex(), qed.Digest])
def test_what_is_neither_an_event_nor_a_digest_is_refused(replica: Replica, event: object) -> None:
    with pytest.raises(TypeError):
        replica.submit(1, [b"one", event])  # type: ignore[list-item]  # not what is promised
    replica.submit(2, [b"two"])
    assert added(replica, 2).snapshots[0].version == 0
