"""HTTP over TLS to one member, over one connection, with a record of whether anything was sent."""

from __future__ import annotations

import select
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

__all__ = ["Address", "Connection", "NoReply", "NotReached", "Reply", "Request"]

_PIPELINED: Final = 32
"""Most requests in flight at one time."""

Address = tuple[str, int]


class NoReply(Exception):
    """The request was sent, at least in part, and no whole reply came in time."""


class NotReached(NoReply):
    """Nothing was sent."""


@dataclass(frozen=True)
class Request:
    """A request."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def to_bytes(self, common: Mapping[str, str]) -> bytes:
        """Return the bytes on the wire, with the headers of all requests of a connection."""
        headers = {"host": "campaign", "content-length": str(len(self.body)), **common, **self.headers}
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


@dataclass(frozen=True)
class Reply:
    """A response. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """A connection that is opened when it is needed, and reopened after it breaks.

    Args:
        address: Where to.
        timeout_s: How long to wait for anything.
        context: What the member must show.
        headers: Those of every request, such as a key.
    """

    def __init__(self, address: Address, timeout_s: float, context: ssl.SSLContext, headers: Mapping[str, str]) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._context = context
        self._headers = headers
        self._socket: socket.socket | None = None
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, if it is open."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ask(self, request: Request) -> Reply:
        """Return the reply.

        Raises:
            NotReached: Nothing was sent.
            NoReply: The request may have been carried out.
        """
        return next(self.ask_all([request]))

    def ask_all(self, requests: Sequence[Request]) -> Iterator[Reply]:
        """Yield the replies, in order, while later requests are in flight.

        Raises:
            NotReached: Nothing of this batch was sent.
            NoReply: Some of the requests may have been carried out.
        """
        for start in range(0, len(requests), _PIPELINED):
            batch = requests[start : start + _PIPELINED]
            connected = self._connect()
            try:
                connected.sendall(b"".join(request.to_bytes(self._headers) for request in batch))
                replies = [self._receive(connected) for _ in batch]
            except (OSError, ValueError) as exc:
                self.close()
                raise NoReply(str(exc)) from exc
            yield from replies

    def _connect(self) -> socket.socket:
        # If an idle connection is readable, the other side closed it.
        if self._socket is not None and not select.select([self._socket], [], [], 0)[0]:
            return self._socket
        self.close()
        try:
            plain = socket.create_connection(self._address, self._timeout_s)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # It closes the plain socket if the handshake fails.
            self._socket = self._context.wrap_socket(plain, server_hostname=self._address[0])
        except OSError as exc:
            raise NotReached(str(exc)) from exc
        self._buffer = b""
        return self._socket

    def _receive(self, connected: socket.socket) -> Reply:
        while b"\r\n\r\n" not in self._buffer:
            self._read_more(connected)
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        while len(self._buffer) < length:
            self._read_more(connected)
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return Reply(int(status_line.split()[1]), headers, body)

    def _read_more(self, connected: socket.socket) -> None:
        chunk = connected.recv(256 * 1024)
        if not chunk:
            raise ConnectionResetError("the connection ended within a reply")
        self._buffer += chunk
