"""`qed verify`: check a saved bundle, receipt or proof. Only `--tiles` opens a connection."""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from qed._files import open_at_once
from qed.cli.answers import show_answer, show_paths
from qed.cli.inputs import EventOptions, digest_given, open_input
from qed.cli.levels import print_published, print_unconvincing, print_verified
from qed.cli.options import DIGEST, INPUT, RECEIPTS, SHOW, VERSION, command, current_session
from qed.cli.policies import Demand, PolicyOptions, is_policy_chosen, policy_options
from qed.cli.s3 import S3Given, s3_given, s3_options
from qed.cli.signed import content_of
from qed.cli.trust import EndRoots, MembershipRoots, end_roots, given_end_roots, given_roots, membership_roots
from qed.cli.verdicts import EXIT_INCONCLUSIVE, print_failure, print_finding
from qed.errors import CheckpointFork, Inconclusive, MalformedProof, VerificationError
from qed.evidence import Evidence
from qed.questions import Extension, Membership
from qed.receipts import Receipts
from qed.signed import SignedBundle, SignedReceipt
from qed.trust import TrustedBy, TrustedSnapshots
from qed.verification import verify as verify_answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qed.bundle import Bundle
    from qed.cli.signed import Content
    from qed.cli.terminal import Terminal
    from qed.monitoring.linking import PublishedLog
    from qed.policy import Verified
    from qed.proofs import Digest, Snapshot
    from qed.questions import Question
    from qed.signed import Checkpoint, Signed
    from qed.trust import Trusted

__all__ = ["verify"]


class VerifyOptions(MembershipRoots, EndRoots, PolicyOptions, S3Given):
    """The options of `qed verify`."""

    bundle: str | None
    event: str | None
    file: str | None
    event_digest: Digest | None
    version: int | None
    start: int | None
    end: int | None
    receipts: str | None
    trust_bundle: bool
    tiles: str | None
    show: bool


@command(
    "verify",
    examples=[
        "qed verify proof.json --receipts receipts.jsonl",
        'qed verify proof.json --receipts receipts.jsonl --event "event 0"',
        "qed verify proof.json --receipts receipts.jsonl --show",
        'qed verify receipt.json --policy trust.json --event "event 0"',
        "qed verify receipt.json --policy trust.json --tiles https://example.com/log",
        "qed verify --policy trust.json --tiles s3://bucket/log --version 0 --event one",
    ],
    is_offline=True,
)
@click.argument("bundle", type=INPUT, required=False)
@click.option("--event", metavar="TEXT", help="The event that the bundle must be about.")
@click.option("--file", type=INPUT, metavar="PATH", help="The bytes of this file are that event; - is stdin.")
@click.option("--event-digest", type=DIGEST, metavar="HEX", help="The SHA-256 digest of that event.")
@click.option("--version", type=VERSION, metavar="N", help="The version that was asked.")
@click.option("--start", type=VERSION, metavar="N", help="The earlier version that was asked.")
@click.option("--end", type=VERSION, metavar="N", help="The later version that was asked.")
@click.option("--receipts", type=RECEIPTS, metavar="PATH", help="Verify with the snapshots in this file.")
@click.option("--trust-bundle", is_flag=True, help="Check with the bundle's own snapshots: proves nothing.")
@policy_options
@click.option("--tiles", metavar="URL|DIR", help="Where the log is published: what is verified must be a part of it.")
@s3_options
@membership_roots
@end_roots
@SHOW
def verify(**given: Unpack[VerifyOptions]) -> None:
    """Verify a saved bundle, receipt or proof, without any server.

    BUNDLE is a file saved by membership or incremental with --out, or one that the log has signed: a receipt or a file
    of receipts, a bundle, or a .tlog-proof; - is stdin. Give what you trust: --policy for a signed file, or --receipts,
    or digests of your own. With --trust-bundle, the bundle is checked against its own snapshots, which shows only that
    it is consistent. Without --event, --version, --start or --end, the question is read from the bundle.

    The newest checkpoint of each log is remembered, to notice a log that shows others another history.

    With --tiles, what was signed must also be a part of what the log has published last, at a URL, in a folder or in
    s3://BUCKET/PREFIX. Without BUNDLE, the event at --version is verified from the published files alone.
    """
    terminal = current_session().terminal
    if given["bundle"] is None:
        _verify_published(given, terminal)
        return
    if given["bundle"] == given["file"] == "-":
        raise click.UsageError("BUNDLE and --file cannot both be stdin: give one of them as a file")
    try:
        with open_input("-") if given["bundle"] == "-" else open_at_once(given["bundle"]) as file:
            content = content_of(file)
    except MalformedProof as exc:
        print_failure(terminal, exc, None, trusted=None, folder=Path())
        raise
    if content.bundle is None:
        _verify_signed(given, content, terminal)
        return
    _verify_bundle(given, content.bundle, terminal)


def _verify_bundle(given: VerifyOptions, bundle: Bundle, terminal: Terminal) -> None:
    """Verify a bundle that nobody has signed."""
    if any(value is not None for value in (given["require"], given["memory"], given["tiles"])):
        raise click.UsageError("--require, --memory and --tiles are about signed files: this bundle has no signature")
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
    if _is_policy_all(given, trusted):
        terminal.note("the bundle has no signature, so the policy says nothing about it: give --receipts instead")
    print_finding(terminal, question, bundle.answer, finding, trusted, is_word_asked=given["trust_bundle"])


def _is_policy_all(given: VerifyOptions, trusted: Trusted) -> bool:
    """Return whether nothing but a policy was given to trust. One in the environment does not exclude others."""
    return given["policy"] is not None and trusted.by is TrustedBy.BUNDLE and not given["trust_bundle"]


def _verify_signed(given: VerifyOptions, content: Content, terminal: Terminal) -> None:
    """Verify a file that a log has signed, and end with the worst outcome of its parts."""
    check = _Check.of(given, terminal)
    with check.following():
        outcomes = [check.outcome(signed, is_only=len(content.signed) == 1) for signed in content.signed]
        outcomes += [check.outcome_of_snapshot(snapshot) for snapshot in content.unsigned if given["tiles"] is not None]
    if not outcomes and not content.unsigned:
        raise MalformedProof("expected receipts, found none")
    # A single signed part is verified with the event.
    if len(outcomes) > 1 or not content.signed:
        check.require_event_found(len(outcomes))
    for error in outcomes:
        if error is not None and not isinstance(error, Inconclusive):
            raise error
    check.require_signed_events(content.unsigned)
    left = len(content.signed) + len(content.unsigned) - len(outcomes)
    if left:
        reason = f"{left} of {left + len(outcomes)} receipts have no signature: the policy cannot tell"
        terminal.verdict("INCONCLUSIVE")
        terminal.note(reason)
        word = {"Kind": "snapshot", "Verify": "Inconclusive", "Reason": "it has no signature"}
        terminal.records([{**word, "Version": snapshot.version} for snapshot in content.unsigned])
    for error in outcomes:
        if error is not None:
            raise error
    if left:
        raise click.exceptions.Exit(EXIT_INCONCLUSIVE)


def _verify_published(given: VerifyOptions, terminal: Terminal) -> None:
    """Verify an event from what its log has published, and nothing else."""
    version = given["version"]
    if given["tiles"] is None:
        raise click.UsageError("Missing argument 'BUNDLE', or --tiles with --version")
    if version is None:
        raise click.UsageError("expected --version, of the event that is to be verified: the tiles are in its order")
    # The proof is of this very version, and says nothing else about one.
    given["version"] = None
    check = _Check.of(given, terminal)
    with check.following():
        error = check.outcome_at(version)
    if error is not None:
        raise error


class _Check:
    """The verification of the parts of one file.

    Args:
        given: The options.
        demand: What is demanded of them.
        terminal: Where to print.
    """

    def __init__(self, given: VerifyOptions, demand: Demand, terminal: Terminal) -> None:
        self._given = given
        self._demand = demand
        self._terminal = terminal
        self._log: PublishedLog | None = None
        named = _event_options(given)
        has_event = any(value is not None for value in named.values())
        self._event = digest_given(named, terminal) if has_event else None
        self._has_event = False
        self._seen: dict[tuple[str, int], tuple[Digest, Signed, Checkpoint]] = {}
        """What was verified, by log and version."""

    @classmethod
    def of(cls, given: VerifyOptions, terminal: Terminal) -> _Check:
        """Return the verification that the options ask for."""
        _refuse_other_sources(given)
        if given["policy"] is None:
            raise click.UsageError("this is signed, and nothing is trusted: give --policy PATH, or set QED_POLICY")
        return cls(given, Demand.of(given["policy"], given, terminal), terminal)

    @contextmanager
    def following(self) -> Iterator[None]:
        """Have everything linked to what the log has published where `--tiles` says, if that was given."""
        place = self._given["tiles"]
        if place is None:
            yield
            return
        from qed.cli.published import opened  # noqa: PLC0415 - nothing else here opens a connection

        with opened(place, self._demand, s3_given(self._given)) as self._log:
            yield

    def outcome_at(self, version: int) -> VerificationError | None:
        """Verify what the log has published about a version, as `outcome` does."""
        if self._log is None:
            raise click.UsageError("expected --tiles")
        try:
            proof = self._log.proof(version)
        except VerificationError as exc:
            print_unconvincing(self._terminal, None, exc)
            return exc
        return self.outcome(proof, is_only=True)

    def outcome_of_snapshot(self, snapshot: Snapshot) -> VerificationError | None:
        """Verify a receipt that nobody has signed by what the log has published, as `outcome` does."""
        if self._log is None:
            raise click.UsageError("expected --tiles")
        _refuse(self._given, ("version", "start", "end"), "a receipt")
        try:
            self._log.require_snapshot(snapshot)
        except VerificationError as exc:
            print_unconvincing(self._terminal, None, exc)
            return exc
        self._has_event |= snapshot.event_digest == self._event
        print_published(self._terminal, snapshot, self._log.newest)
        return None

    def outcome(self, signed: Signed, *, is_only: bool) -> VerificationError | None:
        """Verify one part, print the outcome, and return the error if it does not meet the policy."""
        try:
            verified = self._verified(signed, is_only=is_only)
            self._require_one_history(signed, verified)
            if self._log is not None:
                self._log.link(signed, verified.checkpoint)
        except VerificationError as exc:
            print_unconvincing(self._terminal, signed, exc)
            return exc
        self._has_event |= any(digest == self._event for _, digest in verified.shown.events)
        print_verified(self._terminal, signed, verified, newest=None if self._log is None else self._log.newest)
        if self._given["show"] and isinstance(signed, SignedBundle) and signed.answer is not None:
            show_paths(self._terminal, signed.answer)
        self._demand.note_memory(verified, self._terminal)
        return None

    def _require_one_history(self, signed: Signed, verified: Verified) -> None:
        """Check that no other part of the file has another event at the same version of the same log.

        Raises:
            CheckpointFork: One has. The evidence was saved.
        """
        checkpoint = verified.checkpoint
        for version, digest in verified.shown.events:
            first, other, known = self._seen.setdefault((checkpoint.origin, version), (digest, signed, checkpoint))
            if first == digest:
                continue
            text = f"fork: {checkpoint.origin} has signed two different events at version {version}"
            fork = CheckpointFork(known, checkpoint, text)
            if isinstance(signed, SignedReceipt) and isinstance(other, SignedReceipt):
                trust, now = self._demand.policy.trust, int(time.time())
                self._demand.memory.convict(fork, Evidence.same_index(other, signed, version, trust, now=now))
            raise fork

    def require_signed_events(self, snapshots: Sequence[Snapshot]) -> None:
        """Check that receipts without a signature have no other events than those with one.

        Raises:
            VerificationError: One has.
        """
        seen: dict[int, list[Digest]] = {}
        for (_, version), (digest, _, _) in self._seen.items():
            seen.setdefault(version, []).append(digest)
        for snapshot in snapshots:
            found = seen.get(snapshot.version)
            if found is not None and snapshot.event_digest not in found:
                expected, computed = found[0].hex(), snapshot.event_digest.hex()
                error = VerificationError(f"event digest of version {snapshot.version}", expected, computed)
                print_unconvincing(self._terminal, None, error)
                raise error

    def require_event_found(self, count: int) -> None:
        """Check that one of the receipts is about the event."""
        if self._event is not None and not self._has_event:
            error = VerificationError("event digest", self._event.hex(), f"that of no event in {count} receipts")
            print_unconvincing(self._terminal, None, error)
            raise error

    def _verified(self, signed: Signed, *, is_only: bool) -> Verified:
        if isinstance(signed, SignedBundle):
            question = self._question(signed)
            return self._demand.verify(signed, question=question)
        _refuse(self._given, ("version", "start", "end"), "a receipt or proof")
        event = self._event if is_only else None
        return self._demand.verify(signed, event)

    def _question(self, bundle: SignedBundle) -> Question:
        claimed, given = bundle.question, self._given
        if isinstance(claimed, Extension):
            _refuse(given, ("event", "file", "event_digest", "version"), "an incremental proof")
            return Extension(
                claimed.start if given["start"] is None else given["start"],
                claimed.end if given["end"] is None else given["end"],
            )
        _refuse(given, ("start", "end"), "a membership proof")
        digest = claimed.digest if self._event is None else self._event
        return Membership(digest, claimed.version if given["version"] is None else given["version"])


def _event_options(given: VerifyOptions) -> EventOptions:
    return EventOptions(event=given["event"], file=given["file"], event_digest=given["event_digest"])


def _refuse_other_sources(given: VerifyOptions) -> None:
    others = {"receipts", "trust_bundle", *MembershipRoots.__annotations__, *EndRoots.__annotations__}
    for name, value in given.items():
        if name in others and value is not None and value is not False:
            raise click.UsageError(f"--{name.replace('_', '-')} says nothing about a signed file: give --policy")


def _question(given: VerifyOptions, bundle: Bundle) -> Question:
    """Return what was asked: the caller's own word where there is one, the bundle's for the rest."""
    claimed = bundle.question
    named = _event_options(given)
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
    is_signed = is_policy_chosen()
    sources = {
        "--receipts": given["receipts"],
        "--trust-bundle": given["trust_bundle"],
        "digests": roots,
        "--policy": is_signed,
    }
    named = [name for name, value in sources.items() if value]
    if len(named) > 1:
        raise click.UsageError(f"{' and '.join(named)} exclude each other: say once what is trusted")
    if given["receipts"] is not None:
        return Receipts.load(given["receipts"])
    if roots is not None:
        return roots
    if given["trust_bundle"] or given["policy"] is not None:
        return TrustedSnapshots(*bundle.snapshots, by=TrustedBy.BUNDLE)
    digests = (
        "--start-digest and --end-digest" if isinstance(question, Extension) else "--hyper-digest and --history-digest"
    )
    raise click.UsageError(
        f"nothing is trusted, so nothing can be verified: give --receipts PATH, or {digests}, "
        "or --trust-bundle to see whether the bundle agrees with itself"
    )
