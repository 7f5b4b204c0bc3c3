"""`qed verify`: check a saved bundle. This file and its imports open no connection."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from qed._files import open_at_once
from qed.bundle import Bundle
from qed.cli.answers import show_answer, show_paths
from qed.cli.inputs import EventOptions, digest_given, open_input
from qed.cli.options import DIGEST, INPUT, RECEIPTS, SHOW, VERSION, command, current_session
from qed.cli.trust import EndRoots, MembershipRoots, end_roots, given_end_roots, given_roots, membership_roots
from qed.cli.verdicts import print_failure, print_finding
from qed.errors import MalformedProof, VerificationError
from qed.questions import Extension, Membership
from qed.receipts import Receipts
from qed.trust import TrustedBy, TrustedSnapshots
from qed.verification import verify as verify_answer

if TYPE_CHECKING:
    from qed.proofs import Digest
    from qed.questions import Question
    from qed.trust import Trusted

__all__ = ["verify"]


class VerifyOptions(MembershipRoots, EndRoots):
    """The options of `qed verify`."""

    bundle: str
    event: str | None
    file: str | None
    event_digest: Digest | None
    version: int | None
    start: int | None
    end: int | None
    receipts: str | None
    trust_bundle: bool
    show: bool


@command(
    "verify",
    examples=[
        "qed verify proof.json --receipts receipts.jsonl",
        'qed verify proof.json --receipts receipts.jsonl --event "event 0"',
        "qed verify proof.json --receipts receipts.jsonl --show",
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
@click.option("--trust-bundle", is_flag=True, help="Check with the bundle's own snapshots: proves nothing.")
@membership_roots
@end_roots
@SHOW
def verify(**given: Unpack[VerifyOptions]) -> None:
    """Verify a saved bundle, without any server.

    BUNDLE is a file saved by membership or incremental with --out, or - for stdin. Give what you trust: --receipts, or
    digests of your own. With --trust-bundle, the bundle is checked against its own snapshots, which shows only that it
    is consistent. Without --event, --version, --start or --end, the question is read from the bundle.
    """
    terminal = current_session().terminal
    try:
        with open_input("-") if given["bundle"] == "-" else open_at_once(given["bundle"]) as file:
            bundle = Bundle.read(file)
    except MalformedProof as exc:
        print_failure(terminal, exc, None, trusted=None, folder=Path())
        raise
    question = _question(given, bundle)
    trusted: Trusted | None = None
    try:
        trusted = _trusted(given, bundle, question)
        show_answer(terminal, bundle.answer)
        if given["show"]:
            show_paths(terminal, bundle.answer)
        if isinstance(trusted, Receipts):
            bundle.compare(trusted)
        finding = verify_answer(question, bundle.answer, trusted, is_kept=True)
    except VerificationError as exc:
        folder = Path(given["receipts"] or "bundle").absolute().parent
        print_failure(terminal, exc, bundle.answer, trusted=trusted, folder=folder)
        raise
    print_finding(terminal, question, bundle.answer, finding, trusted, is_word_asked=given["trust_bundle"])


def _question(given: VerifyOptions, bundle: Bundle) -> Question:
    """Return what was asked: the caller's own word where there is one, the bundle's for the rest."""
    claimed = bundle.question
    named = EventOptions(event=given["event"], file=given["file"], event_digest=given["event_digest"])
    has_event = any(value is not None for value in named.values())
    if isinstance(claimed, Membership):
        _refuse(given, ("start", "end", "start_digest", "end_digest"), "a membership proof")
        digest = digest_given(named, current_session().terminal) if has_event else claimed.digest
        return Membership(digest, claimed.version if given["version"] is None else given["version"])
    _refuse(
        given, ("event", "file", "event_digest", "version", *MembershipRoots.__annotations__), "an incremental proof"
    )
    return Extension(
        claimed.start if given["start"] is None else given["start"],
        claimed.end if given["end"] is None else given["end"],
    )


def _refuse(given: VerifyOptions, names: tuple[str, ...], kind: str) -> None:
    """Refuse options that would be silently ignored: the caller would believe that they were checked."""
    for name, value in given.items():
        if name in names and value is not None:
            raise click.UsageError(f"--{name.replace('_', '-')} says nothing about {kind}, which this bundle holds")


def _trusted(given: VerifyOptions, bundle: Bundle, question: Question) -> Trusted:
    roots = (
        given_end_roots(given, question.start, question.end) if isinstance(question, Extension) else given_roots(given)
    )
    sources = {"--receipts": given["receipts"], "--trust-bundle": given["trust_bundle"], "digests": roots}
    named = [name for name, value in sources.items() if value]
    if len(named) > 1:
        raise click.UsageError(f"{' and '.join(named)} exclude each other: say once what is trusted")
    if given["receipts"] is not None:
        return Receipts.load(given["receipts"])
    if roots is not None:
        return roots
    if given["trust_bundle"]:
        return TrustedSnapshots(*bundle.snapshots, by=TrustedBy.BUNDLE)
    digests = (
        "--start-digest and --end-digest" if isinstance(question, Extension) else "--hyper-digest and --history-digest"
    )
    raise click.UsageError(
        f"nothing is trusted, so nothing can be verified: give --receipts PATH, or {digests}, "
        "or --trust-bundle to see whether the bundle agrees with itself"
    )
