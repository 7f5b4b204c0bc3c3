"""What a URL, a folder or a bucket is: where a log is published, or where to publish it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from qed.errors import MonitorError
from qed.monitoring.s3 import SCHEME, S3Options
from qed.monitoring.sources import CHECKPOINT, FolderSource, UrlSource
from qed.monitoring.targets import Folder

if TYPE_CHECKING:
    from qed._client.connections import Security
    from qed.monitoring.bucket import Bucket
    from qed.monitoring.sources import Source
    from qed.monitoring.targets import Target

__all__ = ["source_of", "target_of"]

_USUAL: Final = S3Options()


def source_of(place: str, security: Security, *, timeout_s: float, s3: S3Options = _USUAL) -> Source:
    """Return the source that a URL, a bucket or a folder is.

    Args:
        place: A URL with http or https, `s3://BUCKET/PREFIX`, or a folder, which has the files directly or below `log`.
        security: How to check servers.
        timeout_s: How long one request may take.
        s3: How to reach the bucket.

    Returns:
        The source. Nothing was read yet.

    Raises:
        ValueError: The URL is invalid.
        MonitorError: A bucket needs a package that is not installed.
        OSError: The folder does not exist.
    """
    if place.startswith(("http://", "https://")):
        return UrlSource(place, security, timeout_s=timeout_s)
    if place.startswith(SCHEME):
        return _bucket(place, s3, security, timeout_s)
    folder = Path(place)
    below = folder / "log"
    return FolderSource(below if below.is_dir() and not (folder / CHECKPOINT).exists() else folder)


def target_of(place: str, security: Security, *, timeout_s: float, s3: S3Options = _USUAL) -> Target:
    """Return the target that a bucket or a folder is.

    Args:
        place: `s3://BUCKET/PREFIX`, or a folder, which is created if it does not exist.
        security: As for `source_of`.
        timeout_s: As for `source_of`.
        s3: As for `source_of`.

    Returns:
        The target.

    Raises:
        ValueError: It is a URL of another kind, or an invalid one.
        MonitorError: As for `source_of`.
        OSError: The folder cannot be created.
    """
    if place.startswith(SCHEME):
        return _bucket(place, s3, security, timeout_s)
    if "://" in place:
        raise ValueError(f"expected a folder or s3://BUCKET/PREFIX to publish to, found {place!r}")
    return Folder(Path(place))


def _bucket(place: str, s3: S3Options, security: Security, timeout_s: float) -> Bucket:
    try:
        from qed.monitoring.bucket import Bucket  # noqa: PLC0415 - not every installation has what it needs
    except ImportError as exc:
        raise MonitorError(f"{place} needs the package obstore: pip install 'qed-log[s3]'") from exc
    return Bucket(place, s3, security, timeout_s=timeout_s)
