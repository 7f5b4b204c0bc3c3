"""Streams to and from the other members, over TLS with both ends authenticated (FORMATS.md, "Between members").

A member dials each other member once and sends its messages on that stream; it receives messages on the streams that
the others dialled. Pages and leader requests have streams of their own, so that a heartbeat never waits behind them.
Messages may be lost, as Raft expects, but on one stream they keep their order.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from qed.server.acceptor import Acceptor, StreamHandler
from qed.server.config import Address, SettingsError
from qed.server.frames import FRAME_BYTES, TransportError, put, read_frame
from qed.server.handshake import (
    REPLY_TIMEOUT_S,
    Hello,
    Kind,
    LeaderRequest,
    Mismatch,
    Removed,
    Reply,
    Stream,
    ask,
    connect,
    open_stream,
)
from qed.server.link import Link, LinkHandler
from qed.server.pins import peer_of

if TYPE_CHECKING:
    import socket
    from collections import Counter
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping

    from qed.server.credentials import Credentials

__all__ = ["Contact", "MemberHandler", "Transport"]

_WHO_SAYS: Final = "This member does not know who says so"


class Contact(NamedTuple):
    """How to reach a member.

    Attributes:
        name: Its name.
        address: Where it listens, as the cluster has agreed.
    """

    name: str
    address: Address


class MemberHandler(StreamHandler, LinkHandler, Protocol):
    """What a transport calls for each member, stream and message."""

    def pin_of(self, member: int) -> bytes | None:
        """Return the SHA-256 of a member's public key, or None if it is not known."""

    def is_member(self, pin: bytes) -> bool:
        """Return whether a public key may be that of a member."""


class Transport:
    """All streams of one member.

    Attributes:
        credentials: What this member shows from now on, and whom it believes; None while it has none.
    """

    def __init__(
        self, handler: MemberHandler, hello: Callable[[int, Kind], Hello], credentials: Credentials | None
    ) -> None:
        self._handler = handler
        self.credentials = credentials
        self._hello = hello
        self._links: dict[int, Link] = {}
        self._contacts: dict[int, Contact] = {}
        self._learned: dict[int, Address] = {}
        self._acceptor = Acceptor(handler, self._own_credentials, on_contact=self._note_contact)

    def start(self, listener: socket.socket) -> None:
        """Start to accept streams on a bound socket, which `close` closes."""
        self._acceptor.start(listener)

    async def close(self) -> None:
        """End every stream."""
        for link in self._links.values():
            link.close()
        self._links.clear()
        await self._acceptor.close()

    def set_members(self, contacts: Mapping[int, Contact], removed: Collection[int]) -> None:
        """Set how to reach the other members, and end the streams to and from those that were removed.

        Streams with members that this one does not know yet stay: while catching up, it applies memberships that are
        older than its peers.
        """
        for receiver in removed:
            if link := self._links.pop(receiver, None):
                link.close()
            self._learned.pop(receiver, None)
        for receiver, contact in contacts.items():
            if self._contacts.get(receiver) != contact:
                self._learned.pop(receiver, None)
        self._contacts = dict(contacts)
        self._acceptor.review()

    def _note_contact(self, hello: Hello) -> None:
        """Note that a member has connected, and where it is reached."""
        with contextlib.suppress(SettingsError):
            address, known = Address.parse(hello.raft_addr), self._contacts.get(hello.sender)
            if known is not None and address == known.address:
                self._learned.pop(hello.sender, None)
            else:
                self._learned[hello.sender] = address
        if link := self._links.get(hello.sender):
            link.note_contact()

    def name_of(self, member: int) -> str:
        """Return the name of a member, or its number if its name is not known yet."""
        contact = self._contacts.get(member)
        return contact.name if contact else f"{member:016x}"

    def send(self, messages: Iterable[tuple[int, bytes]]) -> None:
        """Send messages, each to the member with this number. They may be lost."""
        used = set()
        for receiver, message in messages:
            link = self._link_to(receiver)
            if link is not None:
                link.put(message)
                used.add(link)
        for link in used:
            link.flush()

    def sent_bytes(self) -> Mapping[str, int]:
        """Return how many bytes of messages were sent to each member since its stream was first opened, by name."""
        return {self.name_of(receiver): link.sent_bytes for receiver, link in self._links.items()}

    @property
    def refused_streams(self) -> Counter[str]:
        """How many streams to this member were refused, by reason."""
        return self._acceptor.refused

    def _link_to(self, receiver: int) -> Link | None:
        link = self._links.get(receiver)
        if link is None and (receiver in self._contacts or receiver in self._learned):
            link = self._links[receiver] = Link(self, self._handler, receiver)
        return link

    async def connect(self, receiver: int) -> Stream:
        """Open a stream to a member, which has shown that it has its key.

        Raises:
            TransportError: Its address is not known or cannot be reached, or another is there.
        """
        # The address that the member itself gave comes before the agreed one: it may have moved, and the cluster may
        # need its vote to agree on the new address.
        address, contact = self._learned.get(receiver), self._contacts.get(receiver)
        if address is None and contact is not None:
            address = contact.address
        if address is None:
            raise TransportError("its address is not known")
        return await connect(address, self._own_credentials(), self._handler.pin_of(receiver))

    async def ask(self, address: Address, expected: bytes | None, request: LeaderRequest) -> Reply:
        """Send a request to the member at `address`, with the expected key, or with any if None is expected.

        Raises:
            TransportError: Nobody there accepts it.
            Stranger: No key is expected, and whoever is there has no certificate of this cluster's authority.
            Removed: A member says that this one was removed.
            Mismatch: A member belongs to another cluster, or speaks another protocol.
        """
        async with self._meeting(address, expected) as stream:
            reply = await ask(stream, self._hello(0, "question"), request)
            if reply.error == "refused" and not self._is_member_at(stream):
                raise TransportError(f"{address} refused: {reply.message}. {_WHO_SAYS}")
            return reply

    async def probe(self, address: Address) -> None:
        """Check that whoever is at `address` accepts this member as one of its cluster.

        Raises:
            TransportError: As `ask`.
        """
        async with self._meeting(address, None) as stream:
            await open_stream(stream, self._hello(0, "question"))

    @asynccontextmanager
    async def _meeting(self, address: Address, expected: bytes | None) -> AsyncIterator[Stream]:
        """Open a stream to an address, and close it at the end. Only members are believed what makes this one stop."""
        stream = await connect(address, self._own_credentials(), expected)
        try:
            yield stream
        except (Removed, Mismatch) as exc:
            # A removed member keeps its certificate. Its word must not stop a member, or empty its folder.
            if self._is_member_at(stream):
                raise
            raise TransportError(f"{exc}. {_WHO_SAYS}") from exc
        finally:
            stream.writer.transport.abort()

    def _is_member_at(self, stream: Stream) -> bool:
        """Return whether the other side of a stream may be a member, as far as this one knows."""
        peer = peer_of(stream.writer)
        return peer is not None and self._handler.is_member(peer.pin)

    def _own_credentials(self) -> Credentials:
        if self.credentials is None:
            raise TransportError("this member has no credentials yet")
        return self.credentials

    async def open_stream(self, receiver: int, stream: Stream, kind: Kind) -> None:
        """Open a stream to a member. If the other side refuses, the stream is closed.

        Raises:
            TransportError: The other side refuses, or does not answer.
        """
        await open_stream(stream, self._hello(receiver, kind))

    async def fetch(
        self, sender: int, extents: Callable[[], bytes], install: Callable[[bytes], Awaitable[bool]]
    ) -> None:
        """Fetch pages from `sender`, each from the end of the previous one, until `install` returns True.

        Raises:
            TransportError: The stream ended before that, or the other side has no page.
        """
        reader, writer, _ = stream = await self.connect(sender)
        try:
            await self.open_stream(sender, stream, "pages")
            is_complete = False
            while not is_complete:
                put(writer, extents())
                async with asyncio.timeout(REPLY_TIMEOUT_S):
                    page = await read_frame(reader, FRAME_BYTES)
                if not page.startswith(b"\x00"):
                    reason = page[1:200].decode(errors="replace") or "no reason given"
                    raise TransportError(f"the other member has no page: {reason}")
                is_complete = await install(page[1:])
        except TimeoutError as exc:
            raise TransportError(f"no page within {REPLY_TIMEOUT_S:g} s") from exc
        finally:
            writer.transport.abort()
