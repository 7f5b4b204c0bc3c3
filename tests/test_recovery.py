"""docs/recovery.md, carried out: each disaster, what is lost, and what clients see afterwards."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

import qed as library
from commands import one_line, qed, read_lines, values
from documents import ROOT
from harness.cluster import Cluster, new_cluster
from harness.ports import ports_of_server
from harness.process import Server
from harness.small_disk import small_disk as mounted
from harness.wait import wait_while
from test_tokens import token_option

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GUIDE = (ROOT / "docs" / "recovery.md").read_text()


def run_of(command: str, **places: object) -> str:
    """Run a command of the guide at other places, and return what it printed."""
    assert f"\n$ {command}\n" in GUIDE
    words = command.split()[1:]
    for name, place in places.items():
        words = [word.replace(name, str(place)) if word.split("/")[0] == name else word for word in words]
    done = qed(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    members = new_cluster(tmp_path, 3)
    members.start()
    yield members
    members.forget()


def add(server: Server, receipts: Path, *events: str) -> None:
    for event in events:
        done = qed("--endpoints", server.url, "add", "--event", event, "--receipts", str(receipts))
        assert done.returncode == 0, done.stderr


def ask(server: Server, receipts: Path, event: str) -> tuple[int, str]:
    """Return exit code and verdict for an event."""
    done = qed("--endpoints", server.url, "membership", "--event", event, "--receipts", str(receipts))
    lines = [line for line in done.stdout.splitlines() if line.startswith(("Verify:", "Consistent"))]
    return done.returncode, lines[-1] if lines else one_line(done.stderr)


def lone(server: Server, folder: Path) -> Server:
    """Return a server with the addresses of another one, on another folder."""
    return Server(server.name, folder, ports=server.ports)


def test_one_lost_disk_is_replaced(cluster: Cluster, tmp_path: Path) -> None:
    receipts = tmp_path / "receipts"
    add(cluster.leader(), receipts, "one", "two")
    lost = cluster.follower()
    lost.kill()
    lost.wipe()
    lost.join = tuple(other.address("raft") for other in cluster.others(lost))
    assert "\n$ qed cluster replace server2\n" in GUIDE
    cluster.give_up(lost)
    cluster.heal()
    assert ask(lost, receipts, "two") == (0, "Verify: OK")
    add(lost, receipts, "three")


def test_a_survivor_of_a_lost_majority_becomes_a_cluster(cluster: Cluster, tmp_path: Path) -> None:
    receipts, later = tmp_path / "receipts", tmp_path / "later"
    add(cluster.leader(), receipts, "one", "two")
    cluster.wait_whole()
    survivor, leader = cluster.follower(), cluster.leader()
    # It misses an event that the others acknowledge.
    survivor.stop()
    shutil.copy(receipts, later)
    add(leader, later, "three")
    old = leader.info().log
    for member in cluster.members:
        member.kill()
    assert values(run_of("qed recover --data-dir data2 --dry-run", data2=survivor.folder))["Events"] == "2"
    shown = values(run_of("qed recover --data-dir data2", data2=survivor.folder))
    assert (shown["OldLog"], shown["Events"]) == (old, "2")
    survivor.start()
    assert (survivor.info().log, survivor.info().continues) == (shown["NewLog"], [old])
    assert ask(survivor, receipts, "two") == (0, "Verify: OK")
    # The same file goes on.
    add(survivor, receipts, "four")
    assert json.loads(receipts.read_text().splitlines()[0])["Log"] == shown["NewLog"]
    for event in ("one", "three", "four"):
        assert ask(survivor, later, event) == (1, "Verify: FORK")
    # The others join with empty folders.
    for member in cluster.others(survivor):
        member.wipe()
        member.join = (survivor.address("raft"),)
    cluster.heal()
    assert ask(leader, receipts, "four") == (0, "Verify: OK")


def test_a_survivor_that_had_joined_with_a_token_may_change_its_address(cluster: Cluster, tmp_path: Path) -> None:
    survivor = Server("server9", tmp_path / "server9", join=(cluster.leader().address("raft"),))
    survivor.extra = token_option(tmp_path / "token", cluster)
    survivor.start()
    cluster.members.append(survivor)
    cluster.wait_whole()
    cluster.kill()
    qed("recover", "--data-dir", str(survivor.folder))
    survivor.ports, survivor.join, survivor.extra = ports_of_server(), (), ()
    survivor.start()

    def known_at() -> str:
        return survivor.view().members[0].raft_addr

    wait_while(lambda: "" if known_at() == survivor.address("raft") else known_at(), "the new address to be recorded")
    assert survivor.is_running


def test_a_member_of_the_old_cluster_is_not_let_in(cluster: Cluster, tmp_path: Path) -> None:
    add(cluster.leader(), tmp_path / "receipts", "one")
    survivor, *others = cluster.members
    for member in cluster.members:
        member.kill()
    qed("recover", "--data-dir", str(survivor.folder))
    survivor.start()
    before = survivor.info()
    for member in others:
        member.launch()
    add(survivor, tmp_path / "receipts", "two")
    wait_while(lambda: "" if survivor.info().events == 2 else "the event", "the event")
    assert [member.node_id for member in survivor.view().members] == [survivor.name]
    assert survivor.info().log == before.log


def test_everything_lost_but_a_backup(cluster: Cluster, tmp_path: Path) -> None:
    receipts, later = tmp_path / "receipts", tmp_path / "later"
    add(cluster.leader(), receipts, "one", "two")
    member, backups = cluster.follower(), tmp_path / "backups"
    done = qed("--endpoints", member.url, "backup", "create", "--to", str(backups), "--json")
    assert read_lines(done.stdout)[0]["Events"] == 2
    assert run_of("qed backup verify backups/1", backups=backups).endswith("Check: OK\n")
    shutil.copy(receipts, later)
    add(cluster.leader(), later, "three", "four")
    for each in cluster.members:
        each.kill()
        each.wipe()
    shown = values(run_of("qed restore backups/1 --data-dir restored", backups=backups, restored=tmp_path / "restored"))
    assert shown["Events"] == "2"
    server = lone(member, tmp_path / "restored")
    server.start()
    try:
        require_honest_breaks(server, receipts, later)
    finally:
        server.forget()


def require_honest_breaks(server: Server, receipts: Path, later: Path) -> None:
    """Check what clients see of a log that was restored with two events, and that all may go on."""
    log = server.info().log
    assert ask(server, receipts, "two") == (0, "Verify: OK")
    for event in ("one", "three", "never"):
        assert ask(server, later, event) == (1, "Verify: STALE")
    refused = qed("--endpoints", server.url, "add", "--event", "five", "--receipts", str(later))
    assert refused.returncode == 1
    assert server.count() == 2, "nothing was added whose receipt could not be kept"
    add(server, receipts, "five")
    assert json.loads(receipts.read_text().splitlines()[0])["Log"] == log
    assert ask(server, receipts, "five") == (0, "Verify: OK")
    add(server, receipts, "six", "seven")
    for event in ("one", "three", "five", "never"):
        assert ask(server, later, event) == (1, "Verify: FORK"), event
    refused = qed("--endpoints", server.url, "add", "--event", "eight", "--receipts", str(later))
    assert (refused.returncode, "fork" in refused.stderr) == (1, True)
    # What was lost is added again, with a new file.
    add(server, later.with_name("new"), "three", "four")


def test_what_is_no_folder_of_a_member_is_not_recovered(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "missing", tmp_path / "empty"):
        done = qed("recover", "--data-dir", str(folder))
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{folder} is no member's folder" in one_line(done.stderr)
    assert not (tmp_path / "missing").exists()


def test_a_restored_folder_needs_no_recovery(tmp_path: Path) -> None:
    server = Server("lone", tmp_path / "data")
    server.start()
    try:
        assert qed("--endpoints", server.url, "backup", "create", "--to", str(tmp_path / "backups")).returncode == 0
        restored = tmp_path / "restored"
        assert qed("restore", str(tmp_path / "backups" / "1"), "--data-dir", str(restored)).returncode == 0
        done = qed("recover", "--data-dir", str(restored))
        assert done.returncode == 2
        assert "start a server on it" in one_line(done.stderr)
    finally:
        server.forget()


def test_an_old_copy_of_the_only_folder_is_recovered(tmp_path: Path) -> None:
    server = Server("lone", tmp_path / "data")
    server.start()
    receipts, later = tmp_path / "receipts", tmp_path / "later"
    try:
        add(server, receipts, "one", "two")
        server.stop()
        shutil.copytree(server.folder, tmp_path / "copy")
        shutil.copy(receipts, later)
        server.start()
        add(server, later, "three", "four")
        server.kill()
        server.folder = tmp_path / "copy"
        assert qed("recover", "--data-dir", str(server.folder)).returncode == 0
        server.start()
        require_honest_breaks(server, receipts, later)
    finally:
        server.forget()


def put_back(server: Server, copy: Path) -> None:
    """Put an old copy of a server's folder back, as a restored snapshot of a disk does."""
    shutil.rmtree(server.folder)
    shutil.copytree(copy, server.folder)


def copy_of(server: Server, tmp_path: Path) -> Path:
    """Stop a server, copy its folder, and start it again."""
    assert server.stop() == 0
    copy = tmp_path / f"copy of {server.name}"
    shutil.copytree(server.folder, copy)
    server.start()
    return copy


def test_an_old_copy_that_is_put_back_to_one_is_noticed_and_caught_up(cluster: Cluster, tmp_path: Path) -> None:
    receipts = tmp_path / "receipts"
    add(cluster.leader(), receipts, "one")
    server = cluster.follower()
    copy = copy_of(server, tmp_path)
    cluster.wait_whole()
    add(cluster.leader(), receipts, "two", "three")
    server.kill()
    put_back(server, copy)
    server.start()
    cluster.wait_whole()
    assert "alarm" in server.stderr
    assert "alarm over" in server.stderr
    assert "old copy" in server.stderr
    for event in ("one", "two", "three"):
        assert ask(server, receipts, event) == (0, "Verify: OK")
    assert all("alarm" not in other.stderr for other in cluster.others(server))


def test_old_copies_that_are_put_back_to_two_lose_nothing_while_the_third_is_up(
    cluster: Cluster, tmp_path: Path
) -> None:
    receipts = tmp_path / "receipts"
    add(cluster.leader(), receipts, "one")
    kept = cluster.leader()
    copies = {server.name: copy_of(server, tmp_path) for server in cluster.others(kept)}
    cluster.wait_whole()
    add(cluster.leader(), receipts, "two", "three")
    cluster.wait_whole()
    for server in cluster.others(kept):
        server.kill()
    for server in cluster.others(kept):
        put_back(server, copies[server.name])
        server.launch()
    for server in cluster.others(kept):
        server.wait_listening()
    cluster.wait_whole()
    for server in cluster.members:
        for event in ("one", "two", "three"):
            assert ask(server, receipts, event) == (0, "Verify: OK")
    add(cluster.leader(), receipts, "four")


def test_history_says_what_was_restored_and_recovered_and_keys_stay(tmp_path: Path) -> None:
    server, folder = Server("lone", tmp_path / "data"), tmp_path / "backups"
    server.start()
    try:
        made = qed("--endpoints", server.url, "keys", "create", "--role", "operate", "--role", "append", "--json")
        key = ("--api-key", read_lines(made.stdout)[0]["Key"])
        backup = qed(*key, "--endpoints", server.url, "backup", "create", "--to", str(folder), "--json")
        log = read_lines(backup.stdout)[0]["Log"]
        server.stop()
        server.folder = tmp_path / "restored"
        assert qed("restore", str(folder / "1"), "--data-dir", str(server.folder)).returncode == 0
        server.start()
        assert qed("--endpoints", server.url, "add", "--event", "no key").returncode != 0
        assert qed(*key, "--endpoints", server.url, "add", "--event", "one").returncode == 0
        server.stop()
        assert qed("recover", "--data-dir", str(server.folder)).returncode == 0
        server.start()
        acts = read_lines(qed(*key, "--endpoints", server.url, "cluster", "history", "--json").stdout)
    finally:
        server.forget()
    deeds = [act["act"]["deed"] for act in acts]
    assert deeds[-2:] == ["restored", "recovered"]
    restored, recovered = (act["act"] for act in acts[-2:])
    assert (restored["cluster"], restored["events"]) == (log, 0)
    assert restored["backup"] == read_lines(backup.stdout)[0]["Identity"]
    assert (recovered["name"], recovered["events"]) == ("lone", 1)
    assert "key_created" in deeds


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system with room for a small log."""
    with mounted(tmp_path / "disk", "size=64m,mode=0700") as folder:
        yield folder


def add_until_refused(client: library.Client) -> int:
    """Add bulks of a thousand events until one is refused, and return how many events were acknowledged."""
    added = 0
    with suppress(library.QedError):
        while True:
            added += len(client.add_bulk([b"%d" % number for number in range(added, added + 1000)]))
    return added


def test_a_server_with_a_full_disk_goes_on_once_there_is_room(small_disk: Path) -> None:
    server = Server("lone", small_disk / "data")
    server.start()
    ballast = small_disk / "ballast"
    try:
        with library.Client(server.url) as client:
            client.add(b"before")
            with ballast.open("wb") as file, suppress(OSError):
                while True:
                    file.write(bytes(1 << 20))
                    file.flush()
            added = add_until_refused(client)
        assert server.wait() == 1
        assert "No space left on device" in server.stderr
        ballast.unlink()
        server.start()
        # The last bulk may be there too: its outcome was unknown.
        assert server.count() in {added + 1, added + 1001}
        assert server.add(b"after").status_code == 201
    finally:
        server.forget()


def test_receipts_of_another_log_are_still_refused_by_name(tmp_path: Path) -> None:
    one, other = Server("one", tmp_path / "one"), Server("other", tmp_path / "other")
    one.start()
    other.start()
    try:
        add(one, tmp_path / "receipts", "one")
        done = qed("--endpoints", other.url, "add", "--event", "two", "--receipts", str(tmp_path / "receipts"))
        assert done.returncode == 2
        assert "keep a file for each log" in one_line(done.stderr)
        assert other.count() == 0
    finally:
        one.forget()
        other.forget()


def test_a_dry_run_shows_how_far_a_member_is_and_changes_nothing(tmp_path: Path) -> None:
    server = Server("lone", tmp_path / "data")
    server.start()
    try:
        add(server, tmp_path / "receipts", "one")
        assert "in use" in one_line(qed("recover", "--data-dir", str(server.folder)).stderr)
        log = server.info().log
        server.stop()
        (record,) = read_lines(qed("recover", "--data-dir", str(server.folder), "--dry-run", "--json").stdout)
        assert (record["Member"], record["OldLog"], record["Events"]) == ("lone", log, 1)
        server.start()
        assert server.info().log == log
    finally:
        server.forget()
    done = qed("recover", "--data-dir", str(tmp_path / "nothing"))
    assert done.returncode == 2
    assert "is no member's folder" in one_line(done.stderr)
    assert not (tmp_path / "nothing").exists()


def test_a_client_s_receipts_follow_the_new_name_from_python(tmp_path: Path) -> None:
    server = Server("lone", tmp_path / "data")
    server.start()
    try:
        with library.Client(server.url) as client, library.Receipts.open(tmp_path / "receipts") as receipts:
            client.keep(receipts, client.add(b"one"))
        server.stop()
        assert qed("recover", "--data-dir", str(server.folder)).returncode == 0
        server.start()
        with library.Client(server.url) as client, library.Receipts.open(tmp_path / "receipts") as receipts:
            client.prepare(receipts)
            assert receipts.log == server.info().log
            client.keep(receipts, client.add(b"two"))
            assert len(receipts) == 2
    finally:
        server.forget()
