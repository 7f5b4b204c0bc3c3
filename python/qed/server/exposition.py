"""`GET /metrics`: what this server has done and how it is, for Prometheus."""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Final

from qed.server.disk import Usage
from qed.server.families import by_label, counter, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import Receive, Scope, Send

    from qed.server.access import Access
    from qed.server.calls import Calls
    from qed.server.connection import ConnectionLimit
    from qed.server.families import Family
    from qed.server.node import Node
    from qed.server.open_streams import OpenStreams

__all__ = ["Exposition"]

_ACCEPT: Final = b"accept"


class Exposition:
    """Answers with all metrics."""

    def __init__(
        self, node: Node, access: Access, calls: Calls, connections: ConnectionLimit, streams: OpenStreams
    ) -> None:
        self._node = node
        self._access = access
        self._calls = calls
        self._connections = connections
        self._streams = streams

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        """Answer in the format that the reader prefers."""
        accepted = next((value for name, value in scope["headers"] if name == _ACCEPT), b"").decode("latin-1")
        usage = await asyncio.to_thread(self._prepare)
        # Values are read in this thread, which changes them.
        families = [*self._node.families(), *usage.families(), *self._of_access(), *self._calls.families()]
        body, content_type = await asyncio.to_thread(text_of, families, accepted)
        headers = [(b"content-type", content_type.encode()), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _prepare(self) -> Usage:
        importlib.import_module("prometheus_client")
        return Usage.of(self._node.settings.data_dir)

    def _of_access(self) -> Iterator[Family]:
        yield counter(
            "http_refused",
            "Requests that were refused before they were handled, by reason.",
            *by_label(self._access.refused),
            labels=("reason",),
        )
        yield from self._connections.families()
        yield from self._streams.families()
