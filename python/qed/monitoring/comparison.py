"""Whether two checkpoints of one log can both be true, by their trees, and the proof if they cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qed.errors import Unavailable, VerificationError
from qed.evidence import Evidence
from qed.monitoring.findings import Finding, Kind
from qed.monitoring.published import PublishedTree, first_difference

if TYPE_CHECKING:
    from collections.abc import Callable

    from qed.signed import Checkpoint

__all__ = ["contradiction"]


def contradiction(
    known: Checkpoint, found: Checkpoint, tree_of: Callable[[Checkpoint], PublishedTree], *, now: int
) -> Finding | None:
    """Return why two checkpoints cannot both be of one honest log.

    1. Of equal sizes, the roots are equal.
    2. Otherwise the smaller tree is the beginning of the larger one.
    3. If it is not, the first entry that differs proves it. Without the tiles of both trees, nothing does.

    Args:
        known: The checkpoint that was seen first.
        found: The other.
        tree_of: Opens the tree of a checkpoint.
        now: The current time in seconds since 1970.

    Returns:
        A fork with evidence, or None.

    Raises:
        DamagedFile: The larger tree cannot be read as its checkpoint says.
        Unavailable: No source can be reached.
    """
    log = known.origin
    # 1.
    if known.size == found.size:
        if known.root == found.root:
            return None
        evidence = Evidence.same_size(known, found, found_at=now)
        text = f"{log} has signed two roots for size {known.size}: {known.root.hex()} and {found.root.hex()}"
        return Finding(Kind.FORK, text, evidence, f"{known.root.hex()} {found.root.hex()}")
    # 2.
    smaller, larger = sorted((known, found), key=lambda checkpoint: checkpoint.size)
    tree = tree_of(larger)
    if tree.root_at(smaller.size) == smaller.root:
        return None
    # 3.
    text = f"{log} has signed a tree of size {larger.size} that does not extend its tree of size {smaller.size}"
    try:
        other = tree_of(smaller)
        index = first_difference(other, tree)
        if index is not None:
            evidence = other.tiles.same_index(tree.tiles, index, found_at=now, sources=tree.names)
            # The other tree may grow, and this is still the same fork.
            return Finding(Kind.FORK, f"{text}: entry {index} differs", evidence, f"{known.root.hex()} {index}")
    except (VerificationError, Unavailable):
        text = f"{text}. The tiles of the smaller tree are not available, so this is a suspicion only"
    suspicion = Evidence.suspicion(known, found, found_at=now, sources=tree.names)
    return Finding(Kind.FORK, text, suspicion, known.root.hex())
