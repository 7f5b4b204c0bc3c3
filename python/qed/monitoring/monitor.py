"""A monitor: it watches a log from outside, remembers what it has seen, and tells somebody what is wrong."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from qed._client.client import Client
from qed._client.connections import Security
from qed._qed import EntryAudit
from qed.errors import AlertUndelivered, MonitorError
from qed.monitoring.alerts import alert_of
from qed.monitoring.auditing import Receipts
from qed.monitoring.copy import Copy
from qed.monitoring.findings import EXIT_INCONCLUSIVE, EXIT_MISBEHAVIOUR, EXIT_OK, EXIT_UNREACHABLE, Finding, Kind
from qed.monitoring.outbox import Outbox
from qed.monitoring.places import source_of
from qed.monitoring.rounds import Round, Watch
from qed.monitoring.s3 import S3Options
from qed.monitoring.sinks import LogSink, Undelivered
from qed.monitoring.state import Seen, State, StateFile

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence
    from threading import Event

    from qed.monitoring.metrics import Metrics
    from qed.monitoring.sinks import Sink
    from qed.monitoring.sources import Source
    from qed.policy import Policy
    from qed.proofs import Digest
    from qed.signed import Checkpoint

__all__ = ["Monitor", "Options", "RoundReport", "acknowledge"]

_log = logging.getLogger(__name__)

_DAY_S: Final = 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """How closely a monitor watches, and what it tells.

    Attributes:
        samples: How many random bundles to check in each round in place of replaying all entries; None to replay all.
        witnesses: Where witnesses publish what they have cosigned last of this log.
        digests: Digests of events to look for.
        receipts: Reads what the log gave to clients, in each round.
        sinks: Where alerts go, beside the log lines.
        must_exist: Refuse to begin without a state.
        repeat_s: After how long the same finding is told again, in seconds.
        grace_s: How long a source may be away before that is told, in seconds.
        timeout_s: How long one request may take, in seconds.
        security: How to check servers.
        s3: How to reach buckets.
        client_of: Returns a client for a server of qed, to compare its answers.
        metrics: What to count with, or None.
    """

    samples: int | None = None
    witnesses: Sequence[str] = ()
    digests: Sequence[Digest] = ()
    receipts: Callable[[], Receipts] = Receipts
    sinks: Sequence[Sink] = ()
    must_exist: bool = False
    repeat_s: float = _DAY_S
    grace_s: float = 900.0
    timeout_s: float = 30.0
    security: Security = field(default_factory=Security)
    s3: S3Options = field(default_factory=S3Options)
    client_of: Callable[[str], Client] = Client
    metrics: Metrics | None = None


@dataclass(frozen=True)
class RoundReport:
    """What a round has found.

    Attributes:
        checkpoint: The newest checkpoint that extends all that was seen, or None if there never was one.
        replayed: How many of its entries were replayed since the start of the monitor.
        findings: What is wrong.
        passing: What may pass, such as a source that does not answer.
        heads: How many sources have a checkpoint that verifies.
        pending: How many alerts no sink has taken yet.
        is_first: Whether no checkpoint was known before.
        is_behind: Whether no source has what was seen before.
        late: Kinds of what may pass, and has lasted longer than the grace.
    """

    checkpoint: Checkpoint | None
    replayed: int
    findings: list[Finding]
    passing: list[Finding]
    heads: int
    pending: int
    is_first: bool
    is_behind: bool
    late: frozenset[str]

    @property
    def exit_code(self) -> int:
        """The exit code of `qed monitor --once`."""
        codes = {finding.kind.exit_code for finding in self.findings}
        kinds = {finding.kind for finding in self.passing}
        if self.pending or self.is_behind or kinds & {Kind.STALE, Kind.UNWITNESSED}:
            codes.add(EXIT_INCONCLUSIVE)
        if Kind.ROLLBACK.value in self.late:
            codes.add(EXIT_MISBEHAVIOUR)
        if not self.heads or any(finding.about == "tiles" for finding in self.passing):
            codes.add(EXIT_UNREACHABLE)
        worst = (EXIT_MISBEHAVIOUR, EXIT_INCONCLUSIVE, EXIT_UNREACHABLE)
        return next((code for code in worst if code in codes), EXIT_OK)


class Monitor:
    """Watches one log. Use it in a `with` block: it holds its state for this process.

    Args:
        policy: Whom to trust.
        places: URLs, folders and buckets where the log is published.
        state: The file of its state.
        options: How closely it watches, and what it tells.

    Raises:
        MonitorError: There is no state though there must be one, or another process uses it.
        VerificationError: The state is damaged, or its checkpoint does not verify.
        PolicyError: The state is about a log that the policy does not have.
        ValueError: A URL is invalid.
        OSError: A file cannot be read or written.
    """

    def __init__(
        self, policy: Policy, places: Sequence[str], state: str | os.PathLike[str], options: Options = Options()
    ) -> None:
        self._policy: Final = policy
        self._options: Final = options
        self._file: Final = StateFile(Path(state))
        self._hold: Final = self._file.held()
        self._hold.__enter__()
        try:
            self._state, self._known = self._loaded()
            sinks: list[Sink] = [LogSink(), *options.sinks]
            self._sinks: Final = {sink.name: sink for sink in sinks}
            self._sources: Final = [self._source(place) for place in places]
            self._witnesses: Final = [self._source(place) for place in options.witnesses]
            self._copy: Final = Copy(self._file.copy)
        except BaseException:
            self._hold.__exit__(None, None, None)
            raise
        self._entries = EntryAudit()

    @property
    def is_first(self) -> bool:
        """Whether no checkpoint is known, so that the first one is believed as it is."""
        return self._known is None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections, and let others use the state."""
        for source in (*self._sources, *self._witnesses):
            source.close()
        self._hold.__exit__(None, None, None)

    def once(self, *, now: int | None = None) -> RoundReport:
        """Do one round, and deliver all alerts that are waiting.

        Args:
            now: The current time in seconds since 1970; by default that of the clock.

        Returns:
            What it found.

        Raises:
            PolicyError: A source is of another log.
            LogFull: There is no room for so many events.
            OSError: The state or the evidence cannot be saved.
        """
        return self._round(int(time.time()) if now is None else now, is_all=True)

    def run(self, stop: Event, *, interval_s: float) -> None:
        """Do rounds until `stop` is set; errors as for `once`.

        Args:
            stop: Ends the monitor after the round that is under way.
            interval_s: Time between the beginnings of two rounds, in seconds.
        """
        while not stop.is_set():
            begun_s = time.monotonic()
            report = self._round(int(time.time()), is_all=False)
            size = None if report.checkpoint is None else report.checkpoint.size
            _log.info("round size=%s findings=%d pending=%d", size, len(report.findings), report.pending)
            stop.wait(max(0.0, interval_s - (time.monotonic() - begun_s)))

    def test_alert(self, *, now: int | None = None) -> None:
        """Give an alert to every sink, to see whether it is taken.

        Raises:
            AlertUndelivered: A sink has not taken it.
        """
        seconds = int(time.time()) if now is None else now
        finding = Finding(Kind.TEST, "nothing is wrong: this is a test", about=str(seconds))
        alert = alert_of(finding, self._state.origin, at=seconds, path=None, is_first=True)
        failures = []
        for sink in self._sinks.values():
            try:
                sink.deliver(alert, now=seconds)
            except Undelivered as exc:
                failures.append(f"{sink.name}: {exc}")
        if failures:
            raise AlertUndelivered(f"the test alert was not delivered: {'; '.join(failures)}")

    def _loaded(self) -> tuple[State, Checkpoint | None]:
        state = self._file.load() or State()
        state.mode = "full" if self._options.samples is None else "sampled"
        known = self._file.verified(state, self._policy.trust, now=int(time.time()))
        if known is None and self._options.must_exist:
            raise MonitorError(
                f"there is no state with a checkpoint in {self._file.path}: the first that comes would be believed"
            )
        if known is None:
            self._file.require_no_copy()
        return state, known

    def _source(self, place: str) -> Source:
        return source_of(place, self._options.security, timeout_s=self._options.timeout_s, s3=self._options.s3)

    def _round(self, now: int, *, is_all: bool) -> RoundReport:
        options, state, known = self._options, self._state, self._known
        watch = Watch(
            self._policy,
            self._sources,
            self._witnesses,
            options.receipts,
            options.digests,
            options.samples,
            options.client_of,
        )
        done = Round(watch, known, self._entries, self._copy, now, self._advance, self._count)
        done.run()
        if done.newest is not None:
            self._note(done.newest)
            if state.next_entry == state.size:
                self._copy.keep_checkpoint(state.note)
        for name, head in done.heads.items():
            state.sources[name] = Seen(size=head.size, root=head.root.hex(), seen_at=now)
        outbox = Outbox(
            state, self._sinks, self._file.path.absolute().parent, repeat_s=options.repeat_s, grace_s=options.grace_s
        )
        for finding in done.findings:
            outbox.tell(finding, now=now)
        outbox.follow(done.passing, now=now)
        # What was found is durable before anybody is told, and before the state that it is about moves on.
        self._file.save(state)
        outbox.deliver(now=now, is_all=is_all)
        self._file.save(state)
        best = max((head.size for head in done.heads.values()), default=None)
        report = RoundReport(
            self._known,
            self._entries.replayed,
            done.findings,
            done.passing,
            len(done.heads),
            len(state.outbox),
            known is None,
            known is not None and best is not None and best < known.size,
            frozenset(trouble.kind for trouble in state.troubles.values() if trouble.is_told),
        )
        self._measure_round(report, outbox, best)
        return report

    def _advance(self, checkpoint: Checkpoint) -> None:
        """Save how far a replay is."""
        self._note(checkpoint)
        self._file.save(self._state)
        self._measure(checkpoint, checkpoint.size)

    def _count(self, entries: int) -> None:
        if self._options.metrics is not None:
            self._options.metrics.count(entries)

    def _measure(self, checkpoint: Checkpoint, best: int) -> None:
        """Note in the metrics how far this is; `best` is the size of the largest checkpoint of any source."""
        if self._options.metrics is not None:
            replayed = self._entries.replayed
            checked = replayed if self._options.samples is None else checkpoint.size
            self._options.metrics.advance(checkpoint, replayed=replayed, lag=max(best - checked, 0))

    def _measure_round(self, report: RoundReport, outbox: Outbox, best: int | None) -> None:
        if self._options.metrics is None:
            return
        if report.checkpoint is not None:
            self._measure(report.checkpoint, max(best or 0, report.checkpoint.size))
        forks = [found.about for found in report.findings if found.kind is Kind.FORK]
        self._options.metrics.end_round(
            exit_code=report.exit_code, alerts=outbox.alerts, forks=forks, pending=report.pending
        )

    def _note(self, checkpoint: Checkpoint) -> None:
        state = self._state
        self._known = checkpoint
        state.origin, state.size, state.root = checkpoint.origin, checkpoint.size, checkpoint.root.hex()
        state.note = checkpoint.note
        # After a start the entries are replayed again, from the copy.
        if self._entries.replayed > state.next_entry and self._entries.end is not None:
            state.next_entry = self._entries.replayed
            state.history_root, state.hyper_root = (root.hex() for root in self._entries.end)


def acknowledge(state: str | os.PathLike[str], alert_id: str) -> None:
    """Tell a finding no more.

    Args:
        state: The file of the state.
        alert_id: The id of its alert.

    Raises:
        MonitorError: There is no such state, or no such alert was told, or another process uses the state.
        VerificationError: The state is damaged.
        OSError: It cannot be read or written.
    """
    file = StateFile(Path(state))
    with file.held():
        found = file.load()
        if found is None:
            raise MonitorError(f"there is no state in {file.path}")
        if alert_id not in found.told:
            raise MonitorError(f"no alert {alert_id} was told: the log lines and the alerts have the ids")
        if alert_id not in found.suppressed:
            found.suppressed.append(alert_id)
        found.outbox = [pending for pending in found.outbox if pending.alert.id != alert_id]
        file.save(found)
