"""`qed publish`: copy a log into a folder or a bucket, which others can serve."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, Unpack

import click

from qed.cli.options import SECONDS, command, current_session, policy_option
from qed.cli.places import source_at, target_at
from qed.cli.s3 import S3Given, s3_given, s3_options
from qed.cli.signals import interrupted_by_signals
from qed.cli.terminal import totals
from qed.errors import ProtocolError, Unavailable
from qed.evidence import save_evidence
from qed.monitoring.findings import Kind, exit_code
from qed.monitoring.publisher import Publisher
from qed.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from qed.cli.terminal import Terminal
    from qed.monitoring.publisher import Publication

__all__ = ["publish"]

_PASSING: Final = frozenset({Kind.STALE, Kind.UNWITNESSED})
_QUICK: Final = 10_000
"""So many entries take less time than anybody looks at a bar."""


@command(
    "publish",
    examples=[
        "qed publish https://log.example.com:8800 /srv/www/log --policy trust.json",
        "qed publish http://127.0.0.1:8800 ./copy --policy trust.json --once",
        "qed publish https://log.example.com:8800 s3://bucket/log --policy trust.json --interval 10",
    ],
)
@click.argument("source", metavar="URL|DIR")
@click.argument("target", metavar="FOLDER|s3://BUCKET/PREFIX")
@policy_option("The keys of logs and witnesses that you trust. What does not meet it is not published.")
@click.option("--once", is_flag=True, help="End after one round.")
@click.option("--interval", type=SECONDS, metavar="SECONDS", default=1.0, help="Pause between rounds. Default: 1.")
@click.option(
    "--evidence-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where to save evidence. Default: FOLDER; for a bucket, the current folder.",
)
@s3_options
def publish(
    *,
    source: str,
    target: str,
    policy: str,
    once: bool,
    interval: float,
    evidence_dir: Path | None,
    **s3: Unpack[S3Given],
) -> None:
    """Copy the log that URL or DIR publishes into a folder or a bucket, and go on with what is new.

    The copy is what `qed audit`, `qed monitor` and any C2SP client can read, directly or through a web server or CDN:
    reads need no server of qed. Everything is verified before it is written, the checkpoint is replaced last, and
    nothing is ever deleted. Several publishers may write to one place. A log that contradicts what was published before
    is not published: the command ends, with evidence.

    Credentials for a bucket come from AWS_ACCESS_KEY_ID and the other usual variables.
    """
    session = current_session()
    trusted = Policy.load(policy)
    with ExitStack() as stack:
        # The first process of a container ignores a signal that it does not handle.
        stack.enter_context(interrupted_by_signals())
        read = source_at(source, session.settings, s3_given(s3))
        stack.callback(read.close)
        written = target_at(target, session.settings, s3_given(s3))
        stack.callback(written.close)
        folder = evidence_dir or (Path(target) if Path(target).is_dir() else Path())
        _rounds(Publisher(written, trusted, read), folder, session.terminal, once=once, interval_s=interval)


def _rounds(publisher: Publisher, folder: Path, terminal: Terminal, *, once: bool, interval_s: float) -> None:
    said = ""
    while True:
        try:
            done = _round(publisher, terminal)
        except (Unavailable, ProtocolError) as exc:
            if once:
                raise
            if str(exc) != said:
                said = str(exc)
                terminal.note(said)
        else:
            said = _shown(done, folder, terminal, said, is_last=once)
        if once:
            return
        time.sleep(interval_s)


def _round(publisher: Publisher, terminal: Terminal) -> Publication:
    with ExitStack() as bar:

        def started(entries: int) -> Callable[[int], None]:
            if entries <= _QUICK:
                return lambda _: None
            # A round that begins again has another bar.
            bar.close()
            return totals(bar.enter_context(terminal.progress(entries, is_logged=True)))

        return publisher.run(started=started)


def _shown(done: Publication, folder: Path, terminal: Terminal, said: str, *, is_last: bool) -> str:
    """Show what a round has done, once for each outcome; return what was said."""
    found, checkpoint = done.finding, done.checkpoint
    if found is not None:
        if found.text != said:
            terminal.line(f"{found.kind}: {found.text}")
        if found.evidence is not None:
            terminal.line(f"  evidence: {save_evidence(found.evidence, folder.absolute())}")
        if is_last or found.kind not in _PASSING:
            terminal.records([{"Published": done.published, "Finding": found.kind.value, "Text": found.text}])
            raise click.exceptions.Exit(exit_code([found]))
        return found.text
    text = f"{checkpoint.origin}: {done.published:,} entries are published, {done.files:,} files are new"
    if checkpoint.size < done.published:
        text = (
            f"{checkpoint.origin}: the source has {checkpoint.size:,} entries, fewer than the {done.published:,} here"
        )
    if done.files or is_last or checkpoint.size < done.published:
        if text != said:
            terminal.line(text)
        terminal.records([{"Published": done.published, "Files": done.files, "Source": checkpoint.size}])
    return text
