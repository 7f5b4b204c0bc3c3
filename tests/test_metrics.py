"""The metrics of a server: what they say, who may read them, and that Prometheus can."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

import qed
from commands import qed as run
from harness.cluster import new_cluster
from harness.ports import free_ports
from harness.process import Server, StartFailed
from harness.wait import LIMIT_S, wait_until
from test_signing import ask, running
from test_witnessed_log import Watched

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parent.parent / "docs" / "operations.md"


def text_of(server: Server, **headers: str) -> str:
    """Return all metrics of a server."""
    answer = httpx.get(f"http://{server.address('metrics')}/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.text


def values(server: Server, **headers: str) -> dict[str, float]:
    """Return the metrics of a server, each by its name and the values of its labels."""
    families = text_string_to_metric_families(text_of(server, **headers))
    samples = [sample for family in families for sample in family.samples]
    return {" ".join([sample.name.removeprefix("qed_"), *sample.labels.values()]): sample.value for sample in samples}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running(Server("lone", tmp_path / "data")) as server:
        yield server


def test_what_a_server_does_is_counted(server: Server) -> None:
    with qed.Client(server.url) as client:
        client.add(b"one")
        client.add_bulk([b"two", b"three", b"four"])
        client.membership(b"one")
        client.membership(b"never added")
        client.incremental(0, 3)
    assert httpx.post(f"{server.url}/events", content=b"{").status_code == 400
    assert httpx.get(f"{server.url}/nowhere").status_code == 404
    found = values(server)
    assert (found["events"], found["healthy"], found["settled"], found["raft_is_leader"]) == (4, 1, 1, 1)
    assert (found["entry_events_count"], found["entry_events_sum"]) == (2, 4)
    assert found["entry_events_bucket 2.0"] == 1
    for kind in ("membership", "absence", "incremental"):
        assert found[f"query_seconds_count {kind}"] == 1, kind
    assert found["http_request_duration_seconds_count /events 2xx"] == 1
    assert found["http_request_duration_seconds_count /events 400"] == 1
    assert found["http_request_duration_seconds_count other 404"] == 1
    # The request for the metrics is one itself.
    assert (found["http_requests_in_flight"], found["waiting_requests add"], found["queue_events"]) == (1, 0, 0)
    for step in ("queue", "replicate"):
        assert found[f"entry_step_seconds_count {step}"] == 2, step
    for step in ("sync", "apply", "answer"):
        assert found[f"entry_step_seconds_count {step}"] >= 2, step
        assert found[f"entry_step_seconds_sum {step}"] > 0, step
    assert found["start_phase_seconds open"] > 0
    assert found["disk_used_bytes raft"] > 8 << 20


def test_streams_are_counted(server: Server) -> None:
    is_seen = threading.Event()

    def events() -> Iterator[bytes]:
        yield b"first"
        assert is_seen.wait(LIMIT_S)
        yield from (b"%d" % number for number in range(9))

    with qed.Client(server.url) as client:
        stream = client.add_stream(events())
        assert next(stream)
        assert values(server)["streams"] == 1
        is_seen.set()
        assert sum(map(len, stream)) == 9
    assert httpx.post(f"{server.url}/events/stream", content=b"{").status_code == 200
    found = values(server)
    assert (found["streams"], found["stream_events_total"]) == (0, 10)
    assert (found["stream_ends_total done"], found["stream_ends_total malformed"]) == (1, 1)


def test_other_paths_and_methods_are_refused(server: Server) -> None:
    url = f"http://{server.address('metrics')}"
    assert httpx.post(f"{url}/metrics").status_code == 405
    assert httpx.get(f"{url}/info").status_code == 404
    assert httpx.get(f"{url}/metrics%0A").status_code == 404
    assert httpx.get(f"{server.url}/metrics").status_code == 404
    openmetrics = httpx.get(f"{url}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert openmetrics.headers["Content-Type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")


def test_who_may_observe_may_read_metrics(tmp_path: Path) -> None:
    with running(Server("lone", tmp_path / "data")) as server:
        operate = new_key(server, "operate")
        observe, prove = (new_key(server, role, operate) for role in ("observe", "prove"))
        url = f"http://{server.address('metrics')}/metrics"

        def status(key: str | None) -> int:
            return httpx.get(url, headers={} if key is None else {"Authorization": f"Bearer {key}"}).status_code

        assert [status(key) for key in (operate, observe, prove, None, observe[:-1])] == [200, 200, 403, 401, 401]
        assert values(server, **{"Api-Key": observe})["http_refused_total unauthorized"] == 2


def new_key(server: Server, role: str, by: str = "") -> str:
    done = run("keys", "create", "--role", role, "--json", QED_ENDPOINTS=server.url, QED_API_KEY=by)
    return str(json.loads(done.stdout)["Key"])


def test_metrics_beyond_this_machine_need_a_key(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    server = Server("lone", tmp_path / "data", extra=("--metrics-advertise-addr", f"192.0.2.1:{port}"))
    with pytest.raises(StartFailed, match="at which --metrics-addr is advertised, is beyond this machine"):
        server.start()
    server.extra += ("--open",)
    with running(server):
        assert values(server)["healthy"] == 1


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Give three members that sign, with two witnesses."""
    watched = Watched(tmp_path_factory.mktemp("watched"))
    cluster = new_cluster(watched.folder, 3)
    watched.sign_in(cluster)
    try:
        cluster.start()
        leader = cluster.leader()
        ask(leader, b"one", Receipt="witnessed")
        ask(leader, b"two", Receipt="committed")
        yield [leader, *cluster.others(leader)]
    finally:
        cluster.forget()
        watched.stop()


def test_members_and_witnesses_have_metrics(watched: list[Server]) -> None:
    leader, *followers = watched
    found = values(leader)
    for name in (follower.name for follower in followers):
        assert found[f"raft_member_lag_entries {name}"] <= 1
        assert found[f"raft_member_last_contact_seconds {name}"] < 5
        assert found[f"raft_sent_bytes_total {name}"] > 0
    assert (found["raft_members"], found["raft_voters"], found["sign_halted"]) == (3, 3, 0)
    assert found["checkpoint_size"] >= 1
    assert found["checkpoint_age_seconds"] < 60
    assert found["signatures_total publication"] >= 1
    assert found["signatures_total receipts"] >= 1
    for witness in ("w0", "w1"):
        assert found[f"witness_requests_total cosigned {witness}"] >= 1
        assert found[f"witness_round_seconds_count {witness}"] >= 1
    assert [values(follower)["raft_is_leader"] for follower in followers] == [0, 0]
    assert "raft_member_lag_entries" not in " ".join(values(followers[0]))


def test_every_metric_is_documented(watched: list[Server]) -> None:
    served = {name for server in watched for name in re.findall(r"^# TYPE (qed_\w+) ", text_of(server), re.MULTILINE)}
    tables = "".join(line for line in DOCS.read_text().splitlines(keepends=True) if line.startswith("|"))
    documented = set(re.findall(r"`(qed_\w+)", tables))
    assert {name.removesuffix("_total") for name in served} == {name.removesuffix("_total") for name in documented}
    # What alerts and docs name is there.
    named = {name.removesuffix("_bucket") for name in re.findall(r"\b(qed_[a-z_]+[a-z])\b", DOCS.read_text())}
    assert named <= served, named - served


def test_promtool_finds_nothing(watched: list[Server], tmp_path: Path) -> None:
    promtool = shutil.which("promtool") or pytest.skip("needs Debian's prometheus")
    for server in watched:
        done = subprocess.run(
            [promtool, "check", "metrics"],
            input=text_of(server),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    # The rules of the documentation, too.
    rules = tmp_path / "rules.yml"
    (text,) = re.findall(r"```\n(groups:\n.*?)```", DOCS.read_text(), re.DOTALL)
    rules.write_text(text)
    done = subprocess.run([promtool, "check", "rules", rules], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@contextmanager
def prometheus(folder: Path, targets: list[str]) -> Iterator[httpx.Client]:
    """Run Prometheus, and give a client for its API."""
    program = shutil.which("prometheus") or pytest.skip("needs Debian's prometheus")
    config = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "400ms"},
        "scrape_configs": [{"job_name": "qed", "static_configs": [{"targets": targets}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML.
    address = f"127.0.0.1:{free_ports(1)[0]}"
    options = (f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data")
    process = subprocess.Popen(
        [program, *options, f"--web.listen-address={address}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with httpx.Client(base_url=f"http://{address}/api/v1") as client:
            yield client
    finally:
        process.terminate()
        process.wait(LIMIT_S)


def test_prometheus_scrapes_three_members_under_load(watched: list[Server], tmp_path: Path) -> None:
    leader = watched[0]
    with prometheus(tmp_path, [server.address("metrics") for server in watched]) as client:

        def result(query: str) -> list[float]:
            try:
                answer = client.get("/query", params={"query": query})
            except httpx.TransportError:
                return []
            if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
                return []  # It has just started.
            return [float(row["value"][1]) for row in answer.json()["data"]["result"]]

        entries = 'sum(rate(qed_entry_step_seconds_count{step="replicate"}[1m]))'
        with qed.Client(leader.url) as adding:
            begun = time.monotonic()
            # A busy machine may answer the first scrapes of the leader too late.
            while result("sum(up)") != [3] or max(result(entries), default=0) == 0 or time.monotonic() - begun < 5:
                assert time.monotonic() - begun < LIMIT_S, client.get("/targets").text
                adding.add_bulk([b"under load %d" % number for number in range(100)])
            events = adding.info().events
        wait_until(lambda: result("min(qed_events)") == [events], what="all events at each member")
        assert result("sum(qed_raft_is_leader)") == [1]
        assert result(entries)[0] > 0
        assert len(result("histogram_quantile(0.99, sum by (le) (qed_http_request_duration_seconds_bucket))")) == 1
