"""What becomes of alerts over hours and days, by clocks that tests set."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

import qed
from published import entries_of, log_of, publish
from qed.monitoring import sinks
from qed.monitoring.findings import Finding, Kind
from qed.monitoring.monitor import Monitor, Options
from qed.monitoring.outbox import Outbox
from qed.monitoring.sinks import Undelivered, Webhook
from qed.monitoring.state import State, StateFile
from signing import NOW, policy_of
from test_monitor import Hook, answering

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler

    from qed.monitoring.alerts import Alert

HOUR_S: Final = 3600
DAY_S: Final = 24 * HOUR_S
POLICY: Final = qed.Policy(policy_of().encode())


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def forked() -> None:
    """Show one log to a monitor, and then another one."""
    for first in (b"one", b"another"):
        with qed.Log() as log:
            log.add(first)
            log_of(log, 5)
            publish(Path("copy"), entries_of(log))
        with Monitor(POLICY, ["copy"], "state") as monitor:
            monitor.once(now=NOW)
    # Nobody was told but the log lines.
    saved = state()
    saved.told.clear()
    StateFile(Path("state")).save(saved)


def state() -> State:
    saved = StateFile(Path("state")).load()
    assert saved is not None
    return saved


def test_a_webhook_that_fails_for_a_day_gets_the_alert_when_it_recovers() -> None:
    forked()
    hook = Hook()
    with hook.serving() as url, Monitor(POLICY, ["copy"], "state", Options(sinks=[Webhook(url, None)])) as monitor:
        for hour in range(24):
            hook.answers = [answering(500)]
            report = monitor.once(now=NOW + hour * HOUR_S)
            [pending] = state().outbox
            assert (report.pending, pending.tries, pending.has_failed) == (1, hour + 1, False)
            assert 0 < pending.next_at - (NOW + hour * HOUR_S) <= HOUR_S
        assert monitor.once(now=NOW + DAY_S - 1).pending == 0
        assert len({alert["Id"] for alert in hook.alerts}) == 1


def test_what_fails_for_three_days_is_given_up_and_stays_in_sight() -> None:
    forked()
    hook = Hook()
    with hook.serving() as url:
        options = Options(sinks=[Webhook(url, None)], repeat_s=10 * DAY_S)
        with Monitor(POLICY, ["copy"], "state", options) as monitor:
            for now in (NOW, NOW + 3 * DAY_S - 1, NOW + 3 * DAY_S):
                hook.answers = [answering(500)]
                monitor.once(now=now)
            assert [pending.has_failed for pending in state().outbox] == [True]
            # It is tried no more, and still no round ends well.
            assert monitor.once(now=NOW + 3 * DAY_S + 1).pending == 1
            assert len(hook.got) == 3


def test_a_webhook_that_drips_has_no_more_time_than_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "_WEBHOOK_S", 1.0)
    hook = Hook()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 204 No Content\r\nX-Slow: ")
        with suppress(OSError):
            for part in (*[b"x"] * 60, b"\r\n\r\n"):
                time.sleep(0.2)
                handler.wfile.write(part)

    hook.answers = [drip]
    with hook.serving() as url, pytest.raises(Undelivered, match="did not answer"):
        Webhook(url, None).deliver(alert(), now=NOW)


def alert() -> Alert:
    sent: list[Alert] = []
    outbox, _ = outbox_of(sent)
    outbox.tell(Finding(Kind.TEST, "a test", about="a test"), now=NOW)
    outbox.deliver(now=NOW, is_all=True)
    return sent[0]


class Sink:
    """A sink that takes alerts, or fails."""

    name: Final = "sink"

    def __init__(self, sent: list[Any]) -> None:
        self.sent = sent
        self.fails = False

    def deliver(self, alert: Alert, *, now: int) -> None:
        """See `Sink.deliver`."""
        del now
        if self.fails:
            raise Undelivered("no")
        self.sent.append(alert)


def outbox_of(sent: list[Any], *, grace_s: int = HOUR_S) -> tuple[Outbox, Sink]:
    sink = Sink(sent)
    return Outbox(State(), {"sink": sink}, Path(), repeat_s=DAY_S, grace_s=grace_s), sink


def test_alerts_do_not_wait_for_a_clock_that_was_ahead() -> None:
    """A year ahead, something is found and cannot be told. Then somebody sets the clock."""
    sent: list[Alert] = []
    outbox, sink = outbox_of(sent)
    away = Finding(Kind.SOURCE_UNREACHABLE, "away", about="a")
    ahead = NOW + 365 * DAY_S
    sink.fails = True
    outbox.follow([away], now=ahead)
    outbox.tell(Finding(Kind.DAMAGED, "damaged", about="b"), now=ahead)
    outbox.deliver(now=ahead, is_all=False)
    sink.fails = False
    outbox.deliver(now=NOW, is_all=False)
    assert [each.kind for each in sent] == [Kind.DAMAGED]
    # What lasts is told after the grace, and what was found is found again.
    outbox.follow([away], now=NOW)
    outbox.tell(Finding(Kind.DAMAGED, "damaged", about="b"), now=NOW)
    outbox.follow([away], now=NOW + HOUR_S)
    outbox.deliver(now=NOW + HOUR_S, is_all=False)
    assert [each.kind for each in sent] == [Kind.DAMAGED, Kind.DAMAGED, Kind.SOURCE_UNREACHABLE]
    outbox.tell(Finding(Kind.DAMAGED, "damaged", about="b"), now=NOW + HOUR_S)
    outbox.deliver(now=NOW + HOUR_S, is_all=False)
    assert len(sent) == 3


def test_alerts_wait_until_they_are_due() -> None:
    sent: list[Alert] = []
    outbox, sink = outbox_of(sent)
    sink.fails = True
    outbox.tell(Finding(Kind.DAMAGED, "damaged", about="b"), now=NOW)
    for now in (NOW, NOW + 1):
        outbox.deliver(now=now, is_all=False)
    sink.fails = False
    outbox.deliver(now=NOW + 2, is_all=False)
    assert sent == []
    outbox.deliver(now=NOW + 3, is_all=False)
    assert len(sent) == 1


def test_a_clock_that_goes_back_makes_no_fork() -> None:
    with qed.Log() as log:
        log_of(log, 5, 5)
        entries = entries_of(log)
    publish(Path("copy"), entries[:5])
    with Monitor(POLICY, ["copy"], "state") as monitor:
        assert monitor.once(now=NOW).exit_code == 0
        publish(Path("copy"), entries)
        # The cosignatures are an hour ahead of this clock, so they count for nothing: nothing can be concluded.
        report = monitor.once(now=NOW - HOUR_S)
        assert (report.exit_code, [each.kind for each in report.passing]) == (5, [Kind.UNWITNESSED])
        assert (report.findings, state().size) == ([], 5)
        report = monitor.once(now=NOW)
        assert (report.exit_code, state().size) == (0, 10)
