"""How servers are checked, and what they are shown, from the global options."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from qed._client.connections import Security

if TYPE_CHECKING:
    from qed.cli.options import Settings

__all__ = ["security_of"]


def security_of(settings: Settings) -> Security:
    """Return how to check the servers from which a published log is read.

    Args:
        settings: The values of the global options.

    Returns:
        The security.

    Raises:
        click.UsageError: There is a certificate without a key, or the other way round.
    """
    if (settings.certificate is None) != (settings.certificate_key is None):
        raise click.UsageError("expected --cert and --cert-key together")
    files = None
    if settings.certificate is not None and settings.certificate_key is not None:
        files = settings.certificate, settings.certificate_key
    return Security.of(settings.api_key, settings.ca, files, verify_tls=not settings.is_insecure, trust_members=False)
