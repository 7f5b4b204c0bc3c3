"""`qed cluster`: who is a member, who leads, how far each is, and changing that."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING, Final, TypeAlias

import click
import msgspec

from qed._client.topology import MEMBERS_MOST
from qed.cli.client import connect, connect_async
from qed.cli.options import NODE, Session, command, current_session, group
from qed.errors import QedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qed._client.client import Client
    from qed._wire import Cluster, ClusterMember
    from qed.cli.terminal import Cell

__all__ = ["cluster"]

_REFRESH_S: Final = 1.0
_UNKNOWN: Final = "?"
_FAR: Final = ("applied_index", "events")
_COLUMNS: Final = ("NodeId", "Role", "Reachable", "Lag", "Log", "Addresses")

Views: TypeAlias = "Mapping[str, Cluster]"
"""How members see the cluster themselves, by name. Those that do not answer are missing."""


@group("cluster", examples=["qed cluster status --watch", "qed cluster transfer server1", "qed cluster remove server2"])
def cluster() -> None:
    """Show and change who is a member, and who leads.

    The servers answer this at their management addresses, which qed learns from whichever server answers first.
    """


@command("status", examples=["qed cluster status", "qed cluster status --watch", "qed cluster status --json"])
@click.option("--watch", is_flag=True, help="Show it again each second, until Ctrl-C.")
def status(*, watch: bool) -> None:
    """Show the members, their roles, and how far each one is.

    This is how the leader sees it. Where the leader cannot be asked, another member tells what it knows, and what only
    the leader knows is a question mark. How far its log is, each reachable member tells itself.
    """
    session = current_session()
    with connect(session.settings) as client:
        seen = client.cluster()
        if not watch:
            _show(session, seen)
            return
        _watch(session, client, seen)


@command("remove", examples=["qed cluster remove server2"])
@click.argument("node", type=NODE)
def remove(node: str) -> None:
    """Remove NODE, which may be up or down.

    A majority of the others must be up. To come back, the member joins anew, with an empty data folder.
    """
    session = current_session()
    with connect(session.settings) as client:
        seen = client.remove_member(node)
    session.terminal.line(f"Removed {node}.")
    session.terminal.line()
    _show(session, seen)


@command("transfer", examples=["qed cluster transfer", "qed cluster transfer server1"])
@click.argument("node", type=NODE, required=False)
def transfer(node: str | None) -> None:
    """Make NODE the leader, or any other member.

    Without NODE, it is one that has the whole log.
    """
    session = current_session()
    with connect(session.settings) as client:
        seen = client.transfer_leadership(node)
    session.terminal.line(f"{seen.leader_id or 'Nobody'} leads.")
    session.terminal.line()
    _show(session, seen)


for _command in (status, remove, transfer):
    cluster.add_command(_command)


def _watch(session: Session, client: Client, seen: Cluster) -> None:
    terminal = session.terminal
    with terminal.screen() as draw:
        for _ in itertools.count():
            views = _views(session, seen)
            draw("Received cluster with values:", _fields(seen), _COLUMNS, _rows(seen, views))
            terminal.records([_record(seen, views)])
            time.sleep(_REFRESH_S)
            try:
                seen = client.cluster()
            except QedError as exc:
                # Whoever watches wants to see the cluster come back.
                terminal.note(str(exc))


def _show(session: Session, seen: Cluster) -> None:
    views = _views(session, seen)
    session.terminal.fields("Received cluster with values:", _fields(seen))
    session.terminal.table(_COLUMNS, _rows(seen, views))
    session.terminal.records([_record(seen, views)])


def _views(session: Session, seen: Cluster) -> Views:
    """Ask every member that is not known to be out of reach how far it is, all of them at once."""

    async def ask() -> Views:
        async with connect_async(session.settings) as client:

            async def view(member: ClusterMember) -> Cluster | None:
                try:
                    return seen if member.node_id == seen.node_id else await client.member_status(member)
                except QedError:
                    return None

            # A server may list anybody: whatever it names, only so many are asked.
            asked = [member for member in seen.members if member.is_reachable is not False][:MEMBERS_MOST]
            found = await asyncio.gather(*map(view, asked))
            return {member.node_id: own for member, own in zip(asked, found, strict=True) if own is not None}

    return asyncio.run(ask())


def _record(seen: Cluster, views: Views) -> dict[str, object]:
    """Return what a server answers, with how far each member says it is."""
    members = []
    for member in seen.members:
        own = views.get(member.node_id)
        far = {"applied_index": own.applied_index, "events": own.events} if own else dict.fromkeys(_FAR)
        members.append(msgspec.to_builtins(member) | far)
    return {**msgspec.to_builtins(seen), "members": members}


def _fields(seen: Cluster) -> list[tuple[str, object]]:
    return [
        ("Leader", seen.leader_id or "none"),
        ("SeenBy", seen.node_id),
        ("ClusterId", seen.cluster_id),
        ("Term", seen.term),
        ("CommitIndex", seen.commit_index),
        ("Events", seen.events),
    ]


def _rows(seen: Cluster, views: Views) -> list[Sequence[Cell]]:
    members = sorted(seen.members, key=lambda member: member.node_id)
    return [_row(member, seen.commit_index, views.get(member.node_id)) for member in members]


def _row(member: ClusterMember, commit_index: int, own: Cluster | None) -> Sequence[Cell]:
    is_reachable = {True: "yes", False: "no", None: _UNKNOWN}[member.is_reachable]
    entry, lag = _UNKNOWN, _UNKNOWN
    # A leader that has not heard from a member since it leads says 0.
    if member.entry:
        entry, lag = str(member.entry), str(max(commit_index - member.entry, 0))
    applied, events = (own.applied_index, own.events) if own else (_UNKNOWN, _UNKNOWN)
    far = (f"entry {entry}", f"applied {applied}", f"events {events}")
    addresses = (f"http {member.http_addr}", f"mgmt {member.mgmt_addr}", f"raft {member.raft_addr}")
    return (member.node_id, member.role, is_reachable, lag, far, addresses)
