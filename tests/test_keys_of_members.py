"""API keys in a cluster of three processes: made at any member, valid at all, and when each was last used at any."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from commands import qed, read_lines
from harness.cluster import Cluster, new_cluster
from harness.wait import LIMIT_S, wait_until
from qed.cli.durations import age
from qed.server.acts import KeyCreated
from qed.server.api_keys import ApiKey
from qed.server.keys import KeyTable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.process import Server


class Keyed:
    """A cluster with a key for its operator, which was made at a member that does not lead."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.operator = ""
        self.operator = self.create("operate", at=cluster.follower())["Key"]
        for member in cluster.members:
            member.key = self.operator

    def create(self, *roles: str, at: Server) -> dict[str, str]:
        """Make a key by the command line, and return what it printed."""
        options = [word for role in roles for word in ("--role", role)]
        done = qed("--endpoints", at.url, "--json", "keys", "create", *options, QED_API_KEY=self.operator)
        assert done.returncode == 0, done.stderr
        made: dict[str, str] = read_lines(done.stdout)[0]
        return made

    def listed(self, at: Server) -> dict[str, Any]:
        """Return what `qed keys list` prints for programs."""
        done = qed("--endpoints", at.url, "--json", "keys", "list", QED_API_KEY=self.operator)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = read_lines(done.stdout)[0]
        return found

    def last_used(self, key: dict[str, str], at: Server) -> datetime | None:
        (row,) = [row for row in self.listed(at)["Keys"] if row["Id"] == key["Id"]]
        return None if row["LastUsed"] is None else datetime.fromisoformat(row["LastUsed"])


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    cluster = new_cluster(tmp_path_factory.mktemp("cluster"), 3)
    try:
        cluster.start()
        yield Keyed(cluster)
    finally:
        cluster.forget()


def status(member: Server, key: str) -> int:
    return httpx.get(f"{member.url}/info", headers={"Api-Key": key}, timeout=LIMIT_S).status_code


def test_a_key_made_at_a_follower_adds_through_every_member(keyed: Keyed) -> None:
    maker, other = keyed.cluster.followers()
    key = keyed.create("append", "prove", at=maker)["Key"]
    assert status(maker, key) == 200
    for member in keyed.cluster.members:
        wait_until(lambda member=member: status(member, key) == 200, f"{member.name} to know the key")  # type: ignore[misc]  # mypy infers no lambda with defaults
    everyone = f"{other.url},{maker.url},{keyed.cluster.leader().url}"
    done = qed("--endpoints", everyone, "add", "--event", "by a new key", QED_API_KEY=key)
    assert done.returncode == 0, done.stderr
    assert qed("--endpoints", everyone, "add", "--event", "by no key").returncode == 4
    # Only one member is given, so its word for the leader's address is not enough to send the key there.
    done = qed("--endpoints", other.url, "--trust-members", "add", "--event", "by the follower", QED_API_KEY=key)
    assert done.returncode == 0, done.stderr


def test_every_member_says_when_a_key_was_last_used_at_any(keyed: Keyed) -> None:
    key = keyed.create("append", at=keyed.cluster.leader())
    assert keyed.last_used(key, keyed.cluster.members[0]) is None
    seen: datetime | None = None
    for user in keyed.cluster.members:
        wait_until(lambda user=user: status(user, key["Key"]) == 200, "the key to be known")  # type: ignore[misc]  # mypy infers no lambda with defaults
        found = {keyed.last_used(key, member) for member in keyed.cluster.members}
        assert len(found) == 1
        (last,) = found
        assert last is not None
        assert datetime.now(UTC) - timedelta(seconds=LIMIT_S) < last <= datetime.now(UTC)
        assert seen is None or last > seen
        seen = last
        time.sleep(1.1)  # Uses are told in whole seconds.
    assert keyed.listed(keyed.cluster.members[0])["Unanswered"] == []


@pytest.mark.parametrize("fate", ["killed", "paused"])
def test_a_member_that_does_not_say_is_named(keyed: Keyed, fate: str) -> None:
    silent, asked = keyed.cluster.followers()
    silent.kill() if fate == "killed" else silent.pause()
    try:
        assert keyed.listed(asked)["Unanswered"] == [silent.name]
        shown = qed("--endpoints", asked.url, "keys", "list", QED_API_KEY=keyed.operator).stdout
        assert f"No answer from {silent.name}: keys may have been used there later.\n" in shown
        assert "just now" in shown or "second" in shown
    finally:
        silent.start() if fate == "killed" else silent.resume()
        keyed.cluster.wait_whole()
    wait_until(lambda: keyed.listed(asked)["Unanswered"] == [], "everyone to answer again")


def test_the_newest_use_counts_and_clocks_ahead_do_not() -> None:
    table, key = KeyTable(), ApiKey.make()
    moment = datetime.now(UTC)
    table.fold(KeyCreated(who="a", origin="b", when=moment, id=key.id, hash=key.hash, roles=["append"], name=""))
    table.note_uses({key.id: 1000, "no such key": 2000})
    table.note_uses({key.id: 900})
    assert table.uses(10) == {key.id: 1000}
    table.note_uses({key.id: 1 << 39})
    assert moment.timestamp() - 1 <= table.uses(10)[key.id] <= time.time()
    assert table.uses(0) == {}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "just now"),
        (0, "just now"),
        (1, "1 second ago"),
        (59.9, "59 seconds ago"),
        (60, "1 minute ago"),
        (3599, "59 minutes ago"),
        (7200, "2 hours ago"),
        (86_400, "1 day ago"),
        (40 * 86_400, "40 days ago"),
    ],
)
def test_ages_are_in_words(seconds: float, words: str) -> None:
    present = datetime(2030, 1, 31, tzinfo=UTC)
    assert age(present - timedelta(seconds=seconds), present) == words
