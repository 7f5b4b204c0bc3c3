"""What became of each event of a stream: acknowledged, perhaps added, certainly not added, or not sent yet.

A stream may need several exchanges: when the leader changes, the next one sends again what was certainly not added. The
ledger outlives them. Threads may add to `waiting` at its end; everything else belongs to one thread.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections import deque
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import UNSET

from qed._client.attempts import FIRST_PAUSE_S
from qed._client.calls import acknowledgement_of, plain
from qed._wire import STREAM_LINE, DecodeError, StreamLine
from qed.acknowledgement import Acknowledgement
from qed.errors import (
    AccessRefused,
    MalformedProof,
    MalformedRequest,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    ProtocolError,
    QedError,
    SigningError,
    StreamBroken,
    Unavailable,
    VerificationError,
)
from qed.proofs import Digest, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qed._client.adding import Sent
    from qed._client.growth import Growth

__all__ = ["Ledger"]

_MOST_PENDING: Final = 8192
_MOST_PENDING_BYTES: Final = 1 << 22
"""How much is sent ahead of the snapshots, at least one event. It is kept in memory, to be sent again."""
_MOST_WAITING: Final = 4096
_MOST_WAITING_BYTES: Final = 1 << 22
"""How much is taken from the caller ahead of what is sent."""
_SENT_AT_ONCE: Final = 1024
_MOST_FUTILE: Final = 5
"""Exchanges in a row that may end early without a snapshot."""
_LONGEST_PAUSE_S: Final = 60.0
_RETRIED: Final = {"no_leader", "outcome_unknown", "unavailable", "overloaded", "rate_limited", "timeout"}
"""Why a stream ends although the same lines may soon be accepted, here or by another member."""
_CAUSES: Final[dict[str, type[QedError]]] = {
    "no_leader": NotLeader,
    "outcome_unknown": OutcomeUnknown,
    "overloaded": Overloaded,
    "rate_limited": Overloaded,
    "fork_guard": SigningError,
    "signer": SigningError,
}
_REFUSALS: Final[dict[str, tuple[type[ProtocolError], int]]] = {
    "unauthorized": (AccessRefused, 401),
    "forbidden": (AccessRefused, 403),
    "malformed": (MalformedRequest, 400),
    "too_large": (MalformedRequest, 413),
}
"""What codes mean, as in answers to other requests; and the status that they have there."""
_SNAPSHOT: Final = b'{"EventDigest":'
_CUT_OFF: Final = "the stream ended before its receipt arrived"


class _Line(NamedTuple):
    """An event as it is sent.

    Attributes:
        digest: The digest of the event.
        text: Its line.
    """

    digest: Digest
    text: bytes


class Ledger:
    """The events of one stream.

    Attributes:
        acknowledged: How many have their snapshots, over all exchanges.
        waiting: Those to be sent.
        pending: Those that were given to the present exchange and have no snapshots yet.
        is_ended: Whether the server has said how the present exchange ended.
    """

    def __init__(self, growth: Growth, sent: Sent, *, is_if_absent: bool, has_receipts: bool) -> None:
        """Begin with no events.

        Args:
            growth: What the client knows of its log.
            sent: What to send of an event.
            is_if_absent: Whether to add only what is not in the log yet; then what may have been added is sent again.
            has_receipts: Whether receipts are asked for.
        """
        self._growth = growth
        self._begun = growth.begin()
        self._sent = sent
        self._is_if_absent = is_if_absent
        self._has_receipts = has_receipts
        self.acknowledged = 0
        self.waiting: deque[_Line] = deque()
        self.pending: deque[_Line] = deque()
        self.is_ended = False
        self._pending_bytes = 0
        # Each is changed by one thread only.
        self._entered_bytes = 0
        self._taken_bytes = 0
        self._of_exchange = 0
        self._newest = -1
        self._without_receipt: list[Snapshot] = []
        self._unknown: int | None = None
        self._cause: QedError | None = None
        self._may_retry = False
        self._futile = 0
        self._retry_after_s: int | None = None

    def enter(self, event: bytes | Digest) -> None:
        """Add an event to those that are to be sent."""
        if isinstance(event, Digest) or self._sent == "digest":
            digest = event if isinstance(event, Digest) else Digest.of(event)
            text = b'{"EventDigest":"%b"' % b2a_base64(bytes(digest), newline=False)
        else:
            digest, text = Digest.of(event), b'{"Event":"%b"' % b2a_base64(event, newline=False)
        end = b',"IfAbsent":true}\n' if self._is_if_absent else b"}\n"
        self.waiting.append(_Line(digest, text + end))
        self._entered_bytes += len(text) + len(end)

    @property
    def is_full(self) -> bool:
        """Whether no more events should be entered before some were sent."""
        return len(self.waiting) >= _MOST_WAITING or self._entered_bytes - self._taken_bytes > _MOST_WAITING_BYTES

    @property
    def is_window_full(self) -> bool:
        """Whether so many wait for their snapshots that no more are sent."""
        return len(self.pending) >= _MOST_PENDING or self._pending_bytes >= _MOST_PENDING_BYTES

    # One exchange.

    def begin_exchange(self) -> None:
        """Begin a new exchange, which knows nothing of earlier ones."""
        self.is_ended = False
        self._of_exchange = 0
        self._unknown = self._cause = self._retry_after_s = None
        self._may_retry = False

    def next_lines(self) -> bytes:
        """Return lines to send, or nothing if there are none or too many wait for their snapshots."""
        lines: list[bytes] = []
        waiting, pending, size_bytes = self.waiting, self.pending, self._pending_bytes
        for _ in range(min(_SENT_AT_ONCE, _MOST_PENDING - len(pending))):
            if not waiting or (size_bytes >= _MOST_PENDING_BYTES and pending):
                break
            line = waiting.popleft()
            pending.append(line)
            lines.append(line.text)
            size_bytes += len(line.text)
        self._taken_bytes += size_bytes - self._pending_bytes
        self._pending_bytes = size_bytes
        return b"".join(lines)

    def receive(self, lines: list[bytes]) -> Iterator[Acknowledgement]:
        """Take lines of the answer, and yield what they acknowledge.

        Raises:
            VerificationError: A snapshot is of another event, or its version is not new.
            ProtocolError: A line is not one of such an answer.
        """
        for is_snapshot, group in groupby(lines, key=_is_snapshot):
            if self.is_ended:
                raise ProtocolError("the answer goes on behind its last line", status=200)
            if is_snapshot:
                yield from self._acknowledge(self._snapshots(list(group)))
                continue
            for line in group:
                if self.is_ended:
                    raise ProtocolError("the answer goes on behind its last line", status=200)
                yield from self._control(line)

    def cut(self, reason: str) -> Iterator[Acknowledgement]:
        """Note that the exchange has ended without its last line; yield snapshots whose receipt is missing."""
        yield from self._without(_CUT_OFF)
        self.is_ended = True
        self._cause = Unavailable(reason, may_have_happened=bool(self.pending))
        self._may_retry = True

    def _snapshots(self, lines: list[bytes]) -> list[Snapshot]:
        """Return the snapshots of the next events, checked to be theirs."""
        try:
            found = list(map(Snapshot.from_json, lines))
        except MalformedProof as exc:
            raise ProtocolError(f"a line is not a snapshot: {plain(str(exc))}", status=200) from exc
        if len(found) > len(self.pending):
            raise ProtocolError("more snapshots than events", status=200)
        for snapshot, sent in zip(found, self.pending, strict=False):
            if snapshot.event_digest != sent.digest:
                raise VerificationError("a snapshot of another event", sent.digest.hex(), snapshot.event_digest.hex())
        if not self._is_if_absent:
            self._require_growing([snapshot.version for snapshot in found])
        self._pending_bytes -= sum(len(self.pending.popleft().text) for _ in found)
        self._of_exchange += len(found)
        self.acknowledged += len(found)
        return found

    def _require_growing(self, versions: list[int]) -> None:
        for version, following in pairwise([self._newest, *versions]):
            if following <= version:
                raise VerificationError("a version that is not new", f"above {version}", str(following))
        self._newest = versions[-1]

    def _acknowledge(self, found: list[Snapshot]) -> Iterator[Acknowledgement]:
        if not self._is_if_absent:
            self._growth.require(self._begun, found)
        if self._has_receipts:
            self._without_receipt += found
        else:
            yield Acknowledgement(found, None, None)

    def _without(self, reason: str | None) -> Iterator[Acknowledgement]:
        if self._without_receipt:
            found, self._without_receipt = self._without_receipt, []
            yield Acknowledgement(found, None, reason)

    def _control(self, text: bytes) -> Iterator[Acknowledgement]:
        """Take a line that is not a snapshot."""
        try:
            line = STREAM_LINE.decode(text)
        except DecodeError as exc:
            raise ProtocolError(f"a line of the answer is invalid: {plain(str(exc))}", status=200) from exc
        if line.receipt is not UNSET:
            found, self._without_receipt = self._without_receipt, []
            if found:
                yield _with_receipt(found, bytes(line.receipt), line.receipt_error)
            return
        yield from self._without(_CUT_OFF)
        acknowledged = line.done if line.done is not None else line.acknowledged
        if acknowledged != self._of_exchange or (line.done is not None and self.pending):
            raise ProtocolError(
                f"the last line names {acknowledged} events, but {self._of_exchange} have snapshots", status=200
            )
        self.is_ended = True
        if line.done is None:
            self._note_error(line)

    def _note_error(self, line: StreamLine) -> None:
        code, said = line.error or "", plain(line.message)
        if line.line is not None:
            # Lines are counted anew in each exchange.
            number = self.acknowledged - self._of_exchange + line.line
            said = f"event {number}: {said.removeprefix(f'line {line.line}: ')}"
        self._unknown = min(line.unknown, len(self.pending))
        self._retry_after_s = line.retry_after
        self._may_retry = code in _RETRIED
        self._cause = _cause_of(code, said, may_have_happened=self._unknown > 0)

    # Between two exchanges.

    def end_exchange(self) -> float:
        """Prepare what was not acknowledged to be sent again; return how many seconds to wait before that.

        Raises:
            StreamBroken: It must not be sent again: it may have been added, or would be refused again.
        """
        unknown = len(self.pending) if self._unknown is None else self._unknown
        cause, pause_s = self._cause, 0.0
        if cause is not None:
            self._futile = 0 if self._of_exchange else self._futile + 1
            pause_s = FIRST_PAUSE_S * 2**self._futile if self._retry_after_s is None else float(self._retry_after_s)
            is_hopeless = self._futile >= _MOST_FUTILE or pause_s > _LONGEST_PAUSE_S
            if not self._may_retry or is_hopeless or (unknown and not self._is_if_absent):
                raise self.broken(cause)
        self.waiting.extendleft(reversed(self.pending))
        self.pending.clear()
        self._taken_bytes -= self._pending_bytes
        self._pending_bytes = 0
        return pause_s

    def broken(self, cause: QedError) -> StreamBroken:
        """Return the error of a stream that cannot go on."""
        unknown = len(self.pending) if self._unknown is None else self._unknown
        rest = len(self.pending) - unknown + len(self.waiting)
        broken = StreamBroken(str(cause), acknowledged=self.acknowledged, unknown=unknown, rest=rest)
        broken.__cause__ = cause
        return broken


def _is_snapshot(line: bytes) -> bool:
    return line.startswith(_SNAPSHOT)


def _with_receipt(found: list[Snapshot], text: bytes, reason: str | None) -> Acknowledgement:
    try:
        return acknowledgement_of(found, text, reason)
    except DecodeError as exc:
        raise ProtocolError(f"a receipt is invalid: {plain(str(exc))}", status=200) from exc


def _cause_of(code: str, said: str, *, may_have_happened: bool) -> QedError:
    kind = _CAUSES.get(code)
    if kind is not None:
        return kind(said)
    if code in _REFUSALS:
        refusal, status = _REFUSALS[code]
        return refusal(said, status=status, code=code)
    return Unavailable(said, may_have_happened=may_have_happened)
