"""Damage to what a log, its witnesses and its users keep: one bit of each file is flipped, or a file is lost."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

from qed.drill.damage import copied, find, flip_bit
from qed.drill.drill import Drill, drill
from qed.proofs import Digest

if TYPE_CHECKING:
    from pathlib import Path

    from qed.drill.guards import Attack, Sighting
    from qed.drill.processes import Server

__all__ = ["DRILLS"]

DRILLS: Final[list[Drill[Attack]]] = []

_SERVER: Final = "start of the server"
_WITNESS: Final = "start of the witness"
_VERIFY: Final = "qed verify"
_AUDIT: Final = "qed audit"
_MONITOR: Final = "qed monitor"

_ROOT_AT: Final = 8
"""Inside the first row of a sign memory."""
_HASH_AT: Final = 40
"""Inside the second hash of a tile."""
_DIGEST_AT: Final = 12
"""Inside the event digest of the first entry of a bundle."""
_DIGIT_AT: Final = 24
"""Inside what follows in base64: a root, or the event digest of an entry."""


def _copied_data(attack: Attack) -> Path:
    """Return a copy of a data folder that a server has left, with its sign memory beside it."""
    copied(attack.scene.old_memory, attack.folder)
    return copied(attack.scene.old_data, attack.folder)


def _flip_root(note: Path) -> None:
    """Flip a bit of the root in a checkpoint, which is its third line."""
    origin, size, _ = note.read_bytes().split(b"\n", 2)
    flip_bit(note, len(origin) + len(size) + _DIGIT_AT)


def _refused(attack: Attack, words: str, *extra: str | Path) -> Sighting:
    """Return why a server does not start on what was copied."""
    scene, folder = attack.scene, attack.folder
    attack.watch()
    options = scene.options(folder / scene.data.name, folder / scene.sign_memory.name)
    return attack.refuses_to_start(attack.run.start("qed-server", *options, *extra), words)


@drill(DRILLS, "the server's log line")
def folder_checkpoint(attack: Attack) -> Sighting:
    """Flip a bit of the signed checkpoint in the data folder."""
    scene, data = attack.scene, _copied_data(attack)
    _flip_root(data / "checkpoint")
    attack.watch()
    server = scene.serve(data, attack.folder / scene.sign_memory.name)
    try:
        return attack.logs(server, "the checkpoint of the last run is not used")
    finally:
        server.ended()


@drill(DRILLS, _SERVER)
def sign_memory(attack: Attack) -> Sighting:
    """Flip a bit of the sign memory."""
    _copied_data(attack)
    flip_bit(attack.folder / attack.scene.sign_memory.name, _ROOT_AT)
    return _refused(attack, "damaged")


@drill(DRILLS, "fork guard")
def sign_memory_lost(attack: Attack) -> Sighting:
    """Remove the sign memory."""
    scene, data = attack.scene, _copied_data(attack)
    memory = attack.folder / scene.sign_memory.name
    memory.unlink()
    attack.watch()
    server = scene.serve(data, memory)
    try:
        return attack.signs_nothing(server, "its sign memory is missing")
    finally:
        server.ended()


@drill(DRILLS, _SERVER)
def log_key(attack: Attack) -> Sighting:
    """Flip a bit of a private key of the log."""
    scene = attack.scene
    _copied_data(attack)
    key = copied(scene.key, attack.folder)
    flip_bit(key, len(key.read_bytes().splitlines()[0]) // 2)
    return _refused(attack, "key", "--signing-key", key)


@drill(DRILLS, "qed backup verify")
def backup(attack: Attack) -> Sighting:
    """Flip a bit of an event in a backup."""
    path = copied(attack.scene.backup, attack.folder)
    flip_bit(*find(bytes(Digest.of(attack.scene.events[0].encode())), [path]))
    attack.watch()
    return attack.command("backup", "verify", path, words="damaged")


@drill(DRILLS, _VERIFY)
def receipts(attack: Attack) -> Sighting:
    """Flip a bit of a signed receipt in the client's file."""
    scene = attack.scene
    path = copied(scene.receipts, attack.folder)
    file, at = find(b'"Entries":["', [path])
    flip_bit(file, at + len(b'"Entries":["') + _DIGIT_AT)
    attack.watch()
    memory = attack.folder / "memory"
    return attack.verify(path, "--policy", scene.word, "--memory", memory, verdict="KO", words="^root")


@drill(DRILLS, _VERIFY)
def client_memory(attack: Attack) -> Sighting:
    """Flip a bit of the checkpoint that a client remembers."""
    scene = attack.scene
    memory = copied(scene.client_memory, attack.folder)
    _flip_root(memory)
    attack.watch()
    trusted = ("--policy", scene.policy, "--memory", memory)
    return attack.verify(scene.old_receipt, *trusted, verdict="KO")


@drill(DRILLS, _AUDIT)
def published_tile(attack: Attack) -> Sighting:
    """Flip a bit of a published tile."""
    folder = copied(attack.scene.published, attack.folder)
    flip_bit(folder / "tile" / "0" / "000", _HASH_AT)
    attack.watch()
    return attack.audit(folder, policy=attack.scene.policy, kind="KO")


@drill(DRILLS, _AUDIT)
def published_entries(attack: Attack) -> Sighting:
    """Flip a bit of a published bundle of entries."""
    folder = copied(attack.scene.published, attack.folder)
    flip_bit(folder / "tile" / "entries" / "000", _DIGEST_AT)
    attack.watch()
    return attack.audit(folder, policy=attack.scene.policy, kind="KO")


@drill(DRILLS, _AUDIT)
def published_checkpoint(attack: Attack) -> Sighting:
    """Flip a bit of the published checkpoint."""
    folder = copied(attack.scene.published, attack.folder)
    _flip_root(folder / "checkpoint")
    attack.watch()
    return attack.audit(folder, policy=attack.scene.policy, kind="KO")


@drill(DRILLS, _MONITOR)
def monitor_state(attack: Attack) -> Sighting:
    """Flip a bit of the root in the state of a monitor."""
    scene = attack.scene
    state = copied(scene.state, attack.folder)
    file, at = find(b'"Root":"', [state])
    flip_bit(file, at + len(b'"Root":"'))
    attack.watch()
    given = ("--policy", scene.policy, "--state", state, "--once")
    return attack.command("monitor", scene.published, *given, words="the state in .* is damaged")


@drill(DRILLS, _MONITOR)
def monitor_state_lost(attack: Attack) -> Sighting:
    """Remove the state of a monitor, which would believe what it sees next."""
    scene = attack.scene
    copied(scene.state.with_name(f"{scene.state.name}.copy"), attack.folder)
    attack.watch()
    given = ("--policy", scene.policy, "--state", attack.folder / scene.state.name, "--once")
    return attack.command("monitor", scene.published, *given, words="what an earlier monitor saw")


@drill(DRILLS, _AUDIT)
def monitor_copy(attack: Attack) -> Sighting:
    """Flip a bit of the entries that a monitor keeps."""
    folder = copied(attack.scene.state.with_name(f"{attack.scene.state.name}.copy"), attack.folder)
    flip_bit(folder / "tile" / "entries" / "000", _DIGEST_AT)
    attack.watch()
    return attack.audit(folder, policy=attack.scene.policy, kind="KO")


@drill(DRILLS, _WITNESS)
def witness_database(attack: Attack) -> Sighting:
    """Flip a bit of the root that a witness has cosigned."""
    scene = attack.scene
    root = base64.b64decode((scene.published / "checkpoint").read_bytes().split(b"\n")[2])
    flip_bit(*find(root, [copied(scene.cosigned, attack.folder)]))
    attack.watch()
    return attack.refuses_to_start(_started(attack), "damaged")


@drill(DRILLS, _WITNESS)
def witness_database_lost(attack: Attack) -> Sighting:
    """Remove the database of a witness, and begin another one."""
    attack.watch()
    return attack.refuses_to_start(_started(attack, "--new-database"), "used")


def _started(attack: Attack, *extra: str) -> Server:
    """Start the first witness once more, with its keys, on the database in the folder of the attack."""
    scene = attack.scene
    files = ("--key", scene.witnesses[0].key, "--database", attack.folder / scene.cosigned.name)
    logs = ("--vkey", scene.keys[0].vkey, "--listen", "127.0.0.1:0")
    return attack.run.start("qed", "witness", "run", *files, *logs, *extra)
