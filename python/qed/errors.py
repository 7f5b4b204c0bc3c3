"""The exceptions of qed, one tree for library, client and server.

::

    QedError
    ├─ VerificationError      the proof does not show what it claims
    │  └─ MalformedProof      the bytes are not a proof at all
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
    └─ InternalError          a bug in qed

Messages say what was wanted and what was found, in lower case, digests in hex.
"""

from __future__ import annotations

__all__ = [
    "AddedLater",
    "ClusterError",
    "CorruptLog",
    "InternalError",
    "LogError",
    "LogFull",
    "MalformedProof",
    "MalformedRequest",
    "MembershipRefused",
    "NotLeader",
    "OutcomeUnknown",
    "Overloaded",
    "PageError",
    "ProtocolError",
    "QedError",
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


class InternalError(QedError):
    """A bug in qed: something that it takes for impossible has happened. Please report it."""
