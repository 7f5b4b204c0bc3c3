"""`qed.Memory`: the newest checkpoint of a log never goes back, and another of its size is a fork."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import qed
import qed.memory as memory_module
from qed.memory import Known, Memory, Recollection
from qed.policy import Policy
from signing import LOG, NOW, ORIGIN, OWN, Signer, World, honest_entry, policy_of

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


def test_an_empty_memory_is_no_first_use(path: Path) -> None:
    path.touch()
    for act in (Memory(path).compare, Memory(path).remember):
        with pytest.raises(qed.MalformedProof) as caught:
            act(checkpoint(3), TRUST, now=NOW)
        assert "find out who changed it" in caught.value.__notes__[0]
    assert path.read_text() == ""


def test_a_memory_is_a_regular_file_and_links_to_it_stay(path: Path) -> None:
    path.with_name("first").symlink_to("second")
    path.with_name("second").symlink_to(path)
    memory = Memory(path.with_name("first"))
    for size in (3, 6):
        remember(memory, size)
        assert path.read_text() == checkpoint(size).note
    assert path.with_name("first").is_symlink()
    assert path.with_name("second").is_symlink()
    pipe = path.with_name("pipe")
    os.mkfifo(pipe)
    for act in (Memory(pipe).compare, Memory(pipe).remember):
        with pytest.raises(OSError, match="regular file"):
            act(checkpoint(3), TRUST, now=NOW)
    assert pipe.is_fifo()


def test_a_policy_that_has_changed_accuses_nobody(path: Path) -> None:
    remember(Memory(path), 6)
    text = World(entries=[honest_entry(version) for version in range(9)])
    new = Signer(ORIGIN, 1, 2)
    note = text.note(new.line(text.text), LOG.line(text.text)).encode()
    line = f"log {new.vkey}\nquorum none\n"
    for fields in ({}, {"Retired": [{"Vkey": LOG.vkey, "MaxSize": 5}]}, {"RequirePq": True}):
        file = {"Format": "qed-trust-1", "Policy": line, **fields}
        if "RequirePq" in fields:
            file["Policy"] = f"log {new.vkey}\nlog {LOG.vkey}\nquorum none\n"
        trust = Policy(json.dumps(file).encode()).trust
        laxer = Policy(line.encode()).trust
        found = laxer.endorse(note, now=NOW)
        for act in (Memory(path).compare, Memory(path).remember):
            with pytest.raises(qed.Inconclusive, match="under another policy"):
                act(found, trust, now=NOW)
    assert path.read_text() == checkpoint(6).note


def test_a_checkpoint_without_witnesses_does_not_push_out_a_witnessed_one(path: Path) -> None:
    def unwitnessed(size: int) -> Checkpoint:
        world = World(entries=[honest_entry(version) for version in range(size)])
        return TRUST.endorse(world.note(LOG.line(world.text)).encode(), now=NOW)

    memory, apart = Memory(path), path.with_name("memory.witnessed")
    remember(memory, 3)
    assert not apart.exists()
    assert memory.remember(unwitnessed(9), TRUST, now=NOW) == Recollection(Known.NEWER, 3)
    assert (path.read_text(), apart.read_text()) == (unwitnessed(9).note, checkpoint(3).note)
    for act in (memory.compare, memory.remember):
        with pytest.raises(qed.CheckpointFork):
            act(checkpoint(3, fork=True), TRUST, now=NOW)
    assert remember(memory, 6) == Recollection(Known.OLDER, 9)
    assert apart.read_text() == checkpoint(6).note
    assert remember(memory, 3) == Recollection(Known.OLDER, 9)
    assert apart.read_text() == checkpoint(6).note
    assert remember(memory, 12) == Recollection(Known.NEWER, 9)
    assert path.read_text() == checkpoint(12).note


def test_a_locked_memory_is_given_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remember(Memory(path), 3)
    monkeypatch.setattr(memory_module, "_PATIENCE_S", 0.2)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="another process"):
            remember(Memory(path), 6)
    assert remember(Memory(path), 6).known is Known.NEWER


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
