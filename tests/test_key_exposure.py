"""The warning when an API key travels where others can read it, from both clients and from the command line."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

import qed
from both_clients import connect  # noqa: F401  # a fixture
from commands import one_line
from commands import qed as command
from harness.process import start_process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from both_clients import Connect
    from harness.process import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield a server that other machines can reach."""
    folder = tmp_path_factory.mktemp("exposed")
    found = start_process(folder / "log", "--http-addr=0.0.0.0:0", "--open")
    yield found
    found.forget()


@pytest.fixture
def url(server: Server) -> str:
    """Return its address by the name of this machine, as other machines call it."""
    return f"http://{socket.gethostname()}:{server.http_address[1]}"


def test_a_key_without_tls_beyond_this_machine_is_a_warning_once(connect: Connect, url: str) -> None:  # noqa: F811  # the fixture
    client = connect(url, api_key="my-key")
    with pytest.warns(qed.KeyExposedWarning, match=f"^the api key is sent to {url} without TLS: "):
        client.info()
    client.info()  # The tests make every warning an error.


def test_a_warning_that_is_an_error_comes_before_the_key_is_sent(connect: Connect) -> None:  # noqa: F811  # the fixture
    with socket.create_server(("0.0.0.0", 0)) as listener:  # noqa: S104  # reached by the name of this machine
        client = connect(f"http://{socket.gethostname()}:{listener.getsockname()[1]}", api_key="my-key")
        with pytest.raises(qed.KeyExposedWarning):
            client.info()
        listener.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listener.accept()


def test_a_member_that_is_named_and_trusted_counts_too(connect: Connect, tmp_path: Path) -> None:  # noqa: F811  # the fixture
    # The given endpoint is on this machine, and the management address that it names is not.
    name = f"{socket.gethostname()}:1"
    server = start_process(tmp_path / "log", "--open", "--mgmt-advertise-addr", name)
    try:
        client = connect(server.url, api_key="my-key", trust_members=True)
        client.info()
        with pytest.warns(qed.KeyExposedWarning, match=f"http://{name} "), pytest.raises(qed.Unavailable):
            client.keys()
    finally:
        server.forget()


def test_there_is_no_warning_where_nobody_listens_or_the_caller_knows(
    connect: Connect,  # noqa: F811  # the fixture
    server: Server,
    url: str,
) -> None:
    port = server.http_address[1]
    for host in ("127.0.0.1", "localhost", "127.9.9.9"):
        connect(f"http://{host}:{port}", api_key="my-key").info()
    connect(url).info()
    connect(url, api_key="my-key", verify_tls=False).info()
    with pytest.raises(qed.Unavailable):
        connect(f"https://{socket.gethostname()}:{port}", api_key="my-key").info()


def test_the_command_line_says_it_in_one_line(server: Server, url: str) -> None:
    done = command("--endpoints", url, "info", QED_API_KEY="my-key")
    assert done.returncode == 0
    assert (
        one_line(done.stderr) == f"warning: the api key is sent to {url} without TLS: everyone on the way can read it"
    )
    here = f"http://127.0.0.1:{server.http_address[1]}"
    assert command("--endpoints", here, "info", QED_API_KEY="my-key").stderr == ""
    # Both clients of this command send the key.
    watched = command("--endpoints", url, "--trust-members", "cluster", "status", QED_API_KEY="my-key")
    assert watched.stderr.count("without TLS") == 1
    careless = command("--endpoints", url, "--insecure", "info", QED_API_KEY="my-key")
    assert one_line(careless.stderr) == "warning: the servers' certificates are not checked (--insecure)"
