"""One drill: an attack, and the guard that must notice it."""

from __future__ import annotations

import inspect
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from qed.drill.guards import FolderAttack, Unnoticed
from qed.drill.processes import DrillFailed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qed.drill.guards import Sighting

__all__ = ["Drill", "Outcome", "drill"]

_Attack_contra = TypeVar("_Attack_contra", bound=FolderAttack, contravariant=True)
_A = TypeVar("_A", bound=FolderAttack)


@dataclass(frozen=True)
class Drill(Generic[_Attack_contra]):
    """An attack, and the guard that must notice it.

    Attributes:
        name: Its name.
        attack: What is done, in a few words.
        guard: Which guard must notice it.
        carry_out: Does it, and returns what the guard says.
    """

    name: str
    attack: str
    guard: str
    carry_out: Callable[[_Attack_contra], Sighting]

    def run(self, attack: _Attack_contra) -> Outcome:
        """Carry out the attack, and return whether the guard has noticed it."""
        try:
            sighting = self.carry_out(attack)
        except (Unnoticed, DrillFailed, OSError) as exc:
            return Outcome(
                self.name, self.attack, self.guard, is_noticed=False, text=_reason(exc), after_s=attack.elapsed_s
            )
        return Outcome(
            self.name,
            self.attack,
            self.guard,
            is_noticed=True,
            text=sighting.text,
            after_s=attack.elapsed_s,
            evidence=sighting.evidence,
        )


@dataclass(frozen=True)
class Outcome:
    """How a drill has ended.

    Attributes:
        name: Its name.
        attack: What was done.
        guard: Which guard had to notice it.
        is_noticed: Whether the guard has noticed it.
        text: What the guard said; if it did not, what happened instead.
        after_s: How long that took, in seconds.
        evidence: The file that was kept as evidence, or None.
    """

    name: str
    attack: str
    guard: str
    is_noticed: bool
    text: str
    after_s: float
    evidence: Path | None = None


_Function: TypeAlias = "Callable[[_A], Sighting]"


def drill(drills: list[Drill[_A]], guard: str) -> Callable[[_Function[_A]], _Function[_A]]:
    """Return a decorator that adds a function to a list of drills. Its name and docstring are those of the drill.

    Args:
        drills: The list.
        guard: Which guard must notice the attack.

    Returns:
        The decorator.
    """

    def add(function: _Function[_A]) -> _Function[_A]:
        text = (inspect.getdoc(function) or "").rstrip(".")
        drills.append(Drill(function.__name__.replace("_", "-"), text, guard, function))
        return function

    return add


def _reason(exc: Exception) -> str:
    if isinstance(exc, shutil.Error):
        # It lists the files that could not be copied.
        (source, _, reason), *_ = exc.args[0]
        return f"{source} cannot be copied: {reason}"
    return str(exc)
