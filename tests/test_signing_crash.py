"""Killing servers that sign: whatever was signed before, the log that goes on continues it."""

from __future__ import annotations

import base64
import threading
import time
from typing import TYPE_CHECKING

import httpx

import qed
from harness.cluster import new_cluster
from harness.process import Server
from harness.wait import LIMIT_S, wait_until
from seeds import SEED, chance
from test_signers_of_servers import policy_in, signer
from test_signing import ORIGIN, Signed, published, running
from witnesses import root_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from signers import SignerProcess

__all__ = ["signer"]


class Crowd:
    """Threads that add events with receipts until they are told to stop, and keep what they got."""

    def __init__(self, url: Callable[[], str]) -> None:
        self._url = url
        self._is_over = False
        self.receipts: list[tuple[bytes, bytes]] = []
        self._threads = [threading.Thread(target=self._add, args=(number,)) for number in range(4)]
        for thread in self._threads:
            thread.start()

    def _add(self, number: int) -> None:
        turn = 0
        with httpx.Client(timeout=5) as client:
            while not self._is_over:
                turn += 1
                event = b"%d of %d at %d" % (turn, number, time.monotonic_ns())
                body = {"Event": base64.b64encode(event).decode(), "Receipt": "committed"}
                try:
                    answer = client.post(f"{self._url()}/events", json=body)
                except httpx.HTTPError:
                    time.sleep(0.05)
                    continue
                if answer.status_code == 201 and answer.json()["Receipt"] is not None:
                    self.receipts.append((event, httpx.Response(200, json=answer.json()["Receipt"]).content))

    def stop(self) -> None:
        self._is_over = True
        for thread in self._threads:
            thread.join()


def leaves_of(server: Server) -> list[bytes]:
    """Return the leaf hashes of the log, read as any C2SP client does."""
    leaves: list[bytes] = []
    size = server.count()
    for index in range(0, size, 256):
        width = min(256, size - index)
        path = f"{index // 256:03}" + ("" if width == 256 else f".p/{width}")
        tile = httpx.get(f"{server.url}/log/tile/0/{path}").content
        leaves += [tile[at : at + 32] for at in range(0, len(tile), 32)]
    assert len(leaves) == size
    return leaves


def check(policy: qed.Policy, server: Server, receipts: list[tuple[bytes, bytes]]) -> None:
    """Check that every receipt verifies, and that its checkpoint is a state of the log that is there now."""
    leaves = leaves_of(server)
    roots: dict[int, bytes] = {}
    for event, text in receipts:
        checkpoint = policy.verify(qed.SignedReceipt.from_json(text), event).checkpoint
        assert roots.setdefault(checkpoint.size, bytes(checkpoint.root)) == bytes(checkpoint.root)
    assert roots
    for size, root in roots.items():
        assert root_of(leaves[:size]) == root, f"{size} of {len(leaves)} entries"


def test_a_server_that_is_killed_again_and_again_signs_one_history(tmp_path: Path) -> None:
    rng = chance(SEED)
    signed = Signed(tmp_path)
    server = Server("lone", tmp_path / "data", extra=signed.options())
    with running(server):
        url = server.url
        crowd = Crowd(lambda: url)
        try:
            for _ in range(5):
                time.sleep(rng.uniform(0.2, 1.2))
                server.kill()
                server.start()
                url = server.url
        finally:
            crowd.stop()
        wait_until(lambda: published(server)[0] == server.count(), "the whole log in a checkpoint")
        check(signed.policy, server, crowd.receipts)


def kill_when_written(leader: Server, path: Path) -> None:
    """Kill a server as soon as a file, or one in a folder, is written."""

    def written() -> int:
        files = list(path.iterdir()) if path.is_dir() else [path]
        return max((file.stat().st_mtime_ns for file in files if file.exists()), default=0)

    before, deadline = written(), time.monotonic() + LIMIT_S
    while written() == before and time.monotonic() < deadline:
        pass
    leader.kill()


def test_a_leader_that_is_killed_at_each_step_signs_one_history(tmp_path: Path, signer: SignerProcess) -> None:
    """An entry is written, applied, remembered, signed and answered; the leader dies after each of these steps.

    The keys are in a signer that all members ask, so that its database shows when it signs.
    """
    cluster = new_cluster(tmp_path, 3)
    where = ("--signer", f"unix:{signer.socket}", "--submitter-key", str(tmp_path / "submitter.key"))
    common = ("--origin", ORIGIN, "--public-keys", str(tmp_path / "log.pub"), *where)
    memories = {member.name: tmp_path / f"{member.name}.memory" for member in cluster.members}
    for member in cluster.members:
        member.extra += (*common, "--sign-memory", str(memories[member.name]))
    try:
        cluster.start()
        url = cluster.leader().url
        crowd = Crowd(lambda: url)

        def wait_for_receipt() -> None:
            count = len(crowd.receipts)
            wait_until(lambda: len(crowd.receipts) > count, "a receipt")

        try:
            for step in ("written", "applied", "remembered", "signed", "answered"):
                leader = cluster.leader()
                url = leader.url
                wait_for_receipt()
                paths = {
                    "written": leader.folder / "raft",
                    "applied": leader.folder / "store",
                    "remembered": memories[leader.name],
                    "signed": signer.folder,
                }
                if step in paths:
                    kill_when_written(leader, paths[step])
                else:
                    wait_for_receipt()
                    leader.kill()
                url = cluster.leader().url
                wait_for_receipt()
                leader.start()
        finally:
            crowd.stop()
        cluster.wait_whole()
        leader = cluster.leader()
        wait_until(lambda: published(leader)[0] == leader.count(), "the whole log in a checkpoint")
        check(policy_in(tmp_path), leader, crowd.receipts)
        wait_until(lambda: len({published(one) for one in cluster.members}) == 1, "one checkpoint at all members")
    finally:
        cluster.forget()
