"""`qed verify --tiles`: what was signed before, and single events, verified by what the log has published."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from buckets import BUCKET, CREDENTIALS, Shelf
from commands import qed as run
from commands import read_lines, values
from published import publish, serving
from signing import LOG, World, bundle_of, event, honest_entry, policy_of

if TYPE_CHECKING:
    import subprocess

SIZE = 600
ENTRIES = [honest_entry(version) for version in range(SIZE)]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "log"
    publish(folder, ENTRIES)
    return folder


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    Path("policy").write_text(policy_of())
    Path("copy").symlink_to(published)
    save("receipt.json", World().receipt())
    return tmp_path


def save(name: str, *objects: object) -> None:
    Path(name).write_text("".join(json.dumps(each) + "\n" for each in objects))


def verify(*args: str, tiles: str = "copy", policy: str = "policy") -> subprocess.CompletedProcess[str]:
    state = os.path.realpath("state")
    return run("verify", *args, "--tiles", tiles, "--policy", policy, XDG_STATE_HOME=state)


def remembered() -> int:
    """Return the size of the checkpoint in the memory."""
    (memory,) = (path for path in Path("state/qed/checkpoints").iterdir() if path.suffix == "")
    return int(memory.read_text().split("\n")[1])


def other_world() -> World:
    """Return the world of a log that has another entry 4 than the published one."""
    entry = bytearray(honest_entry(4))
    entry[-1] ^= 1
    return World(entries=[*ENTRIES[:4], bytes(entry), *ENTRIES[5:9]])


def test_an_old_receipt_is_linked_to_what_is_published_now() -> None:
    done = verify("receipt.json", "--event", "event 3")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "Verify: OK")
    shown = values(done.stdout)
    assert (shown["Size"], shown["LinkedTo"]) == ("9", "size 600, the newest that is published")
    assert shown["Seen"] == "older than the known size 600, and linked to it"
    assert remembered() == SIZE
    (record,) = read_lines(verify("--json", "receipt.json").stdout)
    assert (record["Verify"], record["LinkedTo"], record["Size"]) == ("OK", SIZE, 9)


def test_a_signed_bundle_is_linked_too() -> None:
    question = {"KeyDigest": base64.b64encode(hashlib.sha256(event(2)).digest()).decode(), "Version": 2}
    save("bundle.json", bundle_of(World(), "inclusion", question, None, 2))
    assert values(verify("bundle.json").stdout)["LinkedTo"].startswith("size 600")
    save("bundle.json", bundle_of(other_world(), "inclusion", question, None, 2))
    done = verify("bundle.json")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "Verify: FORK")


def other_receipt() -> dict[str, Any]:
    """Return the receipt of the entry that is another one."""
    world = other_world()
    receipt = world.receipt(4, 5)
    receipt["Snapshots"][0]["EventDigest"] = base64.b64encode(world.entries[4][10:]).decode()
    return receipt


def test_a_receipt_of_another_history_ends_in_evidence() -> None:
    save("receipt.json", other_receipt())
    done = verify("receipt.json")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "Verify: FORK")
    (evidence,) = Path("state/qed/checkpoints").glob("fork-*.json")
    assert str(evidence.resolve()) in done.stderr
    assert run("evidence", str(evidence), "--policy", "policy").returncode == 0
    # Offline, nothing is wrong with it.
    assert run("verify", "receipt.json", "--policy", "policy", "--memory", "none").returncode == 0


@pytest.mark.parametrize(
    ("words", "code", "last"),
    [
        (("--version", "259", "--event", "event 259"), 0, "Verify: OK"),
        (("--version", "599"), 0, "Verify: OK"),
        (("--version", "259", "--event", "event 258"), 1, "Verify: KO"),
        (("--version", "600", "--event", "event 600"), 5, "Verify: INCONCLUSIVE"),
    ],
)
def test_an_event_is_verified_from_the_published_files_alone(words: tuple[str, ...], code: int, last: str) -> None:
    done = verify(*words)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (code, last)
    if code == 0:
        shown = values(done.stdout)
        assert (shown["Version"], shown["Size"], shown["Level"]) == (words[1], "600", "witnessed")
        assert shown["EventDigest"] == hashlib.sha256(event(int(words[1]))).hexdigest()


def test_without_file_and_version_nothing_can_be_verified() -> None:
    done = verify("--event", "event 3")
    assert (done.returncode, "expected --version" in done.stderr) == (2, True)
    done = run("verify", "--policy", "policy")
    assert (done.returncode, "BUNDLE" in done.stderr) == (2, True)
    done = run("verify", "--tiles", "copy", "--version", "1")
    assert (done.returncode, "nothing is trusted" in done.stderr) == (2, True)


def test_urls_and_buckets_are_read_as_folders_are(published: Path) -> None:
    words = ("--version", "3", "--event", "event 3")
    with serving(published) as url:
        assert verify(*words, tiles=url).returncode == 0
    done = verify(*words, tiles=url)
    assert (done.returncode, done.stdout) == (3, "")
    shelf = Shelf()
    for path in published.rglob("*"):
        if path.is_file():
            shelf.files[f"log/{path.relative_to(published)}"] = path.read_bytes()
    with shelf.serving() as url:
        assert verify(*words, "--s3-endpoint", url, tiles=f"s3://{BUCKET}/log").returncode == 0


@pytest.mark.parametrize("path", ["tile/entries/001", "tile/0/001", "tile/1/000.p/2", "checkpoint"])
def test_a_changed_file_is_noticed(published: Path, path: str) -> None:
    shutil.copytree(published, "changed")
    whole = Path("changed", path).read_bytes()
    Path("changed", path).write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
    done = verify("--version", "259", tiles="changed")
    assert (done.returncode, "KO" in done.stdout) == (1, True), done.stderr


def test_a_copy_that_lacks_witnesses_or_is_old_concludes_nothing(published: Path) -> None:
    shutil.copytree(published, "bare")
    text = World(entries=ENTRIES).text
    Path("bare/checkpoint").write_text(f"{text}\n{LOG.line(text)}")
    done = verify("receipt.json", tiles="bare")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (5, "Verify: INCONCLUSIVE")
    trust: dict[str, Any] = {"Format": "qed-trust-1", "Policy": policy_of(), "Retired": [], "MaxAge": 60, "Skew": 300}
    save("aged", trust | {"RequirePq": False, "Pins": []})
    done = verify("receipt.json", policy="aged")
    assert (done.returncode, "MaxAge" in done.stderr) == (5, True)
    assert not Path("state").exists()


def test_a_copy_that_is_behind_concludes_nothing_and_is_not_remembered() -> None:
    publish(Path("older"), ENTRIES[:3])
    done = verify("receipt.json", tiles="older")
    assert (done.returncode, "ask a copy that is newer" in done.stderr) == (5, True)
    assert verify("receipt.json").returncode == 0
    done = verify("--version", "1", tiles="older")
    assert (done.returncode, "size 600 was seen before" in done.stderr) == (5, True)
    assert remembered() == SIZE


def test_a_copy_that_contradicts_the_memory_is_a_fork() -> None:
    world = other_world()
    save("receipt.json", world.receipt())
    assert run("verify", "receipt.json", "--policy", "policy", "--memory", "memory").returncode == 0
    done = verify("--version", "1", "--memory", "memory")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "Verify: FORK")
    assert Path("memory").read_text() == world.note()
    assert list(Path().glob("suspicion-*.json"))


def test_receipts_without_a_signature_are_compared_with_the_tree() -> None:
    world = World()
    save("receipts", world.snapshot(5), world.snapshot(7))
    done = verify("receipts")
    assert (done.returncode, done.stdout.count("Verify: OK")) == (0, 2), done.stderr
    assert verify("receipts", "--event", "another event").returncode == 1
    assert verify("receipts", "--version", "5").returncode == 2
    save("receipts", world.snapshot(5))
    done = verify("receipts", "--event", "another event")
    assert (done.returncode, "that of no event in 1 receipts" in done.stdout + done.stderr) == (1, True)
    save("receipts", world.snapshot(5), world.snapshot(7))
    assert run("verify", "receipts", "--policy", "policy").returncode == 5
    publish(Path("older"), ENTRIES[:6])
    done = verify("receipts", "--memory", "none", tiles="older")
    assert (done.returncode, "cannot tell about version 7" in done.stdout + done.stderr) == (5, True)
    save("receipts", world.snapshot(5), world.snapshot(7) | {"HyperDigest": world.snapshot(5)["HyperDigest"]})
    done = verify("receipts")
    assert (done.returncode, done.stdout.count("Verify: OK"), done.stdout.count("Verify: KO")) == (1, 1, 1)


def test_what_the_log_alone_had_signed_is_linked_to_what_witnesses_have_cosigned() -> None:
    text = World().text
    save("receipt.json", World().receipt(note=f"{text}\n{LOG.line(text)}"))
    done = verify("receipt.json", "--require", "signed")
    assert (done.returncode, values(done.stdout)["Level"]) == (0, "signed")
