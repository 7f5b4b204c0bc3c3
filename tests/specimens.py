"""Honest proofs of every shape, made by the oracle, each with its question. Forgeries are cut from them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeAlias, cast

import oracle_verify
from oracle import Json, OracleLog, event_digest
from qed import TrustedBy, _qed
from seeds import diverge

if TYPE_CHECKING:
    from collections.abc import Iterable

Answer: TypeAlias = _qed.MembershipProof | _qed.AbsenceProof
Proof: TypeAlias = Answer | _qed.IncrementalProof

TAIL = bytes(range(32))


def dumps(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def trusted(snapshot: Json) -> _qed.Snapshot:
    return _qed.Snapshot.from_json(dumps(snapshot))


@dataclass(frozen=True)
class Question:
    """A question about one event, and the snapshots its asker trusts."""

    digest: bytes
    version: int | None
    query_snapshot: Json
    current_snapshot: Json

    def read(self, text: bytes) -> Proof:
        return _qed.parse_answer(text)

    def verify(self, proof: Proof) -> None:
        """Verify with the real verifier for this kind of answer."""
        question = _qed.Membership(_qed.Digest(self.digest), self.version)
        current = trusted(self.current_snapshot)
        hyper, own = current.hyper_root(), current.history_root()
        by = TrustedBy.DIGESTS
        if isinstance(proof, _qed.AbsenceProof):
            _qed.verify_absence(question, proof, hyper_root=hyper, history_root=own, trusted_by=by, is_linked=True)
            return
        assert isinstance(proof, _qed.MembershipProof)
        _qed.verify_membership(
            question,
            proof,
            hyper_root=hyper,
            history_root=trusted(self.query_snapshot).history_root(),
            # Only the root that counts: a second one, of another version, must not replace the one in question.
            latest_root=None if proof.latest_path is None else own,
            trusted_by=by,
            is_linked=True,
        )

    def verify_with_oracle(self, answer: Json) -> None:
        if answer.get("Exists") is False:
            oracle_verify.verify_absence(
                self.digest, answer, version=self.version, current_snapshot=self.current_snapshot
            )
            return
        oracle_verify.verify_membership(
            self.digest,
            answer,
            version=self.version,
            query_snapshot=self.query_snapshot,
            current_snapshot=self.current_snapshot,
        )


@dataclass(frozen=True)
class RangeQuestion:
    """A question whether the log at one version extends the log at another, and the snapshots its asker trusts."""

    start_snapshot: Json
    end_snapshot: Json

    def read(self, text: bytes) -> Proof:
        return _qed.IncrementalProof.from_json(text)

    def verify(self, proof: Proof) -> None:
        assert isinstance(proof, _qed.IncrementalProof)
        start, end = trusted(self.start_snapshot), trusted(self.end_snapshot)
        roots = start.history_root(), end.history_root()
        _qed.verify_incremental(proof, start_root=roots[0], end_root=roots[1], trusted_by=TrustedBy.DIGESTS)

    def verify_with_oracle(self, answer: Json) -> None:
        oracle_verify.verify_incremental(answer, start_snapshot=self.start_snapshot, end_snapshot=self.end_snapshot)


@dataclass(frozen=True)
class Specimen:
    """An honest answer in wire form, and the question it answers."""

    name: str
    question: Question | RangeQuestion
    answer: Json

    @property
    def text(self) -> bytes:
        return dumps(self.answer)

    @property
    def proof(self) -> Proof:
        return self.question.read(self.text)

    def decode(self, compact: bytes) -> Proof:
        return type(self.proof).from_bytes(compact)

    def __str__(self) -> str:
        return self.name


def plain(number: int) -> bytes:
    return event_digest(b"event %d" % number)


DEEP, LONE, PAIR = event_digest(b"deep"), event_digest(b"lone"), event_digest(b"pair")
READDED = plain(3)
ABSENT = event_digest(b"absent")


@cache
def log() -> OracleLog:
    """Return a log of 21 events: plain, two equal in 255 bits, a lone one, two equal in 200 bits, one repeated."""
    made = OracleLog()
    close = [DEEP, diverge(DEEP, 255, TAIL), LONE, PAIR, diverge(PAIR, 200, TAIL)]
    for digest in [*map(plain, range(12)), *close, READDED, *map(plain, range(12, 15))]:
        made.append([digest])
    return made


@cache
def lone_log() -> OracleLog:
    made = OracleLog()
    made.append([LONE])
    return made


def ask(made: OracleLog, name: str, digest: bytes, version: int | None = None) -> Specimen:
    """Return the oracle's answer for a caller that trusts the snapshots it needs."""
    answer = made.membership(digest, version)
    query, current = (made.snapshot(cast("int", answer[field])) for field in ("QueryVersion", "CurrentVersion"))
    return Specimen(name, Question(digest, version, query, current), answer)


def ask_range(made: OracleLog, start: int, end: int) -> Specimen:
    question = RangeQuestion(made.snapshot(start), made.snapshot(end))
    return Specimen(f"incremental {start}-{end}", question, made.incremental(start, end))


def _memberships() -> Iterable[Specimen]:
    yield ask(log(), "membership", plain(0))
    yield ask(log(), "membership at an older version", plain(5), 9)
    yield ask(log(), "membership at its own version", plain(7), 7)
    yield ask(log(), "membership at the present version by number", plain(12), 20)
    yield ask(log(), "membership asked beyond the log", plain(1), 99)
    yield ask(log(), "membership of an event added again", READDED)
    yield ask(log(), "membership of an older occurrence", READDED, 10)
    yield ask(log(), "membership at the last level", DEEP)
    yield ask(lone_log(), "membership in a log of one", LONE)


def _absences() -> Iterable[Specimen]:
    yield ask(log(), "absence at an empty subtree", ABSENT)
    yield ask(log(), "absence at an older version", ABSENT, 4)
    yield ask(log(), "absence at an empty subtree far down", diverge(PAIR, 64, TAIL))
    yield ask(log(), "absence at another key", diverge(LONE, 24, TAIL))
    yield ask(log(), "absence at another key, older version", diverge(LONE, 100, TAIL), 12)
    yield ask(log(), "absence at another key far down", diverge(PAIR, 220, TAIL))
    yield ask(lone_log(), "absence at another key in a log of one", diverge(LONE, 40, TAIL))
    yield ask(lone_log(), "absence beside the root of a log of one", diverge(LONE, 0, TAIL))


@cache
def specimens() -> list[Specimen]:
    ranges = [(0, 0), (0, 1), (2, 13), (7, 8), (0, 20), (15, 16), (20, 20)]
    return [*_memberships(), *_absences(), *(ask_range(log(), start, end) for start, end in ranges)]


def named(name: str) -> Specimen:
    return next(specimen for specimen in specimens() if specimen.name == name)
