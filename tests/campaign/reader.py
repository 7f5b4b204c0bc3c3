"""A client that asks any member, and verifies every answer against what was acknowledged."""

from __future__ import annotations

import random
from base64 import b64encode
from typing import TYPE_CHECKING, Final

import msgspec

import qed
from campaign.connection import NoReply, Request
from campaign.violation import Violation
from qed import AbsenceProof, IncrementalProof, Snapshot
from qed._wire import INFO

if TYPE_CHECKING:
    from campaign.connection import Connection, Reply
    from campaign.journal import Acknowledged, Journal
    from campaign.member import Member
    from harness.cluster import Cluster

__all__ = ["Reader", "incremental_request", "membership_request", "snapshot_request"]

_LIMIT_S: Final = 3.0
_PAUSE_S: Final = 0.08
_LINEARIZABLE: Final = {"consistency": "linearizable"}
_BEHIND: Final = frozenset({404, 412})
"""The refusals of a member whose log is shorter than the question assumes."""
_BUSY: Final = frozenset({429, 503})


def membership_request(event: bytes, version: int | None, **headers: str) -> Request:
    """Return the question whether `event` is in the log."""
    body = {"Key": b64encode(event).decode(), "Version": version}
    return Request("POST", "/proofs/membership", msgspec.json.encode(body), headers)


def incremental_request(start: int, end: int, **headers: str) -> Request:
    """Return the question whether one version extends another."""
    return Request("POST", "/proofs/incremental", msgspec.json.encode({"Start": start, "End": end}), headers)


def snapshot_request(version: int, **headers: str) -> Request:
    """Return the question for a past snapshot."""
    return Request("GET", f"/snapshots/{version}", headers=headers)


class Reader:
    """Asks until the journal says to stop.

    Args:
        name: The seed of its random choices.
        cluster: The members that it asks.
        journal: The facts that it compares answers with.
    """

    def __init__(self, name: str, cluster: Cluster[Member], journal: Journal) -> None:
        self._journal = journal
        self._chance = random.Random(name)  # noqa: S311  # repeatable
        self._connections = [member.connect("prove", _LIMIT_S) for member in cluster.members]
        self._questions = (
            self._ask_membership,
            self._ask_incremental,
            self._ask_snapshot,
            self._ask_latest_membership,
            self._ask_latest_length,
            self._ask_latest_snapshot,
        )

    def run(self) -> None:
        """Ask until the journal says to stop."""
        try:
            while not self._journal.wait(self._chance.random() * _PAUSE_S):
                self._ask_something()
        except Exception as exc:  # noqa: BLE001  # any error must end the campaign and be reported
            self._journal.blame(exc)
        finally:
            for connection in self._connections:
                connection.close()

    def _ask_something(self) -> None:
        known = self._journal.draw(self._chance)
        if known is None:
            return
        connection = self._chance.choice(self._connections)
        try:
            is_answered = self._chance.choice(self._questions)(connection, known)
        except NoReply:
            return
        if is_answered:
            self._journal.count_read()

    # Each of these returns whether there was an answer.

    def _ask_membership(self, connection: Connection, known: Acknowledged) -> bool:
        reply = connection.ask(membership_request(known.event, known.snapshot.version))
        return _is_success(reply, _BEHIND | _BUSY) and _verify_membership(connection, reply, known)

    def _ask_incremental(self, connection: Connection, known: Acknowledged) -> bool:
        other = self._journal.draw(self._chance)
        assert other is not None
        start, end = sorted((known.snapshot, other.snapshot), key=lambda snapshot: snapshot.version)
        reply = connection.ask(incremental_request(start.version, end.version))
        if not _is_success(reply, _BEHIND | _BUSY):
            return False
        qed.verify(
            qed.Extension(start.version, end.version),
            IncrementalProof.from_json(reply.body),
            qed.TrustedSnapshots(start, end),
        )
        return True

    def _ask_snapshot(self, connection: Connection, known: Acknowledged) -> bool:
        reply = connection.ask(snapshot_request(known.snapshot.version))
        return _is_success(reply, _BEHIND | _BUSY) and _require_equal(reply, known.snapshot)

    # A linearizable answer shows everything acknowledged before the request.

    def _ask_latest_membership(self, connection: Connection, _: Acknowledged) -> bool:
        known = self._journal.acknowledged[-1]
        reply = connection.ask(membership_request(known.event, None, **_LINEARIZABLE))
        if not _is_success(reply, _BUSY):
            return False
        proof = qed.parse_answer(reply.body)
        if isinstance(proof, AbsenceProof):
            raise Violation(f"a linearizable read at {proof.current_version} lacks {known.snapshot.version}")
        return True

    def _ask_latest_length(self, connection: Connection, _: Acknowledged) -> bool:
        highest = self._journal.highest
        reply = connection.ask(Request("GET", "/info", headers=_LINEARIZABLE))
        if not _is_success(reply, _BUSY):
            return False
        if (found := INFO.decode(reply.body).events) <= highest:
            raise Violation(f"a linearizable read shows {found} events when version {highest} was acknowledged")
        return True

    def _ask_latest_snapshot(self, connection: Connection, _: Acknowledged) -> bool:
        known = self._journal.acknowledged[-1]
        reply = connection.ask(snapshot_request(known.snapshot.version, **_LINEARIZABLE))
        return _is_success(reply, _BUSY) and _require_equal(reply, known.snapshot)


def _is_success(reply: Reply, expected: frozenset[int]) -> bool:
    if reply.status == 200:
        return True
    if reply.status not in expected:
        raise Violation(f"a read was answered {reply.status}: {reply.body[:200]!r}")
    return False


def _require_equal(reply: Reply, snapshot: Snapshot) -> bool:
    found = Snapshot.from_json(reply.body)
    if found != snapshot:
        raise Violation(f"version {snapshot.version} has another snapshot: {reply.body!r}")
    return True


def _verify_membership(connection: Connection, reply: Reply, known: Acknowledged) -> bool:
    proof = qed.parse_answer(reply.body)
    version = known.snapshot.version
    if isinstance(proof, AbsenceProof):
        # A lagging member answers at the latest version it has.
        if proof.current_version >= version:
            raise Violation(f"version {version} is acknowledged, and absent at {proof.current_version}")
        return False
    reply = connection.ask(snapshot_request(proof.current_version))
    if not _is_success(reply, _BEHIND | _BUSY):
        return False
    current = Snapshot.from_json(reply.body)
    qed.verify(qed.Membership(known.event, version), proof, qed.TrustedSnapshots(known.snapshot, current))
    return True
