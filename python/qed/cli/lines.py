"""The lines of a file or a pipe as events, in bulks: full ones from a file, small prompt ones from a pipe in use."""

from __future__ import annotations

import math
import os
import select
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from qed.cli.inputs import EVENT_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qed.cli.signals import StopRequest

__all__ = ["Linger", "bulks"]

# A bulk is one round trip and one sync, so it should be large; the server's default limit for a body is 64 MiB.
BULK_EVENTS: Final = 1000
BULK_BYTES: Final = 4 * 1024 * 1024
# The capacity of a pipe. More would be faster for a file, but would leave more to send after a signal.
_READ_BYTES: Final = 1 << 16


@dataclass
class Linger:
    """How long a line waits for others. It may change while lines are read.

    Attributes:
        seconds: The longest time. With 0, lines wait for nothing.
    """

    seconds: float


def bulks(descriptor: int, linger: Linger, stop: StopRequest) -> Iterator[tuple[list[bytes], int]]:
    r"""Cut a stream into bulks of one event a line.

    Only the final `\n` of a line is not part of its event, so an empty line is the empty event. At the end of the
    stream, text after the last `\n` is a line too. After a signal it may be half a line, and is left out.

    Args:
        descriptor: The stream to read.
        linger: The longest time that a line waits for others.
        stop: Once it is set, the lines that were read are yielded, and nothing more is read.

    Yields:
        Events, at least one and in their order, and their size in the stream in bytes.

    Raises:
        click.UsageError: A line is longer than an event can be.
        OSError: The stream cannot be read.
    """
    reader = _Reader(descriptor, linger, stop)
    while reader.read():
        yield from reader.take(is_all=reader.has_lingered())
    yield from reader.take(is_all=True)


class _Reader:
    """Reads lines as they arrive, and gives them in bulks."""

    def __init__(self, descriptor: int, linger: Linger, stop: StopRequest) -> None:
        self._descriptor = descriptor
        self._linger = linger
        self._stop = stop
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._poll.register(stop.descriptor, select.POLLIN)
        # Whole lines that were not yielded yet, their size, and when the first and the last of them were read.
        self._lines: deque[bytes] = deque()
        self._size_bytes = 0
        self._first_read_s = 0.0
        self._last_read_s = 0.0
        # The last line while it is incomplete, in parts as they were read.
        self._half: list[bytes] = []
        self._half_bytes = 0

    def read(self) -> bool:
        """Wait for input, no longer than the lines may linger, and read it. Return False at the end."""
        ready = {descriptor for descriptor, _ in self._poll.poll(self._wait_ms())}
        if self._stop.number is not None:
            return False
        if self._descriptor not in ready:
            return True
        part = os.read(self._descriptor, _READ_BYTES)
        if part:
            self._cut(part)
        elif self._half:
            self._add([b"".join(self._half)])
        return bool(part)

    def has_lingered(self) -> bool:
        """Return whether a line has waited long enough."""
        return bool(self._lines) and self._left_s() <= 0

    def take(self, *, is_all: bool) -> Iterator[tuple[list[bytes], int]]:
        """Yield full bulks, and with `is_all` also the remaining lines."""
        while self._lines and (is_all or self._is_full()):
            events: list[bytes] = []
            size_bytes = 0
            while self._lines and len(events) < BULK_EVENTS:
                line_bytes = len(self._lines[0]) + 1
                if events and size_bytes + line_bytes > BULK_BYTES:
                    break
                events.append(self._lines.popleft())
                size_bytes += line_bytes
            self._size_bytes -= size_bytes
            self._first_read_s = self._last_read_s
            yield events, size_bytes

    def _is_full(self) -> bool:
        return len(self._lines) >= BULK_EVENTS or self._size_bytes > BULK_BYTES

    def _left_s(self) -> float:
        return self._first_read_s + self._linger.seconds - time.monotonic()

    def _wait_ms(self) -> float | None:
        if not self._lines or self._linger.seconds == math.inf:
            return None
        # Rounded up: otherwise a poll that ends early is followed by several that do not wait.
        return max(math.ceil(self._left_s() * 1000), 0)

    def _cut(self, part: bytes) -> None:
        first, *others = part.split(b"\n")
        self._half.append(first)
        self._half_bytes += len(first)
        if self._half_bytes > EVENT_BYTES_MAX:
            raise click.UsageError(f"expected lines of at most {EVENT_BYTES_MAX} bytes, found a longer one")
        if others:
            *whole, half = others
            self._add([b"".join(self._half), *whole])
            self._half, self._half_bytes = [half] if half else [], len(half)

    def _add(self, lines: list[bytes]) -> None:
        self._last_read_s = time.monotonic()
        if not self._lines:
            self._first_read_s = self._last_read_s
        self._lines += lines
        self._size_bytes += sum(map(len, lines)) + len(lines)
