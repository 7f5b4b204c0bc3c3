"""Show answers: their fields, and their audit paths as a tree. Nothing is checked here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from qed.proofs import AbsenceProof, IncrementalProof

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qed.cli.terminal import Terminal
    from qed.proofs import Digest
    from qed.questions import Answer

__all__ = ["print_record", "show_answer", "show_paths"]

_SHORT_DIGITS: Final = 16
_KEY_BITS: Final = 256


def show_answer(terminal: Terminal, answer: Answer) -> None:
    """Show the claim of an answer, for people.

    Args:
        terminal: Where to print.
        answer: The server's answer; nothing is checked here.
    """
    if isinstance(answer, IncrementalProof):
        terminal.fields("Received incremental proof:", [("Start version", answer.start), ("End version", answer.end)])
        return
    fields: list[tuple[str, object]] = [
        ("Exists", not isinstance(answer, AbsenceProof)),
        ("CurrentVersion", answer.current_version),
        ("QueryVersion", answer.query_version),
    ]
    if not isinstance(answer, AbsenceProof):
        fields.append(("ActualVersion", answer.actual_version))
        if answer.latest_version != answer.actual_version:
            fields.append(("LatestVersion", answer.latest_version))
    title = "Received absence proof:" if isinstance(answer, AbsenceProof) else "Received membership proof:"
    terminal.fields(title, [*fields, ("KeyDigest", answer.key_digest.hex())])


def print_record(terminal: Terminal, answer: Answer | None, verdict: dict[str, object]) -> None:
    """Print an answer in its wire form with further fields, for programs.

    Args:
        terminal: Where to print.
        answer: The server's answer, or None.
        verdict: The further fields.
    """
    record: dict[str, object] = {} if answer is None else msgspec.json.decode(answer.to_json(), type=dict)
    terminal.records([record | verdict])


def show_paths(terminal: Terminal, answer: Answer) -> None:
    """Draw the audit paths of an answer as a tree, for people: one line per sibling, from the root down.

    Args:
        terminal: Where to print.
        answer: The server's answer; nothing is checked here.
    """
    if isinstance(answer, IncrementalProof):
        title = f"Incremental proof from version {answer.start} to version {answer.end}"
        branch = f"Audit path in the history tree at version {answer.end}: {len(answer.audit_path)} nodes"
        terminal.tree(title, [(branch, _history_rows(answer.audit_path))])
        return
    depth = len(answer.hyper_path)
    ending = f"{depth} siblings, ends at height {_KEY_BITS - depth}"
    branches = [(f"Hyper path at version {answer.current_version}: {ending}", _hyper_rows(answer.hyper_path))]
    if isinstance(answer, AbsenceProof):
        title = f"Absence of {_short(answer.key_digest)}"
        if answer.neighbour is not None:
            neighbour = answer.neighbour
            place = f"History path of the neighbour {_short(neighbour.key_digest)}, version {neighbour.version}"
            branches.append((place, _history_rows(neighbour.history_path)))
    else:
        title = f"Membership of {_short(answer.key_digest)}"
        place = f"History path from version {answer.query_version} to leaf {answer.actual_version}"
        branches.append((f"{place}: {len(answer.history_path)} siblings", _history_rows(answer.history_path)))
        if answer.latest_path is not None:
            place = f"History path from version {answer.current_version} to the later leaf {answer.latest_version}"
            branches.append((f"{place}: {len(answer.latest_path)} siblings", _history_rows(answer.latest_path)))
    terminal.tree(title, branches)


def _short(digest: Digest) -> str:
    return f"{digest.hex()[:_SHORT_DIGITS]}.."


def _hyper_rows(path: Sequence[tuple[str, Digest]]) -> list[str]:
    """Return one row per sibling: its height, the bits of its prefix that can be set, its side, its digest."""
    rows = []
    for position, digest in path:
        prefix, _, height_text = position.partition("|")
        height = int(height_text)
        digits = -(-(_KEY_BITS - height) // 4)
        shown = prefix[: 2 + min(digits, _SHORT_DIGITS)] + (".." if digits > _SHORT_DIGITS else "")
        side = "right" if int(prefix, 16) >> height & 1 else "left"
        rows.append((height, f"{height:>3}  {shown:<20} {side:<5}  {_short(digest)}"))
    return [row for _, row in sorted(rows, reverse=True)]


def _history_rows(path: Sequence[tuple[str, Digest]]) -> list[str]:
    """Return one row per node: `index|height`, its side, its digest."""
    rows = []
    for position, digest in path:
        index, _, height = position.partition("|")
        side = "right" if int(index) >> int(height) & 1 else "left"
        rows.append((int(height), -int(index), f"{position:<24} {side:<5}  {_short(digest)}"))
    return [row for _, _, row in sorted(rows, reverse=True)]
