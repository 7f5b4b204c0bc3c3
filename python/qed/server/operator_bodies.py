"""Bodies of calls that change something for all members: once one has arrived, its caller is checked again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from qed.server.bodies import Bodies
from qed.server.head import head_of

if TYPE_CHECKING:
    from starlette.types import Receive, Scope

    from qed.server.access import Access
    from qed.server.node import Node

__all__ = ["OperatorBodies"]

_MOST_BYTES: Final = 64 * 1024
"""Names, roles and times: a kilobyte."""


class OperatorBodies(Bodies):
    """Reads the bodies of operators' calls, and admits the caller as of the moment at which the whole body is there.

    The leader relies on this member to check keys. A key may have been revoked while the body arrived, or before, while
    this member was away.
    """

    def __init__(self, node: Node, access: Access) -> None:
        super().__init__(replace(node.settings.limits, max_body_bytes=_MOST_BYTES))
        self._node = node
        self._access = access

    async def read(self, scope: Scope, receive: Receive) -> bytes:
        """Return the whole body.

        Raises:
            BodyTooLarge: The body is larger than 64 KiB.
            Overloaded: Too many bodies are being received.
            ClientGone: The client closed the connection.
            Unauthenticated: The caller's key is not valid, as of all that was acknowledged when the body was there.
            Forbidden: It has no role for this call.
            Unavailable: No leader confirmed in time that this member knows all keys.
        """
        body = await super().read(scope, receive)
        await self._node.catch_up()
        self._access.admit(scope, head_of(scope), is_management=True)
        return body
