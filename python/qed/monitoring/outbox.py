"""What is told, when, and to whom: findings become alerts, and alerts are tried until a sink takes them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from qed.evidence import save_evidence
from qed.monitoring.alerts import alert_id, alert_of, pending_of
from qed.monitoring.findings import Finding, Kind
from qed.monitoring.sinks import Undelivered
from qed.monitoring.state import Trouble

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from qed.monitoring.alerts import Alert
    from qed.monitoring.sinks import Sink
    from qed.monitoring.state import State

__all__ = ["Outbox"]

_log = logging.getLogger(__name__)


class Outbox:
    """The alerts of a state.

    Args:
        state: Where they are kept. The caller saves it.
        sinks: Where they go, by name.
        folder: Where evidence is saved.
        repeat_s: After how long the same finding is told again, in seconds.
        grace_s: How long something that may pass is not told, in seconds.
    """

    def __init__(
        self, state: State, sinks: Mapping[str, Sink], folder: Path, *, repeat_s: float, grace_s: float
    ) -> None:
        self._state: Final = state
        self._sinks: Final = sinks
        self._folder: Final = folder
        self._repeat_s: Final = repeat_s
        self._grace_s: Final = grace_s
        self.alerts: Final[list[Alert]] = []
        """The alerts that were put in."""

    def tell(self, finding: Finding, *, now: int) -> None:
        """Put a finding into the outbox, unless it was told lately or was acknowledged.

        Args:
            finding: The finding. Its evidence is saved.
            now: The current time in seconds since 1970.

        Raises:
            OSError: The evidence cannot be saved.
        """
        state = self._state
        found = alert_id(finding.kind, state.origin, finding.about)
        told = state.told.get(found)
        # After a time that is still to come, the clock was ahead: once too often is better than much too late.
        if found in state.suppressed or (told is not None and 0 <= now - told < self._repeat_s):
            return
        path = None if finding.evidence is None else save_evidence(finding.evidence, self._folder)
        alert = alert_of(finding, state.origin, at=now, path=None if path is None else str(path), is_first=told is None)
        state.told[found] = now
        self.alerts.append(alert)
        state.outbox += pending_of(alert, self._sinks)

    def follow(self, passing: Iterable[Finding], *, now: int) -> None:
        """Compare what may pass with what was there before: tell it after the grace, and tell when it is over.

        Args:
            passing: All that is the matter at present and may pass.
            now: The current time in seconds since 1970.
        """
        state, present = self._state, set()
        for finding in passing:
            found = alert_id(finding.kind, state.origin, finding.about)
            present.add(found)
            trouble = state.troubles.setdefault(found, Trouble(kind=finding.kind, text=finding.text, since=now))
            trouble.since = min(trouble.since, now)
            # Missing cosignatures say something about the log at once. That a server is away often means nothing.
            is_late = now - trouble.since >= self._grace_s
            if is_late or finding.kind in {Kind.STALE, Kind.UNWITNESSED}:
                trouble.is_told = True
                self.tell(finding, now=now)
        for found in [each for each in state.troubles if each not in present]:
            trouble = state.troubles.pop(found)
            if trouble.is_told:
                state.told.pop(found, None)
                text = f"no longer {trouble.kind}: {trouble.text}"
                self.tell(Finding(Kind.RECOVERED, text, about=f"{found} {trouble.since}"), now=now)

    def deliver(self, *, now: int, is_all: bool) -> None:
        """Give alerts to the sinks that have not taken them yet.

        Args:
            now: The current time in seconds since 1970.
            is_all: Whether to try also those whose time has not come.
        """
        left = []
        for pending in self._state.outbox:
            sink = self._sinks.get(pending.sink)
            if sink is None:
                continue
            if pending.has_failed or not (is_all or pending.is_due(now)):
                left.append(pending)
                continue
            try:
                sink.deliver(pending.alert, now=now)
            except Undelivered as exc:
                pending.note_failure(now)
                left.append(pending)
                _log.warning(
                    "undelivered alert id=%s sink=%s tries=%d: %s", pending.alert.id, pending.sink, pending.tries, exc
                )
        self._state.outbox = left
