"""The final audit, once the cluster is whole: every answer that clients got is true, on every member.

1. All members hold the same snapshot at every version.
2. Every acknowledged snapshot is at its version.
3. Every event occurs as often as the attempts to add it allow: refused events are absent, events added if absent occur
   once, acknowledged events occur, and no event occurs that was never sent. A bulk is in the log as a whole or not.
4. Every acknowledged event is proven on every member, at its version.
5. Incremental proofs connect all acknowledged snapshots, in order, to the end of the log.
6. Events that were only refused are proven to be absent.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import qed
from campaign.reader import incremental_request, membership_request, snapshot_request
from campaign.violation import Violation
from harness.wait import wait_while
from qed import AbsenceProof, Digest, IncrementalProof, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from campaign.connection import Request
    from campaign.journal import Acknowledged, Journal, Submission
    from campaign.member import Member
    from harness.cluster import Cluster

__all__ = ["audit"]

_LIMIT_S: Final = 60.0


def audit(cluster: Cluster[Member], journal: Journal) -> int:
    """Return how many proofs were verified.

    Raises:
        Violation: An answer that a client got is not true.
        VerificationError: A member cannot prove an acknowledged event.
    """
    length = _wait_equal_length(cluster)
    log = _read_equal_logs(cluster, length)
    _check_places(journal.acknowledged, log)
    _check_counts(journal.submissions, log)
    checks: list[Callable[[Member], int]] = [
        lambda member: _prove_memberships(member, journal.acknowledged, log[-1]),
        lambda member: _prove_increments(member, cluster, journal.acknowledged, log[-1]),
        lambda member: _prove_absences(member, journal.submissions, log[-1]),
    ]
    with ThreadPoolExecutor(len(cluster.members)) as pool:
        return sum(count for check in checks for count in pool.map(check, cluster.members))


def _wait_equal_length(cluster: Cluster[Member]) -> int:
    """Return the length of the logs once all have the same. The writers have stopped."""
    seen: list[tuple[int, int]] = []

    def missing() -> str:
        views = [member.view() for member in cluster.members]
        seen[:] = [(view.events, view.applied_index) for view in views]
        return "" if len(set(seen)) == 1 else f"events and applied entries {seen}"

    wait_while(missing, "all members to reach one length", limit_s=_LIMIT_S)
    return seen[0][0]


def _ask(member: Member, requests: Sequence[Request]) -> Iterator[bytes]:
    with member.connect("prove", _LIMIT_S) as connection:
        for request, reply in zip(requests, connection.ask_all(requests), strict=True):
            if reply.status != 200:
                raise Violation(f"{member.name} answers {request} with {reply.status}: {reply.body[:200]!r}")
            yield reply.body


def _read_equal_logs(cluster: Cluster[Member], length: int) -> list[Snapshot]:
    requests = [snapshot_request(version) for version in range(length)]
    with ThreadPoolExecutor(len(cluster.members)) as pool:
        logs = list(pool.map(lambda member: list(_ask(member, requests)), cluster.members))
    for member, found in zip(cluster.members, logs, strict=True):
        for version, (one, other) in enumerate(zip(logs[0], found, strict=True)):
            if one != other:
                raise Violation(f"version {version} is {other!r} on {member.name}, and {one!r} elsewhere")
    return [Snapshot.from_json(body) for body in logs[0]]


def _check_places(acknowledged: Sequence[Acknowledged], log: Sequence[Snapshot]) -> None:
    for entry in acknowledged:
        version = entry.snapshot.version
        found = log[version] if version < len(log) else None
        if found != entry.snapshot or found.event_digest != Digest.of(entry.event):
            raise Violation(f"{entry.event!r} was acknowledged at {version}, where {found} stands")


def _check_counts(submissions: Sequence[Submission], log: Sequence[Snapshot]) -> None:
    counts = Counter(bytes(snapshot.event_digest) for snapshot in log)
    for submission in submissions:
        found = {counts.pop(bytes(Digest.of(event)), 0) for event in submission.events}
        least = len(submission.acknowledged)
        most = least + submission.unknown
        if submission.is_if_absent:
            least, most = min(least, 1), min(most, 1)
        if len(found) != 1 or not least <= max(found) <= most:
            raise Violation(f"expected {least} to {most} times, found {found}: {submission}")
    if counts:
        raise Violation(f"{counts.total()} events stand in the log that nobody sent: {list(counts)[:3]}")


def _prove_memberships(member: Member, acknowledged: Sequence[Acknowledged], last: Snapshot) -> int:
    requests = [membership_request(entry.event, entry.snapshot.version) for entry in acknowledged]
    for entry, body in zip(acknowledged, _ask(member, requests), strict=True):
        proof = qed.parse_answer(body)
        if isinstance(proof, AbsenceProof):
            raise Violation(f"{member.name} proves that the acknowledged {entry.event!r} is absent")
        qed.verify(
            qed.Membership(entry.event, entry.snapshot.version), proof, qed.TrustedSnapshots(entry.snapshot, last)
        )
    return len(requests)


def _prove_increments(
    member: Member, cluster: Cluster[Member], acknowledged: Sequence[Acknowledged], last: Snapshot
) -> int:
    """Each member proves its share: the content of each version was compared already."""
    ordered = sorted((entry.snapshot for entry in acknowledged), key=lambda snapshot: snapshot.version)
    steps = list(zip(ordered, [*ordered[1:], last], strict=True))[member.index :: len(cluster.members)]
    requests = [incremental_request(start.version, end.version) for start, end in steps]
    for (start, end), body in zip(steps, _ask(member, requests), strict=True):
        qed.verify(
            qed.Extension(start.version, end.version),
            IncrementalProof.from_json(body),
            qed.TrustedSnapshots(start, end),
        )
    return len(requests)


def _prove_absences(member: Member, submissions: Sequence[Submission], last: Snapshot) -> int:
    refused = [one for one in submissions if one.refused and not one.acknowledged and not one.unknown]
    events = [event for submission in refused for event in submission.events]
    requests = [membership_request(event, None) for event in events]
    for event, body in zip(events, _ask(member, requests), strict=True):
        proof = qed.parse_answer(body)
        if not isinstance(proof, AbsenceProof):
            raise Violation(f"{member.name} proves that {event!r} is in the log, though it was refused")
        qed.verify(qed.Membership(event), proof, qed.TrustedSnapshots(last))
    return len(requests)
