"""One connection of a thread, on which both sides send at the same time.

The socket does not block, and one thread uses it: OpenSSL does not allow one thread to read while another one writes.
"""

from __future__ import annotations

import os
import select
import ssl
import time
from collections import deque
from typing import TYPE_CHECKING, Final

import httpcore
import httpx

from qed._client.calls import Answer
from qed._client.deadline import DeadlineBackend
from qed._client.dialogue import Dialogue
from qed._client.transports import as_httpx
from qed.errors import ProtocolError

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from qed._client.sockets import Sockets

__all__ = ["PORTS", "Duplex"]

_PIECE_BYTES: Final = 1 << 18
PORTS: Final = {"http": 80, "https": 443}
"""The port of a URL that names none, by its scheme."""


class Duplex:
    """A connection with one exchange on it.

    Attributes:
        dialogue: The exchange.
    """

    def __init__(self, channel: socket.socket, dialogue: Dialogue) -> None:
        self.dialogue = dialogue
        self._channel = channel
        self._out: deque[memoryview] = deque()
        channel.setblocking(False)

    @staticmethod
    def open(url: str, headers: Mapping[str, str], tls: ssl.SSLContext, sockets: Sockets, timeout_s: float) -> Duplex:
        """Connect, send the head of a request, and return once the head of the answer has arrived.

        Args:
            url: The whole URL.
            headers: The headers of every request.
            tls: How to check the certificate of the server.
            sockets: Records the socket.
            timeout_s: How long all of that may take. A connection may use half of it.

        Returns:
            The connection. If the request was refused, the whole answer has arrived.

        Raises:
            httpx.TransportError: There is no connection, or no answer in time.
        """
        target = httpx.URL(url)
        end_s = time.monotonic() + timeout_s
        with as_httpx():
            stream = DeadlineBackend(sockets).connect_tcp(
                target.host, target.port or PORTS[target.scheme], timeout=timeout_s / 2
            )
            try:
                if target.scheme == "https":
                    stream = stream.start_tls(tls, target.host, timeout=timeout_s / 2)
                dialogue = Dialogue(target.netloc.decode(), target.raw_path.decode(), headers)
                duplex = Duplex(stream.get_extra_info("socket"), dialogue)
                duplex.put(dialogue.head())
                duplex._await_head(end_s)  # its own
            except BaseException:
                stream.close()
                raise
        return duplex

    def _await_head(self, end_s: float) -> None:
        dialogue = self.dialogue
        try:
            while not dialogue.is_over and dialogue.status != httpx.codes.OK:
                self._turn_until(end_s)
        except ProtocolError as exc:
            raise httpcore.RemoteProtocolError(str(exc)) from exc
        if not dialogue.status:
            raise httpcore.RemoteProtocolError("server disconnected without sending a response")

    def _turn_until(self, end_s: float) -> None:
        left_s = end_s - time.monotonic()
        if left_s <= 0 or not self.turn(left_s):
            raise httpcore.ReadTimeout("the deadline has passed")

    def answer(self, url: str) -> Answer:
        """Return the answer: whole if it is a refusal, else its head."""
        return Answer(url, self.dialogue.status, self.dialogue.headers, self.dialogue.body())

    def put(self, data: bytes) -> None:
        """Send `data` in the next turns."""
        if data:
            self._out.append(memoryview(data))

    @property
    def has_unsent(self) -> bool:
        """Whether something is still to be sent."""
        return bool(self._out)

    def turn(self, wait_s: float, waker: int | None = None) -> bool:
        """Send and receive what is possible. Return False if nothing was, for `wait_s` seconds.

        Args:
            wait_s: How long to wait for that.
            waker: A descriptor that ends the wait when it is readable.

        Raises:
            ProtocolError: The answer is not HTTP.
        """
        if self._receive() | self._send():
            return True
        poll = select.poll()
        poll.register(self._channel, select.POLLIN | (select.POLLOUT if self._out else 0))
        if waker is not None:
            poll.register(waker, select.POLLIN)
        ready = dict(poll.poll(max(wait_s, 0.0) * 1000))
        if waker is not None and waker in ready:
            os.read(waker, 1 << 12)
        self._receive()
        self._send()
        return bool(ready)

    def close(self) -> None:
        """Close the connection, whatever is on its way."""
        self._channel.close()

    def _receive(self) -> bool:
        """Receive once; return whether something came, or the end."""
        if self.dialogue.is_over:
            return False
        try:
            part = self._channel.recv(_PIECE_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError:
            # A connection that is cut off has no last line, which is what counts.
            part = b""
        self.dialogue.receive(part)
        return True

    def _send(self) -> bool:
        """Send once; return whether something could be sent."""
        if not self._out:
            return False
        try:
            count = self._channel.send(self._out[0][:_PIECE_BYTES])
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError:
            # The answer tells what the server has read, and may tell why it reads no more.
            self._out.clear()
            return False
        rest = self._out.popleft()[count:]
        if rest:
            self._out.appendleft(rest)
        return True
