"""The faults that were done, and their effect on the cluster."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from campaign.faults import Fault
    from campaign.journal import Journal

__all__ = ["Summary"]


class Summary:
    """Counts, and the longest time without an acknowledged add in and after each fault."""

    def __init__(self, journal: Journal) -> None:
        self.proofs = 0
        self.audit_s = 0.0
        self._silences_s: dict[str, list[float]] = {}
        self.begin(journal)

    def begin(self, journal: Journal) -> None:
        """Count from now on, with the answers in a journal."""
        self.journal = journal
        self._started = time.monotonic()

    def note(self, faults: Sequence[Fault], start: float, end: float) -> None:
        """Record faults that were done together."""
        silence_s = self.journal.longest_silence_s(start, end)
        for fault in faults:
            # The effect of two faults together says nothing about either alone.
            self._silences_s.setdefault(fault.name, []).append(silence_s if len(faults) == 1 else -1)

    def progress(self, faults: Sequence[Fault], start: float) -> str:
        """Return a line about the last faults."""
        names = " + ".join(fault.name for fault in faults)
        silence_s = self.journal.longest_silence_s(start, time.monotonic())
        elapsed_s = time.monotonic() - self._started
        events = len(self.journal.acknowledged)
        counts = f"{events} events, {self.journal.reads} reads"
        return f"{elapsed_s:6.1f} s  {names}: {silence_s:.2f} s without an add; {counts}"

    def table(self) -> str:
        """Return everything as Markdown."""
        submissions = self.journal.submissions
        silence_s = self.journal.longest_silence_s(self._started, self.journal.last_acknowledgement)
        counts = {
            "adds acknowledged (bulks counted once)": sum(len(one.acknowledged) for one in submissions),
            "events acknowledged": len(self.journal.acknowledged),
            "tries refused": sum(one.refused for one in submissions),
            "adds given up after a refusal, proven absent": sum(
                1 for one in submissions if one.refused and not one.acknowledged and not one.unknown
            ),
            "tries of unknown outcome": sum(one.unknown for one in submissions),
            "reads verified under faults": self.journal.reads,
            "requests without the right credential, refused": self.journal.intrusions,
            "proofs verified in the audit": f"{self.proofs} in {self.audit_s:.0f} s",
            "longest time without an acknowledged add": f"{silence_s:.2f} s",
        }
        lines = ["| what | |", "|---|---|", *(f"| {what} | {value} |" for what, value in counts.items())]
        lines += ["", "| fault | times | longest time without an acknowledged add, alone |", "|---|---|---|"]
        for name, silences_s in sorted(self._silences_s.items()):
            alone = max(silences_s)
            lines.append(f"| {name} | {len(silences_s)} | {f'{alone:.2f} s' if alone >= 0 else ''} |")
        return "\n".join(lines)
