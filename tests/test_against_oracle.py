"""Random logs, with honest and hostile digests: the real implementation answers exactly as the slow oracle does."""

from __future__ import annotations

import select
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, note, seed
from hypothesis import strategies as st

import qed
from oracle import OracleLog, Request, event_digest
from oracle_compact import answer_bytes
from oracle_verify import parse
from qed import _qed
from qed.errors import LogError, UnknownVersion
from recorded import outcome
from seeds import SEED, chance, diverge, searching
from specimens import Proof, Specimen, ask, ask_range
from subject import Subject, wire_snapshots

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SHARED_BITS = (0, 1, 23, 24, 25, 32, 64, 200, 231, 255)
BEYOND = (1, 1 << 32, (1 << 64) - 1)  # added to the last version: what is asked beyond the log


@dataclass(frozen=True)
class Plan:
    """Digests to choose from, and the requests to build from them; `True` beside a request reopens the log after it."""

    pool: list[bytes]
    requests: list[tuple[Request, bool]]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    digests = st.binary(min_size=32, max_size=32)
    pool = [draw(digests)]
    for _ in range(draw(st.integers(1, 8))):
        pool.append(diverge(draw(st.sampled_from(pool)), draw(st.sampled_from(SHARED_BITS)), draw(digests)))
    chosen = st.lists(st.sampled_from(pool), min_size=1, max_size=5)
    requests = st.lists(st.tuples(st.builds(Request, chosen, st.booleans()), st.booleans()), min_size=1, max_size=7)
    return Plan(list(dict.fromkeys(pool)), draw(requests))


def append_to_both(oracle: OracleLog, subject: Subject, request: Request) -> None:
    demanded = oracle.append(request.digests, if_absent=request.if_absent)
    added = subject.append(request.digests, if_absent=request.if_absent)
    assert added.is_new == demanded.is_new
    assert len(added) == len(demanded.versions)
    snapshots = [oracle.snapshot(version) for version in demanded.versions]
    assert wire_snapshots(added) == snapshots
    assert [bytes(snapshot.event_digest) for snapshot in added.snapshots] == request.digests


def compare_membership(oracle: OracleLog, subject: Subject, digest: bytes, version: int | None) -> None:
    """Compare one answer with the oracle's; if it is a proof, verify it with both verifiers."""
    demanded = outcome(lambda: oracle.membership(digest, version))
    assert outcome(lambda: subject.membership(digest, version)) == demanded
    if "error" not in demanded:
        check_proof(ask(oracle, "answer", digest, version), subject.prove(digest, version))


def compare_incremental(oracle: OracleLog, subject: Subject, start: int, end: int) -> None:
    demanded = outcome(lambda: oracle.incremental(start, end))
    assert outcome(lambda: subject.incremental(start, end)) == demanded
    if "error" not in demanded:
        check_proof(ask_range(oracle, start, end), subject.log.incremental(start, end))


def check_proof(specimen: Specimen, proof: Proof) -> None:
    """Check that a real proof equals the oracle's, that both verifiers accept it, and its compact form byte by byte."""
    assert proof == specimen.proof
    specimen.question.verify(proof)
    specimen.question.verify_with_oracle(specimen.answer)
    assert proof.to_bytes() == answer_bytes(specimen.answer)
    assert specimen.decode(proof.to_bytes()) == proof


def compare_everything(oracle: OracleLog, subject: Subject, pool: Sequence[bytes]) -> None:
    last = len(oracle.digests) - 1
    assert len(subject.log) == last + 1
    assert [subject.snapshot(version) for version in range(last + 1)] == list(map(oracle.snapshot, range(last + 1)))
    for digest in pool:
        for version in [None, *range(last + 1), *(min(last + beyond, (1 << 64) - 1) for beyond in BEYOND)]:
            compare_membership(oracle, subject, digest, version)
    for start in range(last + 2):
        for end in range(last + 2):
            compare_incremental(oracle, subject, start, end)
    with pytest.raises(UnknownVersion):
        subject.log.snapshot(last + 1)


@pytest.mark.timeout(600)
@seed(SEED)
@searching(80)
@given(plans())
def test_random_logs_answer_as_the_oracle(plan: Plan) -> None:
    note(f"QED_SEED={SEED}")
    oracle, subject = OracleLog(), Subject()
    for request, _ in plan.requests:
        append_to_both(oracle, subject, request)
        for digest in plan.pool:
            compare_membership(oracle, subject, digest, None)
    compare_everything(oracle, subject, plan.pool)
    subject.log.check()


@pytest.mark.timeout(600)
@seed(SEED)
@searching(20)
@given(plans())
def test_reopened_logs_answer_as_the_oracle(tmp_path_factory: pytest.TempPathFactory, plan: Plan) -> None:
    note(f"QED_SEED={SEED}")
    oracle, subject = OracleLog(), Subject(tmp_path_factory.mktemp("log") / "data")
    for request, reopens in plan.requests:
        append_to_both(oracle, subject, request)
        if reopens:
            subject.reopen()
    subject.reopen()
    compare_everything(oracle, subject, plan.pool)
    subject.log.check()
    subject.log.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("run_seed", [SEED])
def test_larger_log_answers_as_the_oracle(run_seed: int, tmp_path: Path) -> None:
    """Thousands of events reach levels that small logs never do; a sample of their proofs is checked."""
    dice = chance(run_seed)
    oracle, subject = OracleLog(), Subject(tmp_path / "data")
    pool = [dice.randbytes(32) for _ in range(3_000)]
    pool += [diverge(dice.choice(pool), dice.choice(SHARED_BITS), dice.randbytes(32)) for _ in range(500)]
    while len(oracle.digests) < 4_000:
        request = Request(dice.choices(pool[100:], k=dice.randint(1, 700)), dice.random() < 0.3)
        demanded = oracle.append(request.digests, if_absent=request.if_absent)
        added = subject.append(request.digests, if_absent=request.if_absent)
        assert [snapshot.version for snapshot in added.snapshots] == demanded.versions
        assert wire_snapshots(added)[-1] == oracle.snapshot(demanded.versions[-1])
    subject.reopen()
    last = len(oracle.digests) - 1
    for digest in dice.sample(pool, 25) + pool[:5] + pool[-10:]:
        compare_membership(oracle, subject, digest, dice.choice([None, dice.randint(0, last)]))
    for _ in range(10):
        compare_incremental(oracle, subject, *sorted(dice.choices(range(last + 1), k=2)))
    subject.log.check()
    subject.log.close()


def test_older_occurrence_is_the_latest_one_not_after_the_asked_version() -> None:
    """Versions 0 and 1 are one bulk; the hyper tree shows the first. At 1, both are occurrences, and 1 is later."""
    oracle, subject = OracleLog(), Subject()
    digest = event_digest(b"again")
    for digests in ([digest, digest], [digest]):
        append_to_both(oracle, subject, Request(digests))
    answer = subject.membership(digest, 1)
    assert (answer["ActualVersion"], answer["LatestVersion"]) == (1, 2)
    assert answer == oracle.membership(digest, 1)


def test_versions_that_are_none_are_refused() -> None:
    subject = Subject()
    subject.append([bytes(32)])
    for version in (-1, 1 << 64, 10**40):
        with pytest.raises((OverflowError, ValueError, UnknownVersion)):
            subject.log.membership(_qed.Digest(bytes(32)), version=version)
        with pytest.raises((OverflowError, ValueError, UnknownVersion)):
            subject.log.incremental(version, version)
        with pytest.raises((OverflowError, ValueError, UnknownVersion)):
            subject.log.snapshot(version)


def test_empty_log_refuses_every_proof() -> None:
    subject = Subject()
    with pytest.raises(UnknownVersion):
        subject.log.membership(_qed.Digest(bytes(32)))
    with pytest.raises(UnknownVersion):
        subject.log.incremental(0, 0)
    with pytest.raises(UnknownVersion):
        subject.log.snapshot(0)
    subject.log.check()


@pytest.mark.parametrize("if_absent", [False, True])
def test_empty_request_changes_nothing(if_absent: bool) -> None:
    """An empty append may be refused or get an empty answer; rc2 accepted it as version -1 and crashed."""
    subject = Subject()
    subject.append([bytes(32)])
    with suppress(LogError, ValueError):
        assert not subject.append([], if_absent=if_absent).is_new
    assert len(subject.log) == 1
    assert wire_snapshots(subject.append([bytes(32)]))[0]["Version"] == 1


def test_events_are_added_by_their_digests_as_by_themselves() -> None:
    events = [b"", b"event 0", bytes(1000)]
    with qed.Log() as by_event, qed.Log() as by_digest:
        assert by_event.add(events[0]) == by_digest.add(qed.Digest.of(events[0]))
        mixed: list[bytes | qed.Digest] = [events[1], qed.Digest.of(events[2])]
        assert by_event.add_bulk(iter(events[1:])) == by_digest.add_bulk(mixed)
        again = by_digest.add(qed.Digest.of(events[1]), if_absent=True)
        assert again == by_event.snapshot(1)
        assert len(by_digest) == len(events)


@pytest.mark.parametrize("nonsense", ["text", 7, None, [1], object()])
def test_what_is_neither_an_event_nor_a_digest_is_a_type_error(nonsense: object) -> None:
    with qed.Log() as log:
        with pytest.raises(TypeError):
            log.add(nonsense)  # type: ignore[arg-type]  # the point of the test
        with pytest.raises(TypeError):
            log.add_bulk([b"event", nonsense])  # type: ignore[list-item]  # the point of the test
        assert len(log) == 0


def leading_replica(folder: Path) -> _qed.Replica:
    """Return the only member of a new cluster, once it is the leader."""
    folder.mkdir()
    address = "127.0.0.1:1"
    own = _qed.MemberInfo(name="x", raft_addr=address, http_addr=address, mgmt_addr=address, metrics_addr=address)
    replica = _qed.Replica.open(
        str(folder),
        own,
        high_water=None,
        is_joining=False,
        tick_ms=50,
        heartbeat_ticks=2,
        election_ticks=10,
        dead_ticks=100,
        grace_s=10,
        queue_length=10_000,
        batch_events=64,
        proof_threads=1,
    )
    while not replica.status().is_leader:
        assert select.select([replica.wake_fd], [], [], 30)[0], "no leader within 30 s"
        replica.drain()
    return replica


@dataclass(frozen=True)
class Submission:
    """The events of one request to a replica, which hashes them itself."""

    events: list[bytes]
    if_absent: bool

    def request(self) -> Request:
        return Request(list(map(event_digest, self.events)), self.if_absent)


def drained(replica: _qed.Replica, submissions: Sequence[Submission]) -> list[_qed.Added]:
    """Return the result of each request; all are submitted before the first answer is read."""
    for ticket, submission in enumerate(submissions):
        replica.submit(ticket, submission.events, if_absent=submission.if_absent)
    answers: dict[int, _qed.Added] = {}
    while len(answers) < len(submissions):
        assert select.select([replica.wake_fd], [], [], 30)[0], "no answer within 30 s"
        for completion in replica.drain().completions:
            assert isinstance(completion.result, _qed.Added)
            answers[completion.ticket] = completion.result
    return [answers[ticket] for ticket in range(len(submissions))]


def commit_batches(
    submissions: Sequence[Submission], added: Sequence[_qed.Added]
) -> list[list[tuple[Submission, _qed.Added]]]:
    """Return the requests by commit batch: requests of one batch that added something share a hyper digest.

    The last event added has the highest version. A request that added nothing may belong to either of two batches: its
    answers are older than both.
    """
    batches: list[list[tuple[Submission, _qed.Added]]] = []
    newest, hyper_digest = -1, None
    for submission, answer in zip(submissions, added, strict=True):
        last = max(answer.snapshots, key=lambda snapshot: snapshot.version)
        if not batches or (last.version > newest and last.hyper_digest != hyper_digest):
            batches.append([])
        if last.version > newest:
            newest, hyper_digest = last.version, last.hyper_digest
        batches[-1].append((submission, answer))
    return batches


def completion_of(replica: _qed.Replica) -> _qed.Completion:
    """Return the next answer, skipping the replica's status reports."""
    while True:
        assert select.select([replica.wake_fd], [], [], 30)[0], "no answer within 30 s"
        completions = replica.drain().completions
        if completions:
            [completion] = completions
            return completion


@pytest.mark.parametrize("run_seed", [SEED])
def test_group_commits_are_the_oracles_batches(run_seed: int, tmp_path: Path) -> None:
    """A few different events, some added if absent, repeat within one request, within one batch and across batches."""
    dice = chance(run_seed)
    replica = leading_replica(tmp_path / "data")
    submissions = [
        Submission([b"%d" % dice.randrange(60) for _ in range(dice.randint(1, 6))], dice.random() < 0.4)
        for _ in range(400)
    ]
    batches = commit_batches(submissions, drained(replica, submissions))
    assert any(len(batch) > 1 for batch in batches)
    oracle = OracleLog()
    for batch in batches:
        demanded = oracle.commit([submission.request() for submission, _ in batch])
        for (_, answer), expected in zip(batch, demanded, strict=True):
            assert answer.is_new == expected.is_new
            assert wire_snapshots(answer) == [oracle.snapshot(version) for version in expected.versions]
    for number in range(62):
        digest = event_digest(b"%d" % number)
        replica.ask_membership(number, _qed.Digest(digest))
        reply = completion_of(replica)
        assert reply.ticket == number
        assert isinstance(reply.result, bytes)
        assert parse(reply.result) == oracle.membership(digest)
    replica.close()
