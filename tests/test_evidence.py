"""`qed.Evidence` and `qed evidence`: what a file proves against a log."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import qed
from commands import qed as run
from commands import read_lines, values
from qed.evidence import Verdict, file_name, save_evidence
from signing import LOG, NOW, ORIGIN, OWN, Signer, World, honest_entry, policy_of

if TYPE_CHECKING:
    from qed.signed import Checkpoint

POLICY = f"log {OWN['log']['vkey']}\nquorum none\n"
OF_WORLD = qed.Policy(policy_of("none").encode()).trust


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("policy").write_text(POLICY)
    return tmp_path


def save(evidence: dict[str, Any]) -> str:
    Path("evidence.json").write_text(json.dumps(evidence))
    return "evidence.json"


def checkpoint(size: int, last: bytes = b"") -> Checkpoint:
    entries = [honest_entry(version) for version in range(size)]
    return OF_WORLD.endorse(World(entries=[*entries, *([last] if last else [])]).note().encode(), now=NOW)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("evidence_same_size", "has signed two different roots for size 2."),
        ("evidence_same_index", "has signed trees of sizes 5 and 2.\nTheir entries 1 differ."),
    ],
)
def test_recorded_evidence_convicts(name: str, said: str) -> None:
    recorded = OWN[name]
    done = run("evidence", save(recorded), "--policy", "policy")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{OWN['origin']} {said}" in done.stdout
    shown = values(done.stdout)
    assert (shown["Kind"], shown["Log"], shown["B.Size"]) == (recorded["Kind"], OWN["origin"], "2")
    assert shown["A.SignedBy"] == "+".join(OWN["log"]["vkey"].split("+", 2)[:2])
    [record] = read_lines(run("--json", "evidence", "evidence.json", "--policy", "policy").stdout)
    assert (record["Verdict"], record["Index"]) == ("convicted", recorded.get("Index"))
    assert [side["Vkeys"] for side in record["Signed"]] == [[OWN["log"]["vkey"]]] * 2


def test_a_long_key_is_named_by_its_id() -> None:
    signer = Signer(ORIGIN, 6, 1)
    # The base64 of so many bytes has a plus, which also separates the parts of a key.
    assert signer.vkey.count("+") > 2
    Path("policy").write_text(f"log {signer.vkey}\nquorum none\n")
    trust = qed.Policy.load("policy").trust
    entries = [honest_entry(version) for version in range(9)]
    worlds = World(entries=entries[:3]), World(entries=[entries[0], entries[0], entries[2]])
    notes = [world.note(signer.line(world.text)).encode() for world in worlds]
    evidence = qed.Evidence.same_size(*(trust.endorse(note, now=NOW) for note in notes))
    Path("evidence.json").write_bytes(evidence.to_json())
    done = run("evidence", "evidence.json", "--policy", "policy")
    assert values(done.stdout)["A.SignedBy"] == "+".join(signer.vkey.split("+", 2)[:2])
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_a_key_that_the_policy_lacks_convicts_nobody() -> None:
    Path("other").write_text(f"log {Signer(OWN['origin'], 1, 7).vkey}\nquorum none\n")
    done = run("evidence", save(OWN["evidence_same_size"]), "--policy", "other")
    assert done.returncode == 1
    assert "unknown key" in done.stderr
    assert "The file proves nothing." in done.stdout


def test_consistent_checkpoints_are_no_fork() -> None:
    notes = {side: {"Checkpoint": OWN["checkpoints"]["5"]["note"]} for side in "AB"}
    done = run("evidence", save(OWN["evidence_same_size"] | notes), "--policy", "policy")
    assert done.returncode == 1
    assert "Not a fork" in done.stdout
    refuted = OWN["evidence_same_size"] | {"Kind": "suspicion", "Consistency": OWN["consistency"]["2 to 5"]}
    refuted |= {"A": {"Checkpoint": OWN["checkpoints"]["2"]["note"]}, "B": notes["B"]}
    done = run("evidence", save(refuted), "--policy", "policy")
    assert done.returncode == 1
    assert "Not a fork" in done.stdout


def test_a_suspicion_is_no_proof() -> None:
    done = run("evidence", save(OWN["evidence_same_size"] | {"Kind": "suspicion"}), "--policy", "policy")
    assert done.returncode == 1
    assert "This is a suspicion, not a proof." in done.stdout


def test_what_is_no_evidence_is_refused() -> None:
    for content in ("", "{}", "[]", json.dumps(OWN["evidence_same_size"] | {"Index": 1}), "x" * 3_000_000):
        Path("evidence.json").write_text(content)
        done = run("evidence", "evidence.json", "--policy", "policy")
        assert done.returncode == 1, content[:80]
        assert "The file proves nothing." in done.stdout
    assert run("evidence", "missing.json", "--policy", "policy").returncode == 2
    assert run("evidence", "evidence.json").returncode == 2
    Path("broken").write_text("log\n")
    assert run("evidence", "evidence.json", "--policy", "broken").returncode == 2


def test_evidence_is_saved_once(tmp_path: Path) -> None:
    a, b = checkpoint(6), checkpoint(5, honest_entry(8))
    fork = qed.Evidence.same_size(a, b, found_at=NOW, sources=["http://a", "b"])
    assert fork == qed.Evidence.from_json(fork.to_json())
    assert (fork.kind, fork.origin, fork.found_at, fork.sources) == ("same-size", ORIGIN, NOW, ["http://a", "b"])
    path = save_evidence(fork, tmp_path)
    first = path.read_bytes()
    assert save_evidence(qed.Evidence.same_size(a, b), tmp_path) == path
    assert path.read_bytes() == first
    assert Verdict(fork.judge(OF_WORLD).verdict) is Verdict.CONVICTED
    assert fork.judge(OF_WORLD).signed == [(6, a.root, [LOG.vkey]), (6, b.root, [LOG.vkey])]
    suspicion = qed.Evidence.suspicion(checkpoint(3), b)
    assert Verdict(suspicion.judge(OF_WORLD).verdict) is Verdict.SUSPECTED
    assert save_evidence(suspicion, tmp_path).name.startswith("suspicion-")


def test_a_file_that_shows_nothing_is_not_taken_for_the_evidence(tmp_path: Path) -> None:
    fork = qed.Evidence.same_size(checkpoint(6), checkpoint(5, honest_entry(5) + b"x"), found_at=NOW)
    own = fork.to_json()
    place = tmp_path / file_name(fork)
    forged = json.loads(own)
    forged["B"]["Checkpoint"] = forged["B"]["Checkpoint"].replace("\n\u2014 ", "\n\u2014 x", 1)
    stranger = json.loads(own) | {"Vkeys": [Signer(ORIGIN, 1, 77).vkey]}
    in_the_way = [b"", own[:-1], b"{}", json.dumps(forged).encode(), json.dumps(stranger).encode()]
    for content in in_the_way:
        place.write_bytes(content)
        found = save_evidence(fork, tmp_path)
        assert found.name == f"{place.stem}-2.json"
        assert (found.read_bytes(), place.read_bytes()) == (own + b"\n", content)
        assert save_evidence(fork, tmp_path) == found
        found.unlink()
    place.unlink()
    os.mkfifo(place)
    assert save_evidence(fork, tmp_path).name == f"{place.stem}-2.json"
    for number in range(2, 17):
        place.with_stem(f"{place.stem}-{number}").write_bytes(b"")
    with pytest.raises(FileExistsError, match="move them away"):
        save_evidence(fork, tmp_path)
    # What shows the same is the evidence, whatever it says about where it was found.
    place.unlink()
    place.write_bytes(qed.Evidence.same_size(checkpoint(6), checkpoint(5, honest_entry(5) + b"x")).to_json())
    assert save_evidence(fork, tmp_path) == place


def test_a_suspicion_that_is_refuted_is_another_file(tmp_path: Path) -> None:
    notes = {side: {"Checkpoint": OWN["checkpoints"][size]["note"]} for side, size in (("A", "2"), ("B", "5"))}
    made = OWN["evidence_same_size"] | {"Kind": "suspicion"} | notes
    suspicion = qed.Evidence.from_json(json.dumps(made).encode())
    refuted = qed.Evidence.from_json(json.dumps(made | {"Consistency": OWN["consistency"]["2 to 5"]}).encode())
    first = save_evidence(refuted, tmp_path)
    assert save_evidence(suspicion, tmp_path) != first
