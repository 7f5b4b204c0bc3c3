"""Frames on a stream between members: a length, then that many bytes (FORMATS.md, "Between members")."""

from __future__ import annotations

import asyncio
from typing import Final, TypeVar

import msgspec

from qed.errors import QedError

__all__ = [
    "FRAME_BYTES",
    "FRAME_S",
    "SMALL_FRAME_BYTES",
    "Frames",
    "TransportError",
    "decode",
    "frame",
    "put",
    "read_frame",
]

_T = TypeVar("_T")

_LENGTH_BYTES: Final = 4
SMALL_FRAME_BYTES: Final = 64 * 1024
"""Largest hello, request or reply."""
FRAME_BYTES: Final = 64 * 1024 * 1024
"""Largest message or page. The largest entry, two bulks of 100,000 events, is 7 MB."""
FRAME_S: Final = 30.0
"""Longest time from the first byte of a frame to its last: the largest arrives in time at 2.2 MB/s."""


class TransportError(QedError):
    """A stream ended, was refused, or broke the protocol."""


def frame(payload: bytes) -> bytes:
    """Return the frame that carries `payload`."""
    return len(payload).to_bytes(_LENGTH_BYTES, "big") + payload


def put(writer: asyncio.StreamWriter, payload: bytes) -> None:
    """Write a frame.

    Raises:
        TransportError: The stream ended.
    """
    # Writing to a stream that has ended is ignored by asyncio, but raises RuntimeError with uvloop.
    if writer.transport.is_closing():
        raise TransportError("the stream ended")
    writer.write(frame(payload))


async def read_frame(reader: asyncio.StreamReader, limit: int) -> bytes:
    """Return the payload of the next frame.

    Raises:
        TransportError: The stream ended, or the frame is larger than `limit` or stalls.
    """
    try:
        head = await reader.readexactly(1)
        async with asyncio.timeout(FRAME_S):
            head += await reader.readexactly(_LENGTH_BYTES - 1)
            length = int.from_bytes(head, "big")
            if length > limit:
                raise TransportError(f"expected a frame of at most {limit} bytes, found one of {length}")
            return await reader.readexactly(length)
    except TimeoutError as exc:
        raise TransportError(f"a frame did not arrive within {FRAME_S:g} s") from exc
    except (OSError, asyncio.IncompleteReadError) as exc:
        raise TransportError("the stream ended") from exc


def decode(decoder: msgspec.json.Decoder[_T], payload: bytes) -> _T:
    """Return the value in `payload`.

    Raises:
        TransportError: `payload` is malformed.
    """
    try:
        return decoder.decode(payload)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        raise TransportError(f"a frame is malformed: {exc}") from exc


class Frames:
    """Splits the bytes read from a stream into payloads."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def is_partial(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._buffer)

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the payloads that `chunk` completes.

        Raises:
            TransportError: A frame is too large.
        """
        self._buffer += chunk
        payloads, start = [], 0
        while len(self._buffer) - start >= _LENGTH_BYTES:
            begin = start + _LENGTH_BYTES
            length = int.from_bytes(self._buffer[start:begin], "big")
            if length > FRAME_BYTES:
                raise TransportError(f"expected a frame of at most {FRAME_BYTES} bytes, found one of {length}")
            if len(self._buffer) - begin < length:
                break
            payloads.append(bytes(self._buffer[begin : begin + length]))
            start = begin + length
        del self._buffer[:start]
        return payloads
