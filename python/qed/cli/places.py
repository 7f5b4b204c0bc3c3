"""Where a published log is read from or written to, from arguments and options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypedDict, TypeVar

import click

from qed.cli.security import security_of
from qed.monitoring.places import source_of, target_of
from qed.monitoring.s3 import S3Options

if TYPE_CHECKING:
    from collections.abc import Callable

    from qed.cli.options import Settings
    from qed.monitoring.sources import Source
    from qed.monitoring.targets import Target

__all__ = ["S3Given", "s3_given", "s3_options", "source_at", "target_at"]

_T = TypeVar("_T")


class S3Given(TypedDict):
    """The options about buckets."""

    s3_endpoint: str | None
    s3_region: str | None
    s3_virtual_hosted: bool


_OPTIONS: Final = (
    click.option("--s3-endpoint", metavar="URL", help="The store of s3://… Default: AWS_ENDPOINT_URL, or Amazon."),
    click.option("--s3-region", metavar="NAME", help="The region of the bucket. Default: AWS_REGION, or us-east-1."),
    click.option("--s3-virtual-hosted", is_flag=True, help="The bucket is in the host name of the store."),
)


def s3_options(function: Callable[..., _T]) -> Callable[..., _T]:
    """Give a command the options about buckets."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def s3_given(given: S3Given) -> S3Options:
    """Return how to reach a bucket, from the options."""
    return S3Options(given["s3_endpoint"], given["s3_region"], is_virtual_hosted=given["s3_virtual_hosted"])


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
