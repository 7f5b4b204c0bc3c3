"""Forks: why an answer failed, if the reason is that the server has another snapshot of a trusted version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qed._client import calls
from qed.errors import ForkDetected, QedError, VerificationError
from qed.receipts import Receipts

if TYPE_CHECKING:
    from qed._client.steps import Calls
    from qed.proofs import Snapshot
    from qed.trust import Trusted

__all__ = ["diagnosed", "landmarks"]


def diagnosed(error: VerificationError, *known: Snapshot | None) -> Calls[VerificationError]:
    """Compare known snapshots with those of the server, after a verification failed.

    Args:
        error: Why it failed.
        known: Snapshots that the server must have too.

    Yields:
        Calls, to be sent their values.

    Returns:
        The fork if a snapshot differs, else `error`.
    """
    if isinstance(error, ForkDetected):
        return error
    for snapshot in known:
        if snapshot is None:
            continue
        try:
            other: Snapshot = yield calls.snapshot(snapshot.version)
        except QedError:
            continue
        if other != snapshot:
            fork = ForkDetected(snapshot, other)
            fork.add_note(f"found after: {error}")
            return fork
    return error


def landmarks(trusted: Trusted) -> list[Snapshot | None]:
    """Return the trusted snapshots to compare with the server's: the newest, and the newest that is linked.

    Args:
        trusted: The roots that the caller trusts.
    """
    linked = trusted.linked_anchor if isinstance(trusted, Receipts) else None
    return [trusted.anchor, None if linked == trusted.anchor else linked]
