"""Where alerts go: a webhook, a command, the log."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import shlex
import subprocess
from typing import TYPE_CHECKING, Final, Protocol

import httpx
import msgspec

from qed._client.deadline import deadline
from qed._client.sockets import Sockets
from qed._client.transports import Transport
from qed._files import open_at_once
from qed._hosts import is_loopback
from qed.errors import MonitorError
from qed.monitoring.findings import Severity

if TYPE_CHECKING:
    from pathlib import Path

    from qed.monitoring.alerts import Alert

__all__ = ["CommandSink", "LogSink", "Sink", "Undelivered", "Webhook"]

_log = logging.getLogger(__name__)

_WEBHOOK_S: Final = 10.0
_COMMAND_S: Final = 30.0
_SECRET_BYTES_MAX: Final = 4096
_ENCODED: Final = "whsec_"
"""What a secret in base64 begins with."""
_LEVELS: Final = {Severity.CRITICAL: logging.ERROR, Severity.ERROR: logging.ERROR, Severity.INFO: logging.WARNING}
_REASON_CHARACTERS: Final = 200


class Undelivered(Exception):
    """A sink has not taken an alert."""


class Sink(Protocol):
    """Where alerts go."""

    @property
    def name(self) -> str:
        """What tells it from the other sinks."""

    def deliver(self, alert: Alert, *, now: int) -> None:
        """Deliver an alert.

        Args:
            alert: The alert.
            now: The current time in seconds since 1970.

        Raises:
            Undelivered: It was not taken. It should be tried again later.
        """


class LogSink:
    """A line of the log for each alert."""

    name: Final = "log"

    def deliver(self, alert: Alert, *, now: int) -> None:
        """See `Sink.deliver`."""
        del now
        _log.log(_LEVELS[alert.severity], "%s id=%s log=%s: %s", alert.kind, alert.id, alert.origin, alert.text)


class Webhook:
    """An HTTP server that gets each alert in a POST, signed as in Standard Webhooks.

    Args:
        url: Its address. Plain HTTP only goes to this machine, unless `allows_plain`.
        secret: What both sides know, at least 16 bytes; or None for no signature.
        allows_plain: Whether alerts may go over the network in plain text.

    Raises:
        MonitorError: The address or the secret cannot be used.
    """

    name: Final = "webhook"

    def __init__(self, url: str, secret: bytes | None, *, allows_plain: bool = False) -> None:
        parsed = httpx.URL(url)
        if parsed.scheme not in {"http", "https"} or not parsed.host:
            raise MonitorError(
                "expected the address of a webhook such as https://alerts.example.com/qed, found another"
            )
        if parsed.scheme == "http" and not (allows_plain or is_loopback(parsed.host)):
            raise MonitorError(f"expected https for a webhook on another machine, found http to {parsed.host}")
        self._url: Final = url
        self._key: Final = None if secret is None else _key_of(secret)

    @staticmethod
    def secret_in(path: Path) -> bytes:
        """Return the secret in a file.

        Raises:
            OSError: It cannot be read.
        """
        with open_at_once(path) as file:
            return file.read(_SECRET_BYTES_MAX).strip()

    def deliver(self, alert: Alert, *, now: int) -> None:
        """See `Sink.deliver`. Redirects are not followed: they could lead to a server inside the network."""
        body = msgspec.json.encode(alert)
        headers = {"Content-Type": "application/json", "webhook-id": alert.id, "webhook-timestamp": str(now)}
        if self._key is not None:
            signed = f"{alert.id}.{now}.".encode() + body
            code = base64.b64encode(hmac.digest(self._key, signed, hashlib.sha256)).decode()
            headers["webhook-signature"] = f"v1,{code}"
        try:
            status = self._post(body, headers)
        except httpx.HTTPError as exc:
            raise Undelivered(f"the webhook did not answer: {exc or type(exc).__name__}") from exc
        if not httpx.codes.is_success(status):
            raise Undelivered(f"the webhook answered {status}")

    def _post(self, body: bytes, headers: dict[str, str]) -> int:
        tls = httpx.create_ssl_context(trust_env=False)
        with (
            deadline(_WEBHOOK_S),
            httpx.Client(transport=Transport(tls, Sockets()), timeout=_WEBHOOK_S, follow_redirects=False) as client,
            client.stream("POST", self._url, content=body, headers=headers) as response,
        ):
            # The body of the answer says nothing, and may never end.
            return response.status_code


class CommandSink:
    """A program that gets each alert on stdin, and takes it by ending with 0 within 30 s. It is run without a shell.

    Args:
        line: The program and its arguments, quoted as in a shell.

    Raises:
        MonitorError: There is no program.
    """

    name: Final = "command"

    def __init__(self, line: str) -> None:
        try:
            self._words: Final = shlex.split(line)
        except ValueError as exc:
            raise MonitorError(f"expected a program and its arguments, found {line!r}: {exc}") from exc
        if not self._words:
            raise MonitorError("expected a program, found none")

    def deliver(self, alert: Alert, *, now: int) -> None:
        """See `Sink.deliver`."""
        del now
        content = msgspec.json.encode(alert) + b"\n"
        try:
            done = subprocess.run(  # noqa: S603  # the operator's own program
                self._words, input=content, capture_output=True, timeout=_COMMAND_S, check=False
            )
        except subprocess.TimeoutExpired as exc:
            raise Undelivered(f"{self._words[0]} did not end within {_COMMAND_S:.0f} s") from exc
        except OSError as exc:
            raise Undelivered(f"{self._words[0]} cannot be run: {exc.strerror}") from exc
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()[:_REASON_CHARACTERS]
            raise Undelivered(f"{self._words[0]} ended with {done.returncode}: {said}")


def _key_of(secret: bytes) -> bytes:
    text = secret.decode("ascii", errors="replace")
    if not text.startswith(_ENCODED):
        return _long_enough(secret)
    try:
        return _long_enough(base64.b64decode(text.removeprefix(_ENCODED), validate=True))
    except ValueError as exc:
        raise MonitorError(f"expected base64 after {_ENCODED} in the secret of the webhook") from exc


def _long_enough(key: bytes) -> bytes:
    if len(key) < 16:  # noqa: PLR2004  # bytes; fewer can be guessed
        raise MonitorError(f"expected a secret of at least 16 bytes for the webhook, found {len(key)}")
    return key
