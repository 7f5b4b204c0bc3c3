"""The calls of operators about the keys with which the log signs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qed._wire import ENCODER, RETIRE_REQUEST
from qed.server.endpoints import author_of, send_json

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from qed.server.bodies import Bodies
    from qed.server.node import Node

__all__ = ["AllSigners", "Retire"]


class AllSigners:
    """`GET /signers`: 200 with the name of the log and its keys."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def __call__(self, _: Scope, __: Receive, send: Send) -> None:
        """List the keys."""
        await send_json(send, 200, ENCODER.encode(self._node.signers()))


class Retire:
    """`POST /signers/retire`: 200 with the keys once one signs nothing any more."""

    def __init__(self, node: Node, bodies: Bodies) -> None:
        self._node = node
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Retire one key."""
        request = RETIRE_REQUEST.decode(await self._bodies.read(scope, receive))
        await self._node.retire_signer(request.id, author_of(scope))
        await send_json(send, 200, ENCODER.encode(self._node.signers()))
