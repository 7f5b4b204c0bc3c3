"""`qed cluster`: show the members, the progress of each and what was done to them, and change the cluster."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Never, TypeAlias

import click
import msgspec

from qed._client.topology import MEMBERS_MOST
from qed._files import PRIVATE, create_file
from qed._limits import MAX_TOKEN_TTL_S
from qed.cli.client import connect, connect_async
from qed.cli.durations import DurationType, MomentType, spelt
from qed.cli.options import FILE, NODE, Session, command, current_session, group
from qed.cli.signers import signers
from qed.errors import ClusterError, QedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qed._client.client import Client
    from qed._wire import Cluster, ClusterMember
    from qed.cli.terminal import Cell
    from qed.history import Act

__all__ = ["cluster"]

_REFRESH_S: Final = 1.0
_DOWN_S: Final = 2.0
"""How long a member that the leader cannot reach has to answer."""
_UNKNOWN: Final = "?"
_FAR: Final = ("applied_index", "events")
_COLUMNS: Final = ("NodeId", "Role", "Reachable", "Lag", "Log", "Addresses")
_ACT_FIELDS: Final = ("when", "who", "from", "deed")
_FOR_PROGRAMS: Final = frozenset({"hash", "public_key"})
"""Fields of acts that say nothing to people."""
_TTL: Final = DurationType(timedelta(seconds=MAX_TOKEN_TTL_S))

Views: TypeAlias = "Mapping[str, _View]"
"""What each member says of itself, by name."""


@dataclass(frozen=True, slots=True)
class _View:
    """What a member says of itself.

    Attributes:
        own: The cluster as it sees it, or None if it does not answer.
        alarm: Why it does not serve, or None if it does or does not answer.
    """

    own: Cluster | None = None
    alarm: str | None = None


@group("cluster", examples=["qed cluster status --watch", "qed cluster transfer server1", "qed cluster remove server2"])
def cluster() -> None:
    """Show the cluster or its history, or change it.

    These requests go to the servers' management addresses, which qed learns from the first server that answers.
    """


@command("status", examples=["qed cluster status", "qed cluster status --watch", "qed cluster status --json"])
@click.option("--watch", is_flag=True, help="Refresh every second, until Ctrl-C.")
def status(*, watch: bool) -> None:
    """Show the members, their roles, and the progress of each.

    This is the leader's view. If the leader does not answer, another member's view is shown, with question marks for
    values that only the leader knows. Each member reports the state of its own log, and why it does not serve if its
    log is not that of the cluster.
    """
    session = current_session()
    with connect(session.settings) as client:
        seen = client.cluster()
        if not watch:
            _show(session, seen)
            return
        _watch(session, client, seen)


@command(
    "history", examples=["qed cluster history", "qed cluster history --watch", "qed cluster history --since 7d --json"]
)
@click.option("--since", type=MomentType(is_past=True), help="Show later acts only: 12h, 7d, or 2030-01-31.")
@click.option("--watch", is_flag=True, help="Go on with each new act, until Ctrl-C.")
def history(*, since: datetime | None, watch: bool) -> None:
    """Show what operators and members did to the cluster.

    Each act has the hash of the one before it, which is checked. The last hash stands for the whole history: keep it,
    to notice later if acts are missing at the end. A member that lags shows less.
    """
    session = current_session()
    with connect(session.settings) as client:
        acts = client.history()
        if watch:
            _follow(session, client, acts, since)
    terminal, shown = session.terminal, [(act, _said(act)) for act in acts]
    shown = [(act, fields) for act, fields in shown if _is_since(fields, since)]
    for act, fields in shown:
        # A table would fold the ids, which are what readers copy.
        index, when, who, origin, deed, details = _act_row(act, fields)
        terminal.lines([f"{index} {deed}, {when}", f"  by {who} from {origin}", *(f"  {detail}" for detail in details)])
    terminal.line(f"Checked the hashes of {len(acts)} acts.")
    if acts:
        terminal.line(f"The last hash is {acts[-1].hash.hex()}")
    terminal.records(_act_record(act, fields) for act, fields in shown)


@command("remove", examples=["qed cluster remove server2"])
@click.argument("node", type=NODE)
def remove(node: str) -> None:
    """Remove member NODE, which may be running or stopped.

    A majority of the other members must be running. The member can rejoin only with an empty data folder.
    """
    session = current_session()
    with connect(session.settings) as client:
        seen = client.remove_member(node)
    session.terminal.line(f"Removed {node}.")
    session.terminal.line()
    _show(session, seen)


@command("replace", examples=["qed cluster replace server2"])
@click.argument("node", type=NODE)
def replace(node: str) -> None:
    """Let a new server take the place of member NODE, which is lost for good.

    For a server that has lost its data folder: after this command, start it under its old name with an empty folder and
    --raft-join-addr. It has ten minutes. The old folder must never be started again.
    """
    session = current_session()
    with connect(session.settings) as client:
        seen = client.replace_member(node)
    session.terminal.line(f"The next server that joins as {node} within ten minutes takes its place.")
    session.terminal.line()
    _show(session, seen)


@command("transfer", examples=["qed cluster transfer", "qed cluster transfer server1"])
@click.argument("node", type=NODE, required=False)
def transfer(node: str | None) -> None:
    """Make NODE, or any other member, the leader.

    Without NODE, a member that has the whole log is chosen.
    """
    session = current_session()
    with connect(session.settings) as client:
        seen = client.transfer_leadership(node)
    session.terminal.line(f"{seen.leader_id or 'No member'} leads.")
    session.terminal.line()
    _show(session, seen)


@command("secret", examples=["qed cluster secret --out cluster-secret"])
@click.option("--out", "path", type=FILE, metavar="FILE", help="A new file, which only its owner may read.")
def secret(*, path: str | None) -> None:
    """Make a secret for --cluster-secret-file, which all servers of a cluster need.

    Whoever knows it can become a member, and read and change the log. Nothing is sent to any server.
    """
    from qed.server.cluster_secret import make_secret  # noqa: PLC0415  # the server's modules, for this command only

    session = current_session()
    made = make_secret()
    if path is None:
        session.terminal.line(made.rstrip())
        session.terminal.records([{"Secret": made.rstrip()}])
        return
    create_file(Path(path), made.encode(), mode=PRIVATE)
    session.terminal.line(f"Wrote a new cluster secret to {path}. Copy it to every member, and to nobody else.")
    session.terminal.records([{"File": path}])


@command("token", examples=["qed cluster token --name server3 --out join-token", "qed cluster token --ttl 10m"])
@click.option("--name", type=NODE, help="The node id of the server that may use it; any server by default.")
@click.option("--ttl", type=_TTL, default="1h", show_default=True, help="How long it is valid.")
@click.option("--out", "path", type=FILE, metavar="FILE", help="A new file, which only its owner may read.")
def token(*, name: str | None, ttl: timedelta, path: str | None) -> None:
    """Make a token with which one server can join, for qed-server --join-token-file.

    The server gets a certificate for its own key, and does not learn the secret of the cluster. A member that knows the
    secret must be reachable when it joins.
    """
    session = current_session()
    if path is not None:
        # A token that cannot be written would be recorded, and nobody would have it.
        _require_free(Path(path))
    with connect(session.settings) as client:
        made = client.create_token(name, ttl_s=int(ttl.total_seconds()))
    if path is None:
        session.terminal.line(made.token)
    else:
        create_file(Path(path), f"{made.token}\n".encode(), mode=PRIVATE)
        session.terminal.line(f"Wrote a token to {path}, valid until {made.expires:%Y-%m-%dT%H:%M:%SZ}.")
    record = msgspec.to_builtins(made)
    if path is not None:
        # The token is a secret, and the file has it.
        record = {"File": path, **{name: value for name, value in record.items() if name != "Token"}}
    session.terminal.records([record])


for _command in (status, history, remove, replace, transfer, secret, token, signers):
    cluster.add_command(_command)


def _require_free(path: Path) -> None:
    if os.path.lexists(path):
        raise click.UsageError(f"--out: {path} exists: give another name, or delete it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise click.UsageError(f"--out: cannot make files in {path.parent}")


def _said(act: Act) -> dict[str, object]:
    """Return what an act says: its fields, or none if it is not a JSON object."""
    try:
        return msgspec.json.decode(act.body, type=dict[str, object])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return {}


def _follow(session: Session, client: Client, acts: list[Act], since: datetime | None) -> Never:
    """Print a line for each act, and for each that comes later, until Ctrl-C. Servers may be away meanwhile."""
    terminal, last = session.terminal, None
    while True:
        for last in acts:
            fields = _said(last)
            if _is_since(fields, since):
                index, when, who, origin, deed, details = _act_row(last, fields)
                terminal.line(f"{index} {when} {who} from {origin}: {deed} {'; '.join(details)}")
                terminal.records([_act_record(last, fields)])
        time.sleep(_REFRESH_S)
        try:
            acts = client.history(last)
        except ClusterError as exc:
            terminal.note(str(exc))
            acts = []


def _is_since(fields: dict[str, object], since: datetime | None) -> bool:
    """Return whether an act is not older than `since`. One without a valid time is shown always."""
    if since is None:
        return True
    try:
        return msgspec.convert(fields.get("when"), datetime) >= since
    except (msgspec.ValidationError, TypeError):
        return True


def _act_row(act: Act, fields: dict[str, object]) -> tuple[str, str, str, str, str, tuple[str, ...]]:
    when, who, origin, deed = (str(fields.get(name, _UNKNOWN)) for name in _ACT_FIELDS)
    with suppress(msgspec.ValidationError, TypeError):
        when = spelt(msgspec.convert(fields.get("when"), datetime), "seconds")
    hidden = _FOR_PROGRAMS.union(_ACT_FIELDS)
    shown = {name: value for name, value in fields.items() if name not in hidden and value not in (None, "", [])}
    details = tuple(f"{name}: {_text(value)}" for name, value in shown.items())
    return (str(act.index), when, who, origin, deed, details)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _act_record(act: Act, fields: dict[str, object]) -> dict[str, object]:
    hashes = {"previous": bytes(act.previous), "hash": bytes(act.hash)}
    return {"index": act.index, "term": act.term, **hashes, "act": fields}


def _watch(session: Session, client: Client, seen: Cluster) -> None:
    terminal = session.terminal
    with terminal.screen() as draw:
        for _ in itertools.count():
            views = _views(session, seen)
            draw("Received cluster with values:", _fields(seen, views), _COLUMNS, _rows(seen, views))
            terminal.records([_record(seen, views)])
            time.sleep(_REFRESH_S)
            try:
                seen = client.cluster()
            except QedError as exc:
                # Keep watching: the user wants to see the cluster recover.
                terminal.note(str(exc))


def _show(session: Session, seen: Cluster) -> None:
    views = _views(session, seen)
    session.terminal.fields("Received cluster with values:", _fields(seen, views))
    session.terminal.table(_COLUMNS, _rows(seen, views))
    session.terminal.records([_record(seen, views)])


def _views(session: Session, seen: Cluster) -> Views:
    """Ask all members for what they say of themselves, concurrently.

    A member whose log is not that of the cluster answers nobody but operators: the leader takes it for unreachable. One
    that the leader cannot reach gets little time, because it is probably down.
    """

    async def ask() -> Views:
        async with connect_async(session.settings) as client:

            async def view(member: ClusterMember) -> _View:
                own, alarm = seen if member.node_id == seen.node_id else None, None
                with suppress(QedError, TimeoutError):
                    async with asyncio.timeout(_DOWN_S if member.is_reachable is False else None):
                        own = own or await client.member_status(member)
                        alarm = await client.member_alarm(member)
                return _View(own, alarm)

            # A hostile server may list any number of addresses, so bound how many are contacted.
            asked = seen.members[:MEMBERS_MOST]
            found = await asyncio.gather(*map(view, asked))
            return {member.node_id: view for member, view in zip(asked, found, strict=True)}

    return asyncio.run(ask())


def _record(seen: Cluster, views: Views) -> dict[str, object]:
    """Return a server's answer, with the progress that each member reports for itself."""
    members = []
    for member in seen.members:
        view = views.get(member.node_id, _View())
        far = {"applied_index": view.own.applied_index, "events": view.own.events} if view.own else dict.fromkeys(_FAR)
        members.append(msgspec.to_builtins(member) | far | {"alarm": view.alarm})
    return {**msgspec.to_builtins(seen), "members": members}


def _fields(seen: Cluster, views: Views) -> list[tuple[str, object]]:
    alarms = [("Alarm", f"{name} does not serve: {view.alarm}") for name, view in sorted(views.items()) if view.alarm]
    return [
        ("Leader", seen.leader_id or "none"),
        ("SeenBy", seen.node_id),
        ("ClusterId", seen.cluster_id),
        ("Term", seen.term),
        ("CommitIndex", seen.commit_index),
        ("Events", seen.events),
        *alarms,
    ]


def _rows(seen: Cluster, views: Views) -> list[Sequence[Cell]]:
    members = sorted(seen.members, key=lambda member: member.node_id)
    return [_row(member, seen.commit_index, views.get(member.node_id, _View())) for member in members]


def _row(member: ClusterMember, commit_index: int, view: _View) -> Sequence[Cell]:
    own = view.own
    is_reachable = "alarm" if view.alarm else {True: "yes", False: "no", None: _UNKNOWN}[member.is_reachable]
    entry, lag = _UNKNOWN, _UNKNOWN
    # A leader reports 0 for a member that has not acknowledged anything in this term.
    if member.entry:
        entry, lag = str(member.entry), str(max(commit_index - member.entry, 0))
    applied, events = (own.applied_index, own.events) if own else (_UNKNOWN, _UNKNOWN)
    far = (f"entry {entry}", f"applied {applied}", f"events {events}")
    addresses = (f"http {member.http_addr}", f"mgmt {member.mgmt_addr}", f"raft {member.raft_addr}")
    return (member.node_id, member.role, is_reachable, lag, far, addresses)
