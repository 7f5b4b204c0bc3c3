"""A listening socket for TLS: a connection counts, and its time runs, from the moment when it is accepted.

A server of asyncio calls no code of ours before a handshake ends. Clients that connect and say nothing would use up the
file descriptors, whatever the limit on connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from typing import TYPE_CHECKING, Final

from qed.server.logs import Line, OncePerMinute
from qed.server.slots import Slot
from qed.server.tls import HANDSHAKE_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from qed.server.connection import ConnectionLimit, LimitedConnection

__all__ = ["TlsListener"]

_log = logging.getLogger(__name__)

_AT_ONCE: Final = 16
"""Connections accepted in one turn of the event loop. The file of one that gave way is closed in the next turn or two,
so this bounds the files beyond the limit."""
_RETRY_S: Final = 1.0
"""How long to wait if the system has no file descriptor or memory for a connection."""


class TlsListener:
    """A listening socket and the handshakes on its connections.

    A handshake gives way like a connection whose client is to act. It is cut off without an answer, because nothing can
    be sent before it ends.
    """

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext,
        limit: ConnectionLimit,
        new_connection: Callable[[], LimitedConnection],
    ) -> None:
        """Start to accept connections.

        Args:
            listener: The socket, which listens.
            context: The TLS context of the server.
            limit: How many connections there may be.
            new_connection: Makes the protocol of a connection whose handshake has ended.
        """
        self._listener = listener
        self._context = context
        self._limit = limit
        self._new_connection = new_connection
        self._port: int = listener.getsockname()[1]
        self._loop = asyncio.get_running_loop()
        self._once_per_minute = OncePerMinute()
        self._handshakes: dict[asyncio.Task[None], socket.socket] = {}
        listener.setblocking(False)
        self._watch()

    async def close(self) -> None:
        """Accept nothing more, and return once no handshake is left."""
        self._loop.remove_reader(self._listener)
        self._listener.close()
        handshakes = list(self._handshakes)
        self.cut_off()
        await asyncio.gather(*handshakes)

    def cut_off(self) -> None:
        """End all handshakes: their clients can connect again."""
        for stream in self._handshakes.values():
            _hang_up(stream)

    def _watch(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                stream, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:
                # The connection stays in the queue, and the socket readable: without a pause, this would run forever.
                if self._once_per_minute.is_due("clients", "accept"):
                    _log.error(Line("connection not accepted", reason=exc.strerror or exc))
                self._loop.remove_reader(self._listener)
                self._loop.call_later(_RETRY_S, self._watch)
                return
            stream.setblocking(False)
            self._welcome(stream, peer[0])

    def _welcome(self, stream: socket.socket, host: str) -> None:
        self._limit.note_descriptor(stream.fileno())
        slots = self._limit.slots(self._port)
        slot = Slot(slots, host, lambda *_: _hang_up(stream))
        if self._limit.is_closed:
            stream.close()
        elif not slot.open():
            self._limit.refusal(slots)
            stream.close()
        else:
            task = self._loop.create_task(self._shake_hands(stream, slot))
            self._handshakes[task] = stream
            task.add_done_callback(self._handshakes.pop)

    async def _shake_hands(self, stream: socket.socket, slot: Slot) -> None:
        connection = self._new_connection()
        connection.earlier_slot = slot
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection, stream, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_S
            )
        except ssl.SSLCertVerificationError as exc:
            # uvloop hangs up without the alert that would tell the client, so only this line has the reason.
            if self._once_per_minute.is_due(slot.owner, "certificate"):
                _log.warning(Line("client certificate refused", owner=slot.owner, reason=exc.verify_message))
        except OSError:
            # The client speaks no TLS, is too slow or has gone: its own affair.
            pass
        finally:
            if connection.earlier_slot is not None:
                slot.close()
                stream.close()


def _hang_up(stream: socket.socket) -> None:
    """End the handshake on a socket: it reads the end of the stream, at whatever step it is."""
    # The client may have ended it first.
    with contextlib.suppress(OSError):
        stream.shutdown(socket.SHUT_RDWR)
