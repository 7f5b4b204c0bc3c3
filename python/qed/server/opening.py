"""Opens the data folder of a member, which takes half a second for each million events, in a thread of its own."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

from qed._qed import MemberInfo, Replica

if TYPE_CHECKING:
    from qed.server.config import Settings

__all__ = ["Opening", "description", "open_replica"]


def description(settings: Settings) -> MemberInfo:
    """Return the member that `settings` describe."""
    return MemberInfo(
        name=settings.node_id,
        raft_addr=str(settings.advertised("raft")),
        http_addr=str(settings.advertised("http")),
        mgmt_addr=str(settings.advertised("mgmt")),
        metrics_addr=str(settings.advertised("metrics")),
    )


def open_replica(settings: Settings) -> Replica:
    """Return the replica whose log is in `settings.data_dir`, which is created if it does not exist. Blocks.

    Raises:
        StoreLocked: Another process holds the folder.
        CorruptLog: The folder contradicts itself.
        UnsupportedFormat: The folder was written by a newer qed.
        LogError: The folder belongs to another member, or cannot join.
        OSError: The folder cannot be created, read or written.
        SettingsError: Other members could not reach this one.
    """
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    limits, pace = settings.limits, settings.pace
    replica = Replica.open(
        str(settings.data_dir),
        description(settings),
        is_joining=bool(settings.raft_join_addrs),
        tick_ms=pace.tick_ms,
        heartbeat_ticks=pace.heartbeat_ticks,
        election_ticks=pace.election_ticks,
        grace_s=limits.closing_grace_s,
        queue_length=limits.queue_length,
        batch_events=limits.batch_events,
        proof_threads=limits.max_concurrent_proofs,
    )
    status = replica.status()
    if any(number != status.id for number, _ in status.members):
        try:
            settings.require_reachable()
        except ValueError:
            replica.close()
            raise
    return replica


class Opening:
    """A replica that is opened in a thread of its own, without the GIL, so that this thread can import meanwhile."""

    def __init__(self, settings: Settings) -> None:
        # Wait on a future, not on `Thread.join`: if a signal handler raises during `join`, the thread is marked as
        # finished although it is still running.
        self._replica: Future[Replica] = Future()
        threading.Thread(target=self._open, args=(settings,), name="qed-opening").start()

    def _open(self, settings: Settings) -> None:
        try:
            self._replica.set_result(open_replica(settings))
        except BaseException as exc:  # noqa: BLE001  # raised again where it is waited for
            self._replica.set_exception(exc)

    def replica(self) -> Replica:
        """Return the replica once it is open.

        Raises:
            Exception: As `open_replica`.
        """
        return self._replica.result()

    def abandon(self) -> None:
        """Close the replica once it is open: it is no longer needed."""
        if self._replica.exception() is None:
            self._replica.result().close()
