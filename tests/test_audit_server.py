"""`qed audit` and `qed monitor` against a real server that signs."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

import qed
from commands import QED, environment, read_lines
from commands import qed as run
from harness.ports import free_ports
from harness.process import Server
from harness.wait import LIMIT_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

ORIGIN = "log.example.com/audited"


def metrics_of(url: str) -> dict[str, float]:
    """Return the metrics that a monitor serves, each by its name and its kind of alert."""
    answer = httpx.get(url)
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(answer.text)
    samples = [sample for family in families for sample in family.samples if not sample.name.endswith("_created")]
    return {
        " ".join([sample.name.removeprefix("qed_monitor_"), *sample.labels.values()]): sample.value
        for sample in samples
    }


@contextmanager
def watching(*args: str) -> Iterator[str]:
    """Run a monitor, and give the URL of its metrics."""
    address = f"127.0.0.1:{free_ports(1)[0]}"
    words = ["monitor", *args, "--policy", "policy", "--state", "state", "--interval", "0.1"]
    process = subprocess.Popen(
        [QED, *words, "--metrics-listen", address], env=environment(), stderr=subprocess.PIPE, text=True
    )
    url = f"http://{address}/metrics"
    try:
        wait_until(lambda: Path("state").exists() and metrics_of(url)["checkpoint_size"] > 0, what="the first round")
        yield url
    finally:
        process.terminate()
        _, stderr = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, f"metrics url={url}" in stderr) == (0, True), stderr


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
    # Each round compares answers of each server, on connections of its own.
    twice = run("--insecure", *watch, server.url, "--policy", "policy")
    assert (twice.returncode, twice.stderr.count("not checked")) == (0, 1)


def test_a_running_monitor_has_metrics(server: Server) -> None:
    add(server, 1, 300)
    begun = time.time()
    added_later = qed.Digest.of(b"301 0").hex()
    with watching(server.url, "--watch", added_later, "--command", "false") as url:
        wait_until(
            lambda: metrics_of(url)["last_success_timestamp_seconds"] >= int(begun), what="a round without findings"
        )
        assert metrics_of(url)["alerts_total watch-hit"] == 0
        add(server, 250)
        wait_until(lambda: metrics_of(url)["replayed_total"] == 551, what="what was added")
        wait_until(lambda: metrics_of(url)["lag_entries"] == 0, what="the end of the round")
        seen = metrics_of(url)
        assert seen["checkpoint_size"] == seen["entries_verified_total"] == 551
        assert 0 <= seen["checkpoint_age_seconds"] <= time.time() - begun
        assert seen["alerts_total watch-hit"] == 1
        assert {name: value for name, value in seen.items() if value and "alerts" in name} == {
            "alerts_total watch-hit": 1
        }
        assert (seen["outbox_pending"], seen["forks_total"]) == (1, 0)
        assert httpx.post(url).status_code == 405
