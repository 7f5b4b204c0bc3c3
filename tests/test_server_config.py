"""Settings that exist are valid: invalid ones are refused with a message."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path

import pytest

from qed.server.config import Address, Limits, Settings, SettingsError

SETTINGS = Settings(
    node_id="server0",
    http_addr=Address("127.0.0.1", 8800),
    mgmt_addr=Address("127.0.0.1", 8700),
    metrics_addr=Address("127.0.0.1", 8600),
    raft_addr=Address("127.0.0.1", 8500),
    data_dir=Path("qed-data"),
)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8800", "127.0.0.1", 8800),
        ("localhost:0", "localhost", 0),
        ("qed_server_0:65535", "qed_server_0", 65535),
        ("log.example.org.:1", "log.example.org.", 1),
        ("[::1]:8800", "::1", 8800),
        (" 0.0.0.0:80 ", "0.0.0.0", 80),  # noqa: S104  # an address to parse, not to bind
    ],
)
def test_address_is_parsed_and_spelt_again(text: str, host: str, port: int) -> None:
    address = Address.parse(text)
    assert (address.host, address.port) == (host, port)
    assert str(address) == text.strip()


@pytest.mark.parametrize(
    "text",
    ["", ":", "host", "host:", ":80", "host:-1", "host:65536", "host:1e3", "host: 80", "a b:1", "::1:80", "[::1:80",
     "[host]:80", "http://host:80", "host/path:80", "host:80/", "host:\u0661", "-host:80",
     "a..b:80", ".a:80", "a" * 64 + ":80"],
)  # fmt: skip
def test_what_is_no_address_is_refused_and_quoted(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Address.parse(text)
    assert repr(text) in str(caught.value)


def test_settings_cannot_change() -> None:
    with pytest.raises(FrozenInstanceError):
        SETTINGS.node_id = "server1"  # type: ignore[misc]  # must fail


@pytest.mark.parametrize("node_id", ["", "a b", "a\n", "\u00e9", "x" * 256])
def test_node_id_that_is_no_name_is_refused(node_id: str) -> None:
    with pytest.raises(SettingsError, match="node id"):
        replace(SETTINGS, node_id=node_id)


def test_two_services_on_one_address_are_refused() -> None:
    with pytest.raises(SettingsError, match="raft_addr to differ from mgmt_addr"):
        replace(SETTINGS, raft_addr=SETTINGS.mgmt_addr)


def test_free_ports_do_not_collide() -> None:
    anywhere = Address("127.0.0.1", 0)
    assert replace(SETTINGS, raft_addr=anywhere, http_addr=anywhere).http_addr.port == 0


@pytest.mark.parametrize("name", [limit.name for limit in fields(Limits)])
def test_limit_has_a_reason_a_least_and_a_largest_value(name: str) -> None:
    assert f"        {name}: " in (Limits.__doc__ or "")
    for value in (-1, 0, float("nan"), float("inf"), 10**30):
        with pytest.raises(SettingsError, match=name):
            replace(Limits(), **{name: value})  # type: ignore[arg-type]  # every limit is a number


def test_buffer_smaller_than_a_body_is_refused() -> None:
    with pytest.raises(SettingsError, match="max_buffered_bytes"):
        Limits(max_body_bytes=2000, max_buffered_bytes=1999)


def test_clients_and_operators_on_one_port_are_refused() -> None:
    # The port tells their connections apart.
    with pytest.raises(SettingsError, match="different ports"):
        replace(SETTINGS, http_addr=Address("10.0.0.5", 8700))


@pytest.mark.parametrize("everywhere", ["0.0.0.0", "::"])  # noqa: S104  # nothing is bound
def test_all_interfaces_are_no_place_to_be_reached(everywhere: str) -> None:
    listening = replace(SETTINGS, raft_addr=Address(everywhere, 8500))
    assert listening.unreachable() == ["raft"]
    with pytest.raises(SettingsError, match="--raft-advertise-addr"):
        replace(listening, raft_join_addrs=(Address("server1", 8500),))
    with pytest.raises(SettingsError, match="raft_advertise_addr"):
        replace(SETTINGS, raft_advertise_addr=Address(everywhere, 8500))
    reachable = replace(listening, raft_advertise_addr=Address("server0", 8500), cluster_secret_file=Path("secret"))
    assert reachable.unreachable() == []
    assert replace(reachable, raft_join_addrs=(Address("server1", 8500),)).unreachable() == []
