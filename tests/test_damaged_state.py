"""What is kept between runs, damaged at random: it is refused, or has what the log has signed.

A run repeats with QED_SEED; a long run sets QED_MUTATIONS.
"""

from __future__ import annotations

import json
import os
import zlib
from typing import TYPE_CHECKING, Any, Final

import pytest

import qed
from mutations import WRONG, damaged_bytes
from qed.errors import PolicyError, VerificationError
from qed.memory import Known, Memory
from qed.monitoring.state import State, StateFile
from seeds import SEED, chance
from signing import NOW, ORIGIN, World, honest_entry, policy_of

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from qed.signed import Checkpoint

MUTATIONS: Final = int(os.environ.get("QED_MUTATIONS", "30000")) // 10
"""A tenth of those of other formats: each is written to a file, and verified with signatures."""
TRUST: Final = qed.Policy(policy_of().encode()).trust
SIZES: Final = (3, 6, 9)
pytestmark = [pytest.mark.timeout(7200), pytest.mark.parametrize("run_seed", [SEED])]


def checkpoint(size: int) -> Checkpoint:
    entries = [honest_entry(version) for version in range(size)]
    return TRUST.endorse(World(entries=entries).note().encode(), now=NOW)


CHECKPOINTS: Final = [checkpoint(size) for size in SIZES]


def state_of(known: Checkpoint, folder: Path) -> bytes:
    """Return the file of a state."""
    file = StateFile(folder / "honest")
    root, note = known.root.hex(), known.note
    file.save(State(origin=ORIGIN, size=known.size, root=root, note=note, next_entry=known.size))
    return file.path.read_bytes()


def sealed(state: object) -> bytes:
    """Return the file of any state, with the right checksum: whoever edits it can compute that, too."""
    text = json.dumps(state, separators=(",", ":")).encode()
    return b'{"State":' + text + b',"Crc":"' + f"{zlib.crc32(text):08x}".encode() + b'"}'


def edited(dice: random.Random, file: bytes, donor: bytes) -> bytes:
    """Return a state some of whose fields are missing, or have other values, such as those of another state."""
    state: dict[str, Any] = json.loads(file)["State"]
    other: dict[str, Any] = json.loads(donor)["State"]
    for _ in range(dice.choice((1, 1, 2, 3, 6))):
        name = dice.choice(list(other))
        choices = (other[name], dice.choice(list(other.values())), dice.choice(WRONG), None)
        if dice.random() < 0.3:
            state.pop(name, None)
        else:
            state[name] = dice.choice(choices)
    return sealed(state)


def test_a_damaged_state_of_a_monitor_is_refused_or_has_a_signed_checkpoint(run_seed: int, tmp_path: Path) -> None:
    dice, honest = chance(run_seed), [state_of(known, tmp_path) for known in CHECKPOINTS]
    signed = {(known.size, known.root.hex()) for known in CHECKPOINTS}
    file = StateFile(tmp_path / "state")
    accepted = 0
    for number in range(MUTATIONS):
        one, other = dice.choices(honest, k=2)
        damage = edited if number % 2 else damaged_bytes
        file.path.write_bytes(damage(dice, one, other))
        try:
            state = file.load()
            assert state is not None
            known = file.verified(state, TRUST, now=NOW)
        except (VerificationError, PolicyError):
            continue
        accepted += 1
        if known is None:
            # As in a state that has seen nothing yet: the copy beside it tells whether that is so.
            assert (state.size, state.root, state.note, state.next_entry) == (0, "", "", 0)
        else:
            assert (known.size, known.root.hex()) in signed
            assert (state.size, state.root) == (known.size, known.root.hex())
            assert 0 <= state.next_entry <= state.size
    assert accepted


def test_a_damaged_memory_is_refused_or_has_a_signed_checkpoint(run_seed: int, tmp_path: Path) -> None:
    dice, honest = chance(run_seed), [known.note.encode() for known in CHECKPOINTS]
    path, newest = tmp_path / "memory", checkpoint(12)
    accepted = 0
    for _ in range(MUTATIONS):
        one, other = dice.choices(honest, k=2)
        damaged = damaged_bytes(dice, one, other)
        path.write_bytes(damaged)
        try:
            found = Memory(path).compare(newest, TRUST, now=NOW)
        except VerificationError:
            assert path.read_bytes() == damaged
            continue
        accepted += 1
        assert (found.known, found.size in SIZES) == (Known.NEWER, True)
    assert accepted
