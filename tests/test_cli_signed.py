"""`qed verify --policy` and `qed export`: what a log has signed, offline."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import qed
from commands import one_line, read_lines, values
from commands import qed as run
from signing import (
    LOG,
    OWN,
    WITNESSES,
    Signer,
    World,
    bundle_of,
    event,
    honest_entry,
    membership_bundle,
    policy_of,
    signed_log,
)

if TYPE_CHECKING:
    import subprocess


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("policy").write_text(policy_of())
    save("receipt.json", World().receipt())
    return tmp_path


def save(name: str, *objects: object) -> None:
    Path(name).write_text("".join(json.dumps(each) + "\n" for each in objects))


def verify(*args: str, policy: str = "policy") -> subprocess.CompletedProcess[str]:
    return run("verify", *args, "--policy", policy, XDG_STATE_HOME=os.path.realpath("state"))


def unwitnessed() -> dict[str, Any]:
    return World().receipt(note=World().note(LOG.line(World().text)))


def test_a_witnessed_receipt_is_ok() -> None:
    done = verify("receipt.json", "--event", "event 3")
    assert done.returncode == 0
    assert done.stdout.endswith("Verify: OK\n")
    shown = values(done.stdout)
    assert (shown["Version"], shown["Level"], shown["Size"]) == ("3", "witnessed", "9")
    assert shown["EventDigest"] == qed.Digest.of(event(3)).hex()
    assert shown["BatchEnd"] == "5, as the log claims"
    assert (shown["Witnesses"], shown["ExistedAt"]) == ("w1, w2", "2023-11-14 22:13:20Z")
    assert "first checkpoint" in one_line(done.stderr)
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    again = verify("receipt.json")
    assert (again.returncode, again.stderr, values(again.stdout)["Seen"]) == (0, "", "this checkpoint")


def test_programs_get_the_same_as_json() -> None:
    done = verify("--json", "receipt.json", "--memory", "memory")
    assert done.returncode == 0
    [record] = read_lines(done.stdout)
    assert (record["Kind"], record["Verify"], record["Level"], record["Seen"]) == (
        "receipt",
        "OK",
        "witnessed",
        "first",
    )
    assert record["Events"][0]["Version"] == 3
    assert record["Snapshots"] == [World().snapshot(5)]
    assert (record["BatchEnd"], record["BatchEndClaimed"]) == (5, True)
    assert Path("memory").read_text() == World().note()
    assert not Path("state").exists()


def test_the_policy_can_come_from_the_environment() -> None:
    done = run("verify", "receipt.json", QED_POLICY="policy", XDG_STATE_HOME=os.path.realpath("state"))
    assert done.returncode == 0
    done = run("verify", "receipt.json")
    assert done.returncode == 2
    assert "QED_POLICY" in one_line(done.stderr)


def test_another_event_or_a_changed_byte_is_ko() -> None:
    done = verify("receipt.json", "--event", "event 4")
    assert (done.returncode, done.stdout) == (1, "Verify: KO\n")
    assert "event digest" in one_line(done.stderr)
    text = Path("receipt.json").read_text()
    Path("receipt.json").write_text(text.replace(str(World().snapshot(3)["EventDigest"]), "A" * 43 + "="))
    done = verify("receipt.json", "--json")
    assert done.returncode == 1
    assert read_lines(done.stdout)[0]["Verify"] == "KO"
    assert not Path("state").exists()


def test_a_missing_quorum_is_inconclusive_unless_the_log_is_enough() -> None:
    save("receipt.json", unwitnessed())
    done = verify("receipt.json")
    assert (done.returncode, done.stdout) == (5, "Verify: INCONCLUSIVE\n")
    assert "witnesses" in one_line(done.stderr)
    [record] = read_lines(verify("receipt.json", "--json").stdout)
    assert record["Verify"] == "Inconclusive"
    assert "witnesses" in record["Reason"]
    assert not Path("state").exists()
    done = verify("receipt.json", "--require", "signed")
    assert (done.returncode, values(done.stdout)["Level"]) == (0, "signed")
    Path("alone").write_text(policy_of("none"))
    assert verify("receipt.json", policy="alone").returncode == 0
    done = verify("receipt.json", "--require", "witnessed", policy="alone")
    assert done.returncode == 2
    assert "no quorum" in one_line(done.stderr)


def test_a_wrong_policy_is_named_with_its_line() -> None:
    Path("policy").write_text(policy_of() + "more\n")
    done = verify("receipt.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert one_line(done.stderr).startswith("policy: line 7 of the policy: ")
    assert verify("receipt.json", policy="missing").returncode == 2


def test_a_fork_is_reported_and_both_checkpoints_are_kept() -> None:
    assert verify("receipt.json", "--memory", "memory").returncode == 0
    entries = [honest_entry(version) for version in range(9)]
    entries[0] = entries[1][:2] + entries[0][2:]
    entries[8] = entries[8][:-1] + b"x"
    save("other.json", World(entries=entries).receipt())
    done = verify("other.json", "--memory", "memory")
    assert (done.returncode, done.stdout) == (1, "Verify: FORK\n")
    [evidence] = Path.cwd().glob("fork-*.json")
    assert str(evidence) in one_line(done.stderr)
    found = json.loads(evidence.read_text())
    assert (found["A"]["Checkpoint"], found["B"]["Checkpoint"]) == (World().note(), World(entries=entries).note())
    assert Path("memory").read_text() == World().note()
    # Even a checkpoint that no witness has seen is evidence against its log.
    world = World(entries=entries)
    save("other.json", world.receipt(note=world.note(LOG.line(world.text))))
    assert verify("other.json", "--memory", "memory").returncode == 1


def test_an_edited_memory_fails_and_one_of_another_log_is_wrong_usage() -> None:
    Path("memory").write_text(World().note().replace("\n9\n", "\n8\n"))
    done = verify("receipt.json", "--memory", "memory")
    assert done.returncode == 1
    assert "find out who changed it" in one_line(done.stderr)
    Path("policy").write_text(policy_of("none", f"log {OWN['log']['vkey']}"))
    Path("memory").write_text(OWN["checkpoints"]["5"]["note"])
    done = verify("receipt.json", "--memory", "memory")
    assert (done.returncode, Path("memory").read_text()) == (2, OWN["checkpoints"]["5"]["note"])


def test_a_policy_that_has_changed_is_inconclusive() -> None:
    assert verify("receipt.json", "--memory", "memory").returncode == 0
    new = Signer(LOG.name, 1, 2)
    world = World(entries=[honest_entry(version) for version in range(12)])
    lines = [new.line(world.text), *world.lines()[1:]]
    save("receipt.json", world.receipt(note=world.note(*lines)))
    Path("policy").write_text(policy_of().replace(LOG.vkey, new.vkey))
    done = verify("receipt.json", "--memory", "memory")
    assert (done.returncode, done.stdout) == (5, "Verify: INCONCLUSIVE\n")
    assert "another policy" in one_line(done.stderr)
    assert "move the file away" in done.stderr


def test_no_message_has_a_private_key() -> None:
    seed = base64.b64encode(bytes([4]) + b"secret seed of 32 bytes, really!").decode()
    secret = f"PRIVATE+KEY+w1.example.com+01234567+{seed}"
    Path("key").write_text(f"{secret}\n")
    files = {
        "policy": [f"{secret}\n", f"log {secret}\n", f"log {LOG.vkey} {secret}\nquorum none\n"],
        "trust": [json.dumps({"Format": secret}), json.dumps({secret: 1}), json.dumps({"Policy": secret})],
        "more": [f"log {LOG.vkey}\nquorum {secret}\n", f"log {LOG.vkey}\ngroup {secret} any {secret}\nquorum none\n"],
    }
    for content in [text for texts in files.values() for text in texts]:
        Path("other").write_text(content)
        done = verify("receipt.json", policy="other")
        assert done.returncode == 2, content
        with pytest.raises(qed.PolicyError) as caught:
            qed.Policy.load("other")
        assert not any(seed[i : i + 6] in done.stderr + str(caught.value) for i in range(len(seed) - 6)), content
    for done in (
        verify("key"),
        verify("receipt.json", "--memory", "key"),
        run("witness", "run", "--key", "key", "--database", "d", "--vkey", secret),
        run("witness", "run", "--key", "key", "--database", "d", "--logs", "key"),
        run("log-key", "show", "key"),
    ):
        assert done.returncode in {1, 2}
        assert seed[:6] not in done.stderr + done.stdout
    assert Path("key").read_text() == f"{secret}\n"
    save("receipt.json", World().receipt(note=secret))
    assert seed[:6] not in verify("receipt.json").stderr


def test_an_older_receipt_is_ok_and_the_memory_stays() -> None:
    assert verify("receipt.json", "--memory", "memory").returncode == 0
    older = World(entries=[honest_entry(version) for version in range(6)])
    save("older.json", older.receipt())
    done = verify("older.json", "--memory", "memory")
    assert (done.returncode, values(done.stdout)["Seen"]) == (
        0,
        "older than the known size 9, and not linked to it",
    )
    assert Path("memory").read_text() == World().note()


def test_an_absence_names_its_version_and_is_of_the_newest_state() -> None:
    with qed.Log() as log:
        log.add(event(0))
        absence = log.membership(event(1))
        log.add(event(1))
        world = signed_log(log)
        digest = base64.b64encode(bytes(qed.Digest.of(event(1)))).decode()
        for version in (None, 0):
            question = {"KeyDigest": digest, "Version": version}
            save(f"absence-{version}", bundle_of(world, "membership", question, absence, 0))
        save("absence", membership_bundle(log, event(2)))
        save("membership", membership_bundle(log, event(1)))
    done = verify("absence-None", "--event", "event 1")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "Verify: STALE")
    assert "version 1" in one_line(done.stderr)
    done = verify("absence-0", "--event", "event 1")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "Verify: OK, absent as of version 0")
    assert verify("absence").stdout.endswith("Verify: OK, absent as of version 1\n")
    assert verify("membership").stdout.endswith("Verify: OK, in the log at version 1, as of version 1\n")


def test_a_file_of_receipts_ends_with_its_worst_line() -> None:
    header = {"Format": "qed-receipts-1", "Log": None}
    save("all", header, World().receipt(), World().receipt(6, 9))
    done = verify("all", "--event", "event 7")
    assert (done.returncode, done.stdout.count("Verify: OK")) == (0, 2)
    assert verify("all", "--event", "event 2").returncode == 1
    save("all", header, World().receipt(), World().snapshot(4))
    done = verify("all")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (5, "Verify: INCONCLUSIVE")
    assert "1 of 2 receipts have no signature" in done.stderr
    words = [(record["Kind"], record["Verify"]) for record in read_lines(verify("all", "--json").stdout)]
    assert words == [("receipt", "OK"), ("snapshot", "Inconclusive")]
    save("all", unwitnessed(), World().receipt())
    assert verify("all").returncode == 5
    forged = World().receipt() | {"First": 4}
    save("all", unwitnessed(), World().snapshot(4), World().receipt() | {"Proof": World().proof(4, 5)})
    assert verify("all").returncode == 1
    save("all", World().receipt(), forged)
    done = verify("all")
    assert (done.returncode, done.stdout) == (1, "Verify: KO\n")
    assert "line 2" in one_line(done.stderr)


def forked() -> tuple[World, dict[str, Any]]:
    """Return a log with another event 3 and six entries, and the receipt for that event."""
    entries = [honest_entry(version) for version in range(6)]
    entries[3] = entries[3][:-32] + bytes(qed.Digest.of(b"event x"))
    world = World(entries=entries)
    receipt = world.receipt()
    receipt["Snapshots"][0]["EventDigest"] = base64.b64encode(entries[3][-32:]).decode()
    return world, receipt


def test_two_events_at_one_version_are_a_fork_that_is_remembered() -> None:
    _, other = forked()
    save("two", World().receipt(), other)
    done = verify("two", "--memory", "memory")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "Verify: FORK")
    assert "has signed two different events at version 3" in done.stderr
    [evidence] = Path.cwd().glob("fork-*.json")
    assert str(evidence) in done.stderr
    convicted = run("evidence", str(evidence), "--policy", "policy")
    assert (convicted.returncode, "fork" in convicted.stdout) == (0, True)
    # From then on, nothing that this log signs shows anything, until somebody decides otherwise.
    for name in ("receipt.json", "two"):
        again = verify(name, "--memory", "memory")
        assert (again.returncode, again.stdout) == (1, "Verify: FORK\n" * (2 if name == "two" else 1))
        assert str(evidence) in again.stderr
    Path("memory.forked").unlink()
    assert verify("receipt.json", "--memory", "memory").returncode == 0


def test_a_snapshot_that_contradicts_a_signed_receipt_is_ko() -> None:
    save("all", World().receipt(), World().snapshot(3) | {"EventDigest": World().snapshot(4)["EventDigest"]})
    done = verify("all")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "Verify: KO")
    assert "event digest of version 3" in done.stderr


def test_one_object_may_be_formatted_for_people() -> None:
    Path("receipt.json").write_text(json.dumps(World().receipt(), indent=2))
    assert verify("receipt.json").returncode == 0


def test_a_proof_of_the_vectors_is_ok() -> None:
    Path("proof").write_text(OWN["tlog_proof"])
    Path("policy").write_text(f"log {OWN['log']['vkey']}\nwitness w {OWN['witness']['vkey']}\nquorum w\n")
    done = verify("proof", "--event", "event 2")
    assert (done.returncode, values(done.stdout)["Version"]) == (0, "3")
    assert verify("proof", "--event", "event 3").returncode == 1


def test_options_that_would_be_ignored_are_refused() -> None:
    for options in (["--receipts", "policy"], ["--trust-bundle"], ["--version", "3"], ["--start", "0"]):
        done = verify("receipt.json", *options)
        assert done.returncode == 2, options
        one_line(done.stderr)
    done = verify("receipt.json", "--current-version", "0")
    assert done.returncode == 2


def test_a_bundle_without_a_signature_is_inconclusive_with_a_policy() -> None:
    with qed.Log() as log:
        log.add(event(0))
        question, answer = qed.Membership(event(0)), log.membership(event(0))
        bundle = qed.Bundle.of(question, answer, [log.snapshot(0)])
    bundle.save("bundle.json")
    done = verify("bundle.json")
    assert (done.returncode, "Verify: OK" in done.stdout) == (5, False)
    assert "no signature" in one_line(done.stderr)
    # A policy in the environment does not get in the way of another source of trust.
    done = run("verify", "bundle.json", "--trust-bundle", QED_POLICY="policy")
    assert done.returncode == 0
    done = run("verify", "bundle.json", QED_POLICY="policy")
    assert (done.returncode, "Verify: OK" in done.stdout) == (5, False)
    assert "no signature" in one_line(done.stderr)
    assert verify("bundle.json", "--require", "signed").returncode == 2
    assert verify("bundle.json", "--trust-bundle").returncode == 2


def test_stdin_is_read_once_and_an_empty_name_is_no_file() -> None:
    done = verify("-", "--file", "-")
    assert done.returncode == 2
    assert "stdin" in one_line(done.stderr)
    for args in (["--memory", ""], ["--out", ""]):
        done = (
            verify("receipt.json", *args)
            if args[0] == "--memory"
            else run("export", "--tlog-proof", "receipt.json", *args)
        )
        assert done.returncode == 2
        assert "empty" in one_line(done.stderr)


def test_a_witness_under_the_name_of_the_log_is_doubted() -> None:
    own = Signer(f"{LOG.name}/member", 4, 50)
    Path("policy").write_text(policy_of("two", f"witness own {own.vkey}"))
    done = verify("receipt.json", "--memory", "memory")
    assert done.returncode == 0
    assert own.name in done.stderr.splitlines()[0]


def test_a_witness_that_counts_twice_or_is_the_log_is_doubted() -> None:
    first, second = (Signer("one.example.com", 4, number) for number in (50, 51))
    lines = [f"log {LOG.vkey}", f"witness a {first.vkey}", f"witness b {second.vkey}"]
    world = World()
    save("receipt.json", world.receipt(note=world.note(*(each.line(world.text) for each in (LOG, first, second)))))
    for group, is_doubted in (("group g 2 a b", True), ("group g any a b", False), ("group g all a b", True)):
        Path("policy").write_text("\n".join([*lines, group, "quorum g", ""]))
        done = verify("receipt.json", "--memory", "memory")
        assert done.returncode == 0
        assert ("one.example.com count as several" in done.stderr) is is_doubted
    same = Signer("other.example.com", 4, LOG.number)
    save("receipt.json", world.receipt(note=world.note(LOG.line(world.text), same.line(world.text))))
    Path("policy").write_text(f"{lines[0]}\nwitness a {same.vkey}\nquorum a\n")
    done = verify("receipt.json", "--memory", "memory")
    assert done.returncode == 0
    assert "other.example.com has the key of a log" in done.stderr


def test_export_writes_the_proof_of_the_vectors() -> None:
    world = OWN["receipt_3"] | {"Checkpoint": OWN["tlog_proof"].partition("\n\n")[2]}
    save("receipt.json", world)
    done = run("export", "--tlog-proof", "receipt.json")
    assert (done.returncode, done.stdout) == (0, OWN["tlog_proof"])
    done = run("export", "--tlog-proof", "receipt.json", "--out", "proof")
    assert (done.returncode, done.stdout, Path("proof").read_text()) == (0, "", OWN["tlog_proof"])
    Path("link").symlink_to("proof")
    os.mkfifo("pipe")
    with open(os.open("pipe", os.O_RDWR), "rb") as pipe:  # noqa: PTH123  # pathlib cannot open a descriptor
        for out in ("link", "pipe"):
            assert run("export", "--tlog-proof", "receipt.json", "--out", out).returncode == 0
        proof = OWN["tlog_proof"].encode()
        assert pipe.read(len(proof)) == proof
    assert Path("link").is_symlink()
    assert Path("pipe").is_fifo()
    for objects in ([World().receipt(3, 5)], [world, world], [World().snapshot(3)]):
        save("other.json", *objects)
        done = run("export", "--tlog-proof", "other.json")
        assert (done.returncode, done.stdout) == (1, "")


def test_what_is_no_signed_file_is_ko() -> None:
    for content in (b"", b"x", b"[]", b"{}", base64.b64encode(bytes(99)), b'{"Format":"qed-receipt-2"}', b"\xff"):
        Path("file").write_bytes(content)
        done = verify("file")
        assert (done.returncode, done.stdout) == (1, "Verify: KO\n"), content
        one_line(done.stderr)
    assert WITNESSES[0].name
