"""The exceptions of qed, one tree for library, client and server.

::

    QedError
    ├─ VerificationError      the proof does not show what it claims
    │  ├─ MalformedProof      the bytes are not a proof at all
    │  ├─ StaleAnswer         the log that answered ends before what is known of it
    │  ├─ ContradictsReceipt  the answer denies what a trusted snapshot states
    │  ├─ ForkDetected        two snapshots of one version: two logs, or one that was rewritten
    │  └─ NotTrusted          no root is trusted of a version that the answer names
    ├─ ReceiptsError          a receipts file cannot be used as it is
    ├─ LogError               a log cannot do what was asked
    │  ├─ UnknownVersion      no such version, or a range upside down
    │  ├─ AddedLater          the event was first added after the asked version
    │  ├─ StoreLocked         another process holds the data folder
    │  ├─ CorruptLog          the data folder contradicts itself
    │  ├─ LogFull             there is no room for another event
    │  ├─ PageError           what another member sent does not continue this log
    │  ├─ UnsupportedFormat   the data folder was written by a newer qed
    │  └─ WriteRefused        a write or sync failed; the log takes no more
    ├─ ClusterError           a retry may help
    │  ├─ NotLeader           this member does not accept insertions
    │  ├─ OutcomeUnknown      leadership was lost with the insertion under way
    │  ├─ MembershipRefused   somebody cannot join or leave as asked
    │  ├─ Unavailable         no server answered in time
    │  └─ Overloaded          the queue of waiting insertions is full
    ├─ ProtocolError          a server answered with an error, or with nonsense
    │  └─ MalformedRequest    the server called the request malformed
    │     └─ DigestsRefused   the server accepts events only, and a digest was given
    └─ InternalError          a bug in qed

A server's settings raise `SettingsError`, which is a ValueError and stands in `qed.server.config`: no log is at fault.

Messages say what was wanted and what was found, in lower case, digests in hex.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qed._qed import Digest, Snapshot

__all__ = [
    "AddedLater",
    "ClusterError",
    "ContradictsReceipt",
    "CorruptLog",
    "DigestsRefused",
    "ForkDetected",
    "InternalError",
    "LogError",
    "LogFull",
    "MalformedProof",
    "MalformedRequest",
    "MembershipRefused",
    "NotLeader",
    "NotTrusted",
    "OutcomeUnknown",
    "Overloaded",
    "PageError",
    "ProtocolError",
    "QedError",
    "ReceiptsError",
    "StaleAnswer",
    "StoreLocked",
    "Unavailable",
    "UnknownVersion",
    "UnsupportedFormat",
    "VerificationError",
    "WriteRefused",
]


class QedError(Exception):
    """Anything qed raises on purpose."""


class VerificationError(QedError):
    """The proof does not show what it claims. Never retried, never ignored.

    Attributes:
        expected: What the caller's own snapshots demand, or None when the check compares nothing.
        computed: What the proof gives instead, or None.
    """

    def __init__(self, message: str, expected: str | None = None, computed: str | None = None) -> None:
        super().__init__(message)
        self.expected = expected
        self.computed = computed

    def __str__(self) -> str:
        message: str = self.args[0]
        if self.expected is None:
            return message
        return f"{message}: expected {self.expected}, computed {self.computed}"


class MalformedProof(VerificationError):
    """The bytes or the JSON are not a proof: wrong shape, wrong positions, too large."""


class StaleAnswer(VerificationError):
    """The log that answered ends before the newest trusted snapshot, or before the version asked.

    The member lags behind, or its log was rolled back. Such an answer is never verified; another member may have more.
    """


class ContradictsReceipt(VerificationError):
    """The answer denies what a trusted snapshot states about the event.

    Attributes:
        digest: Digest of the event.
        version: The version at which the trusted snapshot has it.
    """

    def __init__(self, digest: Digest, version: int, claim: str) -> None:
        super().__init__(
            f"a trusted snapshot has event {digest.hex()} at version {version}, but the answer says it {claim}"
        )
        self.digest = digest
        self.version = version


class ForkDetected(VerificationError):
    """Two different snapshots of one version: the log was rewritten, or shows different faces. Keep both as evidence.

    Attributes:
        trusted: The snapshot that was known.
        other: The one that differs.
    """

    def __init__(self, trusted: Snapshot, other: Snapshot) -> None:
        super().__init__(f"fork: two different snapshots of version {trusted.version}")
        self.trusted = trusted
        self.other = other


class NotTrusted(VerificationError):
    """No root is trusted of a version that the answer names, so nothing shows whether the answer is true.

    Attributes:
        version: The version.
    """

    def __init__(self, version: int, message: str | None = None) -> None:
        super().__init__(message or f"no trusted snapshot of version {version}")
        self.version = version


class ReceiptsError(QedError):
    """A receipts file cannot be used as it is: not receipts, cut off, of another log, or not to be written to."""


class LogError(QedError):
    """A log cannot do what was asked. A failed call has changed nothing, but for a write or sync that failed.

    What that was to add is in the log as a whole or not at all; which of the two shows when the log is opened again.
    """


class UnknownVersion(LogError):
    """The version is not in the log, or a range is upside down."""


class AddedLater(LogError):
    """The event was first added after the asked version, so absence there cannot be proven.

    Attributes:
        first_version: The version at which the event was first added.
    """

    def __init__(self, message: str, first_version: int) -> None:
        super().__init__(message)
        self.first_version = first_version


class StoreLocked(LogError):
    """Another process holds the data folder."""


class CorruptLog(LogError):
    """What the data folder holds contradicts itself: a damaged or truncated file."""


class LogFull(LogError):
    """The hyper tree has no room for another key: 2^31 distinct events are its limit."""


class PageError(LogError):
    """A page of the log, or the question for one, came from another member and does not continue this log.

    It says nothing against this member's own data folder.
    """


class UnsupportedFormat(LogError):
    """The data folder was written in a format this version of qed does not know."""


class WriteRefused(LogError):
    """A write or a sync failed, so the log takes no more until it is opened again."""


class ClusterError(QedError):
    """The cluster cannot serve the call now; a retry may help."""


class NotLeader(ClusterError):
    """This member does not accept insertions.

    Attributes:
        leader_url: Base URL of the leader, or None when there is none.
    """

    def __init__(self, message: str, leader_url: str | None = None) -> None:
        super().__init__(message)
        self.leader_url = leader_url


class OutcomeUnknown(ClusterError):
    """Leadership was lost while the insertion was under way: it may be committed, now or later, or not at all."""


class MembershipRefused(ClusterError):
    """Somebody cannot join or leave the cluster as asked: a taken name or address, or the last one that votes."""


class Unavailable(ClusterError):
    """No server answered in time.

    Attributes:
        may_have_happened: What was asked for may have been carried out all the same.
    """

    def __init__(self, message: str, *, may_have_happened: bool = False) -> None:
        super().__init__(message)
        self.may_have_happened = may_have_happened


class Overloaded(ClusterError):
    """The queue of waiting insertions is full; wait, then try again."""


class ProtocolError(QedError):
    """A server answered with an error status, or with something that is not the protocol.

    Attributes:
        status: HTTP status of the answer.
        body: The answer's body, at most its first kilobyte.
        code: The `error` field of a JSON error body, or None.
    """

    def __init__(self, message: str, *, status: int, body: bytes = b"", code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = body[:1024]
        self.code = code


class MalformedRequest(ProtocolError):
    """The server called the request malformed (400, 404, 405, 413)."""


class DigestsRefused(MalformedRequest):
    """The server is an older one that accepts events only, and only a digest was given. Nothing was added."""


class InternalError(QedError):
    """A bug in qed: something that it takes for impossible has happened. Please report it."""
