"""`qed membership` and `qed incremental`: ask a server for a proof, show it, verify it, keep it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from qed.cli.answers import print_record, print_verdict, show_answer, show_paths, verify_and_show
from qed.cli.bundle import Bundle
from qed.cli.connection import connect, consistency
from qed.cli.inputs import EventOptions, describe, digest_given
from qed.cli.options import (
    DIGEST,
    END_DIGEST,
    FILE,
    HISTORY_DIGEST,
    HYPER_DIGEST,
    INPUT,
    LINEARIZABLE,
    RECEIPTS,
    SHOW,
    START_DIGEST,
    VERSION,
    Session,
    command,
    current_session,
)
from qed.cli.questions import (
    Answer,
    IncrementalQuestion,
    MembershipQuestion,
    Question,
    Root,
    Trusted,
    trusted_digests,
    versions_of,
)
from qed.cli.receipts import read_receipts
from qed.errors import QedError, VerificationError
from qed.proofs import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qed._client.client import Client
    from qed.cli.terminal import Terminal
    from qed.proofs import Snapshot

__all__ = ["incremental", "membership"]


class ProofOptions(TypedDict):
    """The options that both commands share."""

    verify: bool
    receipts: str | None
    trust_server: bool
    out: str | None
    show: bool
    linearizable: bool


class MembershipOptions(ProofOptions):
    """The options of `qed membership`."""

    event: str | None
    file: str | None
    event_digest: Digest | None
    version: int | None
    hyper_digest: Digest | None
    history_digest: Digest | None


class IncrementalOptions(ProofOptions):
    """The options of `qed incremental`."""

    start: int
    end: int
    start_digest: Digest | None
    end_digest: Digest | None


def _proof_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of `ProofOptions`, in the order of the help page."""
    for option in (
        LINEARIZABLE,
        SHOW,
        click.option("--out", type=FILE, metavar="PATH", help="Save the answer and its snapshots as a bundle."),
        click.option("--trust-server", is_flag=True, help="Verify with the server's own snapshots."),
        click.option("--receipts", type=RECEIPTS, metavar="PATH", help="Verify with the snapshots in this file."),
        click.option("--verify", is_flag=True, help="Verify the answer; any source of digests implies it."),
    ):
        function = option(function)
    return function


@command(
    "membership",
    examples=[
        'qed membership --event "event 0"',
        'qed membership --event "event 0" --receipts receipts.jsonl --show',
        'qed membership --event "event 0" --version 2 --verify',
        "qed membership --file report.pdf --receipts receipts.jsonl --out proof.json",
    ],
)
@click.option("--event", metavar="TEXT", help="The event itself. Only its digest is sent.")
@click.option("--file", type=INPUT, metavar="PATH", help="The bytes of this file are the event; - is stdin.")
@click.option("--event-digest", type=DIGEST, metavar="HEX", help="The SHA-256 digest of the event.")
@click.option("--version", type=VERSION, metavar="N", help="Ask as of this version. Default: the latest.")
@_proof_options
@HYPER_DIGEST
@HISTORY_DIGEST
def membership(**given: Unpack[MembershipOptions]) -> None:
    """Ask whether an event is in the log, with a proof.

    Either answer has its proof: of membership, or of absence. To verify, it is checked against the HyperDigest of its
    CurrentVersion and the HistoryDigest of its QueryVersion. They come from --hyper-digest and --history-digest, from
    --receipts, or are asked for on a terminal.
    """
    session = current_session()
    named = EventOptions(event=given["event"], file=given["file"], event_digest=given["event_digest"])
    question = MembershipQuestion(digest_given(named), given["version"])
    at = "latest version" if question.version is None else f"version [ {question.version} ]"
    session.terminal.line(f"Querying {describe(named, question.digest)} with {at}")
    session.terminal.line()
    digests = trusted_digests(hyper=given["hyper_digest"], history=given["history_digest"])
    with connect(session.settings) as client:
        _Examination(session, client, given, digests).run(question)


@command(
    "incremental",
    examples=[
        "qed incremental --start 0 --end 3",
        "qed incremental --start 0 --end 3 --receipts receipts.jsonl",
        "qed incremental --start 0 --end 3 --verify --out proof.json",
    ],
)
@click.option("--start", type=VERSION, metavar="N", required=True, help="The earlier version.")
@click.option("--end", type=VERSION, metavar="N", required=True, help="The later version.")
@_proof_options
@START_DIGEST
@END_DIGEST
def incremental(**given: Unpack[IncrementalOptions]) -> None:
    """Ask for a proof that the log only grew since a version.

    It shows that the log at the later version begins with the log at the earlier one, unchanged.

    To verify, the proof is checked against the HistoryDigest of both versions. They come from --start-digest and
    --end-digest, from --receipts, or are asked for on a terminal.
    """
    session = current_session()
    question = IncrementalQuestion(given["start"], given["end"])
    session.terminal.line(f"Querying incremental between versions [ {question.start} ] and [ {question.end} ]")
    session.terminal.line()
    digests = trusted_digests(start=given["start_digest"], end=given["end_digest"])
    with connect(session.settings) as client:
        _Examination(session, client, given, digests).run(question)


class _Examination:
    """One question to one server, from asking to the verdict."""

    def __init__(self, session: Session, client: Client, given: ProofOptions, digests: Mapping[Root, Digest]) -> None:
        self._terminal = session.terminal
        self._client = client
        self._given = given
        self._digests = digests
        self._consistency = consistency(is_linearizable=given["linearizable"])
        self._is_verifying = bool(given["verify"] or given["receipts"] or given["trust_server"] or digests)
        if given["receipts"] and given["trust_server"]:
            raise click.UsageError("--receipts and --trust-server exclude each other")
        if given["verify"] and not self._has_source():
            raise click.UsageError("--verify needs --receipts, trusted digests, or a terminal to ask for them")

    def _has_source(self) -> bool:
        return bool(self._given["receipts"] or self._given["trust_server"] or self._digests or self._terminal.can_ask())

    def run(self, question: Question) -> None:
        answer = self._ask(question)
        show_answer(self._terminal, answer)
        if self._given["show"]:
            show_paths(self._terminal, answer)
        try:
            receipts = self._receipts(answer)
            trusted = self._trusted(answer, receipts)
        except VerificationError as exc:
            print_verdict(self._terminal, exc, answer)
            raise
        # Saved before it is verified: an answer that fails is evidence worth keeping. And verified in any case.
        unsaved = self._save(question, answer, receipts)
        try:
            if self._is_verifying:
                verify_and_show(self._terminal, answer, question, trusted)
            else:
                print_record(self._terminal, answer, {})
        except VerificationError as exc:
            if unsaved is not None:
                exc.add_note(f"the answer was not saved: {unsaved}")
            raise
        if unsaved is not None:
            raise unsaved

    def _ask(self, question: Question) -> Answer:
        try:
            if isinstance(question, IncrementalQuestion):
                return self._client.incremental(question.start, question.end, consistency=self._consistency)
            return self._client.membership_digest(
                question.digest, version=question.version, consistency=self._consistency
            )
        except VerificationError as exc:
            # The client has looked already: not a proof, or not of what was asked.
            if self._is_verifying:
                print_verdict(self._terminal, exc, None)
            raise

    def _receipts(self, answer: Answer) -> dict[int, Snapshot]:
        path = self._given["receipts"]
        return {} if path is None else read_receipts(Path(path), versions_of(answer))

    def _save(self, question: Question, answer: Answer, receipts: Mapping[int, Snapshot]) -> OSError | QedError | None:
        """Save the answer where that was asked for; return why that failed, or None."""
        path = self._given["out"]
        if path is None:
            return None
        try:
            snapshots = [receipts.get(version) or self._client.snapshot(version) for version in versions_of(answer)]
            Bundle.of(question, answer, snapshots).save(Path(path))
        except (OSError, QedError) as exc:
            return exc
        self._terminal.note(f"saved the answer with its snapshots to {path}")
        return None

    def _trusted(self, answer: Answer, receipts: Mapping[int, Snapshot]) -> Trusted:
        if self._given["receipts"]:
            return Trusted(self._digests, receipts, origin=self._given["receipts"])
        if self._given["trust_server"]:
            self._terminal.note("trusting the server's own snapshots: this shows only that it agrees with itself")
            snapshots = {version: self._client.snapshot(version) for version in versions_of(answer)}
            return Trusted(self._digests, snapshots, origin="the server")
        return Trusted(self._digests, ask=self._ask_digest if self._terminal.can_ask() else None)

    def _ask_digest(self, root: Root, version: int) -> Digest:
        return ask_digest(self._terminal, root, version)


_QUESTIONS: dict[Root, str] = {
    "hyper": "hyperDigest for current version",
    "history": "historyDigest for version",
    "start": "starting historyDigest for version",
    "end": "ending historyDigest for version",
}


def ask_digest(terminal: Terminal, root: Root, version: int) -> Digest:
    """Ask a person for a trusted root, until there is one.

    Args:
        terminal: Where the person sits.
        root: Which root.
        version: Of which version.

    Returns:
        The root.

    Raises:
        click.UsageError: The person has ended the input.
    """
    while True:
        answer = terminal.ask(f"Please, provide the {_QUESTIONS[root]} [ {version} ]: ")
        if answer is None:
            raise click.UsageError(f"no {_QUESTIONS[root]} {version} was given, so nothing was verified")
        try:
            return Digest.from_hex(answer)
        except ValueError:
            terminal.note(f"expected 64 hex digits, found {len(answer)} characters")
