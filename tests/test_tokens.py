"""Tokens to join with: their text, their table, and servers that come with good and bad ones."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import structs

from commands import qed, read_lines
from harness.cluster import Cluster, new_cluster, new_secret
from harness.process import Server
from harness.wait import wait_until
from qed import Client
from qed.server.acts import Recovered, Restored, TokenCreated, TokenUsed
from qed.server.config import SettingsError
from qed.server.token_table import TokenTable
from qed.server.tokens import Claim, Token, read_token
from test_members_refused import assert_says

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("goes_on")

AUTHORITY = bytes(range(32))
ASKED = bytes(range(1, 33))
HOUR = timedelta(hours=1)


# The text


def test_token_is_what_its_text_says() -> None:
    token = Token.make(AUTHORITY)
    assert Token.parse(token.text) == token
    assert Token.make(AUTHORITY).seed != token.seed
    assert token.seed.hex() not in repr(token)


@pytest.mark.parametrize("damage", ["", "qed_join_", "cut", "longer", "upper", "space"])
def test_damaged_token_is_refused_without_repeating_it(tmp_path: Path, damage: str) -> None:
    text = Token.make(AUTHORITY).text
    damaged = {"cut": text[:-1], "longer": text + "0", "upper": text.upper(), "space": text[:40] + " " + text[40:]}
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text(damaged.get(damage, damage))
    with pytest.raises(SettingsError, match="qed cluster token") as refused:
        read_token(path)
    assert text[20:40] not in str(refused.value)
    path.write_text(text + "\n")
    assert read_token(path).text == text
    path.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        read_token(path)


def test_token_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(SettingsError, match="not text"):
        read_token(path)


# The table


def created(token: Token, name: str | None = None, ends: timedelta = HOUR) -> TokenCreated:
    moment = datetime.now(UTC)
    return TokenCreated(
        who="x", origin="", when=moment, id=token.id, name=name, public_key=token.public_key, expires=moment + ends
    )


def used(token: Token, name: str = "a", member: str = "0" * 16, key: bytes = bytes(32)) -> TokenUsed:
    return TokenUsed(who=name, origin="", when=datetime.now(UTC), id=token.id, name=name, member=member, key=key)


def refusal(table: TokenTable, use: TokenUsed, token: Token) -> str | None:
    """Return why a token may not be used, if the server that uses it has the token."""
    return table.refusal(use, ASKED, Claim(use.key, ASKED, use.member, use.name).signed_with(token))


def test_token_is_good_for_one_server() -> None:
    token, table = Token.make(AUTHORITY), TokenTable()
    assert refusal(table, used(token), token) == "this token is not valid"
    table.fold(created(token))
    assert refusal(table, used(token), token) is None
    table.fold(used(token))
    # It may not have got its certificate.
    assert refusal(table, used(token), token) is None
    for other in (used(token, name="b"), used(token, member="1" * 16), used(token, key=b"k" * 32)):
        reason = refusal(table, other, token)
        assert reason is not None
        assert "used already" in reason
        # The use that another leader recorded later does not count.
        table.fold(other)
        assert not table.is_used_by(other)
    assert table.is_used_by(used(token))


@pytest.mark.parametrize(
    "end",
    [
        Restored(who="x", origin="", when=datetime.now(UTC), backup="b", cluster="c", events=1),
        Recovered(who="x", origin="", when=datetime.now(UTC), name="a", cluster="c", events=1),
    ],
    ids=["restored", "recovered"],
)
def test_token_ends_with_its_cluster(end: Restored | Recovered) -> None:
    token, unused, table = Token.make(AUTHORITY), Token.make(AUTHORITY), TokenTable()
    for act in (created(token), created(unused), used(token), end):
        table.fold(act)
    # Not even the server that has used it may ask again.
    for use in (used(token), used(token, name="b"), used(unused)):
        assert table.refusal(use, ASKED, b"") == "this token is not valid"
    assert refusal(table, used(token), token) == "this token is not valid"
    assert refusal(table, used(unused), unused) == "this token is not valid"


def test_only_a_signature_of_the_token_on_the_very_claim_counts() -> None:
    token, other, table = Token.make(AUTHORITY), Token.make(AUTHORITY), TokenTable()
    table.fold(created(token))
    table.fold(created(other))
    use = used(token)
    claim = Claim(use.key, ASKED, use.member, use.name)
    assert table.refusal(use, ASKED, claim.signed_with(token)) is None
    changes = ({"key": b"k" * 32}, {"asked": bytes(32)}, {"number": "1" * 16}, {"name": "b"}, {"name": "0a"})
    wrong = [claim._replace(**change).signed_with(token) for change in changes]
    for signature in (*wrong, claim.signed_with(other), bytes(64), b"", claim.signed_with(token)[:63], token.seed * 2):
        assert table.refusal(use, ASKED, signature) == "this token is not valid"
    # The words are the same once it was used.
    table.fold(use)
    assert table.refusal(used(token, name="b"), ASKED, bytes(64)) == "this token is not valid"


def test_claim_is_signed_as_documented() -> None:
    token = Token("0123456789abcdef", bytes(range(32)), AUTHORITY)
    signature = Claim(b"k" * 32, b"a" * 32, "fedcba9876543210", "server3").signed_with(token)
    message = b"qed join 1\x00" + b"k" * 32 + b"a" * 32 + b"0123456789abcdef" + b"fedcba9876543210" + b"server3"
    Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key().verify(signature, message)


def test_token_ends_and_may_be_for_one_name() -> None:
    old, named, table = Token.make(AUTHORITY), Token.make(AUTHORITY), TokenTable()
    table.fold(created(old, ends=-HOUR))
    table.fold(created(named, name="b"))
    assert "expired" in (table.lapse(old.id) or "")
    assert table.lapse(named.id) is None
    # Whether a token has expired is judged by the leader alone.
    assert refusal(table, used(old), old) is None
    assert refusal(table, used(named), named) == "this token is for b, not for a"


def test_certificate_of_a_token_lets_in_one_member_within_a_day() -> None:
    token, table = Token.make(AUTHORITY), TokenTable()
    key, other = b"k" * 32, b"o" * 32
    table.fold(created(token))
    assert table.admission_refusal(key, "1" * 16, "a") is None
    use = used(token, member="1" * 16, key=key)
    for ago, reason in ((timedelta(), None), (23 * HOUR, None), (24 * HOUR, "a day ago or more")):
        table = TokenTable()
        table.fold(structs.replace(use, when=use.when - ago))
        assert table.admission_refusal(other, "2" * 16, "b") is None
        found = table.admission_refusal(key, "1" * 16, "a")
        assert found is reason is None or (reason is not None and reason in str(found))
        for number, name in (("2" * 16, "a"), ("1" * 16, "b")):
            assert "for another member" in (table.admission_refusal(key, number, name) or "")


# Servers


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Yield three members, of which the last has joined with a token, shared by the tests of this module."""
    cluster = new_cluster(tmp_path_factory.mktemp("cluster"), 3)
    third = cluster.members.pop()
    cluster.start()
    third.secret, third.join = None, tuple(member.address("raft") for member in cluster.members)
    third.extra = token_option(third.folder.parent / "token", cluster)
    cluster.members.append(third)
    third.start()
    cluster.wait_whole()
    yield cluster
    cluster.forget()


def token_option(path: Path, cluster: Cluster, *options: str) -> tuple[str, ...]:
    """Make a token, and return the options with which a server uses it."""
    done = qed("cluster", "token", "--out", str(path), *options, QED_ENDPOINTS=cluster.members[0].url)
    assert done.returncode == 0, done.stderr
    return ("--join-token-file", str(path))


def newcomer(cluster: Cluster, folder: Path, *options: str) -> Server:
    join = tuple(member.address("raft") for member in cluster.members)
    return Server("server9", folder / "log", join=join, extra=token_option(folder / "token", cluster, *options))


def test_programs_learn_what_a_written_token_is_for(cluster: Cluster, tmp_path: Path) -> None:
    path, url = tmp_path / "token", cluster.members[0].url
    done = qed("cluster", "token", "--name", "server9", "--out", str(path), "--json", QED_ENDPOINTS=url)
    assert done.returncode == 0, done.stderr
    (record,) = read_lines(done.stdout)
    expires = datetime.fromisoformat(str(record.pop("Expires")))
    assert timedelta(0) < expires - datetime.now(UTC) <= HOUR
    assert record == {"File": str(path), "Id": read_token(path).id, "Name": "server9"}


def test_a_token_that_cannot_be_written_is_not_made(cluster: Cluster, tmp_path: Path) -> None:
    url, taken = cluster.members[0].url, tmp_path / "taken"
    taken.touch()

    def made() -> int:
        with Client(url) as client:
            return sum(b"token_created" in act.body for act in client.history())

    before = made()
    for path in (taken, tmp_path / "no folder" / "token"):
        done = qed("cluster", "token", "--out", str(path), QED_ENDPOINTS=url)
        assert (done.returncode, "--out" in done.stderr) == (2, True), done.stderr
    assert (made(), taken.read_bytes()) == (before, b"")


def test_member_with_a_token_needs_it_once(cluster: Cluster) -> None:
    third = cluster.members[2]
    assert (third.folder / "member.pem").stat().st_mode & 0o777 == 0o600
    assert third.stop() == 0
    join, extra = third.join, third.extra
    try:
        (third.folder.parent / "token").unlink()
        third.start()
        cluster.wait_whole()
        assert third.stop() == 0
        third.join, third.extra = (), ()
        third.start()
        cluster.wait_whole()
    finally:
        third.join, third.extra = join, extra


def test_token_is_not_good_for_a_second_server(cluster: Cluster, tmp_path: Path) -> None:
    first = newcomer(cluster, tmp_path)
    first.start()
    wait_until(lambda: len(cluster.leader().shards().shards) == 4, "the newcomer to be a member")
    first.kill()
    second = Server("server8", tmp_path / "second", join=first.join, extra=first.extra)
    assert_says(second.run_to_exit(), "cannot join", "used already", "qed cluster token")
    # What was removed does not come back with the certificate that it still has, even under another number.
    cluster.remove("server9")
    kept = {name: (first.folder / name).read_bytes() for name in ("FORMAT", "member.key", "member.pem")}
    shutil.rmtree(first.folder)
    first.folder.mkdir(mode=0o700)
    for name, content in kept.items():
        (first.folder / name).touch(mode=0o600)
        (first.folder / name).write_bytes(content)
    first.extra = ()
    assert_says(first.run_to_exit(), "cannot join", "its certificate was for another member")


@pytest.mark.parametrize(("options", "reason"), [(("--name", "server8"), "for server8, not for server9")])
def test_token_for_another_name_is_refused(
    cluster: Cluster, tmp_path: Path, options: tuple[str, ...], reason: str
) -> None:
    assert_says(newcomer(cluster, tmp_path, *options).run_to_exit(), "cannot join", reason)


def test_expired_token_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    server = newcomer(cluster, tmp_path, "--ttl", "1s")
    ends = time.monotonic() + 1.5
    wait_until(lambda: time.monotonic() > ends, "the token to expire")
    assert_says(server.run_to_exit(), "cannot join", "expired")


def test_token_of_another_cluster_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    other = Server("server0", tmp_path / "other", secret=new_secret(tmp_path))
    other.start()
    try:
        wait_until(lambda: other.shards().leader_id == other.name, "a leader of the other cluster")
        server = newcomer(Cluster([other]), tmp_path)
        server.join = (cluster.members[0].address("raft"),)
        assert_says(
            server.run_to_exit(), "cannot join", server.join[0], "not belong to the cluster that the token is for"
        )
    finally:
        other.forget()


def test_guessed_token_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    server = newcomer(cluster, tmp_path)
    path = tmp_path / "token"
    token = read_token(path)
    path.write_text(Token(token.id, bytes(32), token.authority).text)
    assert_says(server.run_to_exit(), "cannot join", "this token is not valid")


def test_member_without_the_secret_cannot_sign_but_others_are_asked(cluster: Cluster, tmp_path: Path) -> None:
    server = newcomer(cluster, tmp_path)
    server.join = (cluster.members[2].address("raft"),)
    server.start()
    try:
        wait_until(lambda: "no certificate yet" in server.stderr, "the first attempt")
        assert server.stop() == 0
    finally:
        server.forget()


def test_token_without_anyone_to_ask_is_a_usage_error(cluster: Cluster, tmp_path: Path) -> None:
    server = newcomer(cluster, tmp_path)
    server.join = ()
    done = server.run_to_exit()
    assert done.returncode == 2
    assert "--raft-join-addr" in done.stderr.splitlines()[-1]


def test_lone_server_makes_no_tokens(tmp_path: Path) -> None:
    server = Server("server0", tmp_path / "log")
    server.start()
    try:
        wait_until(lambda: server.shards().leader_id == server.name, "a leader")
        done = qed("cluster", "token", QED_ENDPOINTS=server.url)
        assert done.returncode == 4
        assert "--cluster-secret-file" in done.stderr
    finally:
        server.forget()


@pytest.mark.parametrize("ttl", ["0s", "31d", "721h", "1", "1w", "-1h", ""])
def test_invalid_validity_is_a_usage_error(ttl: str) -> None:
    done = qed("cluster", "token", "--ttl", ttl)
    assert done.returncode == 2
    said = "expected at most 30d" if ttl in {"31d", "721h"} else "expected a whole number and s, m, h or d"
    assert said in done.stderr
