"""One seed for everything random in a run, printed in test names and notes; set `QED_SEED` to repeat a run."""

from __future__ import annotations

import os
import random
import secrets
from typing import Final

from hypothesis import settings

SEED: Final = int(os.environ.get("QED_SEED") or secrets.randbelow(1 << 32))


def chance(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - tests want it repeatable


def searching(examples: int) -> settings:
    """Return settings for a search over random logs, which has no time limit and prints how to repeat a failure."""
    return settings(max_examples=examples, deadline=None, derandomize=False, print_blob=True)


def diverge(digest: bytes, bits: int, tail: bytes) -> bytes:
    """Return a digest that equals `digest` in its first `bits` bits, differs in the next, and ends like `tail`."""
    key, rest = int.from_bytes(digest, "big"), 255 - bits
    return ((key >> rest ^ 1) << rest | int.from_bytes(tail, "big") % (1 << rest)).to_bytes(32, "big")
