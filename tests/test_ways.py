"""The ways in to a member: what they look like, and which one an answer uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from harness.process import Server
from qed.server.addresses import Address, SettingsError
from qed.server.members import address_by, url_by
from qed.server.ways import Way, Ways

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "way"),
    [
        ("127.0.0.1:8800", Way("", Address("127.0.0.1", 8800))),
        ("host=127.0.0.1:8800", Way("host", Address("127.0.0.1", 8800))),
        ("net=https://[::1]:1", Way("net", Address("::1", 1), is_secure=True)),
    ],
)
def test_a_way_is_read_and_written(text: str, way: Way) -> None:
    assert Way.parse(text) == way
    assert str(way) == text


def test_an_address_that_is_none_leads_nowhere() -> None:
    # An earlier version recorded what it was given.
    for text in ("", "nowhere", "http://a:1", "a=b=c:1"):
        assert address_by("host", text) == text
        assert url_by("host", text) is None
    assert url_by("host", "net=a:1,host=https://b:2") == "https://b:2"


@pytest.mark.parametrize("text", ["", "=a:1", "a b=c:1", "a=b=c:1", "a", "a=", "http://a:1", "x" * 33 + "=a:1", "a:1/"])
def test_a_malformed_way_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        Way.parse(text)


@pytest.mark.parametrize(
    ("url", "spelt"),
    [
        ("https://log.example.com", "https://log.example.com:443"),
        ("https://log.example.com:8443/", "https://log.example.com:8443"),
        ("http://10.0.0.1", "10.0.0.1:80"),
        ("https://[::1]", "https://[::1]:443"),
    ],
)
def test_a_url_is_a_way(url: str, spelt: str) -> None:
    assert str(Way.parse_url(url)) == spelt


@pytest.mark.parametrize(
    "url",
    [
        "",
        "log.example.com",
        "ftp://a",
        "https://",
        "https://a/b",
        "https://a?",
        "https://a#",
        "https://u@a",
        "https://a:x",
        "https://a:99999",
        "https://[a",
    ],
)
def test_a_malformed_url_is_refused(url: str) -> None:
    with pytest.raises(SettingsError):
        Way.parse_url(url)


def test_a_question_came_by_the_way_whose_address_is_its_host() -> None:
    ways = Ways.parse("127.0.0.1:8800,net=qed_server_0:8800,web=https://log.example.com:443")
    assert Ways.parse(str(ways)) == ways
    for host, name in (
        ("127.0.0.1:8800", ""),
        ("QED_server_0:8800", "net"),
        ("log.example.com", "web"),
        ("log.example.com:443", "web"),
        ("qed_server_0", ""),
        ("unknown:1", ""),
        ("", ""),
    ):
        assert ways.name_of(host) == name, host
    assert ways.by_name("net").url == "http://qed_server_0:8800"
    assert ways.by_name("web").url == "https://log.example.com:443"
    # A member may lack the way: it is then reached by its first one.
    assert ways.by_name("elsewhere") == ways.first


def test_names_are_unique_and_few() -> None:
    for text in ("a:1,b:1", "x=a:1,x=b:1", ",".join(f"x{number}=a:1" for number in range(9))):
        with pytest.raises(SettingsError):
            Ways.parse(text)
    with pytest.raises(SettingsError, match="bytes"):
        Ways.parse(",".join(f"x{number}={'a' * 60}.{'b' * 60}:1" for number in range(8)))


def test_answers_use_the_way_by_which_the_question_came(tmp_path: Path) -> None:
    server = Server(
        "server0",
        tmp_path / "log",
        extra=(
            "--open",
            "--http-advertise-addr=127.0.0.2:80",
            "--http-advertise-addr=net=server0:8800",
            "--mgmt-advertise-addr=127.0.0.2:81,net=server0:8700",
        ),
    )
    server.start()
    try:
        mgmt = f"http://{server.address('mgmt')}"
        for host, http_addr, mgmt_addr in (
            ("127.0.0.2", "127.0.0.2:80", "127.0.0.2:81"),
            ("server0:8800", "server0:8800", "server0:8700"),
            ("localhost", "127.0.0.2:80", "127.0.0.2:81"),
        ):
            info = httpx.get(f"{server.url}/info", headers={"Host": host}).json()
            assert (info["http_addr"], info["mgmt_addr"]) == (http_addr, mgmt_addr)
            shards = httpx.get(f"{server.url}/info/shards", headers={"Host": host}).json()
            assert shards["uriScheme"] == "http"
            assert shards["shards"]["server0"] == {"nodeId": "server0", "httpAddr": http_addr}
        member = httpx.get(f"{mgmt}/cluster", headers={"Host": "server0:8700"}).json()["members"][0]
        assert (member["http_addr"], member["mgmt_addr"]) == ("server0:8800", "server0:8700")
    finally:
        server.forget()


def test_a_server_behind_a_proxy_answers_with_its_url(tmp_path: Path) -> None:
    server = Server("server0", tmp_path / "log", extra=("--http-advertise-url=https://log.example.com", "--open"))
    server.start()
    try:
        shards = httpx.get(f"{server.url}/info/shards", headers={"Host": "log.example.com"}).json()
        assert shards["uriScheme"] == "https"
        assert shards["shards"]["server0"]["httpAddr"] == "log.example.com:443"
    finally:
        server.forget()
