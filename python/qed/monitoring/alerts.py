"""Alerts: what a monitor tells, once and then from time to time, and which of them nobody has got yet."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import msgspec

from qed.monitoring.findings import Kind, Severity  # noqa: TC001  # msgspec reads the annotations

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qed.monitoring.findings import Finding

__all__ = ["EVIDENCE_INLINE_BYTES", "Alert", "Pending", "alert_id", "alert_of", "pending_of"]

EVIDENCE_INLINE_BYTES: Final = 64 * 1024
"""Evidence up to this length is in the alert itself; of longer evidence, only the path of its file."""
_ID_DIGITS: Final = 32
_BACKOFF_MAX_S: Final = 3600
_GIVE_UP_S: Final = 3 * 24 * 3600


class Alert(msgspec.Struct, rename="pascal", frozen=True, kw_only=True):
    """Something that a monitor tells (FORMATS.md, "Alerts").

    Attributes:
        format: `qed-alert-1`.
        id: The same for the same finding.
        kind: What is wrong.
        severity: How bad it is.
        origin: The name of the log.
        at: When it was found, in seconds since 1970.
        text: What was expected and what was found.
        evidence: What proves it: the evidence itself, or the path of its file, or None.
        first: Whether it was not told before.
    """

    format: str = "qed-alert-1"
    id: str
    kind: Kind
    severity: Severity
    origin: str
    at: int
    text: str
    evidence: object = None
    first: bool = True


class Pending(msgspec.Struct, rename="pascal", kw_only=True):
    """An alert that a sink has not taken yet.

    Attributes:
        alert: The alert.
        sink: The name of the sink.
        since: When it was put here, in seconds since 1970.
        next_at: When to try next.
        tries: How often it was tried.
        has_failed: Whether nothing is tried any more.
    """

    alert: Alert
    sink: str
    since: int
    next_at: int = 0
    tries: int = 0
    has_failed: bool = False

    def is_due(self, now: int) -> bool:
        """Return whether to try again. No wait is longer than an hour: beyond that, the clock was ahead."""
        return not now < self.next_at <= now + _BACKOFF_MAX_S

    def note_failure(self, now: int) -> None:
        """Set when to try again: after 1 s, 2 s, and so on up to an hour, for three days."""
        self.next_at = now + min(1 << min(self.tries, 20), _BACKOFF_MAX_S)
        self.tries += 1
        self.has_failed = now - self.since >= _GIVE_UP_S


def alert_id(kind: Kind, origin: str, about: str) -> str:
    """Return what identifies a finding: the same finding has the same id."""
    return hashlib.sha256(f"{kind}\n{origin}\n{about}".encode()).hexdigest()[:_ID_DIGITS]


def alert_of(finding: Finding, origin: str, *, at: int, path: str | None, is_first: bool) -> Alert:
    """Return the alert for a finding.

    Args:
        finding: What was found.
        origin: The name of the log.
        at: When, in seconds since 1970.
        path: The file of the evidence, or None if there is none.
        is_first: Whether it was not told before.

    Returns:
        The alert.
    """
    evidence: object = path
    if finding.evidence is not None:
        content = finding.evidence.to_json()
        if len(content) <= EVIDENCE_INLINE_BYTES:
            evidence = msgspec.json.decode(content)
    return Alert(
        id=alert_id(finding.kind, origin, finding.about),
        kind=finding.kind,
        severity=finding.kind.severity,
        origin=origin,
        at=at,
        text=finding.text,
        evidence=evidence,
        first=is_first,
    )


def pending_of(alert: Alert, sinks: Iterable[str]) -> list[Pending]:
    """Return what is left to do for an alert."""
    return [Pending(alert=alert, sink=sink, since=alert.at) for sink in sinks]
