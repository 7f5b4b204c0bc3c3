"""A witness and the client of another implementation: aics-witness and aics-tlog, which share no code with this one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from commands import environment
from cosigners import Chronicle
from harness.wait import LIMIT_S, wait_until
from qed.server.witness_client import WitnessClient
from qed.server.witness_outcomes import OutcomeKind, SightingKind
from test_witness_client_runs import RUN, policy_for, run_the_recorded_log
from witnesses import ForeignLog, WitnessProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

PEERS: Final = Path(sys.prefix) / "peers"
"""Where `make` installs them, away from the environment: their metadata asks for a later Python than they need."""

pytestmark = pytest.mark.skipif(
    not (PEERS / "aics_witness").is_dir(), reason="aics-witness is not installed: make .venv/peers/.tools"
)

CLIENT: Final = """
import json, sys, time
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from aics_tlog import Checkpoint, MerkleTree, WitnessPolicy, parse_note, parse_vkey, sign_checkpoint, verify_checkpoint
from aics_witness.feeder import WitnessAhead, WitnessClient, WitnessRejected, merge_cosignatures

task = json.load(sys.stdin)
key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(task["seed"]))
origin, url, witness = task["origin"], task["url"], task["witness"]
tree, other = MerkleTree([]), MerkleTree([])
for number in range(40):
    tree.append(b"entry %d" % number)
    other.append(b"entry %d" % number if number < 20 else b"another %d" % number)
policy = WitnessPolicy(1, (parse_vkey(witness),), 60)

def signed(tree, size):
    return sign_checkpoint(Checkpoint(origin, size, tree.root(size)), key, origin).to_bytes()

def proof(tree):
    return lambda old, new: tree.consistency_proof(old, new)

def outcome(call):
    try:
        return call()
    except Exception as exc:
        return f"{type(exc).__name__} {getattr(exc, 'status', '')}".strip()

accepted, refused = [], []
client = WitnessClient(url, witness, max_attempts=1)
for size in (1, 2, 3, 7, 8, 20, 21, 40, 40):
    note = merge_cosignatures(signed(tree, size), client.submit(signed(tree, size), proof(tree)))
    found = verify_checkpoint(parse_note(note), parse_vkey(task["log"]), policy=policy)
    assert found.ok, found
    accepted.append(found.size)
# A client that remembers nothing asks from 0, and learns the size.
again = WitnessClient(url, witness, max_attempts=1)
again.submit(signed(tree, 40), proof(tree))
for name, call in {
    "fork": lambda: WitnessClient(url, witness, max_attempts=1).submit(signed(other, 40), proof(other)),
    "behind": lambda: WitnessClient(url, witness, max_attempts=1).submit(signed(tree, 30), proof(tree)),
    "unknown": lambda: client.submit(
        sign_checkpoint(Checkpoint("unknown", 1, tree.root(1)), key, "unknown").to_bytes(), proof(tree)
    ),
    "impostor": lambda: client.submit(
        sign_checkpoint(Checkpoint(origin, 40, tree.root(40)), Ed25519PrivateKey.generate(), origin).to_bytes(),
        proof(tree),
    ),
}.items():
    refused.append((name, outcome(call)))
print(json.dumps({"accepted": accepted, "refused": dict(refused)}))
"""

MONITOR: Final = """
import json, sys
from aics_tlog import WitnessPolicy, parse_note, parse_vkey, verify_checkpoint
task = json.load(sys.stdin)
policy = WitnessPolicy(1, (parse_vkey(task["witness"]),), 60)
found = verify_checkpoint(parse_note(task["note"]), parse_vkey(task["log"]), policy=policy)
print(json.dumps({"ok": found.ok, "size": found.size, "error": found.error}))
"""


def run_peer(script: str, task: dict[str, str]) -> Any:  # noqa: ANN401 - the JSON that a script above prints
    """Run a script with the peers, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        env=environment(PYTHONPATH=os.fspath(PEERS)),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


LISTENING: Final = re.compile(r"add-checkpoint at (\S+)/add-checkpoint")
SERVER: Final = "import sys; from aics_witness.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def log() -> ForeignLog:
    return ForeignLog("log.example.com/peer")


@pytest.fixture
def witness(tmp_path: Path, log: ForeignLog) -> Iterator[WitnessProcess]:
    process = WitnessProcess(tmp_path)
    process.make_key()
    process.know(log)
    try:
        process.start("--new-database")
        yield process
    finally:
        process.forget()


def test_the_client_of_another_implementation_gets_cosignatures_that_it_verifies(
    witness: WitnessProcess, log: ForeignLog
) -> None:
    vkey = witness.vkeys()[0]
    seed = log._key.private_bytes_raw().hex()
    task = {"seed": seed, "origin": log.origin, "log": log.vkey, "url": witness.url, "witness": vkey}
    found = run_peer(CLIENT, task)
    assert found == {
        "accepted": [1, 2, 3, 7, 8, 20, 21, 40, 40],
        "refused": {
            "fork": "WitnessRejected 422",
            "behind": "WitnessAhead",
            "unknown": "WitnessRejected 404",
            "impostor": "WitnessRejected 403",
        },
    }
    note = witness.last(log.origin).text
    task = {"note": note, "log": log.vkey, "witness": vkey}
    assert run_peer(MONITOR, task) == {"ok": True, "size": 40, "error": None}


@dataclass
class Peer:
    """The witness of another implementation, running."""

    vkey: str
    url: str


def peer_command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", SERVER, *arguments]


@pytest.fixture
def peer(tmp_path: Path, log: ForeignLog) -> Iterator[Peer]:
    """Give a running witness that knows the log and the recorded one."""
    config, env = str(tmp_path / "peer.json"), environment(PYTHONPATH=os.fspath(PEERS))
    init = peer_command("init", "--config", config, "--name", "peer.example.com/w")
    vkey = subprocess.run(init, check=True, capture_output=True, text=True, timeout=LIMIT_S, env=env).stdout.strip()
    for origin, key in ((log.origin, log.vkey), (RUN["vkey"].partition("+")[0], RUN["vkey"])):
        added = peer_command("add-log", "--config", config, "--origin", origin, "--vkey", key)
        subprocess.run(added, check=True, capture_output=True, timeout=LIMIT_S, env=env)
    output = tmp_path / "peer.log"
    with output.open("wb") as errors:
        serve = peer_command("serve", "--config", config, "--listen", "127.0.0.1:0")
        process = subprocess.Popen(serve, stderr=errors, stdout=errors, env=env)
    try:
        wait_until(lambda: LISTENING.search(output.read_text()) is not None, "the peer to listen")
        found = LISTENING.search(output.read_text())
        assert found is not None
        yield Peer(vkey, found[1])
    finally:
        process.kill()
        process.wait(LIMIT_S)


async def test_the_witness_of_another_implementation_cosigns_the_recorded_log(peer: Peer) -> None:
    clients: list[WitnessClient] = []
    try:
        await run_the_recorded_log([peer.vkey], peer.url, clients)
    finally:
        for client in clients:
            await client.aclose()


async def test_the_witness_of_another_implementation_refuses_what_ours_refuses(peer: Peer, log: ForeignLog) -> None:
    policy = policy_for(log.vkey, ([peer.vkey], peer.url))
    client = WitnessClient(policy)
    stranger = ForeignLog("log.example.com/stranger")
    stranger.grow(3)
    unknown = WitnessClient(policy_for(stranger.vkey, ([peer.vkey], peer.url)))
    try:
        assert (await client.newest(log.origin))[0].kind is SightingKind.NONE
        for count in (1, 1, 5, 0, 60):
            log.grow(count)
            result = await client.cosign(log.sign(log.text()), Chronicle(log), limit_s=LIMIT_S)
            assert result.is_quorum_met, result
            (sighting,) = await client.newest(log.origin)
            assert sighting.checkpoint is not None
            assert sighting.checkpoint.note == result.note
        del log.leaves[50:]
        result = await client.cosign(log.sign(log.text()), Chronicle(log), limit_s=LIMIT_S)
        assert [(one.size, one.newest is not None) for one in result.ahead] == [(67, True)]
        log.leaves += [bytes([number]) * 32 for number in range(30)]
        result = await client.cosign(log.sign(log.text()), Chronicle(log), limit_s=LIMIT_S)
        assert [one.kind for one in result.disagreeing] == [OutcomeKind.DISAGREES]
        result = await unknown.cosign(stranger.sign(stranger.text()), Chronicle(stranger), limit_s=LIMIT_S)
        assert result.outcomes[0].kind is OutcomeKind.MISCONFIGURED
    finally:
        await client.aclose()
        await unknown.aclose()
