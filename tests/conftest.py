"""Fixtures that more than one test file uses."""

from __future__ import annotations

import contextlib
import os
import resource
from typing import TYPE_CHECKING, Final, Protocol

import pytest

from harness.cluster import Cluster, assert_goes_on, new_cluster
from harness.process import Server, start_process
from seeds import SEED

# The workers of pytest-xdist inherit this: all of them must draw the same tests.
os.environ["QED_SEED"] = str(SEED)
# Thousands of processes are started: each would compile every module again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SLOWEST: Final = (
    "test_compose.py",
    "test_drill.py",
    "test_recovery.py",
    "test_recovery_credentials.py",
    "test_backup_crash.py",
    "test_campaign.py",
    "test_server_process.py",
    "test_against_oracle.py",
    "test_dishonest_servers.py",
    "test_backup.py",
    "test_cli_cluster.py",
    "test_walkthrough.py",
    "test_removed_members.py",
    "test_bench.py",
    "test_access.py",
    "test_strangers.py",
    "test_members_refused.py",
    "test_witness.py",
    "test_budgets.py",
    "test_client_streams.py",
    "test_streams.py",
)
"""The files that take longest, which come first: one that is begun last keeps one worker busy while the others wait."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {name: number for number, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


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
