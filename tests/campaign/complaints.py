"""Errors on the stderr of members that no fault explains."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from campaign.member import Member

__all__ = ["complaints", "last_lines"]

_COMPLAINT: Final = re.compile(r"level=(error|critical)|Traceback|panicked|^qed-server: (?!listening)|never awaited")
_FULL_DISK: Final = re.compile(r"[Nn]o space left on device|os error 28")


def complaints(members: Sequence[Member]) -> list[str]:
    """Return the lines that report an error, except those about a full disk, each after its member's name.

    The member with the small disk is the last one.
    """
    found = []
    for member in members:
        for line in _lines(member):
            is_expected = member is members[-1] and _FULL_DISK.search(line)
            if _COMPLAINT.search(line) and not is_expected:
                found.append(f"{member.name}: {line}")
    return found


def last_lines(members: Sequence[Member], count: int = 25) -> str:
    """Return the end of every member's stderr."""
    return "\n".join(line for member in members for line in [f"--- {member.name}", *_lines(member)[-count:]])


def _lines(member: Member) -> list[str]:
    return member.log.read_text(errors="replace").splitlines() if member.log.exists() else []
