"""`qed verify`: check a saved bundle. This file and all it imports open no connection."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from qed.cli.answers import print_verdict, show_answer, show_paths, verify_and_show
from qed.cli.bundle import Bundle
from qed.cli.inputs import EventOptions, digest_given
from qed.cli.options import (
    DIGEST,
    END_DIGEST,
    HISTORY_DIGEST,
    HYPER_DIGEST,
    INPUT,
    RECEIPTS,
    SHOW,
    START_DIGEST,
    VERSION,
    command,
    current_session,
)
from qed.cli.questions import IncrementalQuestion, MembershipQuestion, Question, Trusted, trusted_digests, versions_of
from qed.cli.receipts import read_receipts
from qed.errors import MalformedProof, VerificationError

if TYPE_CHECKING:
    from qed.cli.terminal import Terminal
    from qed.proofs import Digest

__all__ = ["verify"]


class VerifyOptions(TypedDict):
    """The options of `qed verify`."""

    bundle: str
    event: str | None
    file: str | None
    event_digest: Digest | None
    version: int | None
    start: int | None
    end: int | None
    receipts: str | None
    hyper_digest: Digest | None
    history_digest: Digest | None
    start_digest: Digest | None
    end_digest: Digest | None
    show: bool


@command(
    "verify",
    examples=[
        "qed verify proof.json --receipts receipts.jsonl",
        'qed verify proof.json --receipts receipts.jsonl --event "event 0"',
        "qed verify proof.json --show --json",
    ],
)
@click.argument("bundle", type=INPUT)
@click.option("--event", metavar="TEXT", help="The event that the bundle must be about.")
@click.option("--file", type=INPUT, metavar="PATH", help="The bytes of this file are that event; - is stdin.")
@click.option("--event-digest", type=DIGEST, metavar="HEX", help="The SHA-256 digest of that event.")
@click.option("--version", type=VERSION, metavar="N", help="The version that was asked.")
@click.option("--start", type=VERSION, metavar="N", help="The earlier version that was asked.")
@click.option("--end", type=VERSION, metavar="N", help="The later version that was asked.")
@click.option("--receipts", type=RECEIPTS, metavar="PATH", help="Verify with the snapshots in this file.")
@HYPER_DIGEST
@HISTORY_DIGEST
@START_DIGEST
@END_DIGEST
@SHOW
def verify(**given: Unpack[VerifyOptions]) -> None:
    """Verify a saved bundle, without any server.

    BUNDLE is a file that membership or incremental has saved, or - for stdin. Without --receipts or digests of your
    own, the snapshots in the bundle are trusted: that shows only that the bundle agrees with itself. Without --event,
    --version, --start or --end, the question is taken from the bundle too.
    """
    terminal = current_session().terminal
    try:
        bundle = Bundle.load(given["bundle"])
    except MalformedProof as exc:
        print_verdict(terminal, exc, None)
        raise
    question = _question(given, bundle)
    show_answer(terminal, bundle.answer)
    if given["show"]:
        show_paths(terminal, bundle.answer)
    try:
        trusted = _trusted(given, bundle, terminal)
    except VerificationError as exc:
        print_verdict(terminal, exc, bundle.answer)
        raise
    verify_and_show(terminal, bundle.answer, question, trusted)


def _question(given: VerifyOptions, bundle: Bundle) -> Question:
    """Return what was asked: the caller's own word where there is one, the bundle's for the rest."""
    claimed = bundle.question
    named = EventOptions(event=given["event"], file=given["file"], event_digest=given["event_digest"])
    has_event = any(value is not None for value in named.values())
    if isinstance(claimed, MembershipQuestion):
        _refuse(given, ("start", "end", "start_digest", "end_digest"), "a membership proof")
        digest = digest_given(named) if has_event else claimed.digest
        return MembershipQuestion(digest, claimed.version if given["version"] is None else given["version"])
    _refuse(
        given, ("event", "file", "event_digest", "version", "hyper_digest", "history_digest"), "an incremental proof"
    )
    return IncrementalQuestion(
        claimed.start if given["start"] is None else given["start"],
        claimed.end if given["end"] is None else given["end"],
    )


def _refuse(given: VerifyOptions, names: tuple[str, ...], kind: str) -> None:
    """Refuse options that would be silently ignored, for whoever gave them believes they were checked."""
    for name, value in given.items():
        if name in names and value is not None:
            raise click.UsageError(f"--{name.replace('_', '-')} says nothing about {kind}, which this bundle holds")


def _trusted(given: VerifyOptions, bundle: Bundle, terminal: Terminal) -> Trusted:
    digests = trusted_digests(
        hyper=given["hyper_digest"],
        history=given["history_digest"],
        start=given["start_digest"],
        end=given["end_digest"],
    )
    if given["receipts"] is not None:
        receipts = read_receipts(Path(given["receipts"]), versions_of(bundle.answer))
        bundle.compare(receipts)
        return Trusted(digests, receipts, origin=given["receipts"])
    if digests:
        return Trusted(digests)
    terminal.note("trusting the snapshots in the bundle: give --receipts or digests to verify with your own")
    return Trusted(digests, {snapshot.version: snapshot for snapshot in bundle.snapshots}, origin="the bundle")
