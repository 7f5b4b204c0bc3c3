"""The life of a server process: start, stop, crash, and a failing data folder or disk."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

import qed
from harness.cluster import new_secret
from harness.ports import free_ports, ports_of_server
from harness.process import COMMAND, Server, StartFailed, run_to_exit
from harness.small_disk import mount, small_disk
from harness.wait import LIMIT_S, wait_until
from qed.proofs import IncrementalProof, MembershipProof, Snapshot
from seeds import SEED, chance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartServer

Filled = tuple[Path, list[tuple[bytes, Snapshot]]]

ONE_LINE = re.compile(r"qed-server: [^\n]+\n")


def add_request(event: bytes) -> bytes:
    return json.dumps({"Event": base64.b64encode(event).decode()}).encode()


class Load:
    """Threads that add unique events until the server stops, and record what was acknowledged."""

    def __init__(self, url: str, name: str, *, threads: int = 8, bulk: int = 5) -> None:
        self.acknowledged: list[tuple[bytes, Snapshot]] = []
        self.unexpected: list[str] = []
        self._url, self._name, self._bulk = url, name, bulk
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(threads)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(LIMIT_S)
            assert not thread.is_alive()
        assert self.unexpected == []

    def _run(self, number: int) -> None:
        with httpx.Client(base_url=self._url, timeout=LIMIT_S) as http:
            for turn in range(1_000_000):
                # One thread in four adds bulks, so that both kinds occur in one group commit.
                size = self._bulk if number % 4 == 0 else 1
                events = [f"{self._name} {number} {turn} {index}".encode() for index in range(size)]
                try:
                    answer = self._add(http, events)
                except httpx.TransportError:
                    return
                if answer.status_code == 503:
                    return
                if answer.status_code != 201:
                    self.unexpected.append(answer.text)
                    return
                found = answer.json() if size > 1 else [answer.json()]
                snapshots = [Snapshot.from_json(json.dumps(snapshot)) for snapshot in found]
                self.acknowledged.extend(zip(events, snapshots, strict=True))

    @staticmethod
    def _add(http: httpx.Client, events: list[bytes]) -> httpx.Response:
        if len(events) == 1:
            return http.post("/events", content=add_request(events[0]))
        return http.post("/events/bulk", json={"Events": [base64.b64encode(event).decode() for event in events]})


def assert_nothing_lost(server: Server, acknowledged: list[tuple[bytes, Snapshot]], *, proofs: int = 25) -> None:
    """Check every acknowledged snapshot, and verify proofs of some events against their snapshots."""
    wanted = max(snapshot.version for _, snapshot in acknowledged) + 1
    # A log that is some batches behind its Raft log has the rest as soon as the member leads.
    wait_until(lambda: server.count() >= wanted, f"{wanted} events")
    with httpx.Client(base_url=server.url, timeout=LIMIT_S) as http:
        for _, snapshot in acknowledged:
            assert Snapshot.from_json(http.get(f"/snapshots/{snapshot.version}").content) == snapshot
        current = Snapshot.from_json(http.get(f"/snapshots/{server.count() - 1}").content)
        for event, snapshot in chance(SEED).sample(acknowledged, min(proofs, len(acknowledged))):
            assert_proven(http, event, snapshot, current)


def assert_proven(http: httpx.Client, event: bytes, snapshot: Snapshot, current: Snapshot) -> None:
    key = base64.b64encode(event).decode()
    answer = http.post("/proofs/membership", json={"Key": key, "Version": snapshot.version})
    proof = MembershipProof.from_json(answer.content)
    assert proof.actual_version == snapshot.version
    qed.verify(qed.Membership(event, snapshot.version), proof, qed.TrustedSnapshots(snapshot, current))
    answer = http.post("/proofs/incremental", json={"Start": snapshot.version, "End": current.version})
    qed.verify(
        qed.Extension(snapshot.version, current.version),
        IncrementalProof.from_json(answer.content),
        qed.TrustedSnapshots(snapshot, current),
    )


# Start


def test_start_says_where_it_listens_where_its_data_is_and_how_much(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path / "log")
    with httpx.Client(base_url=server.url) as http:
        for number in range(3):
            http.post("/events", content=add_request(b"event %d" % number))
    assert server.stop() == 0
    again = start_server(tmp_path / "log")
    assert f"qed-server: listening on {again.url}, data in {tmp_path / 'log'}, 3 events\n" in again.stderr
    assert again.stop() == 0


def test_log_lines_are_keys_and_values(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    assert server.stop() == 0
    line = server.stderr.splitlines()[-1]
    assert re.fullmatch(
        r'time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=info logger=qed\.server\.main event="stopped" events=0',
        line,
    )


@pytest.mark.parametrize("name", ["HTTP_ADDR", "RAFT_JOIN_ADDR", "DATA_DIR", "LOG", "QUEUE_LENGTH"])
def test_settings_come_from_the_environment_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "file").touch()
    # Servers in containers, of tests that run at the same time, have the usual ports.
    for service, port in ports_of_server().items():
        monkeypatch.setenv(f"QED_SERVER_{service.upper()}_ADDR", f"127.0.0.1:{port}")
    monkeypatch.setenv(f"QED_SERVER_{name}", str(tmp_path / "file"))
    failed = subprocess.run([COMMAND], capture_output=True, text=True, timeout=LIMIT_S, cwd=tmp_path, check=False)
    assert failed.returncode == (1 if name == "DATA_DIR" else 2)
    assert str(tmp_path / "file") in failed.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--http-addr", "127.0.0.1"),
        ("--http-addr", "127.0.0.1:65536"),
        ("--http-addr", ":8800"),
        ("--mgmt-addr", "127.0.0.1:http"),
        ("--metrics-addr", "[::1:8600"),
        ("--raft-addr", "a b:8500"),
        ("--raft-addr", "127.0.0.1:8600"),
        ("--http-addr", "a..b:8800"),
        ("--raft-join-addr", "127.0.0.1:8500,nowhere"),
        ("--node-id", ""),
        ("--node-id", "server 0"),
        ("--log", "loud"),
        ("--max-body-bytes", "0"),
        ("--max-body-bytes", "64MB"),
        ("--request-timeout-s", "nan"),
        ("--request-timeout-s", "inf"),
        ("--queue-length", "-1"),
        ("--queue-length", "1" + "0" * 30),
        ("--max-buffered-bytes", "2048"),
        ("--colour", "blue"),
    ],
)
def test_wrong_option_is_a_usage_error(tmp_path: Path, option: str, value: str) -> None:
    failed = run_to_exit(tmp_path / "log", option, value)
    assert failed.returncode == 2
    assert "Traceback" not in failed.stderr
    assert not (tmp_path / "log").exists()


def test_help_names_every_limit_and_the_environment() -> None:
    shown = subprocess.run([COMMAND, "--help"], capture_output=True, text=True, timeout=LIMIT_S, check=True).stdout
    for word in ("QED_SERVER_", "--max-body-bytes", "--queue-length", "--request-timeout-s", "--raft-join-addr"):
        assert word in shown


# Refusal to start: one plain line, exit code 1


def assert_fails_with_one_line(failed: subprocess.CompletedProcess[str] | StartFailed, *words: str) -> None:
    assert failed.returncode == 1, failed.stderr
    assert ONE_LINE.fullmatch(failed.stderr), failed.stderr
    for word in words:
        assert word in failed.stderr


def test_second_server_on_a_folder_is_refused(start_server: StartServer, tmp_path: Path) -> None:
    first = start_server(tmp_path)
    assert_fails_with_one_line(run_to_exit(tmp_path), str(tmp_path))
    with httpx.Client(base_url=first.url) as http:
        assert http.post("/events", content=add_request(b"still here")).status_code == 201
    assert first.stop() == 0
    assert start_server(tmp_path).events == 1


def test_folder_of_a_killed_server_is_free(start_server: StartServer, tmp_path: Path) -> None:
    start_server(tmp_path).kill()
    assert start_server(tmp_path).stop() == 0


def test_port_in_use_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert_fails_with_one_line(run_to_exit(tmp_path / "log", "--http-addr", address), address, "in use")
    assert not (tmp_path / "log").exists()


def test_of_two_servers_at_once_on_one_port_one_starts(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    addresses = ["--http-addr", f"127.0.0.1:{port}", "--mgmt-addr", "127.0.0.1:0", "--raft-addr", "127.0.0.1:0"]
    commands = [[COMMAND, *addresses, "--data-dir", str(tmp_path / name)] for name in ("one", "other")]
    starts = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    try:
        wait_until(lambda: any(start.poll() is not None for start in starts), "one of them to give up")
        loser = next(start for start in starts if start.poll() is not None)
        assert loser.stderr is not None
        failed = subprocess.CompletedProcess(loser.args, loser.returncode, "", loser.stderr.read())
        assert_fails_with_one_line(failed, f"127.0.0.1:{port}", "in use")
    finally:
        for start in starts:
            start.kill()
            start.communicate()


def test_lone_server_on_all_interfaces_warns_and_takes_nobody_in(start_server: StartServer, tmp_path: Path) -> None:
    secret = ("--cluster-secret-file", str(new_secret(tmp_path)))
    lone = start_server(tmp_path / "lone", "--node-id", "lone", "--raft-addr", "0.0.0.0:0", *secret)
    assert "advertise another" in lone.stderr
    raft = httpx.get(f"{lone.url}/info").json()["raft_addr"]
    address = raft.replace("0.0.0.0", "127.0.0.1")  # noqa: S104  # where it listens
    failed = run_to_exit(tmp_path / "joiner", "--node-id", "joiner", "--raft-join-addr", address, *secret)
    assert failed.returncode == 1
    assert "cannot join" in failed.stderr
    assert "--raft-advertise-addr" in failed.stderr
    assert lone.stop() == 0


def test_health_check_of_the_image_asks_no_proxy(start_server: StartServer, tmp_path: Path) -> None:
    dockerfile = (Path(__file__).parent.parent / "compose" / "Dockerfile").read_text()
    found = re.search(r"HEALTHCHECK .*\n +CMD (\[.*\])", dockerfile)
    assert found is not None
    _, *options, program = json.loads(found[1])
    server = start_server(tmp_path)
    assert "'://127.0.0.1:8800/" in program
    program = program.replace("127.0.0.1:8800", server.url.removeprefix("http://"))
    environment = os.environ | {"http_proxy": "http://127.0.0.1:1"}
    subprocess.run([sys.executable, *options, program], env=environment, check=True, timeout=LIMIT_S)
    assert server.stop() == 0


def test_address_of_another_machine_is_refused(tmp_path: Path) -> None:
    assert_fails_with_one_line(run_to_exit(tmp_path, "--http-addr", "203.0.113.1:0"), "203.0.113.1:0")


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"not a folder")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        assert_fails_with_one_line(run_to_exit(path), str(path))
    assert (tmp_path / "file").read_bytes() == b"not a folder"


def test_unwritable_folder_is_refused(tmp_path: Path) -> None:
    with unwritable(tmp_path):
        for path in (tmp_path, tmp_path / "below"):
            assert_fails_with_one_line(run_to_exit(path), str(path))


def test_unwritable_log_is_refused(start_server: StartServer, tmp_path: Path) -> None:
    assert start_server(tmp_path).stop() == 0
    with unwritable(tmp_path):
        assert_fails_with_one_line(run_to_exit(tmp_path), str(tmp_path))
    assert start_server(tmp_path).stop() == 0


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """Make `folder` read-only, even for root, which ignores permissions."""
    if os.geteuid() != 0:
        folder.chmod(0o500)
        yield
        folder.chmod(0o700)
        return
    chattr = shutil.which("chattr")
    if chattr is None or subprocess.run([chattr, "-R", "+i", folder], capture_output=True, check=False).returncode:
        pytest.skip("root writes everywhere, and this file system has no immutable flag")
    try:
        yield
    finally:
        subprocess.run([chattr, "-R", "-i", folder], check=True)


def test_folder_of_a_newer_format_is_refused(start_server: StartServer, tmp_path: Path) -> None:
    assert start_server(tmp_path).stop() == 0
    mark = (tmp_path / "FORMAT").read_text()
    (tmp_path / "FORMAT").write_text(mark.replace("1", "999"))
    assert_fails_with_one_line(run_to_exit(tmp_path), str(tmp_path), "999")
    (tmp_path / "FORMAT").write_text(mark)
    assert start_server(tmp_path).stop() == 0


def test_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("not a log")
    assert_fails_with_one_line(run_to_exit(tmp_path), str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


@pytest.fixture(scope="module")
def filled(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Filled:
    """Return the folder of a stopped server, and the snapshots it has acknowledged."""
    folder = tmp_path_factory.mktemp("filled") / "log"
    server = start_server(folder)
    load = Load(server.url, "filled", threads=4)
    wait_until(lambda: len(load.acknowledged) > 200, "some load")
    server.kill()
    load.join()
    return folder, load.acknowledged


def test_damaged_folder_is_refused_or_complete(start_server: StartServer, tmp_path: Path, filled: Filled) -> None:
    folder, acknowledged = filled
    # According to DECISIONS.md, 9, only a folder in `keyspaces/` whose name is not a number aborts the process. Damage
    # to a file cannot create one.
    files = (path for path in folder.rglob("*") if path.is_file())
    names = sorted(path.relative_to(folder) for path in files if written(path))
    for number, name in enumerate(names):
        copy = tmp_path / str(number)
        shutil.copytree(folder, copy)
        harm(copy / name, ("truncated", "bit flipped", "emptied", "removed")[(number + SEED) % 4])
        try:
            server = start_server(copy)
        except StartFailed as failed:
            assert_fails_with_one_line(failed, str(copy))
        else:
            # The damaged part was not needed, or can be restored from the rest. Then everything must be there.
            assert_nothing_lost(server, acknowledged, proofs=5)
            assert server.stop() == 0


def written(path: Path) -> int:
    """Return the length of the written part of a file: some files are allocated ahead and end in zeros."""
    return len(path.read_bytes().rstrip(b"\0"))


def harm(path: Path, damage: str) -> None:
    data = bytearray(path.read_bytes())
    place = chance(SEED).randrange(written(path))
    if damage == "removed":
        path.unlink()
        return
    if damage == "bit flipped":
        data[place] ^= 1 << place % 8
    path.write_bytes(data[: {"truncated": place, "emptied": 0}.get(damage, len(data))])


# Stop


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_signal_is_a_clean_end(start_server: StartServer, tmp_path: Path, name: str) -> None:
    import signal  # noqa: PLC0415  # the only user

    server = start_server(tmp_path)
    server.process.send_signal(getattr(signal, name))
    assert server.wait() == 0
    assert "Traceback" not in server.stderr


def test_a_hangup_without_files_to_read_again_is_ignored(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: 'event="hangup ignored"' in server.stderr, "a line about the hangup")
    assert server.add(b"still there").status_code == 201
    assert server.stop() == 0


def test_signal_during_the_imports_is_a_clean_end() -> None:
    # The first import after the handlers raises the signal, as Ctrl-C at that moment would.
    code = """
import builtins, signal
from qed.server import command
imported = builtins.__import__
def interrupted(name, *rest, **named):
    if name == "qed.server.main":
        signal.raise_signal(signal.SIGINT)
    return imported(name, *rest, **named)
builtins.__import__ = interrupted
command.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_signal_while_the_log_is_opened_is_a_clean_end(start_server: StartServer, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    command = [COMMAND, *(word for name in ("http", "mgmt", "raft") for word in (f"--{name}-addr", "127.0.0.1:0"))]
    starting = subprocess.Popen([*command, "--data-dir", str(folder)], stderr=subprocess.PIPE, text=True)
    wait_until(folder.exists, "the folder to be made, with which opening begins")
    starting.terminate()
    _, stderr = starting.communicate(timeout=LIMIT_S)
    assert (starting.returncode, "Traceback" in stderr) == (0, False), stderr
    assert start_server(folder).stop() == 0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_further_signals_do_not_disturb_the_end(start_server: StartServer, tmp_path: Path, name: str) -> None:
    server = start_server(tmp_path)
    while server.process.poll() is None:
        server.process.send_signal(getattr(signal, name))
        with suppress(subprocess.TimeoutExpired):
            server.process.wait(0.002)
    assert server.process.returncode == 0
    assert "Traceback" not in server.stderr


def test_idle_connections_do_not_delay_the_end(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path, "--shutdown-grace-s", "25")
    with httpx.Client(base_url=server.url) as http, socket.create_connection(server.http_address):
        assert http.get("/info").status_code == 200
        server.process.terminate()
        assert server.process.wait(10) == 0


def test_requests_under_way_are_answered_before_the_end(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    bodies = [add_request(b"under way %d" % number) for number in range(16)]
    with ExitStack() as stack:
        peers = [stack.enter_context(expecting_peer(server, len(body))) for body in bodies]
        server.process.terminate()
        wait_until(lambda: is_refused(server.http_address), "the server to stop listening")
        for peer, body in zip(peers, bodies, strict=True):
            peer.sendall(body)
        answers = [read_to_end(peer) for peer in peers]
    assert [answer.split(b" ")[1] for answer in answers] == [b"201"] * len(bodies)
    assert server.wait() == 0
    snapshots = [Snapshot.from_json(answer.partition(b"\r\n\r\n")[2]) for answer in answers]
    events = [b"under way %d" % number for number in range(16)]
    assert_nothing_lost(start_server(tmp_path), list(zip(events, snapshots, strict=True)))


def test_request_that_never_arrives_delays_the_end_by_the_grace_only(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path, "--shutdown-grace-s", "1")
    with expecting_peer(server, 100) as peer:
        server.process.terminate()
        assert read_to_end(peer).startswith(b"HTTP/1.1 503 ")
    assert server.wait() == 0
    assert "Traceback" not in server.stderr


def test_sigterm_under_load_loses_nothing_acknowledged(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    load = Load(server.url, "sigterm")
    wait_until(lambda: len(load.acknowledged) > 300, "some load")
    assert server.stop() == 0
    load.join()
    again = start_server(tmp_path)
    assert_nothing_lost(again, load.acknowledged)
    # A clean stop answers every request that was committed.
    assert again.events == len(load.acknowledged)


def test_kill_under_load_loses_nothing_acknowledged(start_server: StartServer, tmp_path: Path) -> None:
    acknowledged: list[tuple[bytes, Snapshot]] = []
    random = chance(SEED)
    for turn in range(5):
        server = start_server(tmp_path)
        if acknowledged:
            assert_nothing_lost(server, acknowledged[-500:])
        load = Load(server.url, f"kill {turn}")
        target = random.randrange(50, 500)
        wait_until(lambda load=load, target=target: len(load.acknowledged) >= target, "some load")  # type: ignore[misc]  # mypy infers no lambda with defaults
        server.kill()
        load.join()
        acknowledged += load.acknowledged
    assert_nothing_lost(start_server(tmp_path), acknowledged)


def test_concurrent_adds_and_proofs_agree(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    load = Load(server.url, "mixed", threads=4)
    wait_until(lambda: len(load.acknowledged) > 20, "some load")

    def prove(number: int) -> None:
        with httpx.Client(base_url=server.url, timeout=LIMIT_S) as http:
            for _ in range(25):
                event, snapshot = load.acknowledged[number]
                key = base64.b64encode(event).decode()
                answer = http.post("/proofs/membership", json={"Key": key, "Version": snapshot.version})
                proof = MembershipProof.from_json(answer.content)
                current = Snapshot.from_json(http.get(f"/snapshots/{proof.current_version}").content)
                qed.verify(qed.Membership(event, snapshot.version), proof, qed.TrustedSnapshots(snapshot, current))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(prove, range(4)))
    assert server.stop() == 0
    load.join()


# A full disk


def test_full_disk_stops_the_server_and_keeps_what_was_acknowledged(start_server: StartServer, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        server = start_server(disk / "log")
        load = Load(server.url, "full", threads=4, bulk=5000)
        assert server.wait() == 1
        load.join()
        last_line = server.stderr.splitlines()[-1]
        assert last_line.startswith("qed-server: stopped: ")
        assert "No space left on device" in last_line
        assert "Traceback" not in server.stderr
        fill(disk / "filler")
        # Whether a start has anything to write depends on where the last write failed.
        failed: StartFailed | None = None
        try:
            assert start_server(disk / "log").stop() == 0
        except StartFailed as exc:
            failed = exc
        if failed is not None:
            assert failed.returncode == 1, failed.stderr
            assert failed.stderr.splitlines()[-1].startswith("qed-server: ")
            assert "Traceback" not in failed.stderr
        (disk / "filler").unlink()
        assert mount("-o", "remount,size=1g", disk).returncode == 0
        again = start_server(disk / "log")
        assert_nothing_lost(again, load.acknowledged[:200] + load.acknowledged[-200:])
        assert again.stop() == 0


def test_disk_that_is_full_at_start_is_refused(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        fill(disk / "filler")
        assert_fails_with_one_line(run_to_exit(disk / "log"), str(disk / "log"))


def fill(path: Path) -> None:
    """Write to `path` until the disk is full."""
    with path.open("wb", buffering=0) as filler:
        while True:
            try:
                filler.write(bytes(4096))
            except OSError:
                return


def expecting_peer(server: Server, length: int) -> socket.socket:
    """Return a connection with an add under way: the server has asked for the body, so its handler runs."""
    peer = socket.create_connection(server.http_address, timeout=LIMIT_S)
    peer.sendall(b"POST /events HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % length)
    assert peer.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    return peer


def is_refused(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=LIMIT_S).close()
    except ConnectionRefusedError:
        return True
    return False


def read_to_end(peer: socket.socket) -> bytes:
    received = b""
    while data := peer.recv(65536):
        received += data
    return received
