"""Servers that sign: checkpoints, receipts, and the fork guard."""

from __future__ import annotations

import base64
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest

import qed
from commands import qed as run_qed
from harness.cluster import Cluster, new_cluster
from harness.process import Server, StartFailed
from harness.wait import wait_until
from qed.server.config import SettingsError
from qed.server.sign_memory import open_memory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ORIGIN: Final = "log.example.com/test"


class Signed:
    """A folder with the keys of a log, and a policy that trusts them."""

    def __init__(self, folder: Path, origin: str = ORIGIN) -> None:
        self.folder = folder
        self.origin = origin
        self.key = folder / "log.key"
        made = run_qed("log-key", "generate", "--origin", origin, "--out", str(self.key))
        assert made.returncode == 0
        self.vkeys = made.stdout.splitlines()
        text = "".join(f"log {vkey}\n" for vkey in self.vkeys) + "quorum none\n"
        self.policy = qed.Policy(text.encode())

    def memory(self, name: str = "lone") -> Path:
        return self.folder / f"{name}.memory"

    def options(self, name: str = "lone") -> tuple[str, ...]:
        memory = str(self.memory(name))
        return ("--origin", self.origin, "--signing-key", str(self.key), "--sign-memory", memory)

    def sign_in(self, cluster: Cluster) -> None:
        for member in cluster.members:
            member.extra += self.options(member.name)


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    return Signed(tmp_path)


@pytest.fixture
def server(signed: Signed) -> Iterator[Server]:
    server = Server("lone", signed.folder / "data", extra=signed.options())
    server.start()
    yield server
    server.forget()


def ask(server: Server, event: bytes, **fields: object) -> dict[str, Any]:
    """Add an event with a receipt; return the answer."""
    body = {"Event": base64.b64encode(event).decode(), "Receipt": "committed", **fields}
    answer = httpx.post(f"{server.url}/events", json=body, timeout=30)
    assert answer.status_code in {200, 201}, answer.text
    found: dict[str, Any] = answer.json()
    return found


def receipt_in(answer: dict[str, Any]) -> qed.SignedReceipt:
    assert "ReceiptError" not in answer
    return qed.SignedReceipt.from_json(httpx.Response(200, json=answer["Receipt"]).content)


def published(server: Server) -> tuple[int, str]:
    """Return size and root of the newest published checkpoint, without verifying it; -1 if there is none."""
    answer = httpx.get(f"{server.url}/log/checkpoint")
    if answer.status_code != 200:
        return -1, ""
    origin, size, root = answer.text.split("\n")[:3]
    assert origin == ORIGIN
    return int(size), root


def add_refused(server: Server) -> str:
    answer = server.add(b"one more")
    assert answer.status_code == 503
    error = answer.json()
    assert error["error"] == "fork_guard"
    return str(error["message"])


def test_an_event_is_acknowledged_with_a_receipt_that_verifies(server: Server, signed: Signed) -> None:
    for number in range(3):
        event = b"event %d" % number
        receipt = receipt_in(ask(server, event))
        shown = signed.policy.verify(receipt, event).shown
        assert [version for version, _ in shown.events] == [number]
        with pytest.raises(qed.VerificationError):
            signed.policy.verify(receipt, b"another")


def test_a_bulk_has_one_receipt_for_what_it_added(server: Server, signed: Signed) -> None:
    events = [base64.b64encode(b"bulk %d" % number).decode() for number in (0, 1, 1, 2)]
    for if_absent, versions in ((False, [0, 1, 2, 3]), (True, [])):
        body = {"Events": events, "Receipt": "committed", "IfAbsent": if_absent}
        answer = httpx.post(f"{server.url}/events/bulk", json=body).json()
        assert len(answer["Snapshots"]) == 4
        if not versions:
            assert answer["Receipt"] is None
            assert "ReceiptError" not in answer
            continue
        shown = signed.policy.verify(receipt_in(answer)).shown
        assert [version for version, _ in shown.events] == versions
    again = httpx.post(f"{server.url}/events/bulk", json={**body, "Events": [*events, "bmV3", "bmV3"]}).json()
    assert [version for version, _ in signed.policy.verify(receipt_in(again)).shown.events] == [4]


def test_without_the_field_answers_are_as_they_were(server: Server) -> None:
    answer = server.add(b"plain").json()
    assert sorted(answer) == ["EventDigest", "HistoryDigest", "HyperDigest", "Version"]


def test_a_server_is_a_snapshot_store_for_clients_of_the_original(server: Server, signed: Signed) -> None:
    assert httpx.get(f"{server.url}/count").text == "0"
    for number in range(3):
        server.add(b"event %d" % number)
    assert httpx.get(f"{server.url}/count").text == "3"
    answer = httpx.get(f"{server.url}/snapshot", params={"v": 1}).json()
    assert answer["Snapshot"] == httpx.get(f"{server.url}/snapshots/1").json()
    receipt = qed.SignedReceipt.from_json(base64.b64decode(answer["Signature"]))
    signed.policy.verify(receipt, b"event 1")
    missing = httpx.get(f"{server.url}/snapshot", params={"v": 3})
    assert (missing.status_code, missing.json()["message"]) == (404, "Version not found: 3")
    for query in ("", "v=", "v=01", "v=-1", "v=1&v=2", f"v={2**64}"):
        assert httpx.get(f"{server.url}/snapshot?{query}").status_code == 400, query


def test_a_receipt_can_be_had_later(server: Server, signed: Signed) -> None:
    for first, end in ((0, 1), (1, 299), (299, 300)):
        events = [base64.b64encode(b"event %d" % number).decode() for number in range(first, end)]
        assert httpx.post(f"{server.url}/events/bulk", json={"Events": events}).status_code == 201
    for version in (0, 5, 255, 256, 299):
        answer = httpx.get(f"{server.url}/receipts/{version}")
        receipt = qed.SignedReceipt.from_json(answer.content)
        signed.policy.verify(receipt, b"event %d" % version)
    refused = {
        "300": (412, "invalid_range"),
        "01": (400, "malformed"),
        "0?last=1": (503, "signer"),
        "5?last=4": (400, "malformed"),
        "5?level=other": (400, "malformed"),
        "5?last=5&last=5": (400, "malformed"),
        "5?level=witnessed": (503, "signer"),
        f"{2**64}": (400, "malformed"),
    }
    for path, expected in refused.items():
        answer = httpx.get(f"{server.url}/receipts/{path}")
        assert (answer.status_code, answer.json()["error"]) == expected, path


def test_a_checkpoint_is_published_soon_and_is_readable_by_the_core(server: Server, signed: Signed) -> None:
    wait_until(lambda: published(server)[0] == 0, "the checkpoint of the empty log", limit_s=2.5)
    server.add(b"one")
    wait_until(lambda: published(server)[0] == 1, "the checkpoint of the event", limit_s=2.5)
    answer = httpx.get(f"{server.url}/log/checkpoint")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert signed.policy.trust.endorse(answer.content, now=0).vkeys == signed.vkeys
    assert httpx.head(f"{server.url}/log/checkpoint").status_code == 200
    assert httpx.post(f"{server.url}/log/checkpoint").status_code == 405


def test_a_checkpoint_outlives_a_restart_and_never_goes_back(server: Server) -> None:
    for number in range(5):
        server.add(b"event %d" % number)
    wait_until(lambda: published(server)[0] == 5, "all events in a checkpoint")
    server.kill()
    server.start()
    assert published(server)[0] == 5
    server.add(b"another")
    wait_until(lambda: published(server)[0] == 6, "the next event in a checkpoint")


def test_the_time_of_a_checkpoint_never_goes_back(server: Server, signed: Signed) -> None:
    server.add(b"one")
    wait_until(lambda: published(server)[0] == 1, "the checkpoint")
    assert server.stop() == 0
    # As if it had signed an hour from here.
    memory = qed._qed.SignMemory.open(str(signed.memory()))
    assert memory.newest is not None
    size, root, time_s = memory.newest
    memory.note(size, root, time_s + 3600)
    memory.close()
    server.start()
    server.add(b"two")
    wait_until(lambda: published(server)[0] == 2, "the next checkpoint")
    note = httpx.get(f"{server.url}/log/checkpoint").text
    signature = base64.b64decode(max(note.splitlines(), key=len).split()[2])
    assert len(signature) == 4 + 8 + 2420, "the line of ML-DSA-44, which has a time"
    assert int.from_bytes(signature[4:12], "big") >= time_s + 3600
    assert signed.policy.trust.endorse(note.encode(), now=0).size == 2


def test_a_log_that_lost_signed_events_accepts_no_others(server: Server, signed: Signed) -> None:
    server.add(b"one")
    assert server.stop() == 0
    copy = signed.folder / "copy"
    shutil.copytree(server.folder, copy)
    server.start()
    ask(server, b"two")
    assert server.stop() == 0
    shutil.rmtree(server.folder)
    copy.rename(server.folder)
    server.start()
    assert "the log has 1 entries, but 2 were signed" in add_refused(server)
    assert "sign-halted" in server.stderr
    # What there is can be read, and nothing is signed.
    assert httpx.get(f"{server.url}/snapshots/0").status_code == 200
    assert httpx.get(f"{server.url}/receipts/0").json()["error"] == "fork_guard"


def test_a_log_that_has_other_events_than_were_signed_accepts_no_more(server: Server, signed: Signed) -> None:
    ask(server, b"one")
    assert server.stop() == 0
    server.wipe()
    other = Server("lone", signed.folder / "other")
    other.start()
    other.add(b"another")
    assert other.stop() == 0
    shutil.copytree(other.folder, server.folder, dirs_exist_ok=True)
    server.start()
    assert "was signed" in add_refused(server)


def test_a_missing_memory_halts_a_log_with_events_until_the_operator_says_so(server: Server, signed: Signed) -> None:
    server.add(b"one")
    assert server.stop() == 0
    signed.memory().unlink()
    server.start()
    assert "--trust-new-memory" in add_refused(server)
    assert not signed.memory().exists()
    assert server.stop() == 0
    server.extra += ("--trust-new-memory",)
    server.start()
    assert server.add(b"two").status_code == 201


def test_a_memory_that_was_emptied_is_damaged(server: Server, signed: Signed) -> None:
    # A crash between the file and its first row leaves zeros, and no events.
    assert server.stop() == 0
    zeros = bytes(signed.memory().stat().st_size)
    signed.memory().write_bytes(zeros)
    server.start()
    receipt_in(ask(server, b"one"))
    assert server.stop() == 0
    signed.memory().write_bytes(zeros)
    with pytest.raises(StartFailed, match="it remembers nothing: somebody has emptied it"):
        server.start()


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_memory_that_is_moved_while_the_server_runs_ends_the_signing(
    server: Server, signed: Signed, is_replaced: bool
) -> None:
    receipt_in(ask(server, b"one"))
    away = signed.folder / "away"
    if is_replaced:
        shutil.copy(signed.memory(), away)
    signed.memory().rename(signed.folder / "own")
    if is_replaced:
        away.rename(signed.memory())
    # What is committed is acknowledged, without a receipt.
    assert "was removed or replaced" in ask(server, b"two")["ReceiptError"]
    assert "Put the file back" in add_refused(server)
    assert "sign-halted" in server.stderr
    assert server.stop() == 0
    (signed.folder / "own").rename(signed.memory())
    server.start()
    receipt_in(ask(server, b"three"))


def test_a_memory_that_cannot_be_relied_on_is_not_opened(server: Server, signed: Signed) -> None:
    ask(server, b"one")
    assert server.stop() == 0
    memory = signed.memory()
    content = memory.read_bytes()
    memory.chmod(0o666)
    with pytest.raises(SettingsError, match=r"others can change it \(mode 0666\)"):
        open_memory(memory, may_create=False)
    memory.chmod(0o600)
    # The only row that was ever written must not be forgotten.
    newest = max(number for number in range(1024) if any(content[52 * number : 52 * number + 52]))
    memory.write_bytes(content[: 52 * newest + 20] + b"x" + content[52 * newest + 21 :])
    refused = server.run_to_exit()
    assert refused.returncode == 1
    assert "cannot be read, and a crash does not leave it like that" in refused.stderr
    assert "docs/signing.md" in refused.stderr
    memory.unlink()
    os.mkfifo(memory)
    with pytest.raises(SettingsError, match="expected a regular file"):
        open_memory(memory, may_create=False)


@pytest.mark.parametrize("memory", ["old", "new"])
def test_the_signed_checkpoint_in_the_folder_counts(server: Server, signed: Signed, memory: str) -> None:
    server.add(b"one")
    assert server.stop() == 0
    copy, old = signed.folder / "copy", signed.folder / "old memory"
    shutil.copytree(server.folder, copy)
    shutil.copy(signed.memory(), old)
    server.start()
    server.add(b"two")
    wait_until(lambda: published(server)[0] == 2, "the checkpoint")
    assert server.stop() == 0
    note = (server.folder / "checkpoint").read_bytes()
    shutil.rmtree(server.folder)
    copy.rename(server.folder)
    (server.folder / "checkpoint").write_bytes(note)
    if memory == "old":
        old.rename(signed.memory())
    else:
        signed.memory().unlink()
        server.extra += ("--trust-new-memory",)
    server.start()
    assert "but the checkpoint in its folder has 2" in add_refused(server)


def test_keys_that_signed_before_are_worth_a_word(server: Server, signed: Signed) -> None:
    assert "were used before" not in server.stderr
    other = Server("other", signed.folder / "empty", extra=signed.options("other"))
    with running(other):
        assert "these keys were used before, and this log is empty" in other.stderr


def test_many_large_receipts_of_the_past_wait_for_each_other(server: Server) -> None:
    events = [base64.b64encode(b"%d" % number).decode() for number in range(5000)]
    assert httpx.post(f"{server.url}/events/bulk", json={"Events": events}, timeout=30).status_code == 201
    assert httpx.get(f"{server.url}/receipts/0?last=4096").status_code == 400
    limits = httpx.Limits(max_connections=80)
    with httpx.Client(base_url=server.url, timeout=60, limits=limits) as client, ThreadPoolExecutor(80) as pool:
        asked = [pool.submit(client.get, "/receipts/0?last=4095") for _ in range(80)]
        receipt_in(ask(server, b"between"))
        statuses = {one.result().status_code for one in asked}
    assert statuses == {200, 429}


def test_the_name_of_a_log_cannot_change(server: Server, signed: Signed) -> None:
    server.add(b"one")
    assert server.stop() == 0
    server.forget()
    (signed.folder / "other").mkdir()
    renamed = Signed(signed.folder / "other", "log.example.com/other")
    again = Server("lone", server.folder, extra=(*renamed.options(), "--trust-new-memory"))
    with running(again):
        assert "the log signs as log.example.com/test" in add_refused(again)


@contextmanager
def running(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        server.forget()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--origin", ORIGIN), "expected --origin, --sign-memory and --signing-key together"),
        (("--trust-new-memory",), "expected --origin, --sign-memory and --signing-key together"),
        (("--origin", ORIGIN, "--sign-memory", "MEMORY"), "expected one of --signing-key, --signer and"),
        (("--origin", ORIGIN, "--sign-memory", "MEMORY", "--signer", "unix:s"), "--public-keys with --signer"),
        (
            ("--origin", ORIGIN, "--signing-key", "KEY", "--sign-memory", "DATA/memory"),
            "expected --sign-memory outside",
        ),
        (("--origin", "log.example.com/x", "--signing-key", "KEY", "--sign-memory", "MEMORY"), "found one of"),
        (
            ("--origin", ORIGIN, "--signing-key", "missing", "--sign-memory", "MEMORY"),
            "cannot read the keys of the log",
        ),
        (("--origin", ORIGIN, "--signing-key", "KEY", "--sign-memory", "no/such/folder"), "cannot use the sign memory"),
        (("--origin", ORIGIN, "--signing-key", "KEY", "--sign-memory", "KEY"), "it is damaged"),
    ],
)
def test_what_cannot_be_used_is_named(signed: Signed, options: tuple[str, ...], line: str) -> None:
    names = {"KEY": signed.key, "MEMORY": signed.memory(), "DATA/memory": signed.folder / "data" / "memory"}
    server = Server("lone", signed.folder / "data", extra=tuple(str(names.get(one, one)) for one in options))
    done = server.run_to_exit()
    assert done.returncode in {1, 2}
    assert line in done.stderr
    assert "Traceback" not in done.stderr


def test_an_exposed_key_is_refused(signed: Signed) -> None:
    signed.key.chmod(0o644)
    server = Server("lone", signed.folder / "data", extra=signed.options())
    assert "others can read or change the keys of the log" in server.run_to_exit().stderr


def test_a_server_that_does_not_sign_says_so(tmp_path: Path) -> None:
    server = Server("lone", tmp_path / "data")
    with running(server):
        answer = ask(server, b"one")
        assert answer["Receipt"] is None
        assert "does not sign" in answer["ReceiptError"] or "is not signed" in answer["ReceiptError"]
        assert httpx.get(f"{server.url}/log/checkpoint").status_code == 404


def test_a_client_gets_receipts_and_keeps_them(server: Server, signed: Signed) -> None:
    with qed.Client(server.url) as client:
        done = client.acknowledge([b"one", b"two"])
        assert [snapshot.version for snapshot in done.snapshots] == [0, 1]
        assert done.reason is None
        assert done.receipt is not None
        assert [version for version, _ in signed.policy.verify(done.receipt).shown.events] == [0, 1]
        assert client.acknowledge([b"one"], if_absent=True).receipt is None
        late = client.acknowledge([b"three"], receipt="witnessed")
        assert late.receipt is not None
        assert late.reason is not None
        signed.policy.verify(client.receipt(1), b"two")
        with pytest.raises(qed.SigningError, match="one commit batch"):
            client.receipt(1, last=2)
        with pytest.raises(qed.UnknownVersion):
            client.receipt(3)


def test_a_stream_has_receipts_for_what_it_added(server: Server, signed: Signed) -> None:
    events = [b"%d" % number for number in range(5000)]
    with qed.Client(server.url) as client:
        snapshots: list[qed.Snapshot] = []
        for done in client.acknowledge_stream(events):
            assert done.reason is None
            assert done.receipt is not None
            shown = signed.policy.verify(done.receipt).shown.events
            assert [version for version, _ in shown] == [snapshot.version for snapshot in done.snapshots]
            snapshots += done.snapshots
        assert [snapshot.version for snapshot in snapshots] == list(range(5000))
        assert [done.receipt for done in client.acknowledge_stream([b"7"], if_absent=True)] == [None]


def test_the_command_keeps_signed_receipts_that_verify(server: Server, signed: Signed, tmp_path: Path) -> None:
    kept, lines = tmp_path / "receipts.jsonl", tmp_path / "lines"
    lines.write_text("".join(f"line {number}\n" for number in range(200)))
    for options in (("--event", "one"), ("--lines", str(lines)), ("--event", "two")):
        done = run_qed("add", *options, "--receipts", str(kept), QED_ENDPOINTS=server.url)
        assert (done.returncode, done.stderr) == (0, "")
    policy = tmp_path / "policy"
    policy.write_text("".join(f"log {vkey}\n" for vkey in signed.vkeys) + "quorum none\n")
    state = str(tmp_path / "seen")
    done = run_qed("verify", str(kept), "--policy", str(policy), "--memory", state)
    assert done.returncode == 0, done.stdout + done.stderr
    # The file is still what answers are checked by.
    done = run_qed("membership", "--event", "line 7", "--receipts", str(kept), QED_ENDPOINTS=server.url)
    assert done.returncode == 0, done.stdout + done.stderr
    # Another log's receipt, or a damaged one, is noticed.
    text = kept.read_bytes()
    kept.write_bytes(text.replace(b"AQE", b"AQG", 1))
    assert run_qed("verify", str(kept), "--policy", str(policy), "--memory", state).returncode == 1


def test_a_key_is_changed_while_both_sign(server: Server, signed: Signed) -> None:
    old = receipt_in(ask(server, b"one"))
    assert server.stop() == 0
    (signed.folder / "new").mkdir()
    new = Signed(signed.folder / "new")
    with signed.key.open("a") as file:
        file.write(new.key.read_text())
    server.start()
    both = receipt_in(ask(server, b"two"))
    for policy in (signed.policy, new.policy):
        policy.verify(both, b"two")
    ids = [vkey.split("+", 2)[1] for vkey in (*signed.vkeys, *new.vkeys)]
    with qed.Client(server.url) as client:
        assert [row.since for row in client.signers().signers] == [0, 0, 1, 1]
        for key_id in ids[:2]:
            client.retire_signer(key_id)
        client.retire_signer(ids[0])  # Again, as after an answer that was lost.
        assert [row.until for row in client.signers().signers] == [2, 2, None, None]
        with pytest.raises(qed.MembershipRefused, match="no other Ed25519 key"):
            client.retire_signer(ids[2])
        with pytest.raises(qed.MembershipRefused, match="no key with the id"):
            client.retire_signer("00000000")
    latest = receipt_in(ask(server, b"three"))
    new.policy.verify(latest, b"three")
    with pytest.raises(qed.VerificationError):
        signed.policy.verify(latest, b"three")
    signed.policy.verify(old, b"one")
    # Retired keys stay retired, also for a leader that still has them.
    server.kill()
    server.start()
    with pytest.raises(qed.VerificationError):
        signed.policy.verify(receipt_in(ask(server, b"four")), b"four")
    done = run_qed("cluster", "signers", QED_ENDPOINTS=server.url)
    assert done.returncode == 0
    assert all(key_id in done.stdout for key_id in ids)


@pytest.fixture
def cluster(signed: Signed) -> Iterator[Cluster]:
    cluster = new_cluster(signed.folder, 3)
    signed.sign_in(cluster)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.forget()


def test_all_members_publish_one_checkpoint_and_give_receipts(cluster: Cluster, signed: Signed) -> None:
    leader = cluster.leader()
    for number in range(10):
        receipt_in(ask(leader, b"event %d" % number))
    wait_until(lambda: all(published(one)[0] == 10 for one in cluster.members), "the checkpoint at each member")
    assert len({published(member) for member in cluster.members}) == 1
    for member in cluster.members:
        answer = httpx.get(f"{member.url}/receipts/3")
        signed.policy.verify(qed.SignedReceipt.from_json(answer.content), b"event 3")


def test_the_next_leader_signs_the_same_log(cluster: Cluster, signed: Signed) -> None:
    first = cluster.leader()
    memory = qed.Memory(signed.folder / "seen")
    signed.policy.verify(receipt_in(ask(first, b"one")), b"one", memory=memory)
    first.kill()
    second = cluster.leader()
    assert second is not first
    signed.policy.verify(receipt_in(ask(second, b"two")), b"two", memory=memory)
    wait_until(lambda: published(second)[0] == 2, "a checkpoint of the new leader")
    first.start()
    wait_until(lambda: published(first) == published(second), "the checkpoint at the old leader")


def test_a_leader_that_was_replaced_signs_nothing_else_and_brings_nothing_old_back(cluster: Cluster) -> None:
    deposed = cluster.leader()
    ask(deposed, b"one")
    wait_until(lambda: all(published(one)[0] == 1 for one in cluster.members), "the checkpoint at each member")
    deposed.pause()
    others = cluster.others(deposed)
    names = {one.name: one for one in others}
    wait_until(lambda: all(one.view().leader_id in names for one in others), "the next leader")
    ask(names[others[0].view().leader_id], b"two")
    wait_until(lambda: all(published(one)[0] == 2 for one in others), "its checkpoint")
    # It still holds the keys, and its checkpoint of size 1; the others have gone on.
    deposed.resume()
    seen: dict[Server, list[int]] = {deposed: [], **{one: [] for one in others}}

    def is_level() -> bool:
        for member, sizes in seen.items():
            sizes.append(published(member)[0])
        return all(sizes[-1] == 2 for sizes in seen.values())

    wait_until(is_level, "the newer checkpoint at the deposed leader")
    assert all(sizes == sorted(sizes) for sizes in seen.values())
    assert len({published(member) for member in cluster.members}) == 1
    assert "fork" not in "".join(member.stderr for member in cluster.members)


def test_a_follower_remembers_what_the_leader_has_signed(cluster: Cluster, signed: Signed) -> None:
    leader, follower = cluster.leader(), cluster.follower()
    ask(leader, b"one")
    wait_until(lambda: published(follower)[0] == 1, "the checkpoint at a follower")
    for member in cluster.members:
        assert member.stop() == 0
    memory = qed._qed.SignMemory.open(str(signed.memory(follower.name)))
    assert memory.newest is not None
    assert memory.newest[0] == 1
