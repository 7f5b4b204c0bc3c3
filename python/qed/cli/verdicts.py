"""The outcome of a verification: one line for people, the fields of a record for programs, an exit code for scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from qed._files import PRIVATE, replace_file
from qed.cli.answers import print_record
from qed.errors import ForkDetected, StaleAnswer, VerificationError
from qed.proofs import IncrementalProof
from qed.questions import Membership
from qed.verification import Absent, Extends, Present

if TYPE_CHECKING:
    from pathlib import Path

    from qed.cli.terminal import Terminal
    from qed.questions import Answer, Question
    from qed.trust import Trusted
    from qed.verification import Finding

__all__ = ["EXIT_INCONCLUSIVE", "print_failure", "print_finding", "save_fork"]

EXIT_INCONCLUSIVE: Final = 5


def print_finding(
    terminal: Terminal, question: Question, answer: Answer, finding: Finding, trusted: Trusted, *, is_word_asked: bool
) -> None:
    """Print the roots that an answer was checked against, and the verdict.

    Args:
        terminal: Where to print.
        question: The question.
        answer: The server's answer.
        finding: What the answer proves.
        trusted: The roots that it was checked against.
        is_word_asked: Whether the caller explicitly accepts the server's or the bundle's own word.

    Raises:
        click.exceptions.Exit: The finding rests on the server's or the bundle's own word, without that consent.
    """
    title = "Verifying with snapshots:" if isinstance(answer, IncrementalProof) else "Verifying event with:"
    terminal.fields(title, _roots(question, answer, finding, trusted))
    doubt = _doubt(answer, finding)
    if doubt is None:
        terminal.verdict("OK")
    else:
        terminal.conclusion(f"Consistent ({doubt})")
    record: dict[str, object] = {
        "Verify": "OK" if doubt is None else "Consistent",
        "TrustedBy": finding.trusted_by.value,
    }
    print_record(terminal, answer, record if doubt is None else record | {"Reason": doubt})
    if doubt is not None and not is_word_asked:
        raise click.exceptions.Exit(EXIT_INCONCLUSIVE)


def print_failure(
    terminal: Terminal, error: VerificationError, answer: Answer | None, *, trusted: Trusted | None, folder: Path
) -> None:
    """Print that an answer failed its verification. Save both snapshots of a fork to a file.

    Args:
        terminal: Where to print.
        error: The reason.
        answer: The server's answer, or None if it sent no proof at all.
        trusted: The roots that it was checked against, or None.
        folder: Where to save the snapshots of a fork.
    """
    word = "FORK" if isinstance(error, ForkDetected) else "STALE" if isinstance(error, StaleAnswer) else "KO"
    terminal.verdict(word)
    record: dict[str, object] = {"Verify": word, "Reason": str(error)}
    if trusted is not None:
        record["TrustedBy"] = trusted.by.value
    if isinstance(error, ForkDetected):
        record["Fork"] = save_fork(error, folder)
    print_record(terminal, answer, record)


def _doubt(answer: Answer, finding: Finding) -> str | None:
    """Return whose unproven word a finding relies on, or None if it relies only on the caller's own roots."""
    if not finding.trusted_by.is_independent:
        return "nothing trusted"
    if isinstance(finding, Absent) and not finding.is_linked and not isinstance(answer, IncrementalProof):
        return f"the hyper digest of version {answer.current_version} is the server's word"
    return None


def _roots(question: Question, answer: Answer, finding: Finding, trusted: Trusted) -> list[tuple[str, object]]:
    if isinstance(finding, Extends) or isinstance(answer, IncrementalProof) or not isinstance(question, Membership):
        ends = (answer.start, answer.end) if isinstance(answer, IncrementalProof) else ()
        return [field for version in ends for field in _history_fields(trusted, version)]
    hyper = trusted.hyper_root(answer.current_version)
    fields: list[tuple[str, object]] = [("EventDigest", question.digest.hex()), ("HyperDigest", hyper.digest.hex())]
    if isinstance(finding, Present):
        history = trusted.history_root(answer.query_version)
        return [*fields, ("HistoryDigest", history.digest.hex()), ("Version", answer.query_version)]
    # An empty subtree needs no history root; only another key's leaf is proven in the history tree.
    if getattr(answer, "neighbour", None) is not None:
        fields.append(("HistoryDigest", trusted.history_root(answer.current_version).digest.hex()))
    return [*fields, ("Version", answer.current_version)]


def _history_fields(trusted: Trusted, version: int) -> list[tuple[str, object]]:
    return [("Version", version), ("HistoryDigest", trusted.history_root(version).digest.hex())]


def save_fork(fork: ForkDetected, folder: Path) -> str | None:
    """Save both snapshots of a fork, one per line, and add a note to the error.

    Args:
        fork: The fork.
        folder: Where to save them.

    Returns:
        The file's name, or None if it could not be written.
    """
    lines = fork.trusted.to_json() + b"\n" + fork.other.to_json() + b"\n"
    path = folder / f"fork-{fork.trusted.version}-{fork.other.history_digest.hex()[:8]}.jsonl"
    try:
        replace_file(path, lines, mode=PRIVATE)
    except OSError as exc:
        fork.add_note(f"the two snapshots could not be saved to {path}: {exc.strerror}")
        return None
    fork.add_note(f"both snapshots were saved to {path}")
    return str(path)
