"""One HTTP exchange whose body and answer are on their way at the same time, as bytes in and bytes out.

httpx sends a whole body before it reads an answer. With a stream of events, both sides would then wait for each other.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import h11

from qed.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Dialogue"]

_REFUSAL_BYTES_MAX: Final = 1 << 20
"""The longest body of an answer that refuses the request."""
_LINE_BYTES_MAX: Final = 1 << 22
"""The longest line of an answer: a receipt for some thousand events, several times over."""


class Dialogue:
    """One exchange. It opens no socket: the caller sends what it returns, and passes in what arrives.

    Attributes:
        status: The status of the answer; 0 before its head has arrived.
        headers: The headers of the answer, their names in lower case.
        is_over: Whether nothing more will arrive. `is_complete` tells whether that is as it should be.
        is_complete: Whether the answer has arrived whole.
    """

    def __init__(self, host: str, path: str, headers: Mapping[str, str]) -> None:
        """Prepare a request.

        Args:
            host: The `Host` header.
            path: The path, with a query if there is one.
            headers: The other headers.
        """
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 16)
        sent = [("Host", host), *headers.items(), ("Transfer-Encoding", "chunked")]
        self._request = h11.Request(method="POST", target=path, headers=sent)
        self.status = 0
        self.headers: dict[str, str] = {}
        self.is_over = False
        self.is_complete = False
        self._body = bytearray()

    def head(self) -> bytes:
        """Return the head of the request."""
        return self._http.send(self._request) or b""

    def data(self, part: bytes) -> bytes:
        """Return the next part of the body as it is sent."""
        return self._http.send(h11.Data(data=part)) or b""

    def end(self) -> bytes:
        """Return the end of the body as it is sent."""
        return self._http.send(h11.EndOfMessage()) or b""

    def receive(self, part: bytes) -> None:
        """Take what has arrived; nothing means that the connection is closed.

        Raises:
            ProtocolError: It is not HTTP, or is longer than such an answer can be.
        """
        try:
            self._http.receive_data(part)
            while not self.is_over and self._take(self._http.next_event()):
                pass
        except h11.RemoteProtocolError as exc:
            if not part:
                self.is_over = True
                return
            raise ProtocolError(f"the answer is not HTTP: {exc}", status=self.status) from exc
        is_stream = self.status == HTTPStatus.OK
        if len(self._body) > (_LINE_BYTES_MAX if is_stream else _REFUSAL_BYTES_MAX) and not (
            is_stream and b"\n" in self._body
        ):
            raise ProtocolError("the answer is longer than expected", status=self.status)

    def _take(self, event: object) -> bool:
        match event:
            case h11.Response():
                self.status = event.status_code
                self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
            case h11.Data():
                self._body += event.data
            case h11.EndOfMessage():
                self.is_over = self.is_complete = True
            case h11.ConnectionClosed():
                self.is_over = True
            case _:
                return event is not h11.NEED_DATA and event is not h11.PAUSED
        return True

    def body(self) -> bytes:
        """Return what has arrived of the body of an answer that refuses the request."""
        return bytes(self._body)

    def what_is_missing(self) -> str:
        """Return why an answer that is over, but has no last line, cannot be relied on."""
        return "the answer ended without its last line" if self.is_complete else "the connection was lost"

    def lines(self) -> list[bytes]:
        """Return the lines that have arrived whole since the last time, without their ends."""
        end = self._body.rfind(b"\n") + 1
        if not end:
            return []
        found = bytes(self._body[: end - 1]).split(b"\n")
        del self._body[:end]
        return found
