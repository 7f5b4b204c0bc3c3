"""Where a published log is read from or written to, from arguments and options."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from qed.cli.security import security_of
from qed.monitoring.places import source_of, target_of

if TYPE_CHECKING:
    from qed.cli.options import Settings
    from qed.monitoring.s3 import S3Options
    from qed.monitoring.sources import Source
    from qed.monitoring.targets import Target

__all__ = ["source_at", "target_at"]


def source_at(place: str, settings: Settings, s3: S3Options) -> Source:
    """Return the source at a place.

    Args:
        place: A URL, a bucket or a folder.
        settings: The values of the global options.
        s3: How to reach a bucket.

    Returns:
        The source. Nothing was read yet.

    Raises:
        click.UsageError: The place is invalid.
        MonitorError: A bucket needs a package that is not installed.
        OSError: The folder does not exist.
    """
    try:
        return source_of(place, security_of(settings), timeout_s=settings.timeout_s, s3=s3)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc


def target_at(place: str, settings: Settings, s3: S3Options) -> Target:
    """Return the target at a place: a bucket, or a folder, which is created; arguments and errors as `source_at`."""
    try:
        return target_of(place, security_of(settings), timeout_s=settings.timeout_s, s3=s3)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc
