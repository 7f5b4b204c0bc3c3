"""One round of a monitor: the newest checkpoints, whether they extend what was seen, and all that they stand for."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from qed._qed import LogEntry
from qed.errors import PolicyError, ProtocolError, ReceiptsError, Unavailable, VerificationError
from qed.monitoring.auditing import of_receipts, standing
from qed.monitoring.comparison import contradiction
from qed.monitoring.cross_check import CrossCheck
from qed.monitoring.findings import Finding, Kind
from qed.monitoring.published import BUNDLE_ENTRIES, PublishedTree
from qed.monitoring.receipts import ReceiptCheck
from qed.monitoring.replaying import replay
from qed.monitoring.sources import CHECKPOINT
from qed.policy import Level

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from qed._client.client import Client
    from qed._qed import EntryAudit
    from qed.monitoring.auditing import Receipts
    from qed.monitoring.copy import Copy
    from qed.monitoring.sources import Source
    from qed.policy import Policy
    from qed.proofs import Digest
    from qed.signed import Checkpoint

__all__ = ["Round", "Watch"]

_RANDOM: Final = random.SystemRandom()
_SAVE_S: Final = 5.0
"""How often the progress of a long replay is saved."""


@dataclass(frozen=True)
class Watch:
    """What a monitor watches, and how closely.

    Attributes:
        policy: Whom to trust.
        sources: Where the log is published.
        witnesses: Where witnesses publish what they have cosigned last.
        receipts: Reads what the log gave to clients.
        digests: Digests of events to look for.
        samples: How many random bundles to check in place of replaying all; None to replay all.
        client_of: Returns a client for a server of qed.
    """

    policy: Policy
    sources: Sequence[Source]
    witnesses: Sequence[Source]
    receipts: Callable[[], Receipts]
    digests: Sequence[Digest]
    samples: int | None
    client_of: Callable[[str], Client]


@dataclass
class Round:
    """One round. Its findings say what is wrong; what may pass is apart from them.

    Args:
        watch: What to watch.
        known: The newest checkpoint that was seen before, or None.
        entries: Where entries are replayed.
        copy: What was read before.
        now: The current time in seconds since 1970.
        progress: Called at times during a long replay.
        count: Called with the number of entries that were compared with the tree, step by step.

    Attributes:
        findings: What is wrong and will not pass by itself.
        passing: What may pass.
        heads: The newest checkpoint of each source that has one.
        newest: The newest checkpoint that extends `known`; `known` if there is none.
    """

    watch: Watch
    known: Checkpoint | None
    entries: EntryAudit
    copy: Copy
    now: int
    progress: Callable[[Checkpoint], None]
    count: Callable[[int], None]
    findings: list[Finding] = field(default_factory=list)
    passing: list[Finding] = field(default_factory=list)
    heads: dict[str, Checkpoint] = field(default_factory=dict)
    newest: Checkpoint | None = None
    _trees: dict[str, PublishedTree] = field(default_factory=dict)

    def run(self) -> None:
        """Do the round.

        Raises:
            PolicyError: In the first round, the sources are of different logs.
            LogFull: There is no room for so many events.
        """
        self.newest = self.known
        self._read_heads()
        if not self.heads:
            return
        try:
            self._follow()
        except VerificationError as exc:
            self.findings.append(Finding(Kind.DAMAGED, str(exc), about="tiles"))
        except (Unavailable, ProtocolError) as exc:
            self.passing.append(Finding(Kind.SOURCE_UNREACHABLE, str(exc), about="tiles"))

    def _read_heads(self) -> None:
        for source in self.watch.sources:
            try:
                source.probe()
                note = source.read(CHECKPOINT)
            except (Unavailable, ProtocolError) as exc:
                text = f"{source.name} gives no checkpoint: {exc}"
                self.passing.append(Finding(Kind.SOURCE_UNREACHABLE, text, about=source.name))
                continue
            except VerificationError as exc:
                self.findings.append(Finding(Kind.DAMAGED, f"{source.name}: {exc}", about=source.name))
                continue
            try:
                checkpoint = self.watch.policy.trust.endorse(note, now=self.now)
            except VerificationError as exc:
                text = f"the checkpoint of {source.name} does not verify: {exc}"
                self.findings.append(Finding(Kind.DAMAGED, text, about=source.name))
                continue
            if self._is_of_log(source, checkpoint):
                self.heads[source.name] = checkpoint

    def _is_of_log(self, source: Source, checkpoint: Checkpoint) -> bool:
        """Return whether a checkpoint is of the log that is watched. Another one must not end the watch."""
        others = [self.known, *self.heads.values()]
        origin = next((other.origin for other in others if other is not None), checkpoint.origin)
        if checkpoint.origin == origin:
            return True
        text = f"{source.name} is of {checkpoint.origin!r}, not of {origin!r}: a monitor watches one log"
        if self.known is None:
            raise PolicyError(text)
        self.findings.append(Finding(Kind.DAMAGED, text, about=source.name))
        return False

    def _follow(self) -> None:
        """Compare all checkpoints, then check what the newest stands for."""
        newest = max(self.heads.values(), key=lambda head: (head.size, head.is_witnessed))
        others = [self.known, *self.heads.values()] if self.known is not None else [*self.heads.values()]
        forks = [
            contradiction(other, newest, self._tree, now=self.now)
            for other in others
            if other is not None and other is not newest
        ]
        found = list(_once(forks))
        self.findings += found
        if found:
            return
        self._note_stale(newest)
        self.passing += standing(self.watch.policy, newest)
        is_better = self.known is None or newest.size >= self.known.size
        is_trusted = newest.is_witnessed or self.watch.policy.required is Level.SIGNED
        if is_better and is_trusted:
            self.newest = newest
            self.progress(newest)
        if self.newest is not None:
            self._check_tree(self.newest)

    def _note_stale(self, newest: Checkpoint) -> None:
        best = max(newest.size, 0 if self.known is None else self.known.size)
        for name, head in self.heads.items():
            if head.size < best:
                text = f"{name} has a checkpoint of size {head.size}; one of size {best} was seen"
                self.passing.append(Finding(Kind.STALE_SOURCE, text, about=name))

    def _check_tree(self, newest: Checkpoint) -> None:
        tree = self._tree(newest)
        wrong = self._replay(tree) if self.watch.samples is None else self._sample(tree, self.watch.samples)
        if wrong is not None:
            self.findings.append(wrong)
            return
        check = ReceiptCheck(tree, self.watch.policy.trust, now=self.now)
        try:
            self.findings += of_receipts(check, self.watch.receipts())
        except (ReceiptsError, OSError) as exc:
            # Somebody may be writing a file, and it must not end the watch.
            self.passing.append(Finding(Kind.SOURCE_UNREACHABLE, f"receipts cannot be read: {exc}", about="receipts"))
        if check.newer:
            text = f"{check.newer} receipts are about more than the {newest.size} entries that the log admits to"
            self.passing.append(Finding(Kind.ROLLBACK, text, about="receipts"))
        self.findings += self._cross_checks(tree)
        self.findings += self._of_witnesses(newest)
        self.findings += self._watched()

    def _replay(self, tree: PublishedTree) -> Finding | None:
        saved_s = time.monotonic()

        def advance(entries: int) -> None:
            nonlocal saved_s
            self.count(entries)
            if time.monotonic() - saved_s >= _SAVE_S:
                self.progress(tree.checkpoint)
                saved_s = time.monotonic()

        return replay(tree, self.entries, advance=advance, with_tiles=False)

    def _sample(self, tree: PublishedTree, samples: int) -> Finding | None:
        """Check random bundles: their entries are in the tree, and about the versions that are their indices."""
        for index in _RANDOM.sample(range(tree.bundles), min(samples, tree.bundles)):
            entries = tree.entries(index)
            self.count(len(entries))
            for place, entry in enumerate(entries):
                version = LogEntry.parse(entry).version
                if version != index * BUNDLE_ENTRIES + place:
                    text = f"entry {index * BUNDLE_ENTRIES + place} is about version {version}"
                    return Finding(Kind.INVALID_ENTRY, text, about=f"{tree.checkpoint.root.hex()} {index}")
        return None

    def _cross_checks(self, tree: PublishedTree) -> Iterator[Finding]:
        if not tree.checkpoint.size:
            return
        samples = 1 if self.watch.samples is None else self.watch.samples
        for source in self.watch.sources:
            # A server that lags behind does not have the tree yet.
            head = self.heads.get(source.name)
            if source.api is None or head is None or head.size < tree.checkpoint.size:
                continue
            try:
                with self.watch.client_of(source.api) as client:
                    found = CrossCheck(tree, client).run(samples)
            except (Unavailable, ProtocolError) as exc:
                # The tiles of a source that answers no questions are checked all the same, and so is all that follows.
                text = f"{source.api} answers no questions: {exc}"
                self.passing.append(Finding(Kind.SOURCE_UNREACHABLE, text, about=source.api))
                continue
            if found is not None:
                yield found

    def _of_witnesses(self, newest: Checkpoint) -> Iterator[Finding]:
        """Compare what witnesses have cosigned last with the log."""
        for source in self.watch.witnesses:
            try:
                head = self.watch.policy.trust.endorse(source.read(CHECKPOINT), now=self.now)
            except (Unavailable, ProtocolError, VerificationError) as exc:
                text = f"{source.name} gives no checkpoint that verifies: {exc}"
                self.passing.append(Finding(Kind.SOURCE_UNREACHABLE, text, about=source.name))
                continue
            if head.origin != newest.origin:
                text = f"{source.name} has a checkpoint of {head.origin!r}, not of {newest.origin!r}"
                self.passing.append(Finding(Kind.SOURCE_UNREACHABLE, text, about=source.name))
                continue
            if not head.witnesses:
                # Whoever has a receipt can show a checkpoint that only the log has signed.
                text = f"{source.name} shows a checkpoint that no witness of the policy has cosigned"
                self.passing.append(Finding(Kind.SOURCE_UNREACHABLE, text, about=source.name))
            if head.size > newest.size:
                if head.witnesses:
                    text = f"{source.name} has cosigned size {head.size}; the log admits to {newest.size} only"
                    self.passing.append(Finding(Kind.ROLLBACK, text, about=source.name))
                continue
            found = contradiction(newest, head, self._tree, now=self.now)
            if found is None:
                continue
            yield found
            if head.witnesses:
                text = f"{source.name} has cosigned another tree of size {head.size} than the log shows"
                yield Finding(Kind.WITNESS_DISAGREES, text, found.evidence, found.about)

    def _watched(self) -> Iterator[Finding]:
        for digest in self.watch.digests:
            version = self.entries.find(digest)
            if version is not None:
                text = f"event {digest.hex()} is in the log, at version {version}"
                yield Finding(Kind.WATCH_HIT, text, about=digest.hex())

    def _tree(self, checkpoint: Checkpoint) -> PublishedTree:
        key = _tree_key(checkpoint)
        if key not in self._trees:
            # A source that has this very checkpoint comes before those that may have another history.
            heads = self.heads
            own = [s for s in self.watch.sources if s.name in heads and _tree_key(heads[s.name]) == key]
            sources = [*own, *(source for source in self.watch.sources if source not in own)]
            is_published = any(head.size >= checkpoint.size for head in heads.values())
            self._trees[key] = PublishedTree(checkpoint, sources, copy=self.copy, is_published=is_published)
        return self._trees[key]


def _tree_key(checkpoint: Checkpoint) -> str:
    return f"{checkpoint.size} {checkpoint.root.hex()}"


def _once(findings: Sequence[Finding | None]) -> Iterator[Finding]:
    """Return each finding once: several sources may show the same fork."""
    seen: set[str] = set()
    for finding in findings:
        if finding is not None and finding.about not in seen:
            seen.add(finding.about)
            yield finding
