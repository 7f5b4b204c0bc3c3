"""`qed add` and `qed snapshot`: add events, and show snapshots."""

from __future__ import annotations

import math
import signal
from collections import deque
from contextlib import ExitStack, closing, contextmanager, nullcontext
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO, Final, TypedDict, Unpack

import click

from qed._client.adding import SENDS
from qed._client.defaults import DEFAULT_SEND
from qed._client.growth import require_above
from qed._limits import KNOWS_NO_RECEIPTS, NOT_SIGNED
from qed._printable import printable
from qed.acknowledgement import Acknowledgement
from qed.cli.client import connect, consistency
from qed.cli.inputs import EventOptions, digest_given, event_given, open_input, size_of
from qed.cli.levels import print_unconvincing
from qed.cli.lines import Linger, bulks
from qed.cli.options import (
    DIGEST,
    FILE,
    INPUT,
    LINEARIZABLE,
    SECONDS,
    VERSION,
    Session,
    command,
    current_session,
    policy_option,
)
from qed.cli.policies import Demand, PolicyOptions
from qed.cli.signals import HEEDED, StopRequest, interrupted_by_signals
from qed.cli.verdicts import save_fork
from qed.errors import (
    AccessRefused,
    ForkDetected,
    Inconclusive,
    MalformedRequest,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    ProtocolError,
    StreamBroken,
    Unavailable,
    VerificationError,
)
from qed.policy import Level
from qed.receipts import Receipts

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from qed._client.adding import Sent
    from qed._client.client import Client
    from qed._wire import ReceiptLevel
    from qed.policy import Verified
    from qed.proofs import Digest, Snapshot
    from qed.signed import Checkpoint

__all__ = ["add", "snapshot"]

LINGER_S: Final = 0.2
"""Default time that a line waits for more, if lines are added in bulks: too short for a person to notice, and some 100
lines of a busy log. In a stream, lines need not wait."""

_NEVER_SIGNED: Final = (NOT_SIGNED, KNOWS_NO_RECEIPTS)
_NO_STREAMS: Final = {404, 405}
"""How servers from before streams answer."""
_UNSURE: Final = "the event may or may not have been added"


class AddOptions(TypedDict):
    """The options of `qed add`."""

    event: str | None
    file: str | None
    event_digest: Digest | None
    lines: str | None
    send: Sent
    receipts: str | None
    receipts_unverified: bool
    receipt_level: ReceiptLevel
    policy: str | None
    memory: str | None
    if_absent: bool
    linger: float | None


@command(
    "add",
    examples=[
        'qed add --event "event 0"',
        "qed add --file report.pdf --receipts receipts.jsonl",
        "qed add --lines access.log --receipts receipts.jsonl --if-absent",
        "journalctl --follow --output cat | qed add --lines - --receipts receipts.jsonl",
    ],
)
@click.option("--event", metavar="TEXT", help="The event itself.")
@click.option("--file", type=INPUT, metavar="PATH", help="The bytes of this file are the event; - is stdin.")
@click.option(
    "--event-digest", type=DIGEST, metavar="HEX", help="The event's SHA-256 digest, if the event is elsewhere."
)
@click.option("--lines", type=INPUT, metavar="PATH", help="Each line of this file is an event; - is stdin.")
@click.option(
    "--receipts", type=FILE, metavar="PATH", help="Append the snapshots, once proven to extend this file's log."
)
@click.option(
    "--receipts-unverified", is_flag=True, help="Append them without proof, which is faster; the next use proves them."
)
@click.option(
    "--receipt-level",
    type=click.Choice(["committed", "witnessed"]),
    default="committed",
    help="Which signed receipts to ask for, to be kept or verified. Witnessed ones take some seconds. "
    "Default: committed.",
)
@policy_option("Verify what the log signs about the events, with the keys in this file.", is_required=False)
@click.option("--memory", type=FILE, metavar="PATH", help="Where the newest checkpoint of the log is remembered.")
@click.option(
    "--send",
    type=click.Choice(SENDS),
    default=DEFAULT_SEND,
    help=f"What to send of each event. Default: {DEFAULT_SEND}.",
)
@click.option("--if-absent", is_flag=True, help="Do not add an event that is in the log; safe to retry.")
@click.option(
    "--linger",
    type=SECONDS,
    metavar="SECONDS",
    help=f"Longest time that a line from a pipe waits for more. Default: 0, and {LINGER_S} for bulks.",
)
def add(**given: Unpack[AddOptions]) -> None:
    """Add one or more events, and show their snapshots.

    A snapshot is the receipt for an event: its version and the roots of both trees. Keep it: everything that a server
    claims later is checked against it. With --receipts, the server must prove that the new snapshot extends the log of
    the receipts already in the file. If the log signs, its signed receipts are kept there too. With --lines, only the
    last snapshot is shown; --json prints all, one per line.

    With --policy, the log must sign a receipt for what it adds, which is verified; with --receipt-level witnessed, its
    witnesses must have cosigned. If that fails, the events are in the log all the same.

    Only digests are sent, so events stay on this machine and files may have any size. If an older server accepts only
    events, the text or the lines are sent instead; for a file, give --send event.

    Lines from a pipe are added soon after they are written, see --linger. Ctrl-C, SIGTERM and SIGHUP stop the reading;
    lines that were read are added before the command ends. A second signal ends it immediately.

    With --if-absent, an event that is already in the log keeps its first snapshot, which is shown. Interrupted requests
    are retried against the current leader, because adding twice has no effect.
    """
    session = current_session()
    named = EventOptions(event=given["event"], file=given["file"], event_digest=given["event_digest"])
    if given["receipts_unverified"] and given["receipts"] is None:
        raise click.UsageError("--receipts-unverified needs --receipts PATH")
    if given["lines"] is not None and any(value is not None for value in named.values()):
        raise click.UsageError("--lines cannot be combined with --event, --file or --event-digest")
    if given["lines"] is None and given["linger"] is not None:
        raise click.UsageError("--linger needs --lines PATH")
    with ExitStack() as stack:
        # The event comes first: wrong usage must not create anything, not even an empty receipts file.
        event = _event_to_add(session, named, given["send"]) if given["lines"] is None else b""
        stream = nullcontext() if given["lines"] is None else open_input(given["lines"])
        lines = stack.enter_context(stream)
        client = stack.enter_context(connect(session.settings, given["send"]))
        demand = _demand(session, given)
        # Opened before anything is sent: an event whose receipt cannot be kept should not be added.
        path = given["receipts"]
        receipts = stack.enter_context(nullcontext() if path is None else Receipts.open(path))
        adding = _Adding(session, client, receipts, given, demand)
        if lines is None:
            with interrupted_by_signals():
                adding.add(event)
        else:
            adding.add_lines(lines, given["linger"])


def _demand(session: Session, given: AddOptions) -> Demand | None:
    """Return what is demanded of receipts, if there is a policy."""
    if given["policy"] is None:
        return None
    level = Level.WITNESSED if given["receipt_level"] == "witnessed" else Level.SIGNED
    options: PolicyOptions = {"policy": given["policy"], "require": level.value, "memory": given["memory"]}
    return Demand.of(given["policy"], options, session.terminal)


def _event_to_add(session: Session, named: EventOptions, sent: Sent) -> bytes | Digest:
    """Return the event itself if it is a text or must be sent, else its digest."""
    if named.get("event") is not None or (sent == "event" and named.get("file") is not None):
        return event_given(named)
    return digest_given(named, session.terminal)


class _Adding:
    """Adds events, keeps their receipts, and counts how many were acknowledged."""

    def __init__(
        self, session: Session, client: Client, receipts: Receipts | None, given: AddOptions, demand: Demand | None
    ) -> None:
        self._session = session
        self._client = client
        self._receipts = receipts
        self._is_if_absent = given["if_absent"]
        self._is_unverified = given["receipts_unverified"]
        self._log: str | None = None
        self._newest: int | None = None
        self._acknowledged = 0
        self._waiting = 0
        self._is_exact = False
        """Whether `_waiting` is what a server has said, or is not sure of."""
        self._last: Snapshot | None = None
        self._level: ReceiptLevel = given["receipt_level"]
        self._demand = demand
        self._done: Acknowledgement | None = None
        self._verified: Verified | None = None
        self._remembered: list[Checkpoint] = []

    def add(self, event: bytes | Digest) -> None:
        self._prepare()
        self._note_newest()
        try:
            with _unreadable_is_unknown(_UNSURE):
                (added,) = self._add([event])
        except (KeyboardInterrupt, VerificationError) as exc:
            exc.add_note(_UNSURE)
            raise
        self._keep([added])
        try:
            self._verify()
        except VerificationError as exc:
            exc.add_note(f"the event is in the log, says the server, at version {added.version}")
            raise
        _show(self._session, "Received snapshot with values:", added)
        self._show_verdict()

    def add_lines(self, stream: BinaryIO, linger_s: float | None) -> None:
        terminal, size_bytes = self._session.terminal, size_of(stream)
        # All lines of a file are there already, so there is no producer to wait for.
        linger = Linger(linger_s or 0.0 if size_bytes is None else math.inf)
        try:
            with StopRequest.heeded() as stop, terminal.progress(size_bytes) as advance:
                found = bulks(stream.fileno(), linger, stop)
                first = next(found, None)
                if first is not None:
                    self._prepare()
                    self._note_newest()
                    given = chain([first], found)
                    if not (self._may_stream and self._add_stream(given, advance)):
                        if linger_s is None:
                            linger.seconds = max(linger.seconds, LINGER_S)
                        self._add_bulks(given, advance)
                stop.require_none()
        except BaseException as exc:
            # Whatever ended this early, Ctrl-C included, the caller must learn where to resume.
            exc.add_note(self._so_far(exc))
            raise
        if self._last is None:
            terminal.line("Added nothing: the input is empty.")
            return
        _show(self._session, f"Received {self._acknowledged:,} snapshots, the last with values:", self._last)
        self._show_verdict()

    @property
    def _may_stream(self) -> bool:
        """Whether lines may be added by a stream: only the answer to a bulk can wait for witnesses.

        With a policy, each receipt is verified before more is added.
        """
        return self._demand is None and self._level == "committed"

    def _add_stream(self, found: Iterable[tuple[list[bytes], int]], advance: Callable[[int, int], None]) -> bool:
        """Add lines by a stream; return False if the server has none, before any line was taken."""
        sizes: deque[int] = deque()
        taken = 0

        def lines() -> Iterator[bytes]:
            nonlocal taken
            # This runs in a thread of the client. Signals that it gets do not wake the main thread, which handles them.
            signal.pthread_sigmask(signal.SIG_BLOCK, HEEDED)
            for events, size_bytes in found:
                sizes.extend(len(event) + 1 for event in events)
                # The last line of a file may have no end.
                sizes[-1] -= sum(len(event) + 1 for event in events) - size_bytes
                for event in events:
                    taken += 1
                    yield event

        try:
            with closing(self._acknowledgements(lines())) as acknowledgements:
                while done := _next(acknowledgements):
                    self._done = done
                    self._acknowledged += len(done.snapshots)
                    self._note_reason(done)
                    self._keep(done.snapshots)
                    advance(len(done.snapshots), sum(sizes.popleft() for _ in done.snapshots))
        except MalformedRequest as exc:
            if taken or exc.status not in _NO_STREAMS:
                raise
            return False
        except StreamBroken as exc:
            self._waiting, self._is_exact = exc.unknown, True
            raise exc.__cause__ or exc from None
        except BaseException:
            self._waiting = taken - self._acknowledged
            raise
        return True

    def _acknowledgements(self, lines: Iterable[bytes]) -> Generator[Acknowledgement]:
        if self._receipts is not None:
            yield from self._client.acknowledge_stream(lines, if_absent=self._is_if_absent)
            return
        for snapshots in self._client.add_stream(lines, if_absent=self._is_if_absent):
            yield Acknowledgement(snapshots, None, None)

    def _add_bulks(self, found: Iterable[tuple[list[bytes], int]], advance: Callable[[int, int], None]) -> None:
        for events, size_bytes in found:
            self._note_newest()
            self._waiting = len(events)
            with _unreadable_is_unknown():
                snapshots = self._add(events)
            self._acknowledged += len(snapshots)
            self._waiting = 0
            self._keep(snapshots)
            self._verify()
            advance(len(events), size_bytes)

    def _add(self, events: Sequence[bytes | Digest]) -> Sequence[Snapshot]:
        """Add events. If receipts are kept or verified, ask for what the log signs, too."""
        self._done = None
        if self._receipts is None and self._demand is None:
            if len(events) == 1:
                return [self._client.add(events[0], if_absent=self._is_if_absent)]
            return self._client.add_bulk(events, if_absent=self._is_if_absent)
        done = self._client.acknowledge(events, receipt=self._level, if_absent=self._is_if_absent)
        self._done = done
        self._note_reason(done)
        return done.snapshots

    def _note_reason(self, done: Acknowledgement) -> None:
        # Many logs do not sign. That one which should does not, is worth a word.
        is_wanted = self._level != "committed" or (self._receipts is not None and self._receipts.is_signed)
        if self._demand is None and done.reason is not None and (is_wanted or done.reason not in _NEVER_SIGNED):
            self._session.terminal.note(f"no {self._level} receipt: {printable(done.reason)}")

    def _prepare(self) -> None:
        """Refuse receipts of another log while nothing is added yet."""
        if self._receipts is None:
            return
        if self._is_unverified:
            self._log = self._client.info().log or None
            self._receipts.require_log(self._log)
            return
        with _saved_fork(self._receipts):
            self._client.prepare(self._receipts)

    def _note_newest(self) -> None:
        """Note the newest receipt before events are sent: other processes may append receipts of later events."""
        anchor = None if self._receipts is None else self._receipts.anchor
        self._newest = None if anchor is None else anchor.version
        self._remembered = [] if self._demand is None else self._demand.remembered()

    def _keep(self, snapshots: Sequence[Snapshot]) -> None:
        terminal = self._session.terminal
        try:
            if self._receipts is not None:
                self._append(self._receipts, snapshots)
        except BaseException as exc:
            # These are the only copies of the receipts: print them, so that the user can still save them.
            exc.add_note(
                f"versions {snapshots[0].version} to {snapshots[-1].version} may have no receipt; they are on stdout"
            )
            terminal.text("".join(f"{snapshot.to_json().decode()}\n" for snapshot in snapshots))
            raise
        self._last = snapshots[-1]
        # People see only the last snapshot, at the end; programs get each one as soon as it is safe.
        terminal.records(snapshot.to_json() for snapshot in snapshots)

    def _append(self, receipts: Receipts, snapshots: Sequence[Snapshot]) -> None:
        self._append_snapshots(receipts, snapshots)
        if self._done is not None and self._done.receipt is not None:
            receipts.append_signed(self._done.receipt)

    def _append_snapshots(self, receipts: Receipts, snapshots: Sequence[Snapshot]) -> None:
        if self._is_unverified:
            # The client does not know these receipts, since it proves nothing about them.
            if not self._is_if_absent:
                require_above(self._newest, snapshots)
            receipts.append(snapshots, log=self._log)
            return
        with _saved_fork(receipts):
            self._client.keep(receipts, snapshots)

    def _verify(self) -> None:
        """Verify the receipt of what was added last, if there is a policy.

        Raises:
            VerificationError: It fails, or there is none.
        """
        done = self._done
        if self._demand is None or done is None:
            return
        if done.receipt is None and done.reason is None:
            self._session.terminal.note("nothing was added, so there is no receipt: ask qed membership")
            return
        try:
            if done.receipt is None:
                raise Inconclusive(f"there is no {self._level} receipt: {printable(done.reason or '')}")
            self._verified = self._demand.verify(done.receipt)
            self._demand.require_growth(self._remembered, self._verified)
        except VerificationError as exc:
            print_unconvincing(self._session.terminal, done.receipt, exc)
            raise
        self._demand.note_memory(self._verified, self._session.terminal)

    def _show_verdict(self) -> None:
        if self._verified is not None:
            checkpoint, level = self._verified.checkpoint, self._verified.level.value
            self._session.terminal.verdict("OK", f"{level}, in {checkpoint.origin} at size {checkpoint.size}")

    def _so_far(self, exc: BaseException) -> str:
        text = f"{self._acknowledged:,} events were acknowledged"
        if self._waiting and (self._is_exact or _may_have_happened(exc)):
            text += f", and the next {self._waiting:,} may or may not have been added"
        return text


def _next(acknowledgements: Iterator[Acknowledgement]) -> Acknowledgement | None:
    with _unreadable_is_unknown():
        return next(acknowledgements, None)


@contextmanager
def _saved_fork(receipts: Receipts) -> Iterator[None]:
    """Save a fork that is found, beside the receipts."""
    try:
        yield
    except ForkDetected as exc:
        save_fork(exc, receipts.path.absolute().parent)
        raise


@contextmanager
def _unreadable_is_unknown(*notes: str) -> Iterator[None]:
    """Raise OutcomeUnknown, with notes, for an answer that cannot be read. A refused request was not carried out."""
    try:
        yield
    except (AccessRefused, MalformedRequest):
        raise
    except ProtocolError as exc:
        unknown = OutcomeUnknown(str(exc))
        for note in notes:
            unknown.add_note(note)
        raise unknown from exc


def _may_have_happened(exc: BaseException) -> bool:
    """Return whether an insertion that raised `exc` may have been carried out."""
    if isinstance(exc, Unavailable):
        return exc.may_have_happened
    return not isinstance(exc, (AccessRefused, Overloaded, MalformedRequest, NotLeader))


@command("snapshot", examples=["qed snapshot --version 3", "qed snapshot --version 3 --json"])
@click.option("--version", type=VERSION, metavar="N", required=True, help="Version of the event, from 0.")
@LINEARIZABLE
def snapshot(*, version: int, linearizable: bool) -> None:
    """Show the server's snapshot of a past version.

    It is the server's own word, so it proves nothing against the server. Only snapshots that you kept yourself, or have
    from someone you trust, can expose a server that lies.
    """
    session = current_session()
    with connect(session.settings) as client:
        found = client.snapshot(version, consistency=consistency(is_linearizable=linearizable))
    _show(session, "Retrieved snapshot with values:", found)
    session.terminal.records([found.to_json()])


def _show(session: Session, title: str, shown: Snapshot) -> None:
    fields = [
        ("EventDigest", shown.event_digest.hex()),
        ("HistoryDigest", shown.history_digest.hex()),
        ("HyperDigest", shown.hyper_digest.hex()),
        ("Version", shown.version),
    ]
    session.terminal.fields(title, fields)
