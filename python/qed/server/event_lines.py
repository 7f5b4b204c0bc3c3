"""Lines of a stream, each the JSON of one event, cut into bulks that mean the same as single additions.

A bulk is one request to the log, which costs as much as a single event does. Two things tell it from single additions:
of an event that is twice in it the hyper tree shows the first version, and it has one `IfAbsent`. So a bulk ends before
an event that it already has, and before another `IfAbsent`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, cast

import msgspec
from msgspec import UNSET

from qed._wire import ADD_REQUEST, AddRequest, DecodeError, is_plain_base64
from qed.errors import QedError
from qed.proofs import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["BULK_EVENTS", "BadLine", "Bulk", "EventLines", "LineTooLong"]

BULK_EVENTS: Final = 2000
"""Most events of a bulk. More would not be faster, and others wait for each."""

_LINES: Final = msgspec.json.Decoder(AddRequest)


class BadLine(QedError):
    """A line is not the JSON of an event.

    Attributes:
        line: Its number, from 1.
    """

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")
        self.line = line


class LineTooLong(BadLine):
    """A line has more bytes than the body of a request may have."""


class Bulk(NamedTuple):
    """Lines that are added together. No event is in it twice.

    Attributes:
        events: The events, or their digests, one a line.
        if_absent: Whether to add only those that are not in the log yet.
    """

    events: Sequence[bytes | Digest]
    if_absent: bool


class EventLines:
    """The lines of one stream, from the pieces in which they arrive.

    Attributes:
        held_bytes: How much of an unfinished line it holds.
    """

    def __init__(self, *, max_line_bytes: int, max_bulk_events: int) -> None:
        """Begin with the first line.

        Args:
            max_line_bytes: The longest line, without its end.
            max_bulk_events: Most events of a bulk.
        """
        self._max_line_bytes = max_line_bytes
        self._max_bulk_events = min(max_bulk_events, BULK_EVENTS)
        self._held: list[bytes] = []
        self.held_bytes = 0
        self._complete = 0

    def feed(self, piece: bytes) -> Iterator[Bulk]:
        """Yield the lines that are complete with this piece, in bulks.

        Raises:
            BadLine: A line is wrong. All lines before it were yielded.
        """
        end = piece.rfind(b"\n") + 1
        if not end:
            self._hold(piece)
            return
        block = b"".join((*self._held, piece[:end]))
        self._held, self.held_bytes = [], 0
        yield from self._parse(block)
        self._hold(piece[end:])

    def finish(self) -> Iterator[Bulk]:
        """Yield the last line if it has no line feed. Call this only if the body has ended as it should.

        Raises:
            BadLine: The line is wrong.
        """
        if self._held:
            block = b"".join((*self._held, b"\n"))
            self._held, self.held_bytes = [], 0
            yield from self._parse(block)

    def _hold(self, part: bytes) -> None:
        if part:
            self._held.append(part)
            self.held_bytes += len(part)
            if self.held_bytes > self._max_line_bytes:
                raise self._too_long(self._complete + 1)

    def _parse(self, block: bytes) -> Iterator[Bulk]:
        """Yield whole lines in bulks."""
        found = _decode_plain(block) if len(block) <= self._max_line_bytes else None
        if found is not None:
            self._complete += len(found)
            yield from self._bulks(found)
            return
        good: list[AddRequest] = []
        try:
            for line in block.split(b"\n")[:-1]:
                good.append(self._decode(line))
                self._complete += 1
        except BadLine:
            yield from self._bulks(good)
            raise
        yield from self._bulks(good)

    def _decode(self, line: bytes) -> AddRequest:
        number = self._complete + 1
        if len(line) > self._max_line_bytes:
            raise self._too_long(number)
        try:
            request = ADD_REQUEST.decode(line)
        except DecodeError as exc:
            raise BadLine(number, str(exc)) from exc
        if request.receipt is not None:
            raise BadLine(number, "expected no `Receipt` in a line: ask for receipts with the query receipt=committed")
        return request

    def _too_long(self, number: int) -> LineTooLong:
        return LineTooLong(number, f"it is longer than {self._max_line_bytes} bytes")

    def _bulks(self, requests: Sequence[AddRequest]) -> Iterator[Bulk]:
        for start in range(0, len(requests), self._max_bulk_events):
            part = requests[start : start + self._max_bulk_events]
            digests = [request.event_digest for request in part]
            first = part[0].if_absent
            # Nearly always: digests only, each once, and one `IfAbsent`.
            if (
                UNSET not in (seen := set(digests))
                and len(seen) == len(part)
                and all(request.if_absent is first for request in part)
            ):
                yield Bulk([Digest(cast("bytes", digest)) for digest in digests], first)
            else:
                yield from _cut(part)


def _decode_plain(block: bytes) -> list[AddRequest] | None:
    """Return the requests of lines that are all written in the plain way, or None if a closer look is needed.

    Decoding a block at once takes a third of the time of its lines one by one, but the decoder sees white space where
    lines end, and knows nothing of fields that occur twice.
    """
    count = block.count(b"\n")
    # Each line ends with its only brace, so none holds two values or a part of one.
    if not block.count(b"}") == block.count(b"}\n") == count or not is_plain_base64(block):
        return None
    try:
        found = _LINES.decode_lines(block)
    except (DecodeError, RecursionError, UnicodeDecodeError):
        return None
    if len(found) != count or any(request.receipt is not None for request in found):
        return None
    # Base64 has no colons, so there is one a field: no field is unknown, and none occurs twice.
    return found if block.count(b":") == count + sum(request.if_absent for request in found) else None


def _cut(requests: Sequence[AddRequest]) -> Iterator[Bulk]:
    """Yield bulks: each ends before an event that it has, and before another `IfAbsent`."""
    events: list[bytes | Digest] = []
    digests: set[Digest] = set()
    for number, request in enumerate(requests):
        event = request.added()
        digest = event if isinstance(event, Digest) else Digest.of(event)
        if events and (digest in digests or request.if_absent is not requests[number - 1].if_absent):
            yield Bulk(events, requests[number - 1].if_absent)
            events, digests = [], set()
        events.append(digest)
        digests.add(digest)
    if events:
        yield Bulk(events, requests[-1].if_absent)
