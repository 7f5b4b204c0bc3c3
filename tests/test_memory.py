"""`qed.Memory`: the newest checkpoint of a log never goes back, and another of its size is a fork."""

from __future__ import annotations

import hashlib
import json
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import qed
from qed.memory import Known, Memory, Recollection
from qed.policy import Policy
from signing import LOG, NOW, ORIGIN, OWN, World, honest_entry, policy_of

if TYPE_CHECKING:
    from pathlib import Path

    from qed.signed import Checkpoint

TRUST = Policy(policy_of().encode()).trust


def checkpoint(size: int, *, fork: bool = False) -> Checkpoint:
    entries = [honest_entry(version) for version in range(size)]
    if fork:
        entries[0] = entries[0][:-1] + bytes([entries[0][-1] ^ 1])
    return TRUST.endorse(World(entries=entries).note().encode(), now=NOW)


def remember(memory: Memory, size: int) -> Recollection:
    return memory.remember(checkpoint(size), TRUST, now=NOW)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory"


def test_a_memory_goes_only_forward(path: Path) -> None:
    memory = Memory(path)
    assert memory.compare(checkpoint(3), TRUST, now=NOW) == Recollection(Known.FIRST, None)
    assert not path.exists()
    assert remember(memory, 3) == Recollection(Known.FIRST, None)
    assert path.read_text() == checkpoint(3).note
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert remember(memory, 6) == Recollection(Known.NEWER, 3)
    assert remember(memory, 3) == Recollection(Known.OLDER, 6)
    assert remember(memory, 6) == Recollection(Known.SAME, 6)
    assert path.read_text() == checkpoint(6).note
    assert memory.compare(checkpoint(9), TRUST, now=NOW) == Recollection(Known.NEWER, 6)
    assert path.read_text() == checkpoint(6).note


def test_another_root_of_the_same_size_is_a_fork_and_both_notes_are_saved(path: Path) -> None:
    memory = Memory(path)
    remember(memory, 6)
    other = checkpoint(6, fork=True)
    for act in (memory.compare, memory.remember):
        with pytest.raises(qed.CheckpointFork) as caught:
            act(other, TRUST, now=NOW)
    assert (caught.value.known.note, caught.value.other.note) == (checkpoint(6).note, other.note)
    assert path.read_text() == checkpoint(6).note
    roots = bytes(checkpoint(6).root) + bytes(other.root)
    evidence = path.with_name(f"fork-{hashlib.sha256(roots).hexdigest()}.json")
    assert str(evidence) in caught.value.__notes__[0]
    assert json.loads(evidence.read_text()) == {
        "Format": "qed-fork-1",
        "Kind": "same-size",
        "Origin": ORIGIN,
        "Vkeys": [LOG.vkey],
        "A": {"Checkpoint": checkpoint(6).note},
        "B": {"Checkpoint": other.note},
    }


def test_the_recorded_fork_gives_the_recorded_evidence(path: Path) -> None:
    trust = Policy(f"log {OWN['log']['vkey']}\nquorum none\n".encode()).trust
    recorded = OWN["evidence_same_size"]
    first, second = (trust.endorse(recorded[side]["Checkpoint"].encode(), now=NOW) for side in "AB")
    Memory(path).remember(first, trust, now=NOW)
    with pytest.raises(qed.CheckpointFork):
        Memory(path).remember(second, trust, now=NOW)
    [evidence] = path.parent.glob("fork-*.json")
    assert json.loads(evidence.read_text()) == recorded


def test_an_edited_memory_is_refused_and_stays(path: Path) -> None:
    memory = Memory(path)
    remember(memory, 6)
    smaller = path.read_text().replace("\n6\n", "\n3\n")
    for content in (smaller, smaller[:-1], "x", "\n" * 300_000):
        path.write_text(content)
        with pytest.raises(qed.VerificationError) as caught:
            remember(memory, 9)
        assert "find out who changed it" in caught.value.__notes__[0]
        assert path.read_text() == content


def test_a_memory_is_of_one_log(path: Path) -> None:
    second = Policy(f"log {LOG.vkey}\nlog {OWN['log']['vkey']}\nquorum none\n".encode()).trust
    other = second.endorse(OWN["checkpoints"]["5"]["note"].encode(), now=NOW)
    remember(Memory(path), 6)
    with pytest.raises(qed.PolicyError, match="memory of"):
        Memory(path).compare(other, second, now=NOW)


def test_a_file_that_was_created_but_not_written_remembers_nothing(path: Path) -> None:
    path.touch()
    assert remember(Memory(path), 3).known is Known.FIRST
    assert path.read_text() == checkpoint(3).note


def test_of_many_at_once_the_largest_wins(path: Path) -> None:
    sizes = [3 * i for i in range(1, 11)] * 3
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda size: remember(Memory(path), size), sizes))
    assert path.read_text() == checkpoint(30).note
    assert [each.name for each in path.parent.iterdir()] == ["memory"]


def test_each_log_has_its_file_in_the_folder_for_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = hashlib.sha256(ORIGIN.encode()).hexdigest()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for variable in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", variable)
        assert Memory().path_of(ORIGIN) == tmp_path / "home/.local/state/qed/checkpoints" / name
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert remember(Memory(), 3).is_kept
    assert (tmp_path / "state/qed/checkpoints" / name).read_text() == checkpoint(3).note


def test_a_folder_for_state_that_is_not_writable_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert remember(Memory(), 3) == Recollection(Known.FIRST, None, is_kept=False)
    with pytest.raises(OSError, match="state"):
        remember(Memory(tmp_path / "state" / "memory"), 3)
