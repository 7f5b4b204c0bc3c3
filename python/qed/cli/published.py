"""What a log has published, for commands that verify with it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from qed.cli.levels import print_unconvincing
from qed.cli.options import current_session
from qed.cli.places import source_at
from qed.errors import VerificationError
from qed.monitoring.linking import PublishedLog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qed.cli.policies import Demand
    from qed.monitoring.s3 import S3Options

__all__ = ["opened"]


@contextmanager
def opened(place: str, demand: Demand, s3: S3Options) -> Iterator[PublishedLog]:
    """Give what a log has published, once it was compared with the memory.

    Args:
        place: A URL, a bucket or a folder.
        demand: Whom to trust, and what was seen of the log before.
        s3: How to reach a bucket.

    Yields:
        The log, until the connections are closed.

    Raises:
        VerificationError: It does not verify, or contradicts the memory. The verdict was printed.
        click.UsageError: The place is invalid.
    """
    session = current_session()
    source = source_at(place, session.settings, s3)
    try:
        try:
            log = PublishedLog(demand.policy, source, demand.memory)
            log.follow()
        except VerificationError as exc:
            print_unconvincing(session.terminal, None, exc)
            raise
        yield log
    finally:
        source.close()
