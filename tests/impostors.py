"""Somebody at an address where a server expects a member."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from harness.wait import LIMIT_S

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from typing import Self


class Impostor:
    """Accepts TLS streams with a context, one after the other, and gives each to a function, in a thread."""

    def __init__(self, accepting: ssl.SSLContext, answer: Callable[[ssl.SSLSocket], None], *, port: int = 0) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._accepting = accepting
        self._answer = answer
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                peer.settimeout(LIMIT_S)
                with (
                    suppress(OSError, struct.error),
                    closing(self._accepting.wrap_socket(peer, server_side=True)) as stream,
                ):
                    self._answer(stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(LIMIT_S)
