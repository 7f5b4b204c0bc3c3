"""`qed audit`: check everything that a log publishes, from its first entry on."""

from __future__ import annotations

import base64
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Unpack

import click

from qed.cli.client import connect
from qed.cli.inputs import content_of_evidence
from qed.cli.options import INPUT, RECEIPTS_GIVEN, command, current_session, policy_option
from qed.cli.places import source_at
from qed.cli.receipts_given import receipts_in
from qed.cli.s3 import S3Given, s3_given, s3_options
from qed.errors import Inconclusive, VerificationError
from qed.evidence import Evidence, save_evidence
from qed.monitoring.auditing import Receipts
from qed.monitoring.auditing import audit as audit_log
from qed.monitoring.charge import Outcome, hear
from qed.monitoring.findings import EXIT_INCONCLUSIVE, EXIT_MISBEHAVIOUR, EXIT_OK, Kind, exit_code
from qed.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qed.cli.options import Settings
    from qed.cli.terminal import Terminal
    from qed.monitoring.auditing import AuditReport
    from qed.monitoring.charge import Ruling
    from qed.monitoring.findings import Finding
    from qed.monitoring.sources import Source

__all__ = ["audit"]

_INCONCLUSIVE: Final = frozenset({Kind.STALE, Kind.UNWITNESSED})
_SENTENCES: Final = {
    Outcome.CONFIRMED: "Confirmed: {log} has done what the file says.",
    Outcome.REFUTED: "Refuted: {log} has not done what the file says.",
    Outcome.OPEN: "Open: this does not show whether {log} has done what the file says.",
}


@command(
    "audit",
    examples=[
        "qed audit https://log.example.com:8800 --policy trust.json",
        "qed audit https://cdn.example.com/log --policy trust.json --receipts receipts.jsonl",
        "qed audit ./copy-of-the-log --policy trust.json",
        "qed audit https://log.example.com:8800 --policy trust.json --evidence invalid-entry-61c3….json",
        "qed audit s3://bucket/log --policy trust.json",
    ],
)
@click.argument("source", metavar="URL|DIR")
@policy_option()
@RECEIPTS_GIVEN
@click.option(
    "--evidence-dir",
    type=click.Path(exists=True, file_okay=False),
    default=".",
    metavar="DIR",
    help="Where to save evidence. Default: the current folder.",
)
@click.option(
    "--evidence", type=INPUT, metavar="FILE", help="Only replay what this file says of the log, to see if it is right."
)
@s3_options
def audit(
    *,
    source: str,
    policy: str,
    receipts: tuple[str, ...],
    evidence_dir: str,
    evidence: str | None,
    **s3: Unpack[S3Given],
) -> None:
    """Check everything that a log has published, from its first entry on.

    URL is a server of qed, or where its files are: checkpoint and tile/…; s3://BUCKET/PREFIX or DIR has a copy of
    these. The checkpoint is verified by the policy, every tile and entry by the checkpoint, and all entries are
    replayed: at the end of each commit batch, both roots must be those that the events lead to. What proves a fault is
    saved as evidence.

    With --evidence, the entries are replayed up to the batch that the file is about. The exit code is 1 if the file is
    right: the log misbehaves. It is 0 if the file is wrong.
    """
    session = current_session()
    terminal = session.terminal
    trusted, given = Policy.load(policy), receipts_in(receipts)
    charge = None if evidence is None else _charge(evidence, trusted, has_receipts=bool(receipts))
    with ExitStack() as stack:
        read = source_at(source, session.settings, s3_given(s3))
        stack.callback(read.close)
        if charge is not None:
            ruling = _heard(charge, trusted, read, terminal)
            _show_ruling(terminal, charge, ruling, Path(evidence_dir))
            raise click.exceptions.Exit(_exit_code(ruling))
        report = _audited(trusted, read, given, session.settings, terminal, stack)
    paths = [_saved(found, Path(evidence_dir), terminal) for found in report.findings]
    _show(terminal, report, paths)
    if report.findings:
        raise click.exceptions.Exit(exit_code(report.findings))


def _charge(path: str, policy: Policy, *, has_receipts: bool) -> Evidence:
    """Return a file of evidence that the policy has keys for. Any other is wrong usage: exit code 1 is for the log."""
    if has_receipts:
        raise click.UsageError("--receipts are compared by a whole audit: give --evidence without them")
    try:
        found = Evidence.from_json(content_of_evidence(path))
        found.judge(policy.trust)
    except VerificationError as exc:
        raise click.UsageError(f"{path} shows nothing about a log of the policy: {exc}") from exc
    return found


def _heard(charge: Evidence, policy: Policy, source: Source, terminal: Terminal) -> Ruling:
    with ExitStack() as bar, _reasons(terminal):
        source.probe()
        return hear(charge, policy.trust, source, started=_bar_of(bar, terminal))


def _exit_code(ruling: Ruling) -> int:
    if ruling.outcome is Outcome.CONFIRMED:
        return EXIT_MISBEHAVIOUR
    if ruling.finding is not None:
        return exit_code([ruling.finding])
    return EXIT_OK if ruling.outcome is Outcome.REFUTED else EXIT_INCONCLUSIVE


def _show_ruling(terminal: Terminal, charge: Evidence, ruling: Ruling, folder: Path) -> None:
    found = ruling.finding
    # What confirms the file needs no other file.
    path = None if found is None or ruling.outcome is Outcome.CONFIRMED else _saved(found, folder, terminal)
    terminal.fields("Evidence:", _of_charge(charge, ruling))
    if found is not None:
        terminal.line(f"{found.kind}: {found.text}")
    if path is not None:
        terminal.line(f"  evidence: {path}")
    terminal.line(_SENTENCES[ruling.outcome].format(log=charge.origin))
    terminal.records(
        [
            {
                "Evidence": ruling.outcome.value,
                "Log": charge.origin,
                "Kind": charge.kind,
                "Index": charge.index,
                "Replay": charge.replay,
                "Replayed": ruling.replayed,
                "Reason": ruling.reason,
                "Findings": [] if found is None else [_of_finding(found, path)],
            }
        ]
    )


def _of_charge(charge: Evidence, ruling: Ruling) -> Iterator[tuple[str, object]]:
    yield "Kind", charge.kind
    yield "Log", charge.origin
    if charge.index is not None:
        yield "Index", charge.index
    if charge.replay is not None:
        yield "Batch", f"versions {charge.replay[0]} to {charge.replay[1]}"
    yield "Replayed", "nothing" if ruling.replayed is None else f"{ruling.replayed} entries"
    yield "Reason", ruling.reason


def _audited(  # what an audit needs
    policy: Policy, source: Source, receipts: Receipts, settings: Settings, terminal: Terminal, stack: ExitStack
) -> AuditReport:
    with ExitStack() as bar, _reasons(terminal):
        source.probe()
        client = None
        if source.api is not None:
            client = stack.enter_context(connect(replace(settings, endpoints=(source.api,))))
        return audit_log(policy, source, receipts=receipts, client=client, started=_bar_of(bar, terminal))


def _bar_of(bar: ExitStack, terminal: Terminal) -> Callable[[int], Callable[[int], None]]:
    """Return what begins a progress bar, which ends with `bar`."""

    def started(entries: int) -> Callable[[int], None]:
        advance = bar.enter_context(terminal.progress(entries, is_logged=True))
        return lambda done: advance(done, done)

    return started


@contextmanager
def _reasons(terminal: Terminal) -> Iterator[None]:
    """Show an audit that cannot be completed, because something does not verify."""
    try:
        yield
    except VerificationError as exc:
        word = "Inconclusive" if isinstance(exc, Inconclusive) else "KO"
        terminal.verdict(word)
        terminal.records([{"Audit": word, "Reason": str(exc)}])
        raise


def _saved(found: Finding, folder: Path, terminal: Terminal) -> Path | None:
    if found.evidence is None:
        return None
    try:
        return save_evidence(found.evidence, folder.absolute())
    except OSError as exc:
        terminal.note(f"warning: the evidence could not be saved in {folder}: {exc.strerror}")
        return None


def _show(terminal: Terminal, report: AuditReport, paths: list[Path | None]) -> None:
    word = _word(report)
    terminal.fields("Audited log:", _fields(report))
    for found, path in zip(report.findings, paths, strict=True):
        terminal.line(f"{found.kind}: {found.text}")
        if path is not None:
            terminal.line(f"  evidence: {path}")
    if report.newer_receipts:
        terminal.note(f"{report.newer_receipts} receipts are newer than the checkpoint, so they were not compared")
    if word == "Inconclusive":
        terminal.conclusion(word)
    else:
        terminal.verdict(word)
    terminal.records([_record(report, word, paths)])


def _word(report: AuditReport) -> str:
    kinds = {found.kind for found in report.findings}
    if kinds - _INCONCLUSIVE:
        return "FORK" if Kind.FORK in kinds else "KO"
    return "Inconclusive" if kinds else "OK"


def _fields(report: AuditReport) -> Iterator[tuple[str, object]]:
    checkpoint = report.checkpoint
    yield "Log", checkpoint.origin
    yield "Size", checkpoint.size
    yield "Root", checkpoint.root.hex()
    yield "Level", report.level.value
    if checkpoint.is_witnessed:
        yield "Witnesses", ", ".join(checkpoint.witnesses)
    yield "Replayed", f"{report.entries} of {checkpoint.size} entries"
    if report.end is not None:
        yield "HistoryDigest", report.end[0].hex()
        yield "HyperDigest", report.end[1].hex()
    yield "Receipts", report.receipts
    yield "Server", _of_server(report)


def _of_server(report: AuditReport) -> str:
    if not report.is_server_checked:
        return "not asked"
    newer = report.unchecked_answers
    return f"its answers agree, except {newer} about more than the checkpoint has" if newer else "its answers agree"


def _record(report: AuditReport, word: str, paths: list[Path | None]) -> dict[str, object]:
    checkpoint = report.checkpoint
    return {
        "Audit": word,
        "Log": checkpoint.origin,
        "Size": checkpoint.size,
        "Root": _base64(bytes(checkpoint.root)),
        "Level": report.level.value,
        "Witnesses": checkpoint.witnesses,
        "ConfirmedAt": checkpoint.confirmed_at,
        "Replayed": report.entries,
        "HistoryDigest": None if report.end is None else _base64(bytes(report.end[0])),
        "HyperDigest": None if report.end is None else _base64(bytes(report.end[1])),
        "Receipts": report.receipts,
        "NewerReceipts": report.newer_receipts,
        "ServerChecked": report.is_server_checked,
        "UncheckedAnswers": report.unchecked_answers,
        "Findings": [_of_finding(found, path) for found, path in zip(report.findings, paths, strict=True)],
    }


def _of_finding(found: Finding, path: Path | None) -> dict[str, object]:
    return {"Kind": found.kind.value, "Text": found.text, "Evidence": None if path is None else str(path)}


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
