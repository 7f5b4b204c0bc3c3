"""Whether the server of a log answers as the entries that it publishes say."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from qed._qed import LogEntry
from qed.errors import AddedLater, UnknownVersion, VerificationError
from qed.monitoring.findings import Finding, Kind
from qed.monitoring.receipts import batch_end
from qed.proofs import AbsenceProof, Digest, MembershipProof
from qed.questions import Extension, Membership
from qed.trust import TrustedBy, TrustedSnapshots
from qed.verification import verify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qed._client.client import Client
    from qed.monitoring.published import PublishedTree
    from qed.proofs import Snapshot

__all__ = ["CrossCheck"]

_RANDOM: Final = random.SystemRandom()


class CrossCheck:
    """Compares the answers of a server with the entries of its tree, at random versions.

    Args:
        tree: The tree. It is not empty.
        client: Asks the server.

    Attributes:
        skipped: Number of answers that were about more than the tree has.
    """

    def __init__(self, tree: PublishedTree, client: Client) -> None:
        self._tree: Final = tree
        self._client: Final = client
        self.skipped = 0

    def run(self, samples: int) -> Finding | None:
        """Ask for some snapshots, and for a membership, an absence and an incremental proof.

        Args:
            samples: How many snapshots to ask for.

        Returns:
            What is wrong with the first answer that is, or None.

        Raises:
            DamagedFile: No source has the entries of the tree.
            Unavailable: The server, or no source, can be reached.
            ProtocolError: The server refuses the questions.
        """
        try:
            for _ in range(samples):
                self._snapshot(_RANDOM.randrange(self._tree.checkpoint.size))
            self._incremental()
            self._membership(LogEntry.parse(self._tree.entry(self._some_version())).event_digest)
            self._membership(Digest(_RANDOM.randbytes(32)))
        except UnknownVersion as exc:
            return self._finding(f"the server does not know what it has published: {exc}")
        except AddedLater as exc:
            # No question names a version, so no event is later than it.
            return self._finding(f"the server refuses to say whether an event is in the log: {exc}")
        except VerificationError as exc:
            return self._finding(f"the server answers otherwise than its entries say: {exc}")
        return None

    def _finding(self, text: str) -> Finding:
        return Finding(Kind.ANSWER_MISMATCH, text, about=f"{self._tree.checkpoint.root.hex()}")

    def _some_version(self) -> int:
        return _RANDOM.randrange(self._tree.checkpoint.size)

    def _snapshot(self, version: int) -> None:
        found = self._client.snapshot(version)
        entry = LogEntry.parse(self._tree.entry(version))
        end = self._end_of(version)
        wanted = (version, entry.event_digest, end.hyper_digest)
        if (found.version, found.event_digest, found.hyper_digest) != wanted:
            raise VerificationError(f"snapshot of version {version}", str(wanted), str(found))
        if end.version == version and found != end:
            raise VerificationError(f"snapshot of version {version}", str(end), str(found))

    def _incremental(self) -> None:
        first, second = sorted(self._end_of(self._some_version()).version for _ in range(2))
        answer = self._client.incremental(first, second)
        verify(Extension(first, second), answer, self._trusted(first, second))

    def _membership(self, digest: Digest) -> None:
        answer = self._client.membership(digest)
        if answer.current_version >= self._tree.checkpoint.size:
            self.skipped += 1
            return
        versions = {answer.current_version}
        if isinstance(answer, MembershipProof | AbsenceProof):
            versions.add(answer.query_version)
        verify(Membership(digest), answer, self._trusted(*versions))

    def _trusted(self, *versions: int) -> TrustedSnapshots:
        return TrustedSnapshots(*self._ends(versions), by=TrustedBy.LOG)

    def _ends(self, versions: tuple[int, ...]) -> Iterator[Snapshot]:
        for version in sorted(set(versions)):
            end = self._end_of(version)
            if end.version != version:
                raise VerificationError("version of an answer", "the end of a batch", str(version))
            yield end

    def _end_of(self, version: int) -> Snapshot:
        end = batch_end(self._tree, version).snapshot
        if end is None:
            raise VerificationError(f"expected the end of the batch of version {version}, found none")
        return end
