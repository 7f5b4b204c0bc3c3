"""`qed monitor`: watch a log from outside, remember what was seen, and tell somebody what is wrong."""

from __future__ import annotations

import base64
import logging
import signal
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Unpack

import click

from qed.cli.client import connect
from qed.cli.options import DIGEST, FILE, RECEIPTS, RECEIPTS_GIVEN, SECONDS, command, current_session, policy_option
from qed.cli.receipts_given import receipts_in
from qed.cli.s3 import S3Given, s3_given, s3_options
from qed.cli.security import security_of
from qed.cli.terminal import configure_logging, print_error
from qed.errors import AlertUndelivered
from qed.monitoring.findings import EXIT_INCONCLUSIVE, EXIT_OK
from qed.monitoring.metrics import Metrics
from qed.monitoring.monitor import Monitor, Options, acknowledge
from qed.monitoring.sinks import CommandSink, Webhook
from qed.policy import Policy
from qed.server.addresses import Address, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qed.cli.options import Settings
    from qed.cli.terminal import Terminal
    from qed.monitoring.monitor import RoundReport
    from qed.monitoring.sinks import Sink
    from qed.proofs import Digest

__all__ = ["monitor"]

_ACK: Final = "ack"
_ACK_WORDS: Final = 2
_RUN: Final = "qed monitor https://log.example.com:8800 --policy trust.json --state monitor.json"


class MonitorOptions(S3Given):
    """The options of `qed monitor`."""

    places: tuple[str, ...]
    policy: str | None
    state: str
    once: bool
    interval: float
    sample: int | None
    receipts: tuple[str, ...]
    watch: tuple[Digest, ...]
    witness: tuple[str, ...]
    webhook: str | None
    webhook_secret_file: str | None
    command: str | None
    repeat: float
    grace: float
    must_exist: bool
    test_alert: bool
    metrics_listen: Address | None


def _address(_ctx: click.Context, _param: click.Parameter, text: str | None) -> Address | None:
    """Return the address in an option. A port alone is one of this machine, for programs on it only."""
    if text is None:
        return None
    try:
        return Address.parse(text if ":" in text else f"127.0.0.1:{text}")
    except SettingsError as exc:
        raise click.BadParameter(str(exc)) from exc


@command(
    "monitor",
    examples=[
        _RUN,
        f"{_RUN} --once",
        f"{_RUN} --webhook https://alerts.example.com/qed --webhook-secret-file secret",
        f"{_RUN} --metrics-listen 8600",
        "qed monitor ack 7be1… --state monitor.json",
    ],
)
@click.argument("places", metavar="[URL|DIR]...", nargs=-1)
@policy_option(is_required=False)
@click.option(
    "--state", required=True, type=FILE, metavar="FILE", help="What was seen and told. Beside it is a copy of the log."
)
@click.option("--once", is_flag=True, help="Do one round and end.")
@click.option("--interval", type=SECONDS, default=60.0, show_default=True, help="Time between two rounds.")
@click.option(
    "--sample",
    type=click.IntRange(1),
    metavar="K",
    help="Check K random bundles in each round. Default: replay all entries.",
)
@RECEIPTS_GIVEN
@click.option(
    "--watch", type=DIGEST, multiple=True, metavar="HEX", help="Tell when this event is in the log. Can be repeated."
)
@click.option(
    "--witness",
    multiple=True,
    metavar="URL",
    help="Where a witness publishes the last checkpoint of the log: /checkpoint is below it. Can be repeated.",
)
@click.option("--webhook", metavar="URL", help="POST each alert there.")
@click.option(
    "--webhook-secret-file", type=RECEIPTS, metavar="FILE", help="Sign each POST with the secret in this file."
)
@click.option("--command", metavar="TEXT", help="Give each alert to this program on stdin.")
@click.option("--repeat", type=SECONDS, default=86400.0, show_default=True, help="When the same finding is told again.")
@click.option("--grace", type=SECONDS, default=900.0, show_default=True, help="How long a source may be away untold.")
@click.option("--must-exist", is_flag=True, help="Refuse to begin without a state.")
@click.option(
    "--metrics-listen",
    metavar="[HOST:]PORT",
    callback=_address,
    help="Serve metrics for Prometheus there, without TLS or keys. Default of HOST: 127.0.0.1.",
)
@click.option("--test-alert", is_flag=True, help="Give a test to every sink, and end.")
@s3_options
def monitor(**given: Unpack[MonitorOptions]) -> None:
    """Watch a log from outside, and tell somebody what is wrong.

    In each round the newest checkpoints of all URLs and folders are verified and compared with each other and with all
    that was seen before; what was added since is replayed, as by `qed audit`. All URLs are of one log. A log that has
    signed two histories ends in a file of evidence beside the state, which `qed evidence` checks.

    `qed monitor ack ID --state FILE` ends the repetition of an alert.
    """
    session = current_session()
    if given["places"][:1] == (_ACK,):
        _acknowledge(given)
        return
    if given["policy"] is None:
        raise click.UsageError("nothing is trusted: give --policy PATH, or set QED_POLICY")
    if not given["places"] and not given["test_alert"]:
        raise click.UsageError("expected URLs or folders where the log is published, found none")
    if given["metrics_listen"] is not None and (given["once"] or given["test_alert"]):
        raise click.UsageError(
            "--metrics-listen is for a monitor that goes on: give it without --once and --test-alert"
        )
    if session.settings.log_level is None:
        configure_logging("warning" if given["once"] else "info")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    metrics = None if given["metrics_listen"] is None else Metrics()
    options = _options(given, session.settings, metrics)
    try:
        opened = Monitor(Policy.load(given["policy"]), given["places"], given["state"], options)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc
    with opened:
        if metrics is not None and given["metrics_listen"] is not None:
            metrics.listen(given["metrics_listen"].host, given["metrics_listen"].port)
        _use(opened, given, session.terminal)


def _use(opened: Monitor, given: MonitorOptions, terminal: Terminal) -> None:
    if given["test_alert"]:
        try:
            opened.test_alert()
        except AlertUndelivered as exc:
            print_error(str(exc))
            raise click.exceptions.Exit(EXIT_INCONCLUSIVE) from exc
        terminal.line("Every sink has taken the test alert.")
        terminal.records([{"Test": "OK"}])
        return
    if opened.is_first:
        terminal.note(f"first use: no checkpoint is known in {given['state']}, so the first one is believed as it is")
    if given["once"]:
        report = opened.once()
        _show(terminal, report)
        raise click.exceptions.Exit(report.exit_code)
    with _stopped_by_signals() as stop:
        opened.run(stop, interval_s=given["interval"])


def _acknowledge(given: MonitorOptions) -> None:
    if len(given["places"]) != _ACK_WORDS:
        raise click.UsageError("expected the id of one alert: qed monitor ack ID --state FILE")
    acknowledge(given["state"], given["places"][1])
    current_session().terminal.line(f"Alert {given['places'][1]} will not be told again.")
    current_session().terminal.records([{"Acknowledged": given["places"][1]}])


def _options(given: MonitorOptions, settings: Settings, metrics: Metrics | None) -> Options:
    return Options(
        samples=given["sample"],
        witnesses=given["witness"],
        digests=given["watch"],
        receipts=lambda: receipts_in(given["receipts"]),
        sinks=_sinks(given, settings),
        must_exist=given["must_exist"],
        repeat_s=given["repeat"],
        grace_s=given["grace"],
        timeout_s=settings.timeout_s,
        security=security_of(settings),
        s3=s3_given(given),
        client_of=lambda url: connect(replace(settings, endpoints=(url,))),
        metrics=metrics,
    )


def _sinks(given: MonitorOptions, settings: Settings) -> list[Sink]:
    sinks: list[Sink] = []
    secret = given["webhook_secret_file"]
    if given["webhook"] is not None:
        key = None if secret is None else Webhook.secret_in(Path(secret))
        sinks.append(Webhook(given["webhook"], key, allows_plain=settings.is_insecure))
    elif secret is not None:
        raise click.UsageError("--webhook-secret-file is for --webhook URL, and there is none")
    if given["command"] is not None:
        sinks.append(CommandSink(given["command"]))
    return sinks


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """Give an event that SIGINT and SIGTERM set. A second one ends the process at once."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _frame: object) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(terminal: Terminal, report: RoundReport) -> None:
    checkpoint = report.checkpoint
    fields: list[tuple[str, object]] = (
        []
        if checkpoint is None
        else [
            ("Log", checkpoint.origin),
            ("Size", checkpoint.size),
            ("Root", checkpoint.root.hex()),
            ("Replayed", report.replayed),
        ]
    )
    terminal.fields("Monitored log:", [*fields, ("Sources", report.heads), ("Undelivered", report.pending)])
    for finding in (*report.findings, *report.passing):
        terminal.line(f"{finding.kind}: {finding.text}")
    if report.exit_code == EXIT_OK:
        terminal.verdict("OK")
    terminal.records([_record(report)])


def _record(report: RoundReport) -> dict[str, object]:
    checkpoint = report.checkpoint
    return {
        "Log": None if checkpoint is None else checkpoint.origin,
        "Size": None if checkpoint is None else checkpoint.size,
        "Root": None if checkpoint is None else base64.b64encode(bytes(checkpoint.root)).decode(),
        "Replayed": report.replayed,
        "Sources": report.heads,
        "Findings": [{"Kind": found.kind.value, "Text": found.text} for found in report.findings],
        "Passing": [{"Kind": found.kind.value, "Text": found.text} for found in report.passing],
        "Undelivered": report.pending,
    }
