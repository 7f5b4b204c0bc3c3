"""The calls that make, list and revoke API keys, at the management address."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from qed._wire import ENCODER, KEY_REQUEST, REVOKE_REQUEST, CreatedKey, DecodeError, KeyRow, Keys
from qed.server.endpoints import author_of, send_json
from qed.server.rates import Rates

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from qed.server.access import Access
    from qed.server.bodies import Bodies
    from qed.server.keys import Key
    from qed.server.node import Node

__all__ = ["AllKeys", "Revoke"]


class AllKeys:
    """`GET /keys`: 200 with all keys, without their secrets. `POST /keys`: 201 with a new key, shown only this once."""

    def __init__(self, node: Node, access: Access, bodies: Bodies) -> None:
        self._node = node
        self._access = access
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """List the keys, or make one.

        Raises:
            DecodeError: The request is malformed, or the key would have expired already.
        """
        if scope["method"] == "POST":
            await self._create(scope, receive, send)
        else:
            await send_json(send, 200, await _listed(self._node, self._access))

    async def _create(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = KEY_REQUEST.decode(await self._bodies.read(scope, receive))
        expires = request.ends()
        if expires is not None and expires <= datetime.now(UTC):
            raise DecodeError("expected a time in the future for Expires")
        roles = [str(role) for role in request.roles]
        rates = Rates(request.events_per_s, request.requests_per_s)
        key = await self._node.create_key(roles, request.name, expires, author_of(scope), rates=rates)
        created = CreatedKey(key.id, key.text, request.name, roles, expires, *rates)
        # Caches between client and server must not keep the key.
        await send_json(send, 201, ENCODER.encode(created), (b"cache-control", b"no-store"))


class Revoke:
    """`POST /keys/revoke`: 200 with all keys once one of them is revoked."""

    def __init__(self, node: Node, access: Access, bodies: Bodies) -> None:
        self._node = node
        self._access = access
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Revoke one key."""
        request = REVOKE_REQUEST.decode(await self._bodies.read(scope, receive))
        await self._node.revoke_key(request.id, author_of(scope))
        await send_json(send, 200, await _listed(self._node, self._access))


async def _listed(node: Node, access: Access) -> bytes:
    unanswered = await node.gather_key_uses()
    return ENCODER.encode(
        Keys(
            node_id=node.settings.node_id,
            is_open=access.is_open(is_management=False),
            is_management_open=access.is_open(is_management=True),
            refused=dict(access.refused),
            keys=[_row(key) for key in node.keys],
            default_events_per_s=node.settings.limits.key_events_per_s,
            default_requests_per_s=node.settings.limits.key_requests_per_s,
            unanswered=unanswered,
        )
    )


def _row(key: Key) -> KeyRow:
    created = key.created
    return KeyRow(
        id=created.id,
        name=created.name,
        roles=created.roles,
        created=created.when,
        created_by=created.who,
        expires=created.expires,
        is_revoked=key.is_revoked,
        last_used=None if key.last_used is None else datetime.fromtimestamp(int(key.last_used), UTC),
        events_per_s=created.events_per_s,
        requests_per_s=created.requests_per_s,
    )
