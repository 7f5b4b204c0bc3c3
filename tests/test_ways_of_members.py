"""Two ways in to a cluster of three processes: every answer has the addresses by which its question came."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

import httpx
import pytest

import qed
from commands import qed as command
from harness.cluster import Cluster, new_cluster
from harness.wait import LIMIT_S, wait_until
from secure_server import authority, of_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.process import Server

HOSTS: Final = ("127.0.0.1", "localhost")
"""Where clients reach the members: by the way without a name, and by the one that is called `near`."""


@pytest.fixture(scope="module", params=["http", "https"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("ways")
    members = new_cluster(folder, 3)
    ca = authority()
    (folder / "ca.pem").write_bytes(ca.pem())
    for member in members.members:
        member.extra = tuple(
            f"--{kind}-advertise-addr={member.address(kind)},near=localhost:{member.ports[kind]}"
            for kind in ("http", "mgmt")
        )
        if request.param == "https":
            certificate, key = of_server(folder, member.name, ca)
            member.ca = folder / "ca.pem"
            member.extra += ("--tls-cert", str(certificate), "--tls-key", str(key))
    members.start()
    yield members
    members.forget()


def url(member: Server, host: str, service: str = "http") -> str:
    return f"{'https' if member.ca else 'http'}://{host}:{member.ports[service]}"


def ask(member: Server, method: str, target: str, *, body: object = None) -> httpx.Response:
    verify = True if member.ca is None else ssl.create_default_context(cafile=member.ca)
    with httpx.Client(verify=verify, timeout=LIMIT_S) as http:
        return http.request(method, target, json=body)


@pytest.mark.parametrize("host", HOSTS)
def test_every_member_names_all_members_by_the_way_of_the_question(cluster: Cluster, host: str) -> None:
    for asked in cluster.members:
        shards = ask(asked, "GET", f"{url(asked, host)}/info/shards").json()
        assert shards["uriScheme"] == url(asked, host).partition(":")[0]
        assert shards["shards"] == {
            member.name: {"nodeId": member.name, "httpAddr": f"{host}:{member.ports['http']}"}
            for member in cluster.members
        }
        info = ask(asked, "GET", f"{url(asked, host)}/info").json()
        assert info["http_addr"] == f"{host}:{asked.ports['http']}"
        assert info["mgmt_addr"] == f"{host}:{asked.ports['mgmt']}"
        view = ask(asked, "GET", f"{url(asked, host, 'mgmt')}/cluster").json()
        assert {entry["node_id"]: (entry["http_addr"], entry["mgmt_addr"]) for entry in view["members"]} == {
            member.name: (f"{host}:{member.ports['http']}", f"{host}:{member.ports['mgmt']}")
            for member in cluster.members
        }


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("path", ["/events", "/events/bulk"])
def test_a_follower_redirects_by_the_way_of_the_question(cluster: Cluster, host: str, path: str) -> None:
    leader = cluster.leader()
    body = {"Event": "eA=="} if path == "/events" else {"Events": ["eA=="]}
    for follower in cluster.followers():
        redirected = ask(follower, "POST", url(follower, host) + path, body=body)
        assert (redirected.status_code, redirected.headers["location"]) == (307, url(leader, host) + path)
        followed = ask(leader, "POST", redirected.headers["location"], body=body)
        assert followed.status_code == 201


@pytest.mark.parametrize("host", HOSTS)
def test_a_client_reaches_all_members_by_the_way_that_it_came(cluster: Cluster, host: str) -> None:
    follower = cluster.followers()[0]
    with qed.Client(url(follower, host), ca=None if follower.ca is None else str(follower.ca)) as client:
        added = client.add(b"from " + host.encode())
        members = client.cluster().members
        # Each is asked at the address that the one before it named.
        assert {client.member_status(member).node_id for member in members} == cluster.names()
    wait_until(lambda: all(member.count() > added.version for member in cluster.members), "the event")
    options = ["--endpoints", url(follower, host), *(["--ca", str(follower.ca)] if follower.ca else [])]
    done = command(*options, "add", "--event", f"from qed at {host}")
    assert done.returncode == 0, done.stderr


def test_a_moved_way_is_known_to_the_other_members(cluster: Cluster) -> None:
    moved = cluster.followers()[0]
    before, port = moved.extra, moved.ports["http"]
    moved.extra = tuple(option.replace("near=localhost:", "far=localhost:") for option in before)
    assert moved.stop() == 0
    moved.start()
    cluster.wait_whole()

    def named(asked: Server, host: str) -> str:
        shards = ask(asked, "GET", f"{url(asked, host)}/info/shards").json()["shards"]
        return str(shards[moved.name]["httpAddr"])

    try:
        # It has no way of this name any more, so it is reached by its first one.
        for asked in cluster.others(moved):
            wait_until(lambda asked=asked: named(asked, "localhost") == f"127.0.0.1:{port}", "the new ways")  # type: ignore[misc]  # mypy infers no lambda with defaults
        assert named(moved, "localhost") == f"localhost:{port}"
    finally:
        assert moved.stop() == 0
        moved.extra = before
        moved.start()
        cluster.wait_whole()
    for asked in cluster.members:
        wait_until(lambda asked=asked: named(asked, "localhost") == f"localhost:{port}", "the old ways")  # type: ignore[misc]  # mypy infers no lambda with defaults
