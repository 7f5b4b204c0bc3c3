"""A backup of the log into a folder of this machine, part by part, from any member."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from qed._client import calls
from qed._client.administration import found
from qed._client.attempts import Policy, Send, ask, converse
from qed._client.calls import Answer
from qed._client.failures import served
from qed.errors import BackupError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from qed._client.calls import Call
    from qed._client.failures import Outcome
    from qed._client.topology import Topology
    from qed.backups import Backup, BackupFolder, Draft

__all__ = ["Wish", "back_up", "no_progress"]

_T = TypeVar("_T")

_RETRIES: Final = 5
"""How often more the members are searched for one that answers with the next part."""
_PAUSE_S: Final = 1.0
_ARREARS_S: Final = 1.0
"""How much time a backup may make up for, by a higher rate, after a server was busy."""


def no_progress(_events: int, _total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True, slots=True)
class Wish:
    """How a caller wants a backup to be made.

    Attributes:
        since: The number of a backup that is to be continued, or None for a backup of everything.
        events_per_s: The highest rate.
        progress: Called with the number of events so far, and how many there are.
    """

    since: int | None
    events_per_s: int
    progress: Callable[[int, int], object]

    def __post_init__(self) -> None:
        if self.events_per_s < 1:
            raise ValueError(f"expected a rate of at least 1 event a second, found {self.events_per_s}")


def back_up(folder: BackupFolder, wish: Wish, topology: Topology) -> Generator[Send, Outcome, Backup]:
    """Yield requests; write what the members answer into the folder, and return the finished backup.

    Nothing ties a backup to the member that began it: if that one does not answer, another one continues it.

    Args:
        folder: Where to. An unfinished backup in it is continued.
        wish: How.
        topology: The servers to ask.

    Yields:
        The next request. Send its outcome into the generator.

    Returns:
        The backup.

    Raises:
        BackupError: The folder cannot be used, or holds backups of another log.
        Unavailable: No member answered for a while. What has arrived is kept, and continued the next time.
        QedError: A member refused, or answered with something else.
    """
    base = None if wish.since is None else folder.backup(wish.since)
    info = yield from converse(calls.info(), topology, Policy())
    if base is not None and base.log != info.log:
        raise BackupError(f"backup {wish.since} is of log {base.log}, this is log {calls.plain(info.log)}")
    draft = folder.draft(info.log, base)
    try:
        yield from _fill(draft, base, wish, info.events, topology)
        if draft.log != info.log:
            log = calls.plain(draft.log or "")
            draft.discard()
            raise BackupError(f"expected a backup of log {calls.plain(info.log)}, found one of log {log}")
        return draft.finish()
    except Unavailable as exc:
        exc.add_note(f"{draft.events} events are in the backup: run the command again to continue it")
        raise
    finally:
        draft.close()


def _fill(
    draft: Draft,
    base: Backup | None,
    wish: Wish,
    until: int,
    topology: Topology,
) -> Generator[Send, Outcome, None]:
    source, due_s = _Source(topology), topology.clock()
    while not draft.is_whole:
        cursor = draft.cursor
        if cursor is None:
            call = calls.begin_backup(None if base is None else base.cursor)
        else:
            call = calls.backup_part(cursor, until)
        now_s, before = topology.clock(), draft.events
        draft.write((yield from source.ask(call, max(due_s - now_s, 0.0))))
        due_s = max(due_s, now_s - _ARREARS_S) + (draft.events - before) / wish.events_per_s
        wish.progress(draft.events, max(until, draft.events))


class _Source:
    """The member that the backup comes from: any one, and another one once that does not answer."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._management: str | None = None

    def ask(self, call: Call[_T], delay_s: float) -> Generator[Send, Outcome, _T]:
        """Return the result of a call after a delay, from the same member as before or another one."""
        for _ in range(_RETRIES):
            try:
                return (yield from self._ask_once(call, delay_s))
            except (Unavailable, BackupError):
                # A member that lags behind the one before it cannot continue the backup yet.
                self._management = None
                yield from ask(calls.info(), self._topology.given[0], _PAUSE_S)
        return (yield from self._ask_once(call, delay_s))

    def _ask_once(self, call: Call[_T], delay_s: float) -> Generator[Send, Outcome, _T]:
        if self._management is not None:
            outcome = served((yield Send(call, self._management, delay_s)))
            if isinstance(outcome, Answer):
                return call.result(outcome)
        self._management, result = yield from found(call, self._topology)
        return result
