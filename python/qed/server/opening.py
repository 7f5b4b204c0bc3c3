"""Opens the data folder of a member, which takes half a second for each million events, in a thread of its own."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

from qed._qed import MemberInfo, Replica
from qed.server.credentials import read_credentials
from qed.server.high_water import read_high_water
from qed.server.tokens import read_token

if TYPE_CHECKING:
    from qed.server.config import Settings
    from qed.server.credentials import Credentials

__all__ = ["Opening", "description", "open_member"]


def description(settings: Settings, pin: bytes | None = None) -> MemberInfo:
    """Return the member that `settings` describe, with the SHA-256 of its public key if it has one."""
    return MemberInfo(
        name=settings.node_id,
        raft_addr=str(settings.advertised("raft")),
        http_addr=str(settings.advertised("http")),
        mgmt_addr=str(settings.advertised("mgmt")),
        metrics_addr=str(settings.advertised("metrics")),
        key=pin,
    )


def open_member(settings: Settings) -> tuple[Replica, Credentials | None]:
    """Return the replica whose log is in `settings.data_dir`, which is created if it does not exist. Blocks.

    Returns:
        The replica, and what this member shows to others: None if it is alone, or must first exchange a token.

    Raises:
        StoreLocked: Another process holds the folder.
        CorruptLog: The folder contradicts itself.
        UnsupportedFormat: The folder was written by a newer qed.
        LogError: The folder belongs to another member, or cannot join.
        OSError: The folder cannot be created, read or written.
        SettingsError: Other members could not reach this one, or it cannot prove to them that it is a member.
    """
    replica = _open_replica(settings)
    try:
        # The key of the member is made while no other process can hold the folder.
        credentials = read_credentials(settings)
        if credentials is None and settings.join_token_file is not None:
            read_token(settings.join_token_file)
        status = replica.status()
        if any(number != status.id for number, _ in status.members):
            settings.require_reachable()
            settings.require_credentials()
    except BaseException:
        replica.close()
        raise
    return replica, credentials


def _open_replica(settings: Settings) -> Replica:
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    limits, pace = settings.limits, settings.pace
    note = None if settings.high_water is None else read_high_water(settings.high_water)
    return Replica.open(
        str(settings.data_dir),
        description(settings),
        high_water=None if note is None else (note.number, note.term, note.index),
        is_joining=bool(settings.raft_join_addrs),
        tick_ms=pace.tick_ms,
        heartbeat_ticks=pace.heartbeat_ticks,
        election_ticks=pace.election_ticks,
        dead_ticks=settings.limits.dead_after_s * 1000 // pace.tick_ms,
        grace_s=limits.closing_grace_s,
        queue_length=limits.queue_length,
        batch_events=limits.batch_events,
        proof_threads=limits.max_concurrent_proofs,
    )


class Opening:
    """A replica that is opened in a thread of its own, without the GIL, so that this thread can import meanwhile."""

    def __init__(self, settings: Settings) -> None:
        # Wait on a future, not on `Thread.join`: if a signal handler raises during `join`, the thread is marked as
        # finished although it is still running.
        self._member: Future[tuple[Replica, Credentials | None]] = Future()
        threading.Thread(target=self._open, args=(settings,), name="qed-opening").start()

    def _open(self, settings: Settings) -> None:
        try:
            self._member.set_result(open_member(settings))
        except BaseException as exc:  # noqa: BLE001  # raised again where it is waited for
            self._member.set_exception(exc)

    def member(self) -> tuple[Replica, Credentials | None]:
        """Return the replica once it is open, and the member's credentials.

        Raises:
            Exception: As `open_member`.
        """
        return self._member.result()

    def abandon(self) -> None:
        """Close the replica once it is open: it is no longer needed."""
        if self._member.exception() is None:
            replica, _ = self._member.result()
            replica.close()
