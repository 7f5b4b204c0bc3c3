"""Streams between members that end at the worst moment."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING

import msgspec
import uvloop

from qed.server.config import Address
from qed.server.greeting import PROTOCOL, Answer, Hello, Question
from qed.server.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Sequence

RECEIVER = 2


class Deaf:
    """Takes note of nothing but lost streams."""

    def __init__(self) -> None:
        self.lost_streams = 0

    def greet(self, _: Hello) -> Answer:
        return Answer()

    def receive(self, _: int, __: Sequence[bytes]) -> None: ...

    def lost(self, _: int) -> None:
        self.lost_streams += 1

    async def page(self, _: bytes) -> bytes:
        return b""

    async def answer(self, _: Question) -> Answer:
        return Answer()

    def removed(self, _: str) -> None: ...


async def accept_and_reset(listener: socket.socket) -> None:
    """Agree to one hello, take one message, and reset the stream."""
    loop = asyncio.get_running_loop()
    connection, _ = await loop.sock_accept(listener)
    await loop.sock_recv(connection, 65536)
    answer = msgspec.json.encode(Answer())
    await loop.sock_sendall(connection, len(answer).to_bytes(4, "big") + answer)
    await loop.sock_recv(connection, 65536)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


async def send_while_streams_are_reset(streams: int) -> None:
    peers = Deaf()

    def greeting(receiver: int, _: str) -> Hello:
        return Hello(PROTOCOL, "messages", "c", 1, receiver, "127.0.0.1:1")

    transport = Transport(peers, greeting, None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        transport.set_members({RECEIVER: ("other", Address(*listener.getsockname()))}, ())
        for _ in range(streams):
            expected = peers.lost_streams + 1
            resetting = asyncio.create_task(accept_and_reset(listener))
            while peers.lost_streams < expected:
                transport.send(RECEIVER, b"message")
                await asyncio.sleep(0)
            await resetting
    await transport.close()


def test_message_to_a_stream_that_has_just_ended_is_lost_and_the_next_one_is_dialled() -> None:
    # As the server does: only uvloop raises when something is written to a stream that has ended.
    uvloop.run(send_while_streams_are_reset(3))
