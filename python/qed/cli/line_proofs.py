"""Proofs about each line of a file: asked for a thousand at a time, verified as a whole, and shown as a summary."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final

import click

from qed._limits import BULK_KEYS_MAX
from qed._printable import beginning
from qed.cli.inputs import EVENT_BYTES_MAX, open_input, size_of
from qed.cli.verdicts import EXIT_INCONCLUSIVE
from qed.proofs import Digest
from qed.trust import TrustedBy
from qed.verification import Present

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from qed.cli.terminal import Terminal
    from qed.verification import Absent

__all__ = ["Summary", "prove_lines"]

_SHOWN_LINES: Final = 20
"""Absent lines that people see. A program gets all of them."""
_SHOWN_TEXT: Final = 60


@dataclass
class Summary:
    """What is known about the lines of a file.

    Attributes:
        lines: How many were asked for.
        absent: Those that are not in the log: number, digest, and the beginning of the text.
        as_of: The version up to which all findings hold, which is the lowest; None before the first line.
        trusted_by: On whose word the roots are trusted, as in findings.
        doubt: Whose unproven word a finding relies on, or None.
    """

    lines: int = 0
    absent: list[tuple[int, Digest, str]] = field(default_factory=list)
    as_of: int | None = None
    trusted_by: str = ""
    doubt: str | None = None

    def add(self, text: str, found: Present | Absent) -> None:
        """Add the finding about the next line.

        Args:
            text: The beginning of the line.
            found: What was proven.
        """
        self.lines += 1
        self.as_of = found.as_of if self.as_of is None else min(self.as_of, found.as_of)
        self.trusted_by = found.trusted_by.value
        # What a policy accepts is no doubt, even if only the log has signed.
        if found.trusted_by is TrustedBy.SERVER:
            self.doubt = "nothing trusted"
        if isinstance(found, Present):
            return
        self.absent.append((self.lines, found.digest, text))
        if not found.is_linked and self.doubt is None:
            self.doubt = f"the hyper digest of version {found.as_of} is the server's word"

    def show(self, terminal: Terminal, *, is_word_asked: bool) -> None:
        """Print the summary and the verdict.

        Args:
            terminal: Where to print.
            is_word_asked: Whether the caller explicitly accepts the server's own word.

        Raises:
            click.exceptions.Exit: A finding rests on the server's own word, without that consent.
        """
        counts = [("Lines", self.lines), ("Present", self.lines - len(self.absent)), ("Absent", len(self.absent))]
        terminal.fields("Verified all lines:", [*counts, ("Version", self.as_of), ("TrustedBy", self.trusted_by)])
        if self.absent:
            shown = [f" line {number}: {text}" for number, _, text in self.absent[:_SHOWN_LINES]]
            more = len(self.absent) - len(shown)
            terminal.lines(["Not in the log:", "", *shown, *([f" and {more} more"] if more else [])])
        if self.doubt is None:
            terminal.verdict("OK")
        else:
            terminal.conclusion(f"Consistent ({self.doubt})")
        terminal.records([self._record()])
        if self.doubt is not None and not is_word_asked:
            raise click.exceptions.Exit(EXIT_INCONCLUSIVE)

    def _record(self) -> dict[str, object]:
        absent = [{"Line": number, "KeyDigest": b64encode(bytes(digest)).decode()} for number, digest, _ in self.absent]
        record: dict[str, object] = {
            "Lines": self.lines,
            "Present": self.lines - len(self.absent),
            "Absent": absent,
            "CurrentVersion": self.as_of,
            "Verify": "OK" if self.doubt is None else "Consistent",
            "TrustedBy": self.trusted_by,
        }
        return record if self.doubt is None else record | {"Reason": self.doubt}


def prove_lines(path: str, terminal: Terminal, prove: Callable[[list[Digest]], list[Present | Absent]]) -> Summary:
    r"""Ask about each line of a file. As in `qed add --lines`, only the `\n` at its end is not part of the event.

    Args:
        path: The file, or `-` for stdin.
        terminal: Shows the progress.
        prove: Asks about some events and verifies the answer.

    Returns:
        What is known about all lines.

    Raises:
        click.UsageError: There is no line, or one is longer than an event can be.
        OSError: The file cannot be read.
        QedError: As `prove` raises it.
    """
    summary = Summary()
    with open_input(path) as file, terminal.reading(size_of(file)) as advance:
        lines = _lines(file, advance)
        while bulk := list(islice(lines, BULK_KEYS_MAX)):
            found = prove([digest for digest, _ in bulk])
            for (_, text), finding in zip(bulk, found, strict=True):
                summary.add(text, finding)
    if summary.lines == 0:
        raise click.UsageError(f"{path}: expected at least one line, found none")
    return summary


def _lines(file: BinaryIO, advance: Callable[[int], None]) -> Iterator[tuple[Digest, str]]:
    """Yield the digest of each line, and the beginning of its text."""
    while line := file.readline(EVENT_BYTES_MAX + 2):
        event = line.removesuffix(b"\n")
        if len(event) > EVENT_BYTES_MAX:
            raise click.UsageError(f"expected lines of at most {EVENT_BYTES_MAX} bytes, found a longer one")
        advance(len(line))
        yield Digest.of(event), beginning(event[: 4 * _SHOWN_TEXT].decode(errors="replace"), _SHOWN_TEXT)
