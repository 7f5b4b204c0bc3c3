"""`qed audit` and `qed monitor` against a real server that signs."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from commands import qed as run
from commands import read_lines
from harness.process import Server
from harness.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

ORIGIN = "log.example.com/audited"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.chdir(tmp_path)
    made = run("log-key", "generate", "--origin", ORIGIN, "--out", "key")
    Path("policy").write_text("".join(f"log {vkey}\n" for vkey in made.stdout.splitlines()) + "quorum none\n")
    words = ("--origin", ORIGIN, "--signing-key", "key", "--sign-memory", "memory")
    server = Server(
        "lone", tmp_path / "data", extra=tuple(str(tmp_path / w) if w in {"key", "memory"} else w for w in words)
    )
    server.start()
    yield server
    server.forget()


def add(server: Server, *counts: int) -> None:
    """Add bulks of these sizes, in which every third event occurs twice, and wait until all of it is published."""
    size = server.count()
    for count in counts:
        events = [base64.b64encode(b"%d %d" % (size, i - (i % 3 == 2))).decode() for i in range(count)]
        answer = httpx.post(f"{server.url}/events/bulk", json={"Events": events, "Receipt": "committed"})
        assert answer.status_code == 201
        with Path("receipts.jsonl").open("a") as file:
            file.write(json.dumps(answer.json()["Receipt"]) + "\n")
        size += count
    wait_until(
        lambda: httpx.get(f"{server.url}/log/checkpoint").text.split("\n")[1:2] == [str(size)], what="a checkpoint"
    )


def record(*args: str) -> dict[str, Any]:
    done = run("--json", *args, "--policy", "policy")
    [found] = read_lines(done.stdout)
    return {"code": done.returncode} | found


def test_an_honest_server_is_audited_and_monitored(server: Server) -> None:
    add(server, 1, 5, 300, 1)
    found = record("audit", server.url, "--receipts", "receipts.jsonl")
    assert (found["code"], found["Audit"], found["Replayed"]) == (0, "OK", 307), found
    assert (found["ServerChecked"], found["Receipts"], found["NewerReceipts"]) == (True, 4, 0)
    watch = ("monitor", server.url, "--state", "state", "--once", "--receipts", "receipts.jsonl")
    found = record(*watch)
    assert (found["code"], found["Size"], found["Replayed"], found["Findings"]) == (0, 307, 307, [])
    add(server, 250, 2)
    found = record(*watch)
    assert (found["code"], found["Size"], found["Replayed"], found["Findings"]) == (0, 559, 559, [])
