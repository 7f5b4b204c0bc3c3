"""Restoring a log from what it has published: every entry is verified and replayed before it is in the new folder."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from qed._deeds import Rebuilt, now, user
from qed._qed import Rebuilding
from qed.monitoring.auditing import standing
from qed.monitoring.findings import Kind
from qed.monitoring.published import PublishedTree
from qed.monitoring.replaying import replay
from qed.monitoring.sources import CHECKPOINT

if TYPE_CHECKING:
    from collections.abc import Callable

    from qed._qed import Founding
    from qed.monitoring.findings import Finding
    from qed.monitoring.sources import Source
    from qed.policy import Policy
    from qed.signed import Checkpoint

__all__ = ["Restoration", "restore"]


@dataclass(frozen=True)
class Restoration:
    """The outcome of a restoration.

    Attributes:
        checkpoint: The checkpoint whose entries were to be restored.
        founding: The log: the name of the new cluster, which the first server on it founds, and its events. None if
            nothing was restored.
        finding: Why nothing was restored, or None.
    """

    checkpoint: Checkpoint
    founding: Founding | None
    finding: Finding | None


def restore(
    policy: Policy,
    source: Source,
    data_dir: str | os.PathLike[str],
    *,
    started: Callable[[Checkpoint], Callable[[int], None]] = lambda _: lambda _: None,
    completing: Callable[[], None] = lambda: None,
) -> Restoration:
    """Fill a new data folder with all entries that a log has published.

    1. The checkpoint is verified by the policy, and must have the witnesses that it demands. It may be old: what was
       published last is all there is.
    2. Its tiles lead to its root, and its entries to the tiles.
    3. The entries are replayed, and lead to both roots at the end of each commit batch.
    4. Both trees are built once more from the folder, and lead to the same roots.

    Args:
        policy: Whom to trust.
        source: Where the log was published.
        data_dir: The data folder, which must not exist or must be empty.
        started: Called with the checkpoint. What it returns is called with how many entries were replayed since.
        completing: Called before the folder becomes a log.

    Returns:
        What was restored.

    Raises:
        VerificationError: The checkpoint does not verify, or its files are damaged. The folder is left empty.
        Unavailable: The source cannot be reached, or lacks a file.
        ProtocolError: It refuses.
        LogError: The folder is not empty, or cannot be written.
        BackupError: It cannot be made a log.
    """
    # 1.
    checkpoint = policy.trust.endorse(source.read(CHECKPOINT), now=int(time.time()))
    for doubt in standing(policy, checkpoint):
        if doubt.kind is not Kind.STALE:
            return Restoration(checkpoint, None, doubt)
    advance = started(checkpoint)
    act = Rebuilt(
        who=user(),
        origin=socket.gethostname(),
        when=now(),
        log=checkpoint.origin,
        root=checkpoint.root.hex(),
        events=checkpoint.size,
    )
    rebuilding = Rebuilding(os.fspath(data_dir), act=msgspec.json.encode(act).decode())
    try:
        # 2. and 3.
        finding = replay(PublishedTree(checkpoint, [source]), rebuilding, advance=advance, with_tiles=False)
        if finding is not None:
            return Restoration(checkpoint, None, finding)
        # 4.
        completing()
        return Restoration(checkpoint, rebuilding.complete(), None)
    finally:
        rebuilding.close()
