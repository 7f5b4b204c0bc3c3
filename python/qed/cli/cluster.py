"""`qed cluster`: who is a member, who leads, how far each is, and changing that."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Final

import click
import msgspec

from qed.cli.connection import connect
from qed.cli.options import NODE, Session, command, current_session, group
from qed.errors import QedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qed.cli.terminal import Cell
    from qed.client import Client
    from qed.wire import Cluster, ClusterMember

__all__ = ["cluster"]

_REFRESH_S: Final = 1.0
_UNKNOWN: Final = "?"
_COLUMNS: Final = ("NodeId", "Role", "Reachable", "Entry", "Lag", "Addresses")


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
    the leader knows is a question mark.
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
            draw("Received cluster with values:", _fields(seen), _COLUMNS, _rows(seen))
            terminal.records([msgspec.to_builtins(seen)])
            time.sleep(_REFRESH_S)
            try:
                seen = client.cluster()
            except QedError as exc:
                # Whoever watches wants to see the cluster come back.
                terminal.note(str(exc))


def _show(session: Session, seen: Cluster) -> None:
    session.terminal.fields("Received cluster with values:", _fields(seen))
    session.terminal.table(_COLUMNS, _rows(seen))
    session.terminal.records([msgspec.to_builtins(seen)])


def _fields(seen: Cluster) -> list[tuple[str, object]]:
    return [
        ("Leader", seen.leader_id or "none"),
        ("SeenBy", seen.node_id),
        ("ClusterId", seen.cluster_id),
        ("Term", seen.term),
        ("CommitIndex", seen.commit_index),
        ("Events", seen.events),
    ]


def _rows(seen: Cluster) -> list[Sequence[Cell]]:
    return [_row(member, seen.commit_index) for member in sorted(seen.members, key=lambda member: member.node_id)]


def _row(member: ClusterMember, commit_index: int) -> Sequence[Cell]:
    is_reachable = {True: "yes", False: "no", None: _UNKNOWN}[member.is_reachable]
    entry, lag = _UNKNOWN, _UNKNOWN
    # A leader that has not heard from a member since it leads says 0.
    if member.entry:
        entry, lag = str(member.entry), str(max(commit_index - member.entry, 0))
    addresses = (f"http {member.http_addr}", f"mgmt {member.mgmt_addr}", f"raft {member.raft_addr}")
    return (member.node_id, member.role, is_reachable, entry, lag, addresses)
