"""Clients and logs in several processes, threads and event loops at once."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import threading
import time
import traceback
from typing import TYPE_CHECKING

import pytest

from adversary import Adversary, hang
from both_clients import open_sockets
from harness.wait import LIMIT_S, wait_until
from qed import AsyncClient, Client, Log
from qed.errors import LogError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from harness.process import Server

EACH = 200


def in_child(work: Callable[[], object]) -> int:
    """Fork, run `work` in the child and return its process id. The child exits with 0, or with 1 if `work` raises."""
    if child := os.fork():
        return child
    code = 1
    try:
        work()
        code = 0
    finally:
        if code:
            traceback.print_exc()
        os._exit(code)


def ended(child: int) -> int:
    """Return the exit code of a child; kill it if it hangs."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError("the child hangs")


def add_many(client: Client, name: str) -> None:
    """Add events. The client itself raises if it gets the snapshot of another event."""
    for number in range(EACH):
        client.add(f"{name} {number}".encode())


async def add_many_async(client: AsyncClient, name: str) -> None:
    await asyncio.gather(*(client.add(f"{name} {number}".encode()) for number in range(EACH)))


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.url) as client:
        client.add(b"opens a connection")
        yield client


def test_parent_and_child_add_at_once(client: Client, server: Server) -> None:
    before = server.count()
    child = in_child(lambda: add_many(client, "child"))
    add_many(client, "parent")
    assert ended(child) == 0
    assert server.count() == before + 2 * EACH


def test_workers_of_multiprocessing_add_at_once(client: Client, server: Server) -> None:
    before = server.count()
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=add_many, args=(client, f"worker {number}")) for number in range(3)]
    for worker in workers:
        worker.start()
    add_many(client, "beside workers")
    for worker in workers:
        worker.join(LIMIT_S)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert server.count() == before + 4 * EACH


def test_asyncio_adds_in_parent_and_child_at_once(server: Server) -> None:
    before = server.count()

    async def fork_and_add() -> int:
        async with AsyncClient(server.url) as client:
            await client.add(b"opens a connection of asyncio")
            child = in_child(lambda: asyncio.run(add_many_async(client, "child of a loop")))
            await add_many_async(client, "loop")
            return ended(child)

    assert asyncio.run(fork_and_add()) == 0
    assert server.count() == before + 2 * EACH + 1


def test_a_grandchild_has_its_own_connections_too(client: Client, server: Server) -> None:
    before = server.count()

    def fork_again() -> None:
        client.add(b"of the child")
        grandchild = in_child(lambda: add_many(client, "grandchild"))
        add_many(client, "its parent")
        assert ended(grandchild) == 0

    assert ended(in_child(fork_again)) == 0
    assert server.count() == before + 2 * EACH + 1


def test_a_child_keeps_no_copy_of_a_connection(client: Client) -> None:
    mine = open_sockets()

    def look() -> None:
        client.add(b"on a connection of the child's own")
        assert len(open_sockets()) == 1

    assert mine
    assert ended(in_child(look)) == 0
    assert open_sockets() == mine


def test_what_a_child_closes_stays_open_in_the_parent(client: Client) -> None:
    mine = open_sockets()
    assert ended(in_child(client.close)) == 0
    client.add(b"on the same connection as before")
    assert open_sockets() == mine


async def test_what_a_child_of_asyncio_closes_stays_open_in_the_parent(server: Server) -> None:
    client = AsyncClient(server.url)

    def close_all() -> None:
        nonlocal client
        asyncio.run(client.aclose())
        del client
        gc.collect()

    async with client:
        await client.add(b"opens a connection")
        mine = open_sockets()
        assert ended(in_child(close_all)) == 0
        await client.add(b"on the same connection as before")
        assert open_sockets() == mine


def test_turns_that_threads_of_the_parent_have_taken_are_free_in_the_child() -> None:
    with Adversary(hang) as server, Client(server.url, timeout_s=2, attempts=1) as client:

        def ask() -> None:
            with pytest.raises(Unavailable):
                client.info()

        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(open_sockets()) >= 2 * len(threads), "all threads to be connected")
        child = in_child(ask)
        assert ended(child) == 0
        for thread in threads:
            thread.join()


def test_a_closed_client_stays_closed_in_a_child(server: Server) -> None:
    client = Client(server.url)
    client.close()

    def use() -> None:
        with pytest.raises(RuntimeError):
            client.info()

    assert ended(in_child(use)) == 0


def test_a_closed_client_of_asyncio_cannot_be_used(server: Server) -> None:
    client = AsyncClient(server.url)
    asyncio.run(client.aclose())
    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(client.info())


def test_a_child_is_refused_its_parents_log(tmp_path: Path) -> None:
    with Log(tmp_path / "log") as log:
        log.add(b"of the parent")
        calls: list[Callable[[], object]] = [
            lambda: log.add(b"of the child"),
            lambda: log.membership(b"of the parent"),
            lambda: log.snapshot(0),
            lambda: len(log),
            log.check,
        ]

        def use() -> None:
            for call in calls:
                with pytest.raises(LogError, match=f"found one that process {parent} opened"):
                    call()

        parent = os.getpid()
        assert ended(in_child(use)) == 0
        assert log.add(b"still of the parent").version == 1
        log.check()


def test_a_child_that_drops_its_parents_log_ends(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")

    def drop() -> None:
        nonlocal log
        log.close()
        del log
        gc.collect()

    assert ended(in_child(drop)) == 0
    assert log.add(b"still open").version == 0
    log.close()
    Log(tmp_path / "log").close()


# Connections that are open when a loop ends are closed with it, and Python warns about that.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_event_loop_after_the_other_may_use_a_client(server: Server) -> None:
    client = AsyncClient(server.url)
    for number in range(3):
        asyncio.run(add_many_async(client, f"loop {number}"))
    asyncio.run(client.aclose())
    gc.collect()


# The same warnings as above.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_event_loops_of_several_threads_may_use_a_client_at_once(server: Server) -> None:
    before = server.count()
    client = AsyncClient(server.url)
    threads = [
        threading.Thread(target=lambda name=name: asyncio.run(add_many_async(client, name)))
        for name in ("one loop", "another loop", "a third loop")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(client.aclose())
    assert server.count() == before + 3 * EACH
    gc.collect()
