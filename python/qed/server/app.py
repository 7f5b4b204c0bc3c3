"""Maps paths to endpoints and exceptions to statuses, and runs what surrounds each request."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple

from starlette.exceptions import HTTPException
from starlette.routing import Route, Router

from qed._wire import ENCODER, DecodeError, ErrorBody
from qed.backups import NoSuchBackup
from qed.errors import (
    AddedLater,
    BackupError,
    MembershipRefused,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    PageError,
    SigningError,
    Unavailable,
    UnknownVersion,
    WriteRefused,
)
from qed.server import backups, endpoints, key_calls, signer_calls, snapshot_store, tiles
from qed.server.access import CALLER, Access, Forbidden, KeysNotKnown, Unauthenticated
from qed.server.bodies import Bodies, BodyTooLarge, ClientGone, RequestTooLarge, drop_rest
from qed.server.browsers import ForeignHost, ForeignOrigin
from qed.server.calls import SUCCESS, Calls
from qed.server.event_stream import EventStream
from qed.server.exposition import Exposition
from qed.server.guard import ForkGuard
from qed.server.head import UnsupportedEncoding, head_of
from qed.server.logs import Line, where
from qed.server.node import EmptyLog, NotTaken
from qed.server.operator_bodies import OperatorBodies
from qed.server.passed_on import CallerRefused
from qed.server.rates import RateExceeded
from qed.server.receipt_calls import PastReceipt
from qed.server.roles import call_of
from qed.server.slots import SLOT

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Mapping

    from starlette.types import ASGIApp, Receive, Scope, Send

    from qed.server.access import Caller
    from qed.server.connection import ConnectionLimit
    from qed.server.durations import Durations
    from qed.server.node import Node
    from qed.server.open_streams import OpenStreams
    from qed.server.slots import Slot

__all__ = ["Application", "build_application"]

_log = logging.getLogger(__name__)

_STATUS: Final[dict[type[Exception], tuple[int, str]]] = {
    DecodeError: (400, "malformed"),
    Unauthenticated: (401, "unauthorized"),
    Forbidden: (403, "forbidden"),
    CallerRefused: (403, "forbidden"),
    ForeignOrigin: (403, "foreign_origin"),
    ForeignHost: (403, "foreign_host"),
    endpoints.NoSuchSnapshot: (404, "unknown_version"),
    tiles.NoSuchTile: (404, "unknown_tile"),
    AddedLater: (412, "added_later"),
    EmptyLog: (412, "empty_log"),
    UnknownVersion: (412, "invalid_range"),
    RequestTooLarge: (413, "too_large"),
    UnsupportedEncoding: (415, "unsupported_encoding"),
    MembershipRefused: (409, "refused"),
    NoSuchBackup: (404, "unknown_backup"),
    BackupError: (409, "backup"),
    PageError: (409, "diverged"),
    Overloaded: (429, "overloaded"),
    RateExceeded: (429, "rate_limited"),
    NotLeader: (503, "no_leader"),
    ForkGuard: (503, "fork_guard"),
    SigningError: (503, "signer"),
    OutcomeUnknown: (503, "outcome_unknown"),
    Unavailable: (503, "unavailable"),
    WriteRefused: (503, "unavailable"),
}
"""The status and code for each exception. The most specific class that is listed wins; any other exception is 500."""

_ROUTER_CODES: Final = {404: "not_found", 405: "method_not_allowed"}
_RETRY_AFTER: Final = (b"retry-after", b"1")
_AUTHENTICATE: Final = (b"www-authenticate", b"Bearer")
_CLOSE: Final = (b"connection", b"close")
_UNKNOWN: Final = "other"
"""What a path that does not exist is counted as."""


class _Endpoint(NamedTuple):
    """What answers a request, and where it is counted.

    Attributes:
        app: What answers.
        call: The path of its route.
        successes: The times of requests that end well.
    """

    app: ASGIApp
    call: str
    successes: Durations


class Application:
    """The routes, inside one handler for everything they raise.

    This replaces Starlette's two error middlewares, which build a request object for every call.
    """

    def __init__(self, node: Node, access: Access, router: Router, others: Mapping[int, Router], calls: Calls) -> None:
        """Put it together.

        Args:
            node: An open node.
            access: Decides who may do what.
            router: The calls of clients, and the lifespan.
            others: The calls at other addresses, by port.
            calls: Counts requests.
        """
        self._node = node
        self._access = access
        self._router = router
        self._others = others
        self._calls = calls
        # A path without parameters skips the router, whose search takes as long as decoding, proving and encoding.
        self._direct: dict[tuple[str, str], _Endpoint] = {
            (method, route.path): self._counted(route.app, route.path)
            for route in router.routes
            if isinstance(route, Route) and not route.param_convertors
            for method in route.methods or ()
        }
        # So does the only path with a parameter that is asked for often.
        self._tiles = self._counted(tiles.TileFile(node), f"{tiles.PREFIX}tile")

    def _counted(self, app: ASGIApp, call: str) -> _Endpoint:
        return _Endpoint(app, call, self._calls.times(call, SUCCESS))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        if scope["type"] != "http":
            await self._router(scope, receive, send)
            return
        other = self._others.get(scope["server"][1])
        endpoint = self._endpoint(scope, other)
        if scope["path"].startswith(tiles.PREFIX):
            send = tiles.for_readers(send)
        begun_s = time.perf_counter()
        self._calls.under_way += 1
        try:
            if self._access.admit(scope, head_of(scope), is_management=other is not None):
                _note_owner(scope)
            await endpoint.app(scope, receive, send)
        except ClientGone:
            return
        except asyncio.CancelledError:
            # Only shutdown cancels a request, when the grace period is over, and this task ends here.
            await _send_error(send, 503, ErrorBody("unavailable", "the server stopped before it knew the result"))
        except Exception as exc:  # noqa: BLE001  # the last place before uvicorn's own plain-text answer
            status = await self._answer(exc, scope, receive, send)
            self._calls.times(endpoint.call, str(status)).add(time.perf_counter() - begun_s)
        else:
            endpoint.successes.add(time.perf_counter() - begun_s)
        finally:
            self._calls.under_way -= 1

    def _endpoint(self, scope: Scope, other: Router | None) -> _Endpoint:
        path: str = scope["path"]
        if not path.isprintable():
            # The router ignores a line feed at the end of a path, and roles are those of the path as it is.
            return self._counted(_nowhere, _UNKNOWN)
        direct = None if other is not None else self._direct.get((scope["method"], path))
        if direct is not None:
            return direct
        if other is None and path.startswith(tiles.PREFIX) and scope["method"] in {"GET", "HEAD"}:
            return self._tiles
        scope["app"] = self  # With this, the router raises for an unknown path instead of answering itself.
        router = other or self._router
        return self._counted(router, call_of(path, is_management=other is not None) or _UNKNOWN)

    async def _answer(self, exc: Exception, scope: Scope, receive: Receive, send: Send) -> int:
        """Answer a request that has failed; return the status."""
        if isinstance(exc, BodyTooLarge):
            return await _refuse_body(exc, receive, send)
        if isinstance(exc, NotLeader):
            return await self._redirect(exc, scope, send)
        if isinstance(exc, RateExceeded):
            self._access.note_rate_exceeded(scope)
        return await _answer_exception(exc, send)

    async def _redirect(self, exc: NotLeader, scope: Scope, send: Send) -> int:
        """Redirect the client to the leader, with the topology; or answer that there is no leader."""
        if exc.leader_url is None:
            return await _answer_exception(exc, send)
        way = endpoints.way_of(self._node, scope)
        url = self._node.leader_url(way) or exc.leader_url
        query: bytes = scope["query_string"]
        location = (b"location", url.encode() + scope["raw_path"] + (b"?" + query if query else b""))
        await endpoints.send_json(send, 307, ENCODER.encode(self._node.topology(way)), location)
        return 307


async def _nowhere(_: Scope, __: Receive, ___: Send) -> None:
    raise HTTPException(HTTPStatus.NOT_FOUND)


def _note_owner(scope: Scope) -> None:
    slot: Slot = scope[SLOT]
    caller: Caller = scope[CALLER]
    slot.admit(caller.name if caller.is_known else None)


async def _answer_exception(exc: Exception, send: Send) -> int:
    if isinstance(exc, HTTPException):
        await _answer_router(exc, send)
        return exc.status_code
    status, code = next((_STATUS[kind] for kind in type(exc).__mro__ if kind in _STATUS), (500, "internal"))
    message = str(exc)
    if status == 500:  # noqa: PLR2004  # named by the line above
        _log.error(Line("unexpected error", **where(exc)))
        message = "the server failed to answer; see its log"
    first_version = exc.first_version if isinstance(exc, AddedLater) else None
    # The header promises that nothing was accepted. Without it, the client must assume an insertion may be committed.
    headers = [_RETRY_AFTER] if isinstance(exc, Overloaded | NotTaken | NotLeader | KeysNotKnown) else []
    if isinstance(exc, RateExceeded):
        headers = [(b"retry-after", b"%d" % exc.retry_after_s)]
    if isinstance(exc, Unauthenticated):
        headers = [_AUTHENTICATE]
    await _send_error(send, status, ErrorBody(code, message, first_version), *headers)
    return status


async def _answer_router(exc: HTTPException, send: Send) -> None:
    allowed = (exc.headers or {}).get("Allow")
    if allowed is None:
        await _send_error(send, exc.status_code, ErrorBody(_ROUTER_CODES[exc.status_code], "there is no such path"))
        return
    methods = ", ".join(sorted(allowed.split(", ")))
    body = ErrorBody(_ROUTER_CODES[exc.status_code], f"this path accepts {methods}")
    await _send_error(send, exc.status_code, body, (b"allow", methods.encode()))


async def _refuse_body(exc: BodyTooLarge, receive: Receive, send: Send) -> int:
    """Answer 413, read and drop the rest for a while, then close."""
    status, code = _STATUS[RequestTooLarge]
    await endpoints.send_json(send, status, ENCODER.encode(ErrorBody(code, str(exc))), _CLOSE, more_body=True)
    await drop_rest(receive)
    await send({"type": "http.response.body"})
    return status


async def _send_error(send: Send, status: int, body: ErrorBody, *headers: tuple[bytes, bytes]) -> None:
    await endpoints.send_json(send, status, ENCODER.encode(body), *headers)


def build_application(
    node: Node,
    access: Access,
    raft_listener: socket.socket | None,
    connections: ConnectionLimit,
    *,
    streams: OpenStreams,
    on_failure: Callable[[], None],
) -> ASGIApp:
    """Return the ASGI application that serves `node`: clients, and operators and observers on ports of their own.

    Args:
        node: An open node. The application starts and closes it.
        access: Decides who may do what.
        raft_listener: A socket bound to the address for members; None for a server that is alone.
        connections: The limit on connections, which is among the metrics.
        streams: Where streams of events are counted.
        on_failure: Called once if the disk fails, or the cluster has removed this member.

    Returns:
        The application.
    """

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        await node.start(on_failure, raft_listener)
        try:
            yield
        finally:
            await node.close()

    settings, calls = node.settings, Calls()
    others = {settings.mgmt_addr.port: Router(_management_routes(node, access), redirect_slashes=False)}
    if settings.serves_metrics:
        exposition = Exposition(node, access, calls, connections, streams)
        others[settings.metrics_addr.port] = Router(
            [Route("/metrics", exposition, methods=["GET"])], redirect_slashes=False
        )
    router = Router(_routes(node, access, streams), redirect_slashes=False, lifespan=lifespan)
    return Application(node, access, router, others, calls)


def _routes(node: Node, access: Access, streams: OpenStreams) -> list[Route]:
    bodies = Bodies(node.settings.limits)
    return [
        Route("/events", endpoints.Add(node, bodies), methods=["POST"]),
        Route("/proofs/membership", endpoints.Membership(node, bodies), methods=["POST"]),
        Route("/proofs/membership/bulk", endpoints.BulkMembership(node, bodies), methods=["POST"]),
        Route("/proofs/incremental", endpoints.Incremental(node, bodies), methods=["POST"]),
        Route("/proofs/digest-membership", endpoints.DigestMembership(node, bodies), methods=["POST"]),
        Route("/events/stream", EventStream(node, bodies, access, streams), methods=["POST"]),
        Route("/events/bulk", endpoints.AddBulk(node, bodies), methods=["POST"]),
        Route("/snapshots/{version}", endpoints.PastSnapshot(node), methods=["GET"]),
        Route("/receipts/{version}", PastReceipt(node), methods=["GET"]),
        Route("/log/checkpoint", tiles.PublishedCheckpoint(node), methods=["GET"]),
        Route("/log/{path:path}", tiles.TileFile(node), methods=["GET"]),
        Route("/snapshot", snapshot_store.StoredSnapshot(node), methods=["GET"]),
        Route("/count", snapshot_store.SnapshotCount(node), methods=["GET"]),
        Route("/healthcheck", endpoints.Healthcheck(node), methods=["GET"]),
        Route("/", endpoints.Welcome(), methods=["GET"]),
        Route("/info", endpoints.Information(node), methods=["GET"]),
        Route("/info/shards", endpoints.Topology(node), methods=["GET"]),
    ]


def _management_routes(node: Node, access: Access) -> list[Route]:
    operator_bodies = OperatorBodies(node, access)
    keeper = backups.Keeper(node)
    return [
        Route("/", endpoints.Welcome(), methods=["GET"]),
        Route("/cluster", endpoints.ClusterView(node), methods=["GET"]),
        Route("/cluster/history", endpoints.HistoryView(node), methods=["GET"]),
        Route("/cluster/remove", endpoints.Remove(node, operator_bodies), methods=["POST"]),
        Route("/cluster/replace", endpoints.Replace(node, operator_bodies), methods=["POST"]),
        Route("/cluster/transfer", endpoints.Transfer(node, operator_bodies), methods=["POST"]),
        Route("/cluster/token", endpoints.CreateToken(node, operator_bodies), methods=["POST"]),
        Route("/backup", backups.Change(keeper, operator_bodies), methods=["POST", "DELETE"]),
        Route("/backups", backups.ListBackups(keeper), methods=["GET"]),
        Route("/backups/part", backups.BackupPart(node), methods=["GET"]),
        Route("/signers", signer_calls.AllSigners(node), methods=["GET"]),
        Route("/signers/retire", signer_calls.Retire(node, operator_bodies), methods=["POST"]),
        Route("/keys", key_calls.AllKeys(node, access, operator_bodies), methods=["GET", "POST"]),
        Route("/keys/revoke", key_calls.Revoke(node, access, operator_bodies), methods=["POST"]),
        Route("/healthcheck", endpoints.Healthcheck(node), methods=["GET"]),
    ]
