"""A client that adds events through any member, and never retries what must not occur twice."""

from __future__ import annotations

import enum
import random
from base64 import b64encode
from typing import TYPE_CHECKING, Final

import msgspec

from campaign.connection import NoReply, NotReached, Request
from campaign.violation import Violation
from qed import Snapshot
from qed._wire import snapshots_from_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from campaign.connection import Address, Reply
    from campaign.journal import Journal, Submission
    from campaign.member import Member
    from harness.cluster import Cluster

__all__ = ["Writer"]

_LIMIT_S: Final = 1.0
_HOPS: Final = 3
_TRIES: Final = 50
_BULK: Final = 40
_PAUSE_S: Final = 0.06


class _Outcome(enum.Enum):
    ACKNOWLEDGED = enum.auto()
    REFUSED = enum.auto()
    UNKNOWN = enum.auto()


class Writer:
    """Adds events until the journal says to stop.

    Args:
        name: The prefix of its events, and the seed of its random choices.
        cluster: The members that it asks.
        journal: Where it records the answers.
        is_bulk: Whether it adds several at once.
        is_if_absent: Whether it retries until it succeeds. Otherwise it retries only what was refused.
    """

    def __init__(
        self, name: str, cluster: Cluster[Member], journal: Journal, *, is_bulk: bool, is_if_absent: bool
    ) -> None:
        self._name = name
        self._is_bulk = is_bulk
        self._is_if_absent = is_if_absent
        self._journal = journal
        self._chance = random.Random(name)  # noqa: S311  # repeatable
        self._connections = {member.http_address: member.connect("append", _LIMIT_S) for member in cluster.members}
        self._favourite: Address = cluster.members[0].http_address
        self._events = 0

    def run(self) -> None:
        """Add until the journal says to stop."""
        try:
            while not self._journal.wait(self._pause_s()):
                submission = self._journal.begin(self._new_events(), is_if_absent=self._is_if_absent)
                self._submit(submission)
        except Exception as exc:  # noqa: BLE001  # any error must end the campaign and be reported
            self._journal.blame(exc)
        finally:
            for connection in self._connections.values():
                connection.close()

    def _pause_s(self) -> float:
        return self._chance.random() * _PAUSE_S * (8 if self._is_bulk else 1)

    def _new_events(self) -> list[bytes]:
        count = self._chance.randint(2, _BULK) if self._is_bulk else 1
        self._events += count
        return [b"%s %d" % (self._name.encode(), number) for number in range(self._events - count, self._events)]

    def _submit(self, submission: Submission) -> None:
        """Retry as long as that is useful and allowed."""
        for _ in range(_TRIES):
            outcome = self._try(submission)
            if outcome is _Outcome.ACKNOWLEDGED:
                if not self._is_if_absent or self._chance.random() > 0.1:
                    return
                # Any member must return the same snapshots again.
            elif outcome is _Outcome.UNKNOWN:
                self._draw_favourite()
                if not self._is_if_absent:
                    return
            else:
                self._draw_favourite()
                if not self._is_if_absent and self._chance.random() < 0.5:
                    return
            if self._journal.wait(self._chance.random() * 0.2):
                return

    def _try(self, submission: Submission) -> _Outcome:
        """Send it to one member, and follow its redirect to the leader."""
        # Most writers know the leader, as real ones do; some ask any member.
        if self._chance.random() < 0.2:
            self._draw_favourite()
        for _ in range(_HOPS):
            highest_before = self._journal.highest
            try:
                reply = self._connections[self._favourite].ask(self._request(submission))
            except NotReached:
                submission.refused += 1
                return _Outcome.REFUSED
            except NoReply:
                submission.unknown += 1
                return _Outcome.UNKNOWN
            if reply.status in {200, 201}:
                snapshots = self._snapshots(reply.body)
                self._journal.acknowledge(submission, snapshots, highest_before=highest_before)
                return _Outcome.ACKNOWLEDGED
            if reply.status != 307:
                return self._refusal(reply, submission)
            submission.refused += 1
            self._favourite = _address_of(reply.headers["location"])
        return _Outcome.REFUSED

    @staticmethod
    def _refusal(reply: Reply, submission: Submission) -> _Outcome:
        if reply.status not in {429, 503}:
            raise Violation(f"an add was answered {reply.status}: {reply.body[:200]!r}")
        if "retry-after" in reply.headers:
            submission.refused += 1
            return _Outcome.REFUSED
        submission.unknown += 1
        return _Outcome.UNKNOWN

    def _request(self, submission: Submission) -> Request:
        events = [b64encode(event).decode() for event in submission.events]
        options = {"IfAbsent": True} if self._is_if_absent else {}
        if self._is_bulk:
            return Request("POST", "/events/bulk", msgspec.json.encode({"Events": events, **options}))
        return Request("POST", "/events", msgspec.json.encode({"Event": events[0], **options}))

    def _snapshots(self, body: bytes) -> Sequence[Snapshot]:
        return snapshots_from_json(body) if self._is_bulk else [Snapshot.from_json(body)]

    def _draw_favourite(self) -> None:
        self._favourite = self._chance.choice(list(self._connections))


def _address_of(location: str) -> Address:
    host, _, port = location.removeprefix("https://").partition("/")[0].rpartition(":")
    return host, int(port)
