"""One HTTP exchange, for both clients: the answer as it arrives, or the reason why there is none."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import httpx

from qed._client.calls import Answer
from qed._client.doubts import doubt
from qed._client.failures import Failure, FailureKind, served
from qed.errors import ProtocolError

if TYPE_CHECKING:
    from pathlib import Path

    from qed._client.failures import Outcome

__all__ = ["Inbox", "failure_of", "never_sent", "some_turn"]


class Inbox:
    """One answer as it arrives, bounded in size."""

    def __init__(self, response: httpx.Response, limit_bytes: int) -> None:
        self._response = response
        self._body = bytearray()
        self._limit_bytes = limit_bytes
        # No compressed answer was requested, and a small one may expand to a gigabyte.
        if response.headers.get("content-encoding", "identity") != "identity":
            raise self._refusal("in an encoding that was not requested")

    def take(self, part: bytes) -> None:
        """Append the next part, or raise `ProtocolError` if the answer is too large."""
        if len(self._body) + len(part) > self._limit_bytes:
            raise self._refusal(f"with more than {self._limit_bytes} bytes")
        self._body += part

    def answer(self) -> Answer:
        """Return the answer from the parts that arrived."""
        headers = {name.lower(): value for name, value in self._response.headers.items()}
        return Answer(str(self._response.url), self._response.status_code, headers, bytes(self._body))

    def _refusal(self, what: str) -> ProtocolError:
        status = self._response.status_code
        return ProtocolError(f"{self._response.url} answered {status} {what}", status=status, body=bytes(self._body))


def failure_of(
    exc: httpx.TransportError | httpx.InvalidURL | TimeoutError, timeout_s: float, certificate: Path | None = None
) -> Failure:
    """Return why there is no answer, and whether the request may have arrived nevertheless.

    Args:
        exc: What was raised in place of an answer.
        timeout_s: How long the request was allowed to take.
        certificate: The file with the certificate that the client shows to this server, if any.

    Returns:
        The failure.
    """
    failure = _failure_of(exc, timeout_s)
    has_hung_up = failure.kind is FailureKind.UNANSWERED or "alert" in failure.cause
    if certificate is None or not has_hung_up:
        return failure
    return replace(failure, cause=f"{failure.cause.rstrip('.')}; {doubt(certificate)}")


def never_sent(outcome: Outcome) -> Outcome:
    """Return the outcome of a request that carries nothing yet: whatever the answer, nothing was carried out."""
    found = served(outcome)
    if isinstance(found, Answer):
        return found
    match found.kind:
        case FailureKind.UNANSWERED:
            return replace(found, kind=FailureKind.UNAVAILABLE)
        case FailureKind.TIMED_OUT:
            return replace(found, kind=FailureKind.CONNECT_TIMED_OUT)
        case FailureKind.OUTCOME_UNKNOWN:
            return replace(found, kind=FailureKind.NOT_LEADER)
        case _:
            return found


def _failure_of(exc: httpx.TransportError | httpx.InvalidURL | TimeoutError, timeout_s: float) -> Failure:
    if isinstance(exc, httpx.LocalProtocolError):
        # The exception's own message may contain the value of a header, such as the api key.
        return Failure(FailureKind.UNAVAILABLE, "the request could not be encoded")
    was_never_sent = isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.InvalidURL)
    is_timeout = isinstance(exc, httpx.TimeoutException | TimeoutError)
    match was_never_sent, is_timeout:
        case True, True:
            return Failure(FailureKind.CONNECT_TIMED_OUT, "no connection in time")
        case True, False:
            return Failure(FailureKind.UNAVAILABLE, _reason(exc))
        case False, True:
            return Failure(FailureKind.TIMED_OUT, f"no complete answer within {timeout_s:g} s")
        case _:
            return Failure(FailureKind.UNANSWERED, _reason(exc))


def _reason(exc: Exception) -> str:
    """Return the cause, for people: for a failed connection, the system's own message from below the libraries."""
    cause: BaseException | None = exc if isinstance(exc, httpx.ConnectError) else None
    while cause is not None:
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        if isinstance(cause, ConnectionError) and cause.errno is not None:
            return os.strerror(cause.errno).lower()
        if isinstance(cause, OSError) and cause.strerror is not None:
            return cause.strerror.lower()
        cause = cause.__cause__ or cause.__context__
    return str(exc).lower() or type(exc).__name__


def some_turn() -> int:
    """Return where a new client starts among equally good members: at random, so that programs spread over them."""
    return random.randrange(1 << 16)  # noqa: S311 - spreads load, guards no secret
