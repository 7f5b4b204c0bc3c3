"""The outcome of a verification with a policy: fields and a verdict for people, a record for programs."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from qed.cli.answers import show_answer
from qed.errors import CheckpointFork, ForkDetected, Inconclusive, StaleAnswer, VerificationError
from qed.memory import Known
from qed.signed import SignedBundle, SignedReceipt
from qed.verification import Absent, Extends, Present

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qed.cli.terminal import Terminal
    from qed.policy import Verified
    from qed.proofs import Snapshot
    from qed.signed import Checkpoint, Signed

__all__ = ["kind_of", "print_published", "print_unconvincing", "print_verified"]

# More would fill the screen; `--json` has all of them.
_EVENTS_SHOWN: Final = 8
# Years from 1970 to 9999, which is all that has a date.
_TIME_MAX: Final = 253_402_300_799


def kind_of(signed: Signed) -> str:
    """Return what a signed file is."""
    if isinstance(signed, SignedReceipt):
        return "receipt"
    return "bundle" if isinstance(signed, SignedBundle) else "proof"


def print_verified(terminal: Terminal, signed: Signed, verified: Verified, *, newest: Checkpoint | None = None) -> None:
    """Print what a signed file shows, and that it meets the policy.

    Args:
        terminal: Where to print.
        signed: The file.
        verified: What it shows.
        newest: The checkpoint that it was linked to, or None.
    """
    if isinstance(signed, SignedBundle) and signed.answer is not None:
        show_answer(terminal, signed.answer)
    terminal.fields(f"Verified {kind_of(signed)}:", _fields(signed, verified, newest))
    terminal.verdict("OK", _found(signed, verified))
    terminal.records([_answer(signed) | {"Kind": kind_of(signed), "Verify": "OK"} | _record(verified, newest)])
    for warning in _warnings(verified.checkpoint):
        terminal.note(warning)


def print_published(terminal: Terminal, snapshot: Snapshot, newest: Checkpoint) -> None:
    """Print that a receipt that nobody has signed is in what the log has published.

    Args:
        terminal: Where to print.
        snapshot: The receipt.
        newest: The checkpoint that the log has published.
    """
    fields = [("Version", snapshot.version), ("EventDigest", snapshot.event_digest.hex()), ("Log", newest.origin)]
    terminal.fields("Verified receipt without a signature:", [*fields, ("LinkedTo", _linked(newest))])
    terminal.verdict("OK", "")
    record: dict[str, object] = {"Kind": "snapshot", "Verify": "OK", "Log": newest.origin, "LinkedTo": newest.size}
    terminal.records([record | {"Snapshots": [msgspec.Raw(snapshot.to_json())]}])


def print_unconvincing(terminal: Terminal, signed: Signed | None, error: VerificationError) -> None:
    """Print that a signed file does not meet the policy.

    Args:
        terminal: Where to print.
        signed: The file, or None if it is not one.
        error: The reason.
    """
    if isinstance(error, Inconclusive):
        word = "Inconclusive"
        terminal.verdict(word.upper())
    else:
        is_fork = isinstance(error, ForkDetected | CheckpointFork)
        word = "FORK" if is_fork else "STALE" if isinstance(error, StaleAnswer) else "KO"
        terminal.verdict(word)
    record: dict[str, object] = {} if signed is None else {"Kind": kind_of(signed)}
    terminal.records([record | {"Verify": word, "Reason": str(error)}])


def _found(signed: Signed, verified: Verified) -> str:
    """Return what a bundle has shown, with the version that it is about. Other files list their versions."""
    finding = verified.finding
    if isinstance(finding, Absent):
        return f"absent as of version {finding.as_of}"
    if isinstance(finding, Present):
        return f"in the log at version {finding.version}, as of version {finding.as_of}"
    if isinstance(finding, Extends):
        return f"version {finding.end} extends version {finding.start}"
    return f"in the log at version {verified.shown.events[0][0]}" if isinstance(signed, SignedBundle) else ""


def _fields(signed: Signed, verified: Verified, newest: Checkpoint | None) -> Iterator[tuple[str, object]]:
    shown, checkpoint = verified.shown, verified.checkpoint
    for version, digest in shown.events[:_EVENTS_SHOWN]:
        yield "Version", version
        yield "EventDigest", digest.hex()
    if len(shown.events) > _EVENTS_SHOWN:
        yield "Events", f"{len(shown.events)}, up to version {shown.events[-1][0]}"
    for snapshot in shown.snapshots if isinstance(signed, SignedReceipt) else ():
        yield "BatchEnd", f"{snapshot.version}{', as the log claims' if shown.is_end_claimed else ''}"
        yield "HistoryDigest", snapshot.history_digest.hex()
        yield "HyperDigest", snapshot.hyper_digest.hex()
    yield "Log", checkpoint.origin
    yield "Size", checkpoint.size
    yield "Root", checkpoint.root.hex()
    yield "Level", verified.level.value
    if checkpoint.existed_at is not None and checkpoint.confirmed_at is not None:
        yield "Witnesses", ", ".join(checkpoint.witnesses)
        yield "ExistedAt", _date(checkpoint.existed_at)
        yield "ConfirmedAt", _date(checkpoint.confirmed_at)
    if newest is not None:
        yield "LinkedTo", _linked(newest)
    if verified.recollection is not None:
        yield "Seen", _seen(verified, is_linked=newest is not None)


def _linked(newest: Checkpoint) -> str:
    return f"size {newest.size}, the newest that is published"


def _seen(verified: Verified, *, is_linked: bool) -> str:
    recollection = verified.recollection
    if recollection is None or recollection.known is Known.FIRST:
        return "the first checkpoint of this log"
    if recollection.known is Known.SAME:
        return "this checkpoint"
    link = "and linked to it" if is_linked else "and not linked to it"
    return f"{recollection.known.value} than the known size {recollection.size}, {link}"


def _record(verified: Verified, newest: Checkpoint | None) -> dict[str, object]:
    shown, checkpoint = verified.shown, verified.checkpoint
    return {
        "Level": verified.level.value,
        "Log": checkpoint.origin,
        "Size": checkpoint.size,
        "Root": _base64(bytes(checkpoint.root)),
        "Witnesses": checkpoint.witnesses,
        "ExistedAt": checkpoint.existed_at,
        "ConfirmedAt": checkpoint.confirmed_at,
        "Events": [{"Version": version, "EventDigest": _base64(bytes(digest))} for version, digest in shown.events],
        "Snapshots": [msgspec.Raw(snapshot.to_json()) for snapshot in shown.snapshots],
        "BatchEnd": shown.batch_end,
        "BatchEndClaimed": shown.is_end_claimed,
        "Seen": None if verified.recollection is None else verified.recollection.known.value,
        "LinkedTo": None if newest is None else newest.size,
    }


def _answer(signed: Signed) -> dict[str, object]:
    if not isinstance(signed, SignedBundle) or signed.answer is None:
        return {}
    answer: Mapping[str, object] = msgspec.json.decode(signed.answer.to_json(), type=dict)
    return dict(answer)


def _warnings(checkpoint: Checkpoint) -> Iterator[str]:
    if checkpoint.has_unsigned_extensions:
        yield "warning: the checkpoint has extension lines that its log has not signed: do not rely on them"


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ") if seconds <= _TIME_MAX else str(seconds)


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
