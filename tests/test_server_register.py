"""Replication driven from asyncio in the words of raftos, with three members in one process."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from harness.ports import free_ports
from qed.server.config import Address, Pace, Settings
from qed.server.node import Node, register

if TYPE_CHECKING:
    from pathlib import Path

LIMIT_S = 30.0


def settings_of(number: int, folder: Path, join: tuple[Address, ...]) -> Settings:
    http, mgmt, metrics, raft = (Address("127.0.0.1", port) for port in free_ports(4))
    return Settings(
        node_id=f"member{number}",
        http_addr=http,
        mgmt_addr=mgmt,
        metrics_addr=metrics,
        raft_addr=raft,
        data_dir=folder / str(number),
        raft_join_addrs=join,
        pace=Pace(heartbeat_ms=100, election_ms=500),
    )


async def begin(stack: AsyncExitStack, settings: Settings, calls: list[str]) -> Node:
    """Register a member, and note what it is called back for."""
    listener = stack.enter_context(socket.create_server((settings.raft_addr.host, settings.raft_addr.port)))
    node = await register(settings, listener, on_failure=lambda: pytest.fail(str(node.failure)))
    stack.push_async_callback(node.close)
    node.on_leader(lambda: calls.append(f"{settings.node_id} leads"))
    node.on_follower(lambda: calls.append(f"{settings.node_id} follows"))
    return node


def votes(node: Node) -> int:
    return sum(member.role != "learner" for member in node.cluster().members)


async def test_members_tell_who_leads_and_call_back_when_that_changes(tmp_path: Path) -> None:
    calls: list[str] = []
    async with asyncio.timeout(LIMIT_S), AsyncExitStack() as stack:
        first = await begin(stack, settings_of(0, tmp_path, ()), calls)
        assert await first.wait_until_leader() == "member0"
        joined = (first.settings.raft_addr,)
        others = [await begin(stack, settings_of(number, tmp_path, joined), calls) for number in (1, 2)]
        for node in others:
            assert await node.wait_until_leader("member0") == node.get_leader() == "member0"
        added = await first.add([b"an event"])
        for node in others:
            await node.catch_up()
            assert len(node) == len(added)
        while votes(first) < 3:
            await first.wait_until_changed()
        calls.clear()
        await first.transfer("member2")
        for node in (first, *others):
            assert await node.wait_until_leader("member2") == "member2"
        assert sorted(calls) == ["member0 follows", "member2 leads"]
        assert others[1].is_leader
        assert len(await others[1].add([b"another"])) == 1
