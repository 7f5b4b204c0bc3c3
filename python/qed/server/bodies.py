"""Request bodies: a limit for each, and another for all that are arriving in pieces.

`connection` limits how long a body may take to arrive.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from qed.errors import Overloaded, QedError
from qed.server.slots import SLOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import Receive, Scope

    from qed.server.config import Limits
    from qed.server.slots import Slot

__all__ = ["Bodies", "BodyTooLarge", "ClientGone", "Held", "RequestTooLarge", "drop_rest"]

_LINGER_S: Final = 2.0


class ClientGone(QedError):
    """The client closed the connection before its request was complete. Nobody waits for an answer."""


class RequestTooLarge(QedError):
    """The body is within its limit, but the request asks for more than this server does at once."""


class BodyTooLarge(RequestTooLarge):
    """The body exceeds the limit. Part of it has not been received."""


@dataclass(eq=False, slots=True)
class _Arriving:
    """A body of which there is more to come.

    Attributes:
        slot: The slot of its connection.
        body: What has arrived.
        held_bytes: What has arrived and is held elsewhere.
    """

    slot: Slot
    body: bytearray = field(default_factory=bytearray)
    held_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        """How much has arrived."""
        return len(self.body) + self.held_bytes


class Held:
    """How much of one body is held elsewhere, among all that are arriving."""

    def __init__(self, bodies: Bodies, arriving: _Arriving) -> None:
        self._bodies = bodies
        self._arriving = arriving

    def note(self, size_bytes: int) -> None:
        """Note how much that is.

        Raises:
            Overloaded: As for `Bodies.read`.
        """
        self._bodies.note_held(self._arriving, size_bytes)


class Bodies:
    """Reads request bodies. When there are too many unfinished ones, the owner with most of them loses the oldest."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._arriving: dict[_Arriving, None] = {}
        self._arriving_bytes = 0

    async def read(self, scope: Scope, receive: Receive) -> bytes:
        """Return the whole body.

        Raises:
            BodyTooLarge: The declared or actual size of the body exceeds `max_body_bytes`.
            Overloaded: The bodies being received exceed `max_buffered_bytes` together, and nobody has more of them than
                the owner of this one.
            ClientGone: The client closed the connection.
        """
        self._check_declared_length(scope)
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        body: bytes = message["body"]
        if message["more_body"] or len(body) > self._limits.max_body_bytes:
            return await self._gather(body, receive, scope[SLOT])
        return body

    def _check_declared_length(self, scope: Scope) -> None:
        for name, value in scope["headers"]:
            # The parser has already refused a length that is not a number, and two lengths that differ.
            if name == b"content-length" and int(value) > self._limits.max_body_bytes:
                raise self._too_large()

    @contextmanager
    def hold(self, slot: Slot) -> Iterator[Held]:
        """Count what somebody else holds of a body that arrives in pieces.

        Yields:
            Where to say how much that is.
        """
        arriving = _Arriving(slot)
        self._arriving[arriving] = None
        try:
            yield Held(self, arriving)
        finally:
            self._forget(arriving)

    def note_held(self, arriving: _Arriving, size_bytes: int) -> None:
        """Count how much of a body is held.

        Raises:
            Overloaded: As for `read`.
        """
        if arriving in self._arriving:
            self._arriving_bytes += size_bytes - arriving.size_bytes
            arriving.held_bytes = size_bytes
            self._make_room(arriving.slot.owner)

    async def _gather(self, piece: bytes, receive: Receive, slot: Slot) -> bytes:
        arriving, is_more = _Arriving(slot), True
        self._arriving[arriving] = None
        try:
            while True:
                arriving.body += piece
                self._arriving_bytes += len(piece)
                if len(arriving.body) > self._limits.max_body_bytes:
                    raise self._too_large()
                self._make_room(slot.owner)
                if not is_more:
                    return bytes(arriving.body)
                message = await receive()
                if message["type"] != "http.request":
                    raise ClientGone
                piece, is_more = message["body"], message["more_body"]
        finally:
            self._forget(arriving)

    def _make_room(self, newest: str) -> None:
        """While too much is arriving, refuse the oldest body of the owner with most; in a tie, the newest piece's."""
        limit = self._limits.max_buffered_bytes
        if self._arriving_bytes <= limit:
            return
        by_owner: Counter[str] = Counter()
        for arriving in self._arriving:
            by_owner[arriving.slot.owner] += arriving.size_bytes
        message = f"more than {limit} bytes of requests are being received"
        while self._arriving_bytes > limit:
            owner = max(by_owner, key=lambda owner: (by_owner[owner], owner == newest))
            if owner == newest:
                raise Overloaded(message)
            oldest = next(
                arriving for arriving in self._arriving if arriving.slot.owner == owner and arriving.size_bytes
            )
            by_owner[owner] -= oldest.size_bytes
            self._forget(oldest)
            oldest.slot.refuse(429, "overloaded", message)

    def _forget(self, arriving: _Arriving) -> None:
        if arriving in self._arriving:
            del self._arriving[arriving]
            self._arriving_bytes -= arriving.size_bytes

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"the body is larger than {self._limits.max_body_bytes} bytes")


async def drop_rest(receive: Receive) -> None:
    """Read and drop the rest of a body that is refused, for a while.

    Closing at once would reset the connection while the client still sends, and it might never see why it was refused.
    """
    try:
        async with asyncio.timeout(_LINGER_S):
            while (await receive()).get("more_body"):
                pass
    except TimeoutError:
        pass
