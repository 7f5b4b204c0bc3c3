"""Where trusted roots come from. A root is always a digest together with its version; neither comes from the answer.

`Trusted` is what `qed.verify` asks. `TrustedSnapshots` and `TrustedRoots` are for values a program holds,
`qed.Receipts` for a file of one's own snapshots, `Linked` for a newer snapshot that a proof ties to what is trusted.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final, Never, Protocol, TypeVar

from qed import _qed
from qed.errors import ForkDetected, NotTrusted
from qed.proofs import Digest, HistoryRoot, HyperRoot, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from qed.proofs import IncrementalProof

_Root = TypeVar("_Root", HistoryRoot, HyperRoot)

__all__ = ["Linked", "Trusted", "TrustedBy", "TrustedRoots", "TrustedSnapshots"]


class TrustedBy(StrEnum):
    """The source of the trusted roots that an answer was checked against."""

    RECEIPTS = "receipts"
    """The caller's own receipts."""
    SNAPSHOTS = "snapshots"
    """Snapshots that the caller holds."""
    DIGESTS = "digests"
    """Roots that the caller has given one by one."""
    SERVER = "server"
    """Snapshots from the answering server: they show only that the server is consistent."""
    BUNDLE = "bundle"
    """The snapshots in the bundle itself: they show only that the bundle is consistent."""
    WITNESSES = "witnesses"
    """Roots in a checkpoint that witnesses have cosigned, enough for the caller's policy."""
    LOG = "log"
    """Roots in a checkpoint that only the log has signed: it is held to them, but may give others different ones."""

    @property
    def is_independent(self) -> bool:
        """Whether the roots come from anywhere but the source of the answer."""
        return self not in {TrustedBy.SERVER, TrustedBy.BUNDLE, TrustedBy.LOG}


class Trusted(Protocol):
    """The roots of one log that a verifier trusts."""

    @property
    def by(self) -> TrustedBy:
        """On whose word."""
        ...

    @property
    def anchor(self) -> Snapshot | None:
        """The newest trusted snapshot, or None. An answer of a log that ends before it is stale."""
        ...

    def history_root(self, version: int) -> HistoryRoot:
        """Return the trusted history root of a version.

        Args:
            version: The version.

        Returns:
            The root.

        Raises:
            NotTrusted: No root of this version is trusted.
        """
        ...

    def hyper_root(self, version: int) -> HyperRoot:
        """Return the trusted hyper root of a version.

        Args:
            version: The version.

        Returns:
            The root.

        Raises:
            NotTrusted: No root of this version is trusted.
        """
        ...

    def is_linked(self, version: int) -> bool:
        """Return whether the hyper root of a version rests on more than the word of the server that answered.

        Args:
            version: A version of which `hyper_root` returns a root.

        Returns:
            False if the root came with an answer, and only the history root of its version was tied to a trusted one.
        """
        ...

    def occurrences_of(self, digest: Digest) -> Sequence[int]:
        """Return the versions at which an event is known to be in the log.

        Args:
            digest: Digest of the event.

        Returns:
            The versions of the trusted snapshots of this event, in ascending order.
        """
        ...

    def batch_start(self, version: int) -> int:
        """Return the first version that may have been committed together with a trusted one.

        Of equal events in one commit batch, the hyper tree shows the first, whoever added it.

        Args:
            version: Version of a trusted snapshot.

        Returns:
            The version after the newest trusted one before it that has another hyper digest; 0 if there is none.
        """
        ...


class _Snapshots(dict[int, Snapshot]):
    """Snapshots by their versions."""

    def __missing__(self, version: int) -> Never:
        raise NotTrusted(version)


class TrustedSnapshots:
    """Snapshots that the caller holds and knows to be of one log: nothing here can tell. `Receipts` have it proven.

    Args:
        snapshots: The snapshots, in any order.
        by: On whose word they are trusted.

    Attributes:
        by: On whose word they are trusted.
        anchor: The newest snapshot, or None if there are none.

    Raises:
        ForkDetected: Two of them have one version and are not equal.
    """

    def __init__(self, *snapshots: Snapshot, by: TrustedBy = TrustedBy.SNAPSHOTS) -> None:
        self.by: Final = by
        self._snapshots = _Snapshots()
        for snapshot in snapshots:
            known = self._snapshots.setdefault(snapshot.version, snapshot)
            if known != snapshot:
                raise ForkDetected(known, snapshot)
        self.anchor: Final = self._snapshots[max(self._snapshots)] if self._snapshots else None
        self._occurrences: dict[Digest, list[int]] = {}
        for version in sorted(self._snapshots):
            self._occurrences.setdefault(self._snapshots[version].event_digest, []).append(version)

    def history_root(self, version: int) -> HistoryRoot:
        """Return the history root of the snapshot of a version.

        Args:
            version: The version.

        Returns:
            The root.

        Raises:
            NotTrusted: There is no such snapshot.
        """
        return self._snapshots[version].history_root()

    def hyper_root(self, version: int) -> HyperRoot:
        """Return the hyper root of the snapshot of a version.

        Args:
            version: The version.

        Returns:
            The root.

        Raises:
            NotTrusted: There is no such snapshot.
        """
        return self._snapshots[version].hyper_root()

    def is_linked(self, version: int) -> bool:
        """Return True: the caller vouches for both roots.

        Args:
            version: Any version.

        Returns:
            True.
        """
        del version
        return True

    def occurrences_of(self, digest: Digest) -> Sequence[int]:
        """Return the versions at which an event is known to be in the log.

        Args:
            digest: Digest of the event.

        Returns:
            As `Trusted.occurrences_of`.
        """
        return self._occurrences.get(digest, ())

    def batch_start(self, version: int) -> int:
        """Return the first version that may have been committed together with a trusted one.

        Args:
            version: Version of a trusted snapshot.

        Returns:
            As `Trusted.batch_start`.
        """
        earlier = sorted((known for known in self._snapshots if known < version), reverse=True)
        return batch_start(self._snapshots[version], (self._snapshots[known] for known in earlier))


class TrustedRoots:
    """Roots that the caller gives one by one. They bound nothing: an answer is checked at exactly these versions.

    Args:
        roots: History and hyper roots, in any order.

    Attributes:
        by: On whose word: the caller's.
        anchor: None: roots without an event are no snapshot. The exact match of versions takes its place.

    Raises:
        ValueError: Two roots of one kind have one version and are not equal.
    """

    by: Final = TrustedBy.DIGESTS
    anchor: Final = None

    def __init__(self, *roots: HistoryRoot | HyperRoot) -> None:
        self._history: dict[int, HistoryRoot] = {}
        self._hyper: dict[int, HyperRoot] = {}
        for root in roots:
            if isinstance(root, HistoryRoot):
                known: HistoryRoot | HyperRoot = self._history.setdefault(root.version, root)
            else:
                known = self._hyper.setdefault(root.version, root)
            if known != root:
                # Using only one of them would ignore a root that the caller trusts.
                found = f"{known.digest.hex()} and {root.digest.hex()}"
                raise ValueError(f"expected one root of version {root.version}, found {found}")

    def history_root(self, version: int) -> HistoryRoot:
        """Return the history root that was given for a version.

        Args:
            version: The version.

        Returns:
            The root.

        Raises:
            NotTrusted: None was given.
        """
        return _given(self._history, version, "history digest")

    def hyper_root(self, version: int) -> HyperRoot:
        """Return the hyper root that was given for a version.

        Args:
            version: The version.

        Returns:
            The root.

        Raises:
            NotTrusted: None was given.
        """
        return _given(self._hyper, version, "hyper digest")

    def is_linked(self, version: int) -> bool:
        """Return True: the caller vouches for each root.

        Args:
            version: Any version.

        Returns:
            True.
        """
        del version
        return True

    def occurrences_of(self, digest: Digest) -> Sequence[int]:
        """Return nothing: roots state nothing about single events.

        Args:
            digest: Digest of any event.
        """
        del digest
        return ()

    def batch_start(self, version: int) -> int:
        """Return 0: roots do not tell what was committed together.

        Args:
            version: Any version.
        """
        del version
        return 0


class Linked:
    """What is trusted, and one more snapshot whose history root an incremental proof ties to the anchor.

    Only the history root is tied: the hyper root of the snapshot stays the word of the server it came from.

    Args:
        trusted: What is trusted already; it must have an anchor.
        snapshot: The snapshot, older or newer than the anchor.
        proof: The incremental proof between the versions of the two, whichever comes first.

    Raises:
        VerificationError: The proof does not tie the snapshot to the anchor, or shows another event.
        NotTrusted: There is no anchor.
    """

    def __init__(self, trusted: Trusted, snapshot: Snapshot, proof: IncrementalProof) -> None:
        if trusted.anchor is None:
            raise NotTrusted(snapshot.version)
        _qed.verify_addition(proof, trusted=trusted.anchor.history_root(), added=snapshot)
        self._trusted = trusted
        self._snapshot = snapshot

    @property
    def by(self) -> TrustedBy:
        """On whose word: that of what was trusted before."""
        return self._trusted.by

    @property
    def anchor(self) -> Snapshot | None:
        """The anchor of what was trusted before."""
        return self._trusted.anchor

    def history_root(self, version: int) -> HistoryRoot:
        """Return the history root of the linked snapshot, or one that was trusted before.

        Args:
            version: The version.

        Returns:
            The root.
        """
        if version == self._snapshot.version:
            return self._snapshot.history_root()
        return self._trusted.history_root(version)

    def hyper_root(self, version: int) -> HyperRoot:
        """Return the hyper root of the linked snapshot, or one that was trusted before.

        Args:
            version: The version.

        Returns:
            The root.
        """
        if version == self._snapshot.version:
            return self._snapshot.hyper_root()
        return self._trusted.hyper_root(version)

    def is_linked(self, version: int) -> bool:
        """Return whether a hyper root is not the linked snapshot's.

        Args:
            version: The version.

        Returns:
            False for the linked snapshot.
        """
        return version != self._snapshot.version and self._trusted.is_linked(version)

    def occurrences_of(self, digest: Digest) -> Sequence[int]:
        """Return the versions at which an event is known to be in the log.

        Args:
            digest: Digest of the event.

        Returns:
            As before the link: what only the server says states nothing.
        """
        return self._trusted.occurrences_of(digest)

    def batch_start(self, version: int) -> int:
        """Return the first version that may have been committed together with a trusted one.

        Args:
            version: Version of a trusted snapshot.

        Returns:
            As before the link.
        """
        return self._trusted.batch_start(version)


def batch_start(snapshot: Snapshot, earlier: Iterable[Snapshot]) -> int:
    """Return the first version that may have been committed together with a trusted one.

    Args:
        snapshot: The trusted snapshot.
        earlier: The trusted snapshots of lower versions, newest first.

    Returns:
        As `Trusted.batch_start`.
    """
    # One commit batch has one hyper digest.
    return next((known.version + 1 for known in earlier if known.hyper_digest != snapshot.hyper_digest), 0)


def _given(roots: Mapping[int, _Root], version: int, what: str) -> _Root:
    found = roots.get(version)
    if found is None:
        given = ", ".join(map(str, sorted(roots))) or "none"
        raise NotTrusted(version, f"the answer needs the {what} of version {version}, found {given}")
    return found
