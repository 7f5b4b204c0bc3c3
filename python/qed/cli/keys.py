"""`qed keys`: make, list and revoke the API keys of a cluster."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from qed._limits import ROLES
from qed.cli.client import connect
from qed.cli.durations import MomentType, age, spelt
from qed.cli.options import command, current_session, group

if TYPE_CHECKING:
    from qed._wire import KeyRow, Keys
    from qed.cli.options import Session
    from qed.cli.terminal import Cell

__all__ = ["keys"]

_COLUMNS: Final = ("Id and name", "Roles", "Expires", "LastUsed")
_KEY_ID: Final = re.compile(r"[0-9a-f]{16}")


class _KeyIdType(click.ParamType[str]):
    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ANN401 - click's
        # The value may be a whole key, which is a secret, so the message does not repeat it.
        if not _KEY_ID.fullmatch(value):
            self.fail("expected the id of a key, 16 hexadecimal digits, as `qed keys list` shows it", param, ctx)
        return str(value)


@group("keys", examples=["qed keys create --role append --name ingest", "qed keys list"])
def keys() -> None:
    """Make, list and revoke the API keys of a cluster.

    The first key closes the calls of clients to those who have none. The first key with the role operate closes the
    calls of operators too, these among them.
    """


@command(
    "create",
    examples=[
        "qed keys create --role operate --name admin",
        "qed keys create --role append --role prove --expires 90d",
        "qed keys create --role append --events-per-s 1000 --requests-per-s 50",
    ],
)
@click.option(
    "--role",
    "roles",
    type=click.Choice(ROLES),
    multiple=True,
    required=True,
    help="What the key may be used for: to add, to ask for proofs, to change the cluster, to see how it is. "
    "Can be repeated.",
)
@click.option("--name", default="", help="What the history of the cluster and its logs call the key.")
@click.option(
    "--expires", type=MomentType(is_past=False), help="When it expires: 12h, 90d, or 2030-01-31. By default never."
)
@click.option("--events-per-s", type=float, help="Events that it may add in a second, on each server.")
@click.option("--requests-per-s", type=float, help="Requests that it may make in a second, on each server.")
def create(
    *,
    roles: tuple[str, ...],
    name: str,
    expires: datetime | None,
    events_per_s: float | None,
    requests_per_s: float | None,
) -> None:
    """Make a key and show it, this once: the servers keep a hash of it."""
    session = current_session()
    with connect(session.settings) as client:
        try:
            created = client.create_key(
                tuple(dict.fromkeys(roles)),
                name=name,
                expires=expires,
                events_per_s=events_per_s,
                requests_per_s=requests_per_s,
            )
        except ValueError as exc:
            raise click.UsageError(str(exc)) from exc
    session.terminal.fields(
        "Created key with values:",
        [
            ("Id", created.id),
            ("Key", created.key),
            ("Name", created.name or "none"),
            ("Roles", ", ".join(created.roles)),
            ("Expires", _end(created.expires)),
            ("Rates", _rates(created.events_per_s, created.requests_per_s) or "the default of each server"),
        ],
    )
    session.terminal.note("keep the key: it cannot be shown again")
    session.terminal.records([msgspec.to_builtins(created)])


@command("list", examples=["qed keys list", "qed keys list --json"])
def list_keys() -> None:
    """Show all keys, without their secrets, and when a member last accepted each.

    The member that answers asks the others. Members remember uses in memory: one that restarts forgets its own.
    """
    session = current_session()
    with connect(session.settings) as client:
        found = client.keys()
    _show(session, found)


@command("revoke", examples=["qed keys revoke 0123456789abcdef"])
@click.argument("key_id", type=_KeyIdType(), metavar="ID")
def revoke(key_id: str) -> None:
    """Revoke the key with this ID. Members refuse it as soon as they learn of it, within a heartbeat or two."""
    session = current_session()
    with connect(session.settings) as client:
        found = client.revoke_key(key_id)
    session.terminal.line(f"Revoked {key_id}.")
    session.terminal.line()
    _show(session, found)


for _command in (create, list_keys, revoke):
    keys.add_command(_command)


def _show(session: Session, found: Keys) -> None:
    terminal = session.terminal
    terminal.table(_COLUMNS, [_row(key) for key in found.keys])
    if found.unanswered is None:
        terminal.line(f"{found.node_id} knows only when it accepted keys itself.")
    elif found.unanswered:
        terminal.line(f"No answer from {', '.join(found.unanswered)}: keys may have been used there later.")
    if found.is_open:
        terminal.line(f"{found.node_id} is open: its clients need no key.")
    if found.is_management_open:
        terminal.line(f"{found.node_id} is open to operators: they need no key.")
    # A column for them would leave the others too little of a terminal.
    for key in found.keys:
        if rates := _rates(key.events_per_s, key.requests_per_s):
            terminal.line(f"{key.id} is limited to {rates}.")
    if rates := _rates(found.default_events_per_s, found.default_requests_per_s):
        terminal.line(f"{found.node_id} limits keys without a rate of their own to {rates}.")
    refused = ", ".join(f"{count} {code}" for code, count in sorted(found.refused.items()))
    terminal.line(f"Requests that {found.node_id} refused: {refused or 'none'}.")
    terminal.records([msgspec.to_builtins(found)])


def _row(key: KeyRow) -> tuple[Cell, ...]:
    last = "not known" if key.last_used is None else age(key.last_used, datetime.now(UTC))
    end: Cell = "revoked" if key.is_revoked else _end(key.expires)
    if key.expires is not None and not key.is_revoked:
        end = tuple(spelt(key.expires).split(" ", 1))
    return ((key.id, *filter(None, [key.name])), tuple(key.roles), end, last)


def _rates(events_per_s: float | None, requests_per_s: float | None) -> str:
    found = (("events/s", events_per_s), ("requests/s", requests_per_s))
    return " and ".join(f"{rate:.12g} {unit}" for unit, rate in found if rate is not None)


def _end(moment: datetime | None) -> str:
    return "never" if moment is None else spelt(moment)
