"""Rates of keys: 429 with a time to wait, alike on every member, and clients that wait."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from both_clients import connect
from commands import one_line, qed, read_lines
from harness.cluster import new_cluster
from harness.wait import LIMIT_S, wait_until
from qed.server.acts import KeyCreated, decode
from qed.server.keys import KeyTable
from qed.server.rates import UNLIMITED, Allowance, RateExceeded, Rates

if TYPE_CHECKING:
    from pathlib import Path

    from both_clients import Connect
    from conftest import StartServer
    from harness.process import Server

__all__ = ["connect"]

EVENT: Final = base64.b64encode(b"an event").decode()
SLOW: Final = 0.01
"""A rate of one in a hundred seconds, so that no test depends on how fast it runs."""


def new_key(server: Server, *options: str, key: str = "") -> str:
    """Make a key through the command line, and return its text."""
    done = qed("--json", "keys", "create", *options, QED_ENDPOINTS=server.url, QED_API_KEY=key)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["Key"])


def listed(server: Server, key: str) -> dict[str, Any]:
    (found,) = read_lines(qed("--json", "keys", "list", QED_ENDPOINTS=server.url, QED_API_KEY=key).stdout)
    return found


def add(server: Server, key: str, count: int = 1) -> httpx.Response:
    path, body = ("/events", {"Event": EVENT}) if count == 1 else ("/events/bulk", {"Events": [EVENT] * count})
    return httpx.post(server.url + path, json=body, headers={"Api-Key": key}, timeout=LIMIT_S)


def ask(server: Server, key: str) -> httpx.Response:
    return httpx.get(f"{server.url}/info", headers={"Api-Key": key}, timeout=LIMIT_S)


def assert_must_wait(answer: httpx.Response, seconds: int) -> None:
    """Check that a rate is used up, and that the same request can succeed after at most so many seconds."""
    assert answer.status_code == 429, answer.text
    assert answer.json()["error"] == "rate_limited"
    # The test itself takes time, in which the bucket fills.
    assert seconds // 2 < int(answer.headers["retry-after"]) <= seconds


# The server


def test_events_and_requests_of_a_key_have_rates(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    operator = new_key(server, "--role", "operate")
    other = new_key(server, "--role", "append", key=operator)
    by_events = new_key(server, "--role", "append", "--events-per-s", str(SLOW), key=operator)
    by_requests = new_key(server, "--role", "append", "--requests-per-s", str(SLOW), key=operator)
    for key in (by_events, by_requests):
        assert add(server, key).status_code == 201
        assert_must_wait(add(server, key), 100)
    # A key with a rate for events may still make requests, but not one with a rate for requests.
    for key, status in ((by_events, 200), (by_requests, 429)):
        assert ask(server, key).status_code == status
    assert add(server, other).json()["Version"] == 2
    found = listed(server, operator)
    assert found["Refused"] == {"rate_limited": 3}
    rates = [(row["EventsPerS"], row["RequestsPerS"]) for row in found["Keys"]]
    assert rates == [(None, None), (None, None), (SLOW, None), (None, SLOW)]
    shown = qed("keys", "list", QED_ENDPOINTS=server.url, QED_API_KEY=operator).stdout
    assert f"{by_events.split('_')[1]} is limited to 0.01 events/s.\n" in shown
    assert f"{by_requests.split('_')[1]} is limited to 0.01 requests/s.\n" in shown
    assert "3 rate_limited" in shown
    assert 'event="request refused" reason=rate_limited caller=' in server.stderr


def test_a_bulk_above_the_rate_is_added_and_leaves_a_debt(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    key = new_key(server, "--role", "append", "--events-per-s", str(SLOW))
    assert add(server, key, 3).status_code == 201
    assert_must_wait(add(server, key), 300)
    assert_must_wait(add(server, key, 3), 300)


def test_keys_without_a_rate_have_that_of_the_server(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path, "--key-events-per-s", str(SLOW), "--key-requests-per-s", "1000")
    operator = new_key(server, "--role", "operate")
    usual = new_key(server, "--role", "append", key=operator)
    fast = new_key(server, "--role", "append", "--events-per-s", "1000", key=operator)
    assert add(server, usual).status_code == 201
    assert_must_wait(add(server, usual), 100)
    assert {add(server, fast).status_code for _ in range(3)} == {201}
    shown = qed("keys", "list", QED_ENDPOINTS=server.url, QED_API_KEY=operator).stdout
    assert "limits keys without a rate of their own to 0.01 events/s and 1000 requests/s." in shown


def test_operators_are_not_slowed_down(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    management = f"http://{server.info().mgmt_addr}"
    key = new_key(server, "--role", "operate", "--requests-per-s", str(SLOW))
    for _ in range(3):
        assert httpx.get(f"{management}/keys", headers={"Api-Key": key}).status_code == 200


def test_a_restart_keeps_the_rates(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    key = new_key(server, "--role", "append", "--events-per-s", str(SLOW))
    assert server.stop() == 0
    server.start()
    assert add(server, key).status_code == 201
    assert_must_wait(add(server, key), 100)


def test_every_member_has_the_rates_and_counts_for_itself(tmp_path: Path) -> None:
    cluster = new_cluster(tmp_path, 3)
    try:
        cluster.start()
        leader, followers = cluster.leader(), cluster.followers()
        operator = new_key(followers[0], "--role", "operate")
        options = ("--role", "append", "--events-per-s", str(SLOW), "--requests-per-s", "1000")
        by_events = new_key(followers[0], *options, key=operator)
        by_requests = new_key(leader, "--role", "append", "--requests-per-s", str(SLOW), key=operator)
        for member in cluster.members:
            wait_until(lambda: ask(member, by_requests).status_code == 200, "the key to arrive")  # noqa: B023 - at once
            assert_must_wait(ask(member, by_requests), 100)
        # A redirect adds nothing, so it costs no events.
        assert {add(followers[1], by_events).status_code for _ in range(3)} == {307}
        assert add(leader, by_events).status_code == 201
        assert_must_wait(add(leader, by_events), 100)
    finally:
        cluster.forget()


def test_a_key_of_before_there_were_rates_has_none() -> None:
    secret = bytes(range(32))
    body = json.dumps(
        {
            "deed": "key_created",
            "who": "ops",
            "from": "192.0.2.1:5000",
            "when": "2026-11-29T04:47:43.120000Z",
            "id": "0123456789abcdef",
            "name": "old",
            "roles": ["append"],
            "hash": base64.b64encode(hashlib.sha256(secret).digest()).decode(),
            "expires": None,
        }
    ).encode()
    act = decode(body)
    assert isinstance(act, KeyCreated)
    table = KeyTable()
    table.fold(act)
    key = table.recognise(f"qed_0123456789abcdef_{secret.hex()}".encode())
    assert key is not None
    assert key.rates == UNLIMITED


BAD_RATES: Final = ["0", "-1", "nan", "inf", "1e10", "0.0001"]


@pytest.mark.parametrize("option", ["--events-per-s", "--requests-per-s"])
@pytest.mark.parametrize("rate", [*BAD_RATES, "many"])
def test_a_rate_that_makes_no_sense_is_refused(server: Server, option: str, rate: str) -> None:
    done = qed("keys", "create", "--role", "append", f"{option}={rate}", QED_ENDPOINTS=server.url)
    assert done.returncode == 2
    assert rate.removesuffix(".0") in one_line(done.stderr) or "rate" in done.stderr


@pytest.mark.parametrize("name", ["EventsPerS", "RequestsPerS"])
@pytest.mark.parametrize("rate", ["0", "-1", "1e10", "1e400", "0.0001", '"5"', "true", "[]"])
def test_a_request_with_a_rate_that_makes_no_sense_is_refused(server: Server, name: str, rate: str) -> None:
    url = f"http://{server.info().mgmt_addr}/keys"
    answer = httpx.post(url, content=f'{{"Roles": ["append"], "{name}": {rate}}}')
    assert (answer.status_code, answer.json()["error"]) == (400, "malformed")


@given(
    per_s=st.floats(0.001, 1000),
    steps=st.lists(st.tuples(st.floats(0, 10), st.integers(1, 5000)), max_size=50),
)
@example(per_s=0.046875, steps=[(0.0, 2823), (0.001, 249), (0.0, 1)])
def test_no_key_is_faster_than_its_rate(per_s: float, steps: list[tuple[float, int]]) -> None:
    spent = 0
    with mock.patch("time.monotonic", return_value=0.0) as clock:
        allowance = Allowance(Rates(events_per_s=per_s))
        for pause_s, count in steps:
            clock.return_value += pause_s
            try:
                allowance.spend_events(count)
            except RateExceeded as exc:
                # After the time that it names, the same events are accepted.
                clock.return_value += exc.retry_after_s
                allowance.spend_events(count)
            # Everything before the last bulk was paid for when that was accepted.
            assert spent <= max(per_s, 1) + clock.return_value * per_s + 1e-3
            spent += count


# Clients


def test_clients_wait_until_the_rate_allows_it(start_server: StartServer, tmp_path: Path, connect: Connect) -> None:
    server = start_server(tmp_path)
    operator = new_key(server, "--role", "operate")
    key = new_key(server, "--role", "append", "--events-per-s", "1", key=operator)
    client = connect(server.url, api_key=key)
    client.add_bulk([b"one", b"two", b"three"])
    begun = time.monotonic()
    assert client.add(b"four").version == 3
    # The server says how long to wait, in whole seconds; a request that came sooner would be refused again.
    assert time.monotonic() - begun > 1
    assert listed(server, operator)["Refused"] == {"rate_limited": 1}


def test_the_command_line_says_how_long_to_wait(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    key = new_key(server, "--role", "append", "--events-per-s", str(SLOW))
    assert add(server, key).status_code == 201
    done = qed("add", "--event", "x", QED_ENDPOINTS=server.url, QED_API_KEY=key)
    assert done.returncode == 4
    said = one_line(done.stderr)
    assert "the rate of this key is used up" in said
    assert "this key may add 0.01 events/s on this server; the next is possible in " in said
    assert "may or may not" not in said
