"""The exceptions of qed, one tree for library, client and server.

::

    QedError
    ├─ VerificationError      the proof does not show what it claims
    │  ├─ MalformedProof      the bytes are not a proof at all
    │  ├─ StaleAnswer         the log that answered ends before a version known to exist
    │  ├─ ContradictsReceipt  the answer denies what a trusted snapshot states
    │  ├─ ForkDetected        two snapshots of one version: two logs, or one that was rewritten
    │  ├─ NotTrusted          there is no trusted root for a version that the answer names
    │  ├─ CheckpointFork      two checkpoints that cannot both be true: two logs, or one that was rewritten
    │  ├─ DamagedFile         a published file of a log is not the one that its checkpoint requires
    │  └─ Inconclusive        nothing contradicts the policy, but too few witnesses confirm it, or too long ago
    ├─ ReceiptsError          a receipts file cannot be used as it is
    ├─ PolicyError            a policy cannot be used as it is
    ├─ BackupError            a backup cannot be made, read or used
    │  └─ DamagedBackup       a backup is cut off, was changed, or does not lead to its roots
    ├─ CertificateError       a certificate, key or signing request cannot be used, or cannot be made as asked
    ├─ WitnessError           a witness or a signer cannot run as it is set up
    ├─ MonitorError           a monitor cannot run as it is set up
    │  └─ AlertUndelivered    a test alert was not taken
    ├─ SigningError           a log does not sign now, or lost entries that it had signed
    ├─ LogError               a log cannot do what was asked
    │  ├─ UnknownVersion      no such version, or a start above the end
    │  ├─ AddedLater          the event was first added after the requested version
    │  ├─ StoreLocked         another process holds the data folder
    │  ├─ CorruptLog          the data folder contradicts itself
    │  ├─ LogFull             there is no room for another event
    │  ├─ PageError           a page from another member does not continue this log
    │  ├─ UnsupportedFormat   the data folder was written by a newer qed
    │  └─ WriteRefused        a write or sync failed; the log accepts no more
    ├─ ClusterError           a retry may help
    │  ├─ NotLeader           this member does not accept insertions
    │  ├─ OutcomeUnknown      leadership was lost with the insertion under way
    │  ├─ MembershipRefused   a member cannot join or leave as requested
    │  ├─ Unavailable         no server answered in time
    │  └─ Overloaded          the queue of waiting insertions is full
    ├─ ProtocolError          a server answered with an error, or not in the protocol
    │  ├─ AccessRefused       the server wants a key, or one with another role
    │  └─ MalformedRequest    the server refused the request as malformed
    │     └─ DigestsRefused   the server accepts events only, and a digest was given
    └─ InternalError          a bug in qed

`KeyExposedWarning` is a warning, for the filters of the module `warnings`.

Invalid settings of a server raise `SettingsError`, a ValueError in `qed.server.config`: no log is at fault.

Messages say what was expected and what was found, in lower case, digests in hex.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qed._qed import Checkpoint, Digest, Snapshot

__all__ = [
    "AccessRefused",
    "AddedLater",
    "AlertUndelivered",
    "BackupError",
    "CertificateError",
    "CheckpointFork",
    "ClusterError",
    "ContradictsReceipt",
    "CorruptLog",
    "DamagedBackup",
    "DamagedFile",
    "DigestsRefused",
    "ForkDetected",
    "Inconclusive",
    "InternalError",
    "KeyExposedWarning",
    "LogError",
    "LogFull",
    "MalformedProof",
    "MalformedRequest",
    "MembershipRefused",
    "MonitorError",
    "NotLeader",
    "NotTrusted",
    "OutcomeUnknown",
    "Overloaded",
    "PageError",
    "PolicyError",
    "ProtocolError",
    "QedError",
    "ReceiptsError",
    "SigningError",
    "StaleAnswer",
    "StoreLocked",
    "Unavailable",
    "UnknownVersion",
    "UnsupportedFormat",
    "VerificationError",
    "WitnessError",
    "WriteRefused",
]


class QedError(Exception):
    """Anything qed raises on purpose."""


class VerificationError(QedError):
    """The proof does not show what it claims. Never retried, never ignored.

    Attributes:
        expected: What the caller's own snapshots demand, or None when the check compares nothing.
        computed: What was computed from the proof instead, or None.
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
    """The log that answered ends before the newest trusted snapshot, or before the requested version.

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
    """Two different snapshots of one version: the log was rewritten, or answers inconsistently. Keep both as evidence.

    Attributes:
        trusted: The trusted snapshot.
        other: The one that differs.
    """

    def __init__(self, trusted: Snapshot, other: Snapshot) -> None:
        super().__init__(f"fork: two different snapshots of version {trusted.version}")
        self.trusted = trusted
        self.other = other


class NotTrusted(VerificationError):
    """There is no trusted root for a version that the answer names, so the answer cannot be verified.

    Attributes:
        version: The version.
    """

    def __init__(self, version: int, message: str | None = None) -> None:
        super().__init__(message or f"no trusted snapshot of version {version}")
        self.version = version


class CheckpointFork(VerificationError):
    """Two checkpoints cannot both be true, and the log has signed both. Keep both as evidence.

    Attributes:
        known: The checkpoint that was seen first.
        other: The one that contradicts it.
    """

    def __init__(self, known: Checkpoint, other: Checkpoint, message: str | None = None) -> None:
        super().__init__(message or f"fork: {known.origin} has signed two different checkpoints of size {known.size}")
        self.known = known
        self.other = other


class DamagedFile(VerificationError):
    """A published file of a log is not the one that its checkpoint requires. Another source may have the right one."""


class Inconclusive(VerificationError):
    """Nothing contradicts the policy, but too few witnesses have cosigned, or too long ago. A newer proof may do."""


class ReceiptsError(QedError):
    """A receipts file cannot be used as it is: not a receipts file, truncated, of another log, or not writable."""


class PolicyError(QedError):
    """A policy cannot be used as it is. The message names the line, counted from 1."""


class BackupError(QedError):
    """A backup cannot be made, read or used."""


class DamagedBackup(BackupError):
    """A backup is cut off, was changed, or its events do not lead to its roots."""


class CertificateError(QedError):
    """A certificate, private key or signing request cannot be used, or cannot be made as asked."""


class WitnessError(QedError):
    """A witness or a signer cannot run as it is set up: its keys, database or logs cannot be used, or not together."""


class SigningError(QedError):
    """A log does not sign, or not now; or it lost entries that it had signed, and so accepts no others."""


class MonitorError(QedError):
    """A monitor cannot run as it is set up: its state is missing or in use, or a sink of alerts cannot be used."""


class AlertUndelivered(MonitorError):
    """A test alert was not taken by every sink."""


class LogError(QedError):
    """A log cannot do what was asked. A failed call has changed nothing, except for a failed write or sync.

    After that, the whole batch is in the log or none of it; open the log again to see which.
    """


class UnknownVersion(LogError):
    """The version is not in the log, or the start of a range is above its end."""


class AddedLater(LogError):
    """The event was first added after the requested version, so absence there cannot be proven.

    Attributes:
        first_version: The version at which the event was first added.
    """

    def __init__(self, message: str, first_version: int) -> None:
        super().__init__(message)
        self.first_version = first_version


class StoreLocked(LogError):
    """Another process holds the data folder."""


class CorruptLog(LogError):
    """The data folder contradicts itself: a file is damaged or truncated."""


class LogFull(LogError):
    """The hyper tree has no room for another key: 2^31 distinct events are its limit."""


class PageError(LogError):
    """A page of the log, or the request for one, came from another member and does not continue this log.

    It does not mean that this member's own data folder is damaged.
    """


class UnsupportedFormat(LogError):
    """The data folder has a format that this version of qed does not know."""


class WriteRefused(LogError):
    """A write or a sync failed, so the log accepts no more until it is opened again."""


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


class StreamBroken(ClusterError):
    """A stream of events ended before its end; its cause says why. What became of each event is known by these numbers.

    Attributes:
        acknowledged: How many events are in the log, and their snapshots were returned.
        unknown: How many events after those may be in the log, now or later.
        rest: How many events after those had been taken from the caller by then, and are certainly not added.
    """

    def __init__(self, message: str, *, acknowledged: int, unknown: int, rest: int) -> None:
        super().__init__(message)
        self.acknowledged = acknowledged
        self.unknown = unknown
        self.rest = rest


class MembershipRefused(ClusterError):
    """A member cannot join or leave the cluster as requested: a name or address is in use, or it is the last voter."""


class Unavailable(ClusterError):
    """No server answered in time.

    Attributes:
        may_have_happened: The request may have been carried out nevertheless.
    """

    def __init__(self, message: str, *, may_have_happened: bool = False) -> None:
        super().__init__(message)
        self.may_have_happened = may_have_happened


class Overloaded(ClusterError):
    """The queue of waiting insertions is full; wait, then try again."""


class ProtocolError(QedError):
    """A server answered with an error status, or with something that is not in the protocol.

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


class AccessRefused(ProtocolError):
    """The server wants a valid API key, or one with another role (401, 403). It did nothing."""


class MalformedRequest(ProtocolError):
    """The server refused the request as malformed (400, 404, 405, 413)."""


class DigestsRefused(MalformedRequest):
    """The server is older and accepts events only, but only a digest was given. Nothing was added."""


class InternalError(QedError):
    """A bug in qed: something that should be impossible has happened. Please report it."""


class KeyExposedWarning(UserWarning):
    """A client sends its API key to another machine without TLS, where everyone on the way can read it."""
