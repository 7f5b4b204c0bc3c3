"""What is read in the answers to `add-checkpoint` besides signatures: sizes, and reasons for people."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from qed._printable import printable

if TYPE_CHECKING:
    from qed._client.calls import Answer

__all__ = ["SHOWN", "shown", "size_in"]

SHOWN: Final = 200
"""Characters of a reason that are shown to people."""
_SIZE: Final = re.compile(rb"(0|[1-9][0-9]{0,18})\n")
_LARGEST: Final = 2**63 - 1


def size_in(body: bytes) -> int | None:
    """Return the size in the body of an answer with status 409, or None if it is something else."""
    found = _SIZE.fullmatch(body)
    if found is None or int(found[1]) > _LARGEST:
        return None
    return int(found[1])


def shown(answer: Answer) -> str:
    """Return the status of an answer and the beginning of its text."""
    text = printable(answer.body[: 4 * SHOWN].decode(errors="replace").strip())[:SHOWN]
    return f"it answered {answer.status}{': ' if text else ''}{text}"
