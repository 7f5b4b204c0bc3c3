"""`qed audit`: check everything that a log publishes, from its first entry on."""

from __future__ import annotations

import base64
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from qed.cli.client import connect
from qed.cli.options import RECEIPTS, command, current_session
from qed.cli.receipts_given import receipts_in
from qed.cli.security import security_of
from qed.errors import Inconclusive, VerificationError
from qed.evidence import save_evidence
from qed.monitoring.auditing import Receipts
from qed.monitoring.auditing import audit as audit_log
from qed.monitoring.findings import Kind, exit_code
from qed.monitoring.sources import source_of
from qed.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qed.cli.options import Settings
    from qed.cli.terminal import Terminal
    from qed.monitoring.auditing import AuditReport
    from qed.monitoring.findings import Finding
    from qed.monitoring.sources import Source

__all__ = ["audit"]

_INCONCLUSIVE: Final = frozenset({Kind.STALE, Kind.UNWITNESSED})


@command(
    "audit",
    examples=[
        "qed audit https://log.example.com:8800 --policy trust.json",
        "qed audit https://cdn.example.com/log --policy trust.json --receipts receipts.jsonl",
        "qed audit ./copy-of-the-log --policy trust.json",
    ],
)
@click.argument("source", metavar="URL|DIR")
@click.option(
    "--policy",
    required=True,
    type=RECEIPTS,
    metavar="PATH",
    envvar="QED_POLICY",
    show_envvar=True,
    help="The keys of logs and witnesses that you trust.",
)
@click.option(
    "--receipts",
    type=click.Path(exists=True),
    multiple=True,
    metavar="FILE|DIR",
    help="What the log gave to clients must be in it. Can be repeated.",
)
@click.option(
    "--evidence-dir",
    type=click.Path(exists=True, file_okay=False),
    default=".",
    metavar="DIR",
    help="Where to save evidence. Default: the current folder.",
)
def audit(*, source: str, policy: str, receipts: tuple[str, ...], evidence_dir: str) -> None:
    """Check everything that a log has published, from its first entry on.

    URL is a server of qed, or where its files are: checkpoint and tile/…; DIR is a copy of these files. The checkpoint
    is verified by the policy, every tile and entry by the checkpoint, and all entries are replayed: at the end of each
    commit batch, both roots must be those that the events lead to. What proves a fault is saved as evidence.
    """
    session = current_session()
    terminal = session.terminal
    trusted, given = Policy.load(policy), receipts_in(receipts)
    with ExitStack() as stack:
        read = _source(source, session.settings)
        stack.callback(read.close)
        report = _audited(trusted, read, given, session.settings, terminal, stack)
    paths = [_saved(found, Path(evidence_dir), terminal) for found in report.findings]
    _show(terminal, report, paths)
    if report.findings:
        raise click.exceptions.Exit(exit_code(report.findings))


def _source(place: str, settings: Settings) -> Source:
    try:
        return source_of(place, security_of(settings), timeout_s=settings.timeout_s)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc


def _audited(  # what an audit needs
    policy: Policy, source: Source, receipts: Receipts, settings: Settings, terminal: Terminal, stack: ExitStack
) -> AuditReport:
    def started(entries: int) -> Callable[[int], None]:
        advance = bar.enter_context(terminal.progress(entries, is_logged=True))
        return lambda done: advance(done, done)

    try:
        with ExitStack() as bar:
            source.probe()
            client = None
            if source.api is not None:
                client = stack.enter_context(connect(replace(settings, endpoints=(source.api,))))
            return audit_log(policy, source, receipts=receipts, client=client, started=started)
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
    yield "Server", "its answers agree" if report.is_server_checked else "not asked"


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
        "Findings": [
            {"Kind": found.kind.value, "Text": found.text, "Evidence": None if path is None else str(path)}
            for found, path in zip(report.findings, paths, strict=True)
        ],
    }


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
