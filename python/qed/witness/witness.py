"""The witness itself: from the body of a request to its answer.

A witness makes two promises, across crashes too. Of one log, each tree that it cosigns extends all that it cosigned
before. And the times of its cosignatures never go back. C2SP tlog-witness has the checks and their order.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from qed._qed import AddCheckpoint
from qed.errors import MalformedProof, VerificationError
from qed.server.logs import Line, OncePerMinute
from qed.witness.allowance import Allowance
from qed.witness.store import Evidence, State, StoreLost

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from qed._qed import Growth, Submission
    from qed.log_keys import SigningKey
    from qed.witness.known_logs import KnownLog, KnownLogs
    from qed.witness.store import Store

__all__ = ["Answer", "Witness"]

_log = logging.getLogger(__name__)

_TEXT: Final = "text/plain; charset=utf-8"
_SIZE: Final = "text/x.tlog.size"
_BACK_S: Final = 60
"""How far a clock may go back, as when it is corrected. Until it has caught up, the last time is used again."""
_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL)
"""Failures after which a later request may succeed. After any other, what is on the disk is uncertain."""
_RETRY_S: Final = 1


_MOST_DROPPED: Final = 10_000
"""Of how many checkpoints that were not kept it is remembered that they were logged and counted."""


@dataclass(frozen=True)
class Answer:
    """The answer to a request.

    Attributes:
        status: The HTTP status.
        body: The text.
        content_type: What the text is.
        retry_after_s: After how many seconds a repetition may succeed, or None.
    """

    status: HTTPStatus
    body: str
    content_type: str = _TEXT
    retry_after_s: int | None = None


class _Refused(Exception):
    """The request is answered with something else than a cosignature."""

    def __init__(self, status: HTTPStatus, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.answer = Answer(status, f"{message}\n", retry_after_s=retry_after_s)


@dataclass(frozen=True)
class _Request:
    """A request that has passed the checks that need no database.

    Attributes:
        submission: What its log has signed.
        log: The log.
        allowance: What the log may have cosigned, or None if it has no limit.
        keys: The keys that are to sign.
    """

    submission: Submission
    log: KnownLog
    allowance: Allowance | None
    keys: list[SigningKey]


class Witness:
    """Cosigns checkpoints of known logs. Its methods are for one event loop; the database has a thread of its own."""

    def __init__(
        self,
        keys: list[SigningKey],
        store: Store,
        logs: KnownLogs,
        *,
        allows_extensions: bool = False,
        on_failure: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Make a witness, or the signer of a log, which keeps the same promises.

        Args:
            keys: The keys that sign, all of one name.
            store: Its database, which belongs to the witness from here on.
            logs: The logs that it cosigns for.
            allows_extensions: Whether checkpoints may have extension lines. Only keys of kind 04 sign those.
            on_failure: Called in the thread of the database when that has failed, and the witness signs no more.
            clock: The time in seconds since 1970.

        Attributes:
            logs: The logs, which may be replaced at any time.
            failure: Why the database has failed, or None.
        """
        self._keys = keys
        self._store = store
        self._allows_extensions = allows_extensions
        self._on_failure = on_failure
        self._clock = clock
        self._allowances: dict[tuple[str, bool], tuple[int, Allowance]] = {}
        self._once_per_minute = OncePerMinute()
        self._dropped: set[tuple[str, int, bytes]] = set()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="witness-store")
        self.logs = logs
        self.failure: str | None = None

    @property
    def name(self) -> str:
        """The name under which it signs."""
        return self._keys[0].name

    @property
    def vkeys(self) -> list[str]:
        """Its public keys."""
        return [key.vkey for key in self._keys]

    @property
    def called(self) -> str:
        """What its messages call it: a witness, or a signer."""
        return self._store.owner

    def close(self) -> None:
        """Finish what has begun, and close the database."""
        self._thread.shutdown(wait=True)
        self._store.close()

    async def add_checkpoint(self, body: bytes, *, kinds: Collection[int] | None = None) -> Answer:
        """Return the answer to a request: a cosignature, or why there is none.

        1. The body is a request, and its note and checkpoint are well-formed (400).
        2. The witness knows the log (404).
        3. A key of the log has signed, and no line of one fails (403).
        4. The old size is not above the new one (400). The rate of the log is not used up (429). A second root of the
           size that was cosigned last is kept as evidence before the rate counts.
        5. The old size is the one that was cosigned last (409 with that size).
        6. The tree extends that one (422).
        7. The clock has not gone back (503). Only then the witness signs.

        With `kinds`, only the keys of these kinds sign.

        The rate, steps 5 to 7 and the change of the database are one transaction, which is synced before the answer.
        """
        try:
            request = self._request(body, [key for key in self._keys if kinds is None or key.kind in kinds])
            lines = await asyncio.get_running_loop().run_in_executor(self._thread, self._decide, request)
        except _Refused as exc:
            return exc.answer
        return Answer(HTTPStatus.OK, lines)

    async def last_note(self, digest: str) -> str | None:
        """Return the note that was cosigned last of a log, or None if there is none.

        Args:
            digest: The SHA-256 of the name of the log, in lower-case hexadecimal digits.

        Raises:
            sqlite3.Error: The database has failed.
            StoreLost: It has lost what was cosigned.
        """
        origin = self.logs.origin_of(digest)
        if origin is None:
            return None
        last = await asyncio.get_running_loop().run_in_executor(self._thread, self._last, origin)
        return None if last is None else last.note

    def _last(self, origin: str) -> State | None:
        """Return what was cosigned last of a log, in the thread of the database."""
        try:
            return self._store.last(origin)
        except StoreLost as exc:
            self._fail(exc)
            raise

    def _request(self, body: bytes, keys: list[SigningKey]) -> _Request:
        """Return a request that has passed the checks that need no database."""
        # 1.
        try:
            request = AddCheckpoint.parse(body)
        except MalformedProof as exc:
            raise _Refused(HTTPStatus.BAD_REQUEST, str(exc)) from exc
        if request.has_extensions and not self._allows_extensions:
            raise _Refused(HTTPStatus.BAD_REQUEST, "expected a checkpoint without extension lines, found some")
        # 2.
        log = self.logs.find(request.claimed_origin)
        if log is None:
            raise _Refused(HTTPStatus.NOT_FOUND, f"this {self.called} does not sign for this log")
        # 3.
        try:
            submission = request.verify(log.keys)
        except VerificationError as exc:
            raise _Refused(HTTPStatus.FORBIDDEN, str(exc)) from exc
        # 4.
        if submission.old > submission.size:
            message = f"expected an old size of at most {submission.size}, found {submission.old}"
            raise _Refused(HTTPStatus.BAD_REQUEST, message)
        allowance = self._allowance(log, is_growth=submission.old < submission.size)
        return _Request(submission, log, allowance, keys)

    def _allowance(self, log: KnownLog, *, is_growth: bool) -> Allowance | None:
        """Return the allowance of a log, or None if it has no limit.

        The same size again has an allowance of its own, because everyone who has a published checkpoint can send it:
        they must not use up what the log needs to grow.
        """
        if log.per_day is None:
            return None
        known = self._allowances.get((log.origin, is_growth))
        if known is None or known[0] != log.per_day:
            known = self._allowances[log.origin, is_growth] = (log.per_day, Allowance(log.per_day))
        return known[1]

    def _decide(self, request: _Request) -> str:
        """Return the signature lines for a request, in the thread of the database."""
        if self.failure is not None:
            raise _Refused(HTTPStatus.SERVICE_UNAVAILABLE, f"the database of this {self.called} has failed")
        try:
            with self._store.transaction():
                outcome = self._outcome(request)
        except (sqlite3.Error, StoreLost) as exc:
            self._note_failure(exc)
            message = f"the database of this {self.called} cannot be used at the moment"
            raise _Refused(HTTPStatus.SERVICE_UNAVAILABLE, message, _RETRY_S) from exc
        if isinstance(outcome, _Refused):
            raise outcome
        if request.allowance is not None:
            request.allowance.take()
        return outcome

    def _outcome(self, request: _Request) -> str | _Refused:
        """Return the signature lines, or a refusal, inside a transaction: evidence is kept although it is refused."""
        submission, log, allowance = request.submission, request.log, request.allowance
        last = self._store.last(submission.origin)
        # 4.
        is_fork = last is not None and _is_fork(submission, last)
        if is_fork:
            # Everyone can use up the rate of the same size. That must not hide a fork.
            self._keep_evidence("fork", submission, last)
        if allowance is not None and (wait_s := allowance.wait_s()):
            message = f"this log may have {log.per_day} checkpoints a day cosigned; the next is possible in {wait_s} s"
            return _Refused(HTTPStatus.TOO_MANY_REQUESTS, message, wait_s)
        # 5.
        size = 0 if last is None else last.size
        if submission.old != size:
            return _conflict(size)
        # 6.
        try:
            growth = submission.growth(None if last is None else (last.size, last.root))
        except VerificationError as exc:
            if not is_fork:
                self._keep_evidence("unproven", submission, last)
            return _Refused(HTTPStatus.UNPROCESSABLE_ENTITY, str(exc))
        if last is not None and last.size == submission.size:
            growth = growth.keeping(last.note.encode(), log.keys)
        return self._cosigned(submission, growth, last, request.keys)

    def _cosigned(
        self, submission: Submission, growth: Growth, last: State | None, keys: list[SigningKey]
    ) -> str | _Refused:
        # 7.
        now, earlier = int(self._clock()), 0 if last is None else last.time
        if now < earlier - _BACK_S or max(now, earlier) < 1:
            if self._once_per_minute.is_due(submission.origin, "clock"):
                _log.error(Line("clock has gone back", now=now, last=earlier, log=submission.origin))
            return _Refused(HTTPStatus.SERVICE_UNAVAILABLE, f"the clock of this {self.called} has gone back", _BACK_S)
        moment = max(now, earlier)
        lines, note = growth.cosign(keys, moment)
        forks = self._store.put(State(submission.origin, submission.size, bytes(submission.root), note, moment))
        if forks:
            _log_evidence("fork", submission, count=forks)
        return lines

    def _keep_evidence(self, kind: str, submission: Submission, last: State | None) -> None:
        """Keep a checkpoint that its log has signed and that does not follow: it may be half of a fork."""
        note, known = submission.signed_note, "" if last is None else last.note
        root, moment = bytes(submission.root), int(self._clock())
        statement = (submission.origin, submission.size, root)
        if statement in self._dropped:
            return
        filing = self._store.keep(Evidence(submission.origin, kind, submission.size, root, moment, note, known))
        if filing is None:
            return
        if not filing.is_kept:
            # Repetitions are neither logged nor counted, unless there were very many others between.
            if len(self._dropped) >= _MOST_DROPPED:
                self._dropped.clear()
            self._dropped.add(statement)
        _log_evidence(filing.kind, submission, kept="yes" if filing.is_kept else "no")

    def _note_failure(self, exc: sqlite3.Error | StoreLost) -> None:
        # An error of the module itself, such as a closed connection, has no code.
        if getattr(exc, "sqlite_errorcode", 0) & 0xFF in _BUSY:
            if self._once_per_minute.is_due("database", str(exc)):
                _log.error(Line("database cannot be used", reason=exc))
            return
        self._fail(exc)

    def _fail(self, exc: Exception) -> None:
        self.failure = str(exc)
        _log.error(Line("database failed", reason=exc))
        self._on_failure()


def _log_evidence(kind: str, submission: Submission, **fields: object) -> None:
    line = Line(
        "log has signed a checkpoint that does not follow",
        log=submission.origin,
        size=submission.size,
        kind=kind,
        root=submission.root.hex(),
        **fields,
    )
    _log.log(logging.ERROR if kind == "fork" else logging.WARNING, line)


def _is_fork(submission: Submission, last: State) -> bool:
    """Return whether the log has signed another root of the size that was cosigned last."""
    return submission.size == last.size and bytes(submission.root) != last.root


def _conflict(size: int) -> _Refused:
    refused = _Refused(HTTPStatus.CONFLICT, str(size))
    refused.answer = Answer(HTTPStatus.CONFLICT, f"{size}\n", _SIZE)
    return refused
