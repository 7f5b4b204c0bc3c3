"""Web pages of other sites: what they would have a browser send to a server is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import httpx
import pytest

from harness.process import start_process
from qed._client.client import Client

if TYPE_CHECKING:
    from pathlib import Path

    from harness.process import Server

EVIL: Final = "evil.example"


@pytest.fixture
def urls(server: Server) -> dict[str, str]:
    return {"/events": server.url, "/cluster/transfer": f"http://{server.info().mgmt_addr}"}


def post(url: str, path: str, **headers: str) -> httpx.Response:
    plain = {"Content-Type": "text/plain", **headers}
    return httpx.post(url + path, content=b'{"Event": ""}' if path == "/events" else b"{", headers=plain)


@pytest.mark.parametrize("path", ["/events", "/cluster/transfer"])
def test_a_page_of_another_site_cannot_post(urls: dict[str, str], path: str) -> None:
    url = urls[path]
    host = url.removeprefix("http://")
    for origin in (
        f"https://{EVIL}",
        "null",
        "",
        f"http://{EVIL}:80",
        f"http://{host}.{EVIL}",
        "http://127.0.0.1:1",
        f"http://{EVIL}/{host}",
    ):
        answer = post(url, path, Origin=origin)
        assert (answer.status_code, answer.json()["error"]) == (403, "foreign_origin"), origin
    assert post(url, path, Origin=url).status_code != 403


@pytest.mark.parametrize("path", ["/events", "/cluster/transfer"])
def test_a_name_that_points_to_this_machine_is_foreign(urls: dict[str, str], path: str) -> None:
    port = urls[path].rpartition(":")[2]
    for host in (EVIL, f"{EVIL}:{port}", f"127.0.0.1.{EVIL}", "127.0.0.1@evil.example", "10.0.0.1", "[::2]:80", "["):
        answer = post(urls[path], path, Host=host)
        assert (answer.status_code, answer.json()["error"]) == (403, "foreign_host"), host
        # Both, as after a name was made to point here.
        assert post(urls[path], path, Host=host, Origin=f"http://{host}").status_code == 403
    for host in ("localhost", "x", "qed_server_0:8800", f"LOCALHOST:{port}", "127.0.0.1", "127.5.5.5:1", "[::1]:80"):
        assert post(urls[path], path, Host=host).status_code != 403, host


def test_reads_of_a_foreign_page_are_refused_too(server: Server) -> None:
    assert httpx.get(f"{server.url}/info", headers={"Host": EVIL}).status_code == 403


@pytest.mark.parametrize("path", ["/info", "/log/tile/0/000", "/snapshots/0"])
def test_a_page_of_another_site_cannot_even_ask(server: Server, path: str) -> None:
    for site, is_refused in (("cross-site", True), ("same-site", True), ("same-origin", False), ("none", False)):
        answer = httpx.get(server.url + path, headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"})
        assert (answer.status_code == 403) is is_refused, site
        assert "access-control-allow-origin" not in answer.headers


def test_an_advertised_host_is_not_foreign(tmp_path: Path) -> None:
    server = start_process(tmp_path / "log", "--open", "--http-advertise-addr", "log.example.com:80")
    try:
        assert httpx.get(f"{server.url}/info", headers={"Host": "log.example.com"}).status_code == 200
        assert httpx.get(f"{server.url}/info", headers={"Host": EVIL}).status_code == 403
        with Client(server.url) as client:
            assert client.info().http_addr == "log.example.com:80"
    finally:
        server.forget()


def test_a_server_that_is_open_to_all_is_not_open_to_a_name_that_points_to_it(tmp_path: Path) -> None:
    everywhere = ("--open", "--http-addr", "0.0.0.0:0", "--mgmt-addr", "0.0.0.0:0")
    server = start_process(tmp_path / "log", *everywhere)
    try:
        http = f"http://127.0.0.1:{server.http_address[1]}"
        mgmt = f"http://127.0.0.1:{httpx.get(f'{http}/info').json()['mgmt_addr'].rpartition(':')[2]}"
        for url in (f"{http}/info", f"{mgmt}/cluster/history", f"{mgmt}/backups/part"):
            assert httpx.get(url, headers={"Host": EVIL}).json()["error"] == "foreign_host"
            for host in ("10.0.0.1:8800", "[fd00::1]:8800", "localhost", "qed_server_0:8800"):
                assert httpx.get(url, headers={"Host": host}).status_code == 200, host
    finally:
        server.forget()
