"""One campaign, from the first member to the audit."""

from __future__ import annotations

import itertools
import random
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

import click

from campaign.audit import audit
from campaign.complaints import complaints
from campaign.faults import FAULTS
from campaign.intruder import Intruder
from campaign.journal import Journal
from campaign.reader import Reader
from campaign.summary import Summary
from campaign.violation import Violation
from campaign.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from campaign.faults import Fault
    from campaign.setting import Setting

__all__ = ["Campaign"]

_READERS: Final = 3
_LONGEST_FAULT_S: Final = 4.0
_WHOLE_LIMIT_S: Final = 60.0
_PROGRESS_LIMIT_S: Final = 20.0


class Campaign:
    """A cluster, its clients, and faults for some minutes, or until each was done once if that takes longer."""

    def __init__(self, setting: Setting, minutes: float) -> None:
        self._setting = setting
        self._scene = setting.scene
        self._duration_s = minutes * 60
        self._chance = random.Random(f"{setting.seed}/campaign")  # noqa: S311  # repeatable
        self._possible = [fault for fault in FAULTS if fault.need not in setting.missing]
        self._longest_fault_s = min(_LONGEST_FAULT_S, self._duration_s / len(self._possible))
        self.journal = Journal()
        self.summary = Summary(self.journal)

    def run(self) -> None:
        """Run the campaign.

        Raises:
            Violation: A promise was broken.
        """
        self._scene.cluster.start()
        self._make_keys()
        self.journal = Journal()
        self.summary.begin(self.journal)
        try:
            with self._clients():
                self._do_faults()
            self._raise_blame()
            self._check_complaints()
            started = time.monotonic()
            self.summary.proofs = audit(self._scene.cluster, self.journal)
            self.summary.audit_s = time.monotonic() - started
        finally:
            self._check_running()
        for member in self._scene.cluster.members:
            member.stop()
        self._check_complaints()

    def _make_keys(self) -> None:
        members = self._scene.cluster.members
        self._setting.credentials.make_keys(members[0].url)
        for member in members:
            member.use_keys()
        self._scene.cluster.wait_whole()

    @contextmanager
    def _clients(self) -> Iterator[None]:
        cluster, journal, seed = self._scene.cluster, self.journal, self._setting.seed
        kinds = itertools.product((False, False, True), (False, True))
        clients: list[Writer | Reader | Intruder] = [
            Writer(f"{seed}/writer{number}", cluster, journal, is_bulk=is_bulk, is_if_absent=is_if_absent)
            for number, (is_bulk, is_if_absent) in enumerate(kinds)
        ]
        clients += [Reader(f"{seed}/reader{number}", cluster, journal) for number in range(_READERS)]
        clients.append(Intruder(f"{seed}/intruder", cluster, journal, self._setting.credentials))
        threads = [threading.Thread(target=client.run, daemon=True) for client in clients]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            journal.stop()
            for thread in threads:
                thread.join()

    def _do_faults(self) -> None:
        deck: list[Fault] = []
        undone = set(self._possible)
        end = time.monotonic() + self._duration_s
        while (undone or time.monotonic() < end) and not self.journal.violations:
            faults = [self._deal(deck)]
            if not faults[0].is_alone and self._chance.random() < 0.2:
                second = self._deal(deck)
                if second.is_alone:
                    deck.append(second)
                else:
                    faults.append(second)
            self._do(faults)
            undone -= set(faults)
        self._recover()

    def _deal(self, deck: list[Fault]) -> Fault:
        """Return a fault; all are equally frequent."""
        if not deck:
            deck += self._chance.sample(self._possible, len(self._possible))
        return deck.pop()

    def _do(self, faults: list[Fault]) -> None:
        if faults[0].needs_whole:
            self._recover()
        started = time.monotonic()
        with ExitStack() as under_way:
            for fault in faults:
                under_way.enter_context(fault.begin(self._scene))
                self.journal.wait(self._chance.uniform(0.1, self._longest_fault_s))
        # A fault may also begin before the cluster has recovered from the last.
        if faults[0].needs_whole or self._chance.random() < 0.75:
            self._recover()
            self.journal.wait(self._chance.uniform(0, 1))
        self.summary.note(faults, started, time.monotonic())
        self._check_complaints()
        click.echo(self.summary.progress(faults, started))

    def _recover(self) -> None:
        """Wait until the cluster is whole and accepts adds again."""
        healed = time.monotonic()
        self._check_running()
        self._scene.cluster.wait_whole(limit_s=_WHOLE_LIMIT_S)
        while self.journal.last_acknowledgement < healed and not self.journal.violations:
            if time.monotonic() > healed + _PROGRESS_LIMIT_S:
                raise Violation(f"no add was acknowledged within {_PROGRESS_LIMIT_S:g} s after all faults")
            self.journal.wait(0.05)

    def _raise_blame(self) -> None:
        if self.journal.violations:
            raise self.journal.violations[0]

    def _check_running(self) -> None:
        for member in self._scene.cluster.members:
            member.check_running()

    def _check_complaints(self) -> None:
        if found := complaints(self._scene.cluster.members):
            raise Violation("\n".join(["members complain:", *found[:20]]))
