"""`qed membership` and `qed incremental`: ask a server for a proof, show it, verify it, keep it."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from qed._client.examination import Examination
from qed._files import save_file
from qed._limits import NOT_WITNESSED
from qed.bundle import Bundle
from qed.cli.answers import print_record, show_answer, show_paths
from qed.cli.client import connect, consistency
from qed.cli.inputs import EventOptions, describe, digest_given
from qed.cli.levels import print_unconvincing, print_verified
from qed.cli.line_proofs import prove_lines
from qed.cli.options import (
    DIGEST,
    FILE,
    INPUT,
    LINEARIZABLE,
    RECEIPTS,
    SHOW,
    VERSION,
    Session,
    command,
    current_session,
)
from qed.cli.policies import Demand, PolicyOptions, is_policy_chosen, policy_options
from qed.cli.trust import EndRoots, MembershipRoots, Person, end_roots, given_end_roots, given_roots, membership_roots
from qed.cli.verdicts import print_failure, print_finding
from qed.errors import Inconclusive, QedError, SigningError, VerificationError
from qed.policy import Level
from qed.questions import Extension, Membership
from qed.receipts import Receipts
from qed.trust import TrustedRoots
from qed.verification import verify, versions_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qed._client.client import Client
    from qed._wire import ReceiptLevel
    from qed.proofs import Digest, Snapshot
    from qed.questions import Answer, Question
    from qed.signed import SignedBundle
    from qed.verification import Absent, Present

__all__ = ["incremental", "membership"]


class ProofOptions(PolicyOptions):
    """The options that both commands share."""

    verify: bool
    receipts: str | None
    trust_server: bool
    out: str | None
    show: bool
    linearizable: bool


class MembershipOptions(ProofOptions, MembershipRoots):
    """The options of `qed membership`."""

    event: str | None
    file: str | None
    event_digest: Digest | None
    lines: str | None
    version: int | None


class IncrementalOptions(ProofOptions, EndRoots):
    """The options of `qed incremental`."""

    start: int
    end: int


def _proof_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of `ProofOptions`, in the order of the help page."""
    for option in (
        LINEARIZABLE,
        SHOW,
        click.option(
            "--out", type=FILE, metavar="PATH", help="Save the answer, with what it is checked by, as a bundle."
        ),
        click.option("--trust-server", is_flag=True, help="Check with the server's own snapshots: proves nothing."),
        policy_options,
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
        'qed membership --event "event 0" --policy trust.json --out proof.json',
        "qed membership --lines statement.csv --receipts receipts.jsonl",
    ],
)
@click.option("--event", metavar="TEXT", help="The event itself. Only its digest is sent.")
@click.option("--file", type=INPUT, metavar="PATH", help="The bytes of this file are the event; - is stdin.")
@click.option("--event-digest", type=DIGEST, metavar="HEX", help="The SHA-256 digest of the event.")
@click.option("--lines", type=INPUT, metavar="PATH", help="Each line of this file is an event; - is stdin.")
@click.option("--version", type=VERSION, metavar="N", help="Ask as of this version. Default: the latest.")
@_proof_options
@membership_roots
def membership(**given: Unpack[MembershipOptions]) -> None:
    """Ask whether an event is in the log, with a proof.

    The answer comes with a proof of membership or of absence. The proof is verified against roots that you trust: those
    of your --receipts, those given with --hyper-digest and --history-digest, each with its version, or those you type
    when --verify asks. An answer that contradicts your receipts, or ends before them, never verifies.

    With --policy, the log must sign the state that the answer is about, and witnesses cosign it if the policy says so.
    What --out saves then convinces everyone who trusts these keys.

    With --lines, each line of a file is asked for, a thousand lines in one proof, and verified. The summary names the
    lines that are not in the log.
    """
    session = current_session()
    if given["lines"] is not None:
        _prove_lines(session, given, given["lines"])
        return
    named = EventOptions(event=given["event"], file=given["file"], event_digest=given["event_digest"])
    question = Membership(digest_given(named, current_session().terminal), given["version"])
    at = "latest version" if question.version is None else f"version [ {question.version} ]"
    session.terminal.line(f"Querying {describe(named, question.digest)} with {at}")
    session.terminal.line()
    roots = given_roots(given)
    with connect(session.settings) as client:
        _Asking(session, client, given, roots).run(question)


def _prove_lines(session: Session, given: MembershipOptions, path: str) -> None:
    for name in ("event", "file", "event_digest", "version", "show", "out", "require"):
        if given.get(name) not in {None, False}:
            raise click.UsageError(f"--lines cannot be combined with --{name.replace('_', '-')}")
    roots = given_roots(given)
    session.terminal.line(f"Querying each line of [ {path} ] with latest version")
    session.terminal.line()
    with connect(session.settings) as client:
        _Asking(session, client, given, roots).run_lines(path)


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
@end_roots
def incremental(**given: Unpack[IncrementalOptions]) -> None:
    """Ask for a proof that the log only grew since a version.

    The proof shows that the log at the later version begins with the log at the earlier one, unchanged.

    It is verified against the HistoryDigest of both versions: from your --receipts, given with --start-digest and
    --end-digest, typed when --verify asks, or signed as --policy demands.
    """
    session = current_session()
    question = Extension(given["start"], given["end"])
    session.terminal.line(f"Querying incremental between versions [ {question.start} ] and [ {question.end} ]")
    session.terminal.line()
    roots = given_end_roots(given, question.start, question.end)
    with connect(session.settings) as client:
        _Asking(session, client, given, roots).run(question)


class _Asking:
    """One question to the log, from the request to the verdict."""

    def __init__(self, session: Session, client: Client, given: ProofOptions, roots: TrustedRoots | None) -> None:
        self._terminal = session.terminal
        self._client = client
        self._given = given
        self._roots = roots
        self._consistency = consistency(is_linearizable=given["linearizable"])
        self._require_one_source()

    def _require_one_source(self) -> None:
        given = self._given
        sources = {
            "--receipts": given["receipts"],
            "--trust-server": given["trust_server"],
            "digests": self._roots,
            "--policy": is_policy_chosen(),
        }
        named = [name for name, value in sources.items() if value]
        if len(named) > 1:
            raise click.UsageError(f"{' and '.join(named)} cannot be combined: give one source of trust")
        # A policy in the environment is for commands that name nothing else.
        self._policy = given["policy"] if not named or is_policy_chosen() else None
        if self._policy is None and (given["require"] or given["memory"]):
            raise click.UsageError("--require and --memory are about a policy: give --policy")
        if given["verify"] and not named and self._policy is None and not self._terminal.can_ask():
            raise click.UsageError("--verify needs --receipts, --policy, trusted digests, or a terminal to ask")
        self._is_verifying = bool(given["verify"] or named)

    def run(self, question: Question) -> None:
        if self._policy is not None:
            self._run_signed(question, Demand.of(self._policy, self._given, self._terminal))
            return
        receipts = self._receipts()
        if receipts is not None or self._given["trust_server"]:
            examined = self._client.examine(question, receipts, consistency=self._consistency)
            self._show(examined.answer)
        else:
            examined = self._ask(question)
        # Saved before the verdict: an answer that fails is evidence worth keeping.
        unsaved = self._save(examined, receipts)
        try:
            self._conclude(examined)
        except VerificationError as exc:
            if unsaved is not None:
                exc.add_note(f"the answer was not saved: {unsaved}")
            raise
        if unsaved is not None:
            raise unsaved

    def run_lines(self, path: str) -> None:
        """Ask about each line of a file, and verify the answers.

        Args:
            path: The file, or `-` for stdin.
        """
        if self._policy is not None:
            self._run_signed_lines(path, Demand.of(self._policy, self._given, self._terminal))
            return
        receipts = self._receipts()
        trusted = self._roots if receipts is None else receipts
        if trusted is None and not self._given["trust_server"]:
            raise click.UsageError("--lines needs --receipts, --policy, trusted digests or --trust-server")

        def prove(digests: list[Digest]) -> list[Present | Absent]:
            return self._client.membership_many(digests, trusted, consistency=self._consistency)

        try:
            summary = prove_lines(path, self._terminal, prove)
        except VerificationError as exc:
            folder = Path(self._given["receipts"] or "answer").absolute().parent
            print_failure(self._terminal, exc, None, trusted=trusted, folder=folder)
            raise
        summary.show(self._terminal, is_word_asked=self._given["trust_server"])

    def _run_signed_lines(self, path: str, demand: Demand) -> None:
        """Ask about each line, and check the answers against states that were signed as the policy demands."""

        def prove(digests: list[Digest]) -> list[Present | Absent]:
            with self._witnessed():
                return self._client.membership_many(
                    digests, demand.policy, consistency=self._consistency, memory=demand.memory
                )

        try:
            summary = prove_lines(path, self._terminal, prove)
        except VerificationError as exc:
            print_unconvincing(self._terminal, None, exc)
            raise
        summary.show(self._terminal, is_word_asked=False)

    @staticmethod
    @contextmanager
    def _witnessed() -> Iterator[None]:
        """Turn the refusal of a log that has no witnessed answer into an outcome of a verification."""
        try:
            yield
        except SigningError as exc:
            if str(exc) != NOT_WITNESSED:
                raise
            raise Inconclusive(f"the log has no witnessed answer: {exc}") from exc

    def _run_signed(self, question: Question, demand: Demand) -> None:
        """Ask, and check the answer against a state that was signed as the policy demands."""
        level: ReceiptLevel = "witnessed" if demand.level is Level.WITNESSED else "committed"
        try:
            with self._witnessed():
                bundle = self._client.signed_answer(question, level=level, consistency=self._consistency)
        except Inconclusive as exc:
            print_unconvincing(self._terminal, None, exc)
            raise
        # Saved before the verdict, as in `run`.
        unsaved = self._save_signed(bundle)
        try:
            verified = demand.verify(bundle, question=question)
        except VerificationError as exc:
            if unsaved is not None:
                exc.add_note(f"the answer was not saved: {unsaved}")
            print_unconvincing(self._terminal, bundle, exc)
            raise
        print_verified(self._terminal, bundle, verified)
        if self._given["show"] and bundle.answer is not None:
            show_paths(self._terminal, bundle.answer)
        demand.note_memory(verified, self._terminal)
        if unsaved is not None:
            raise unsaved

    def _save_signed(self, bundle: SignedBundle) -> OSError | None:
        path = self._given["out"]
        if path is None:
            return None
        try:
            save_file(Path(path), bundle.to_json() + b"\n")
        except OSError as exc:
            return exc
        self._terminal.note(f"saved the answer and the checkpoint that it rests on to {path}")
        return None

    def _receipts(self) -> Receipts | None:
        path = self._given["receipts"]
        if path is None:
            return None
        try:
            return Receipts.load(path)
        except VerificationError as exc:
            print_failure(self._terminal, exc, None, trusted=None, folder=Path(path).absolute().parent)
            raise

    def _ask(self, question: Question) -> Examination:
        """Ask, and check the answer against roots given one by one, or not at all."""
        try:
            answer = self._client.ask(question, consistency=self._consistency)
        except VerificationError as exc:
            # The client has checked already: the answer is not a proof, or answers another question.
            return Examination(question, None, error=exc)
        self._show(answer)
        if not self._is_verifying:
            return Examination(question, answer)
        can_ask = self._given["verify"] and self._terminal.can_ask()
        trusted = Person(self._terminal, question, self._roots) if can_ask else self._roots or TrustedRoots()
        try:
            return Examination(question, answer, verify(question, answer, trusted), trusted=trusted)
        except VerificationError as exc:
            return Examination(question, answer, error=exc, trusted=trusted)

    def _show(self, answer: Answer | None) -> None:
        if answer is not None:
            show_answer(self._terminal, answer)
            if self._given["show"]:
                show_paths(self._terminal, answer)

    def _conclude(self, examined: Examination) -> None:
        answer, trusted = examined.answer, examined.trusted
        if examined.error is not None:
            if self._is_verifying:
                folder = Path(self._given["receipts"] or "answer").absolute().parent
                print_failure(self._terminal, examined.error, answer, trusted=trusted, folder=folder)
            raise examined.error
        if answer is None or examined.finding is None or trusted is None:
            print_record(self._terminal, answer, {})
            return
        print_finding(
            self._terminal,
            examined.question,
            answer,
            examined.finding,
            trusted,
            is_word_asked=self._given["trust_server"],
        )

    def _save(self, examined: Examination, receipts: Receipts | None) -> OSError | QedError | None:
        """Save the answer where that was asked for; return why that failed, or None."""
        path = self._given["out"]
        if path is None or examined.answer is None:
            return None
        try:
            snapshots = [self._snapshot(version, examined, receipts) for version in versions_of(examined.answer)]
            Bundle.of(examined.question, examined.answer, snapshots).save(path)
        except (OSError, QedError) as exc:
            return exc
        missing = [] if receipts is None else [each.version for each in snapshots if receipts.get(each.version) is None]
        needs = f"; without a server, verifying it needs a receipt of version {max(missing)}" if missing else ""
        self._terminal.note(f"saved the answer with its snapshots to {path}{needs}")
        return None

    def _snapshot(self, version: int, examined: Examination, receipts: Receipts | None) -> Snapshot:
        known = None if receipts is None else receipts.get(version)
        return known or examined.snapshots.get(version) or self._client.snapshot(version)
