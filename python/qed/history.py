"""The history of a cluster: the acts of its operators and members, in a chain of hashes that the reader checks.

Members record acts outside the log (FORMATS.md, "Acts"). The chain proves that no act was changed, removed or inserted
before one whose hash you know. It does not prove that the last act shown is the last there is: keep its hash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qed._qed import Act
from qed.errors import VerificationError
from qed.proofs import Digest

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Act", "require_chain"]

_BEGINNING: Final = Digest(bytes(32))


def require_chain(acts: Sequence[Act], last: Act | None = None) -> None:
    """Check that each act names the hash of the one before it, and comes later.

    Args:
        acts: Acts, oldest first.
        last: The act before the first of them; None if that is the first of all.

    Raises:
        VerificationError: An act does not continue the chain.
    """
    for act in acts:
        previous = last.hash if last is not None else _BEGINNING
        if act.previous != previous:
            message = f"the act of entry {act.index} does not follow the one before it"
            raise VerificationError(message, previous.hex(), act.previous.hex())
        if last is not None and not (act.index > last.index and act.term >= last.term):
            message = f"the act of entry {act.index} in term {act.term} comes after a later one"
            raise VerificationError(message, f"after entry {last.index} in term {last.term}", f"entry {act.index}")
        last = act
