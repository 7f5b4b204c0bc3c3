"""Fixtures that more than one test file uses."""

from __future__ import annotations

import contextlib
import os
import resource
from typing import TYPE_CHECKING, Protocol

import pytest

from harness.cluster import Cluster, assert_goes_on, new_cluster
from harness.process import Server, start_process
from seeds import SEED

# The workers of pytest-xdist inherit this: all of them must draw the same tests.
os.environ["QED_SEED"] = str(SEED)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def pytest_report_header() -> str:
    return f"seed: QED_SEED={SEED}"


class StartServer(Protocol):
    """Starts a server on a folder, optionally with further options."""

    def __call__(self, data_dir: Path, *extra: str) -> Server: ...


@pytest.fixture(scope="module")
def start_server() -> Iterator[StartServer]:
    """Give a function that starts servers. Those still running after the module are killed."""
    started: list[Server] = []

    def start(data_dir: Path, *extra: str) -> Server:
        server = start_process(data_dir, *extra)
        started.append(server)
        return server

    yield start
    for server in started:
        server.kill()
        server.forget()


@pytest.fixture(scope="module")
def server(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """Give a healthy server on an empty log, shared by the tests of one module."""
    return start_server(tmp_path_factory.mktemp("server"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Give three members, shared by the tests of one module: no test may harm them."""
    cluster = new_cluster(tmp_path_factory.mktemp("cluster"), 3)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.forget()


@pytest.fixture
def goes_on(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[None]:
    """Check after the test that the members of `cluster` go on."""
    yield
    assert_goes_on(cluster, request.node.name)


@pytest.fixture(scope="module")
def many_files() -> None:
    """Let this process open as many sockets as the system allows, which is more than a server accepts."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@pytest.fixture
def sockets() -> Iterator[contextlib.ExitStack]:
    """Give a stack for sockets, which are closed after the test."""
    with contextlib.ExitStack() as stack:
        yield stack
