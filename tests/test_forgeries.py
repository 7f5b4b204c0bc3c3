"""Careful forgeries, as a dishonest server could build them from true parts: both verifiers reject them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from oracle import Json, OracleLog, b64, history_path, wire_path
from oracle_verify import RejectedError
from qed.errors import MalformedProof, VerificationError
from seeds import diverge
from specimens import (
    ABSENT,
    DEEP,
    LONE,
    PAIR,
    READDED,
    TAIL,
    Question,
    RangeQuestion,
    ask,
    dumps,
    log,
    named,
    plain,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _pytest.mark import ParameterSet

COLLIDING = diverge(LONE, 24, TAIL)  # never added; agrees with LONE in every bit that LONE's shortcut leaf commits to
LONE_VERSION = 14


def question(digest: bytes, version: int | None = None, *, made: OracleLog | None = None) -> Question:
    """Return a question to the present log, from a caller that trusts the true snapshots."""
    made = made or log()
    last = len(made.digests) - 1
    query = made.snapshot(last if version is None else min(version, last))
    return Question(digest, version, query, made.snapshot(last))


def assert_forged(asked: Question, answer: Json) -> None:
    with pytest.raises(VerificationError):
        asked.verify(asked.read(dumps(answer)))
    with pytest.raises(RejectedError):
        asked.verify_with_oracle(answer)


def history(version: int, query: int = 20) -> dict[str, str]:
    return wire_path(history_path(log().digests, version, query))


def cases(named_answers: Iterator[tuple[str, Json]]) -> list[ParameterSet]:
    return [pytest.param(answer, id=name) for name, answer in named_answers]


def without(answer: Json, *names: str) -> Json:
    return {name: value for name, value in answer.items() if name not in names}


# Memberships of events that were never added.


def prefix_collisions() -> Iterator[tuple[str, Json]]:
    """Yield answers that claim COLLIDING under the hyper leaf of LONE, whose hash they share."""
    claim = {**log().membership(LONE), "KeyDigest": b64(COLLIDING)}
    root_at_7 = log().snapshot(7)["HistoryDigest"]
    yield "as recorded", claim
    yield "no history", {**claim, "History": {}}
    yield "null history", {**claim, "History": None}
    yield "older query", {**claim, "QueryVersion": 13, "History": history(13, 13)}
    yield "own version above the query", {**claim, "QueryVersion": 13}
    yield "own version above the query, its tree in nodes", {**claim, "QueryVersion": 13, "History": history(14, 13)}
    yield "own version above the query, its tree in one", {**claim, "QueryVersion": 7, "History": {"0|3": root_at_7}}
    latest: Json = {"LatestVersion": LONE_VERSION, "LatestHistory": history(LONE_VERSION)}
    yield "latest version", {**claim, "ActualVersion": 13, **latest, "History": history(13)}
    yield (
        "latest version above the query",
        {
            **claim,
            "QueryVersion": 13,
            "ActualVersion": 13,
            **latest,
            "History": history(13, 13),
        },
    )


@pytest.mark.parametrize("answer", cases(prefix_collisions()))
def test_membership_by_prefix_collision_is_refused(answer: Json) -> None:
    for version in (None, 7, 13, 14, 20):
        assert_forged(question(COLLIDING, version), answer)


def test_prefix_collision_shares_all_that_the_hyper_tree_commits_to() -> None:
    """Without the history path the forgery would pass: its hyper path is LONE's, position by position."""
    claimed, true = log().membership(COLLIDING), log().membership(LONE)
    assert claimed["Hyper"] == true["Hyper"]
    assert len(cast("Json", claimed["Hyper"])) == 24
    assert claimed["Exists"] is False


@pytest.mark.parametrize("victim", [plain(0), LONE, DEEP, READDED], ids=["plain", "lone", "deep", "readded"])
def test_membership_under_another_leaf_is_refused(victim: bytes) -> None:
    true = log().membership(victim)
    for digest in (ABSENT, COLLIDING, diverge(DEEP, 254, TAIL)):
        assert_forged(question(digest), {**true, "KeyDigest": b64(digest)})
        assert_forged(question(digest), {**log().membership(digest), "Exists": True, "History": true["History"]})


# Absences of events that were added.


def hidden(victim: bytes, answer: Json) -> Iterator[tuple[str, Json]]:
    """Yield answers that claim the absence of `victim`, cut from its own membership answer."""
    claim = {**without(answer, "LatestVersion", "LatestHistory"), "Exists": False, "History": None}
    claim["ActualVersion"] = claim["QueryVersion"]
    yield "flipped flag only", {**answer, "Exists": False}
    yield "empty subtree", claim
    hyper = cast("Json", answer["Hyper"])
    for cut in (1, 2, 8, len(hyper) - 1):
        lowest = sorted(hyper, key=lambda position: int(position.split("|")[1]))[:cut]
        yield f"path cut by {cut}", {**claim, "Hyper": without(hyper, *lowest)}
    yield "no path at all", {**claim, "Hyper": {}}
    leaf = cast("int", answer.get("LatestVersion", answer["ActualVersion"]))
    for name, other in (("itself", victim), ("the last bit", diverge(victim, 255, TAIL)), ("elsewhere", ABSENT)):
        neighbour: Json = {"KeyDigest": b64(other), "Version": leaf, "History": history(leaf)}
        yield f"neighbour: {name}", {**claim, "Neighbour": neighbour}
    first: Json = {"KeyDigest": b64(log().digests[0]), "Version": 0, "History": history(0)}
    yield "neighbour: a true one elsewhere", {**claim, "Neighbour": first}


@pytest.mark.parametrize("version", [None, 17, 20])
@pytest.mark.parametrize(
    "victim", [plain(7), LONE, DEEP, PAIR, READDED], ids=["plain", "lone", "deep", "pair", "readded"]
)
def test_absence_of_a_present_event_is_refused(victim: bytes, version: int | None) -> None:
    for _, answer in hidden(victim, log().membership(victim, version)):
        assert_forged(question(victim, version), answer)


def test_absence_from_before_the_event_was_added_is_refused() -> None:
    before = OracleLog()
    before.append(log().digests[:10])
    old = before.membership(LONE)
    asked = question(LONE)
    assert_forged(asked, old)
    assert_forged(asked, {**old, "CurrentVersion": 20})
    assert_forged(asked, {**old, "CurrentVersion": 20, "QueryVersion": 20, "ActualVersion": 20})


def test_absence_cannot_be_turned_into_a_membership() -> None:
    for name in ("absence at an empty subtree", "absence at another key", "absence at an empty subtree far down"):
        specimen = named(name)
        assert isinstance(specimen.question, Question)
        for version in (0, 14, 20):
            claim = {**without(specimen.answer, "Neighbour"), "Exists": True, "ActualVersion": version}
            assert_forged(specimen.question, claim)
            assert_forged(specimen.question, {**claim, "History": history(version)})


def neighbours() -> Iterator[tuple[str, Json]]:
    """Yield neighbours that do not prove the absence of COLLIDING, whose true neighbour is LONE at version 14."""
    true = cast("Json", log().membership(COLLIDING)["Neighbour"])
    yield "missing", {}
    yield "the key itself", {**true, "KeyDigest": b64(COLLIDING)}
    yield "another that shares the prefix", {**true, "KeyDigest": b64(diverge(LONE, 200, TAIL))}
    yield "one that shares too little", {**true, "KeyDigest": b64(diverge(LONE, 23, TAIL))}
    yield "another version", {**true, "Version": 13}
    yield "another version with its path", {**true, "Version": 13, "History": history(13)}
    yield "path at its own version", {**true, "History": history(14, 14)}
    yield "beyond the log", {**true, "Version": 21}
    yield "beyond every log", {**true, "Version": (1 << 64) - 1}
    yield "no path", {**true, "History": {}}
    yield "null path", {**true, "History": None}


@pytest.mark.parametrize("neighbour", cases(neighbours()))
def test_false_neighbour_is_refused(neighbour: Json) -> None:
    answer = log().membership(COLLIDING)
    assert_forged(question(COLLIDING), {**answer, "Neighbour": neighbour})
    assert_forged(question(COLLIDING), without(answer, "Neighbour"))


def test_neighbour_above_the_shortcut_height_is_refused() -> None:
    """A leaf can stand at height 232 at most, so a path of 23 siblings cannot end at another key."""
    true = log().membership(COLLIDING)
    hyper = without(
        cast("Json", true["Hyper"]), next(key for key in cast("Json", true["Hyper"]) if key.endswith("|232"))
    )
    assert len(hyper) == 23
    assert_forged(question(COLLIDING), {**true, "Hyper": hyper})


# LatestVersion: only for an event added again after the asked version.


def test_latest_version_follows_its_rules() -> None:
    answer = named("membership of an older occurrence").answer
    asked = question(READDED, 10)
    assert (answer["ActualVersion"], answer["QueryVersion"], answer["LatestVersion"]) == (3, 10, 17)
    asked.verify(asked.read(dumps(answer)))
    assert_forged(asked, without(answer, "LatestVersion"))
    assert_forged(asked, without(answer, "LatestVersion", "LatestHistory"))
    for version in (0, 3, 10, 16, 18, 20, 21, (1 << 64) - 1):
        assert_forged(asked, {**answer, "LatestVersion": version})
        path = history(version) if 10 < version <= 20 else {}
        assert_forged(asked, {**answer, "LatestVersion": version, "LatestHistory": path})
    assert_forged(asked, {**answer, "ActualVersion": 17})
    assert_forged(asked, {**answer, "ActualVersion": 17, "History": history(17)})


def test_latest_version_without_its_history_is_malformed() -> None:
    """Answers of the earlier form: nothing in them binds the end of the hyper path to the event."""
    answer = named("membership of an older occurrence").answer
    asked = question(READDED, 10)
    for broken in (without(answer, "LatestHistory"), {**answer, "LatestHistory": None}):
        with pytest.raises(MalformedProof):
            asked.read(dumps(broken))
        with pytest.raises(RejectedError):
            asked.verify_with_oracle(broken)
    assert_forged(asked, {**answer, "LatestHistory": history(16)})


def test_latest_version_at_or_below_the_asked_one_is_refused() -> None:
    """Every hash of these is true, but the answer at 17 or later must be the occurrence at 17, not the one at 3."""
    present = log().membership(READDED)
    for query in (17, 18, 20):
        latest: Json = {"LatestVersion": 17, "LatestHistory": history(17)}
        older = {"ActualVersion": 3, **latest, "QueryVersion": query, "History": history(3, query)}
        assert_forged(question(READDED, query), {**present, **older})


def test_latest_version_that_repeats_the_actual_one_says_nothing_new() -> None:
    """Without the field the claim is the same. A proof has one set of fields, so with it the proof is malformed."""
    answer = log().membership(LONE)
    asked = question(LONE)
    asked.verify(asked.read(dumps(answer)))
    with pytest.raises(MalformedProof):
        asked.read(dumps({**answer, "LatestVersion": LONE_VERSION}))


def test_older_occurrence_of_another_event_is_refused() -> None:
    """The hyper leaf of READDED is true and the history leaf at 5 is true, but it belongs to another event."""
    answer = named("membership of an older occurrence").answer
    assert_forged(question(READDED, 10), {**answer, "ActualVersion": 5, "History": history(5, 10)})


# Incremental proofs between logs that do not extend each other.


def test_incremental_between_diverging_logs_is_refused() -> None:
    other = OracleLog()
    other.append([*log().digests[:3], ABSENT, *log().digests[4:]])
    for start, end in ((3, 8), (5, 20), (7, 8)):
        for made in (log(), other):
            asked = RangeQuestion(log().snapshot(start), other.snapshot(end))
            answer = made.incremental(start, end)
            with pytest.raises(VerificationError):
                asked.verify(asked.read(dumps(answer)))
            with pytest.raises(RejectedError):
                asked.verify_with_oracle(answer)


def test_incremental_upside_down_is_refused() -> None:
    answer = log().incremental(3, 8)
    upside_down = {**answer, "Start": 8, "End": 3}
    for start, end in ((8, 3), (3, 8)):
        asked = RangeQuestion(log().snapshot(start), log().snapshot(end))
        with pytest.raises(VerificationError):
            asked.verify(asked.read(dumps(upside_down)))
        with pytest.raises(RejectedError):
            asked.verify_with_oracle(upside_down)


def test_incremental_of_another_range_is_refused() -> None:
    for start, end in ((3, 9), (1, 8), (3, 7)):
        asked = RangeQuestion(log().snapshot(3), log().snapshot(8))
        answer = log().incremental(start, end)
        with pytest.raises(VerificationError):
            asked.verify(asked.read(dumps(answer)))
        with pytest.raises(VerificationError):
            asked.verify(asked.read(dumps({**answer, "Start": 3, "End": 8})))


def test_path_lengths_are_bounded_before_hashing() -> None:
    """A version near 2^64 has paths of up to 64 levels; nothing longer is examined."""
    answer = log().incremental(2, 13)
    huge = {f"{index}|0": b64(bytes(32)) for index in range(100_000)}
    asked = RangeQuestion(log().snapshot(2), log().snapshot(13))
    with pytest.raises(VerificationError):
        asked.verify(asked.read(dumps({**answer, "AuditPath": huge})))
    top = {**answer, "Start": 0, "End": (1 << 64) - 1}
    snapshot = {**log().snapshot(13), "Version": (1 << 64) - 1}
    with pytest.raises(VerificationError):
        RangeQuestion(log().snapshot(0), snapshot).verify(asked.read(dumps(top)))


def test_claims_for_an_event_in_another_log_are_refused() -> None:
    """A true answer of another log, with all its numbers right, does not answer for this one."""
    other = OracleLog()
    other.append([*log().digests[:20], ABSENT])
    specimen = ask(other, "another log", ABSENT)
    assert_forged(question(ABSENT), specimen.answer)
