"""Build a client from the global options."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, TypeVar

import click

from qed._client.async_client import AsyncClient
from qed._client.client import Client
from qed._client.defaults import DEFAULT_SEND
from qed.cli.terminal import print_error

if TYPE_CHECKING:
    from qed._client.adding import Sent
    from qed._client.calls import Consistency
    from qed.cli.options import Settings

__all__ = ["connect", "connect_async", "consistency"]

_Client = TypeVar("_Client", Client, AsyncClient)


def connect(settings: Settings, send: Sent = DEFAULT_SEND) -> Client:
    """Return a client for the servers that the global options name. Nothing is sent yet.

    Args:
        settings: The values of the global options.
        send: What to send of an event that is added.

    Returns:
        The client; close it.

    Raises:
        click.UsageError: A URL or the key is invalid.
    """
    if settings.is_insecure:
        _warn_once()
    return _connect(Client, settings, send)


@cache
def _warn_once() -> None:
    """Warn, but not in each round of a monitor, which connects again and again."""
    print_error("warning: the servers' certificates are not checked (--insecure)")


def connect_async(settings: Settings) -> AsyncClient:
    """Return the same for asyncio, to ask several members at once.

    Args:
        settings: As for `connect`.

    Returns:
        The client; close it.
    """
    return _connect(AsyncClient, settings, DEFAULT_SEND)


def _connect(kind: type[_Client], settings: Settings, send: Sent) -> _Client:
    try:
        return kind(
            settings.endpoints,
            timeout_s=settings.timeout_s,
            api_key=settings.api_key,
            verify_tls=not settings.is_insecure,
            ca=settings.ca,
            certificate=_certificate(settings),
            trust_members=settings.trust_members,
            read=settings.read,
            send=send,
        )
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc


def _certificate(settings: Settings) -> tuple[str, str] | None:
    certificate, key = settings.certificate, settings.certificate_key
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise click.UsageError("expected --cert and --cert-key together")
    return certificate, key


def consistency(*, is_linearizable: bool) -> Consistency | None:
    """Return the consistency of a read that `--linearizable` selects."""
    return "linearizable" if is_linearizable else None
