"""`qed` against servers that send deceptive text and oversized lists."""

from __future__ import annotations

import json

from adversary import Adversary, http
from commands import one_line, qed

FOREIGN = "\u009b2J\u202e\x7f\U000e0001"
"""Clears the terminal, reverses the text direction, and has more characters that no terminal shows."""


def info(address: str, name: str) -> bytes:
    names = ("raft_addr", "http_addr", "metrics_addr", "version")
    return http(
        200, dict.fromkeys(names, "x") | {"node_id": name, "mgmt_addr": address, "current_version": None, "events": 0}
    )


def test_no_word_of_a_server_reaches_the_terminal_in_json() -> None:
    shards = http(200, {"nodeId": FOREIGN, "leaderId": "", "uriScheme": "http", "shards": {}})
    with Adversary(info("x", FOREIGN), members=shards) as server:
        done = qed("--json", "info", QED_ENDPOINTS=server.url)
    assert done.returncode == 0
    assert done.stdout.rstrip("\n").isprintable()
    assert json.loads(done.stdout)["Info"]["node_id"] == FOREIGN


def test_the_members_a_server_lists_are_not_all_asked() -> None:
    with Adversary() as server:
        address = server.url.removeprefix("http://")
        addresses = dict.fromkeys(("raft_addr", "http_addr", "mgmt_addr"), address)
        members = [
            {"node_id": f"m{number}", "role": "follower", "is_reachable": True, "entry": 0} | addresses
            for number in range(200)
        ]
        counts = dict.fromkeys(("term", "commit_index", "applied_index", "events"), 0)
        cluster = {"node_id": "liar", "cluster_id": "x", "leader_id": "", "members": members} | counts
        server.plays = [info(address, "liar"), http(200, cluster)]
        assert qed("cluster", "status", "--json", QED_ENDPOINTS=server.url).returncode == 0
        assert sum(each.path == "/cluster" for each in server.received) == 1 + 32


def test_unchecked_certificates_are_a_warning() -> None:
    with Adversary(info("x", "y")) as server:
        done = qed("--insecure", "snapshot", "--version", "0", QED_ENDPOINTS=server.url)
    assert done.stderr.splitlines()[0] == "qed: warning: the servers' certificates are not checked (--insecure)"
    assert one_line(done.stderr.splitlines()[1])
