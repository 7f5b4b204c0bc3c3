"""The options about buckets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypedDict, TypeVar

import click

from qed.monitoring.s3 import S3Options

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["S3Given", "s3_given", "s3_options"]

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
