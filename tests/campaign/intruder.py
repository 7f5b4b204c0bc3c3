"""A client without the right to do what it asks for: it must get 401 or 403, whatever else goes wrong, and no effect.

That it has no effect is shown by the audit, which finds every event that nobody was allowed to add, and by the faults,
which find every member that was removed or replaced.
"""

from __future__ import annotations

import random
import secrets
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from campaign.connection import Connection, NoReply, Request
from campaign.credentials import header_of
from campaign.reader import incremental_request, membership_request, snapshot_request
from campaign.violation import Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from campaign.connection import Reply
    from campaign.credentials import Credentials
    from campaign.journal import Journal
    from campaign.member import Member
    from harness.cluster import Cluster

__all__ = ["Intruder"]

_LIMIT_S: Final = 2.0
_PAUSE_S: Final = 0.1
_NEW_KEY: Final = 0.03
"""How often a key is made and revoked again, among the intruder's requests."""

_Service = Literal["http", "mgmt"]


@dataclass(frozen=True)
class _Call:
    """A request that would have an effect or an answer if it were allowed.

    Attributes:
        service: The address that it is for.
        role: The role that it needs.
        request: Makes it.
    """

    service: _Service
    role: str
    request: Callable[[str], Request]


def _post(path: str, **fields: object) -> Request:
    return Request("POST", path, msgspec.json.encode(fields))


def _encoded(text: str) -> str:
    return b64encode(text.encode()).decode()


_CALLS: Final = (
    _Call("http", "append", lambda text: _post("/events", Event=_encoded(text))),
    _Call("http", "append", lambda text: _post("/events/bulk", Events=[_encoded(text), _encoded(text + "'")])),
    _Call("http", "prove", lambda text: membership_request(text.encode(), None)),
    _Call("http", "prove", lambda _: incremental_request(0, 0)),
    _Call("http", "prove", lambda _: snapshot_request(0)),
    _Call("mgmt", "operate", lambda _: _post("/cluster/remove", name="server0")),
    _Call("mgmt", "operate", lambda _: _post("/cluster/replace", name="server1")),
    _Call("mgmt", "operate", lambda _: _post("/cluster/transfer", name="server0")),
    _Call("mgmt", "operate", lambda _: _post("/cluster/token")),
    _Call("mgmt", "operate", lambda _: _post("/keys", Roles=["operate"])),
    _Call("mgmt", "operate", lambda _: Request("GET", "/backups/part")),
)


class Intruder:
    """Asks for what it may not have until the journal says to stop.

    Args:
        name: The seed of its random choices, and the prefix of its events.
        cluster: The members that it asks.
        journal: Where it counts refusals.
        credentials: The keys of the cluster, of which it uses each for something else.
    """

    def __init__(self, name: str, cluster: Cluster[Member], journal: Journal, credentials: Credentials) -> None:
        self._name = name
        self._members = cluster.members
        self._journal = journal
        self._credentials = credentials
        self._chance = random.Random(name)  # noqa: S311  # repeatable
        self._connections = {
            (member.name, service): Connection(address, _LIMIT_S, credentials.context, {})
            for member in cluster.members
            for service, address in (("http", member.http_address), ("mgmt", member.mgmt_address))
        }
        self._revoked: list[str] = []
        self._events = 0

    def run(self) -> None:
        """Ask until the journal says to stop."""
        try:
            while not self._journal.wait(self._chance.random() * _PAUSE_S):
                try:
                    self._intrude()
                except NoReply:
                    continue
        except Exception as exc:  # noqa: BLE001  # any error must end the campaign and be reported
            self._journal.blame(exc)
        finally:
            for connection in self._connections.values():
                connection.close()

    def _intrude(self) -> None:
        member = self._chance.choice(self._members)
        if self._chance.random() < _NEW_KEY:
            self._revoke_new_key(member)
        elif self._revoked and self._chance.random() < 0.2:
            self._add_with_revoked_key(member)
        else:
            self._ask_without_right(member)

    def _ask_without_right(self, member: Member) -> None:
        call = self._chance.choice(_CALLS)
        headers, expected = self._wrong_credential(call)
        reply = self._ask(member, call, headers)
        if _is_put_off(reply):
            # Until it has found a leader, a member that has just started does not know which keys are valid.
            return
        if reply.status != expected:
            what = f"{call.request('').path} at {member.name} with {headers or 'no key'}"
            raise Violation(f"{what} was answered {reply.status} instead of {expected}: {reply.body[:200]!r}")
        self._journal.count_intrusion()

    def _wrong_credential(self, call: _Call) -> tuple[Mapping[str, str], int]:
        """Return the headers of a credential that does not allow a call, and the status that it must get."""
        keys, right = self._credentials, self._credentials.key_of("append")
        unauthorized = [
            {},
            header_of("my-key"),
            header_of(right[:-64] + secrets.token_hex(32)),
            header_of(f"qed_{secrets.token_hex(8)}_{right[-64:]}"),
            header_of(keys.revoked),
        ]
        others = [key for role in ("append", "prove", "operate") if role != call.role for key in [keys.key_of(role)]]
        if self._chance.random() < 0.5:
            return self._chance.choice(unauthorized), 401
        return header_of(self._chance.choice(others)), 403

    def _revoke_new_key(self, member: Member) -> None:
        """Make a key to add events, and revoke it. If an outcome is unknown, the key is never used."""
        operator = header_of(self._credentials.key_of("operate"))
        create = _Call("mgmt", "operate", lambda _: _post("/keys", Roles=["append"]))
        created = self._ask(member, create, operator)
        if created.status != 201:
            return
        made = msgspec.json.decode(created.body)
        revoke = _Call("mgmt", "operate", lambda _: _post("/keys/revoke", Id=made["Id"]))
        if self._ask(member, revoke, operator).status == 200:
            self._revoked.append(made["Key"])

    def _add_with_revoked_key(self, member: Member) -> None:
        """Add an event with a key that was revoked under faults.

        A member that lags may not know that yet, and name the leader, which must know it: nothing is added.
        """
        reply = self._ask(member, _CALLS[0], header_of(self._chance.choice(self._revoked)))
        if reply.status not in {401, 307, 503}:
            raise Violation(f"an add with a revoked key was answered {reply.status} by {member.name}: {reply.body!r}")
        self._journal.count_intrusion()

    def _ask(self, member: Member, call: _Call, headers: Mapping[str, str]) -> Reply:
        self._events += 1
        request = call.request(f"{self._name} {self._events}")
        together = Request(request.method, request.path, request.body, {**request.headers, **headers})
        return self._connections[member.name, call.service].ask(together)


def _is_put_off(reply: Reply) -> bool:
    return reply.status == 503 and b"does not know the keys of its cluster" in reply.body
