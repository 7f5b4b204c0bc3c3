"""The paths of a witness: HTTP around it, with a limit on bodies and on the time of an answer."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from starlette.exceptions import HTTPException
from starlette.routing import Route, Router

from qed.errors import Overloaded
from qed.server.bodies import Bodies, BodyTooLarge, ClientGone, drop_rest
from qed.server.logs import Line, where
from qed.witness.store import StoreLost
from qed.witness.witness import Answer

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import Receive, Scope, Send

    from qed.server.config import Limits
    from qed.witness.witness import Witness

__all__ = ["Application"]

_log = logging.getLogger(__name__)

_ANSWER_S: Final = 10.0
"""How long a request waits for the database."""
_ED25519: Final = 1
_CLOSE: Final = (b"connection", b"close")
_OPEN: Final = (b"access-control-allow-origin", b"*")
_FRESH: Final = (b"cache-control", b"no-store")


class Application:
    """The ASGI application of a witness."""

    def __init__(
        self,
        witness: Witness,
        limits: Limits,
        *,
        submission_prefix: str = "",
        monitoring_prefix: str = "",
        has_receipts: bool = False,
    ) -> None:
        """Make the application.

        Args:
            witness: Answers the requests.
            limits: Those of bodies.
            submission_prefix: The path before `/add-checkpoint`; empty, or with a slash in front and none behind.
            monitoring_prefix: Likewise the path before `/HASH/checkpoint`.
            has_receipts: Whether there is a call in which only the keys of kind 01 sign, as is enough for a receipt.
        """
        self._called = witness.called
        submit, bodies = f"{submission_prefix}/add-checkpoint", Bodies(limits)
        routes = [
            Route(submit, _AddCheckpoint(witness, bodies), methods=["POST"]),
            Route(f"{monitoring_prefix}/{{digest}}/checkpoint", _LastCheckpoint(witness), methods=["GET"]),
        ]
        if has_receipts:
            routes.append(Route(f"{submit}/01", _AddCheckpoint(witness, bodies, kinds=(_ED25519,)), methods=["POST"]))
        self._router = Router(routes, redirect_slashes=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        scope["app"] = self  # With this, the router raises for an unknown path instead of answering itself.
        try:
            await self._router(scope, receive, send)
        except ClientGone:
            return
        except BodyTooLarge as exc:
            await drop_rest(receive)
            await _send(send, Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{exc}\n"), _CLOSE)
        except (TimeoutError, sqlite3.Error, StoreLost, asyncio.CancelledError):
            # Only the end of the server cancels a request. What was cosigned stays, and the client may ask again.
            text = f"the {self._called} did not finish in time\n"
            await _send(send, Answer(HTTPStatus.SERVICE_UNAVAILABLE, text, retry_after_s=1))
        except Overloaded as exc:
            await _send(send, Answer(HTTPStatus.TOO_MANY_REQUESTS, f"{exc}\n", retry_after_s=1))
        except HTTPException as exc:
            allowed = (exc.headers or {}).get("Allow")
            headers = [] if allowed is None else [(b"allow", ", ".join(sorted(allowed.split(", "))).encode())]
            await _send(send, Answer(HTTPStatus(exc.status_code), f"{exc.detail.lower()}\n"), *headers)
        except Exception as exc:  # noqa: BLE001  # the last place before uvicorn's own answer
            _log.error(Line("unexpected error", **where(exc)))
            await _send(send, Answer(HTTPStatus.INTERNAL_SERVER_ERROR, f"the {self._called} failed; see its log\n"))


class _AddCheckpoint:
    """`POST /add-checkpoint`."""

    def __init__(self, witness: Witness, bodies: Bodies, *, kinds: Collection[int] | None = None) -> None:
        self._witness = witness
        self._bodies = bodies
        self._kinds = kinds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with signature lines, or with why there are none."""
        body = await self._bodies.read(scope, receive)
        async with asyncio.timeout(_ANSWER_S):
            answer = await self._witness.add_checkpoint(body, kinds=self._kinds)
        await _send(send, answer)


class _LastCheckpoint:
    """`GET /HASH/checkpoint`, for monitors."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        """Answer with the note that was cosigned last."""
        async with asyncio.timeout(_ANSWER_S):
            note = await self._witness.last_note(scope["path_params"]["digest"])
        if note is None:
            text = f"this {self._witness.called} has signed no checkpoint of this log\n"
            await _send(send, Answer(HTTPStatus.NOT_FOUND, text))
        else:
            await _send(send, Answer(HTTPStatus.OK, note), _OPEN)


async def _send(send: Send, answer: Answer, *headers: tuple[bytes, bytes]) -> None:
    body = answer.body.encode()
    own = [(b"content-type", answer.content_type.encode()), (b"content-length", b"%d" % len(body)), _FRESH]
    if answer.retry_after_s is not None:
        own.append((b"retry-after", b"%d" % answer.retry_after_s))
    await send({"type": "http.response.start", "status": answer.status.value, "headers": [*own, *headers]})
    await send({"type": "http.response.body", "body": body})
