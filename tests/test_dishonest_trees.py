"""Hyper trees that no honest log has: a server that publishes one must not pass verification.

Each test first shows that its construction is valid: one step within the rule, it verifies.
"""

from __future__ import annotations

import pytest

from oracle import DEFAULTS, Json, b64, history_path, hyper_key, shortcut_leaf, wire_path
from oracle_verify import RejectedError, fold_hyper
from qed.errors import VerificationError
from seeds import diverge
from specimens import TAIL, Question, dumps, log, plain

KEY = plain(5)
VERSION = 5
LAST = 20
ABSENT_KEY = diverge(KEY, 100, TAIL)  # shares the path of KEY down to every height in this file
BEYOND = 25


def dishonest(key: bytes, siblings: int, end: bytes) -> tuple[dict[str, str], Json]:
    """Return a hyper path of `siblings` siblings over `end`, and the present snapshot with that tree's root."""
    number = int.from_bytes(key, "big")
    path = {
        hyper_key((number >> height ^ 1) << height, height): DEFAULTS[height] for height in range(256 - siblings, 256)
    }
    return wire_path(path), {**log().snapshot(LAST), "HyperDigest": b64(fold_hyper(number, path, end))}


def leaf(siblings: int, version: int) -> bytes:
    """Return the shortcut leaf of `version` at the end of a path of KEY with `siblings` siblings."""
    height = 256 - siblings
    return shortcut_leaf(version, int.from_bytes(KEY, "big") >> height << height, height)


def history(version: int) -> dict[str, str]:
    return wire_path(history_path(log().digests, version, LAST))


def membership(siblings: int, version: int = VERSION) -> tuple[Question, Json]:
    """Return a membership answer for KEY under a hyper leaf of `version`, and a question that trusts the tree."""
    path, snapshot = dishonest(KEY, siblings, leaf(siblings, version))
    answer: Json = {
        "Exists": True,
        "Hyper": path,
        "History": history(VERSION),
        "CurrentVersion": LAST,
        "QueryVersion": LAST,
        "ActualVersion": VERSION,
        "KeyDigest": b64(KEY),
        "Key": None,
    }
    return Question(KEY, None, snapshot, snapshot), answer


def absence(siblings: int, end: bytes, neighbour: Json | None) -> tuple[Question, Json]:
    path, snapshot = dishonest(ABSENT_KEY, siblings, end)
    answer: Json = {
        "Exists": False,
        "Hyper": path,
        "History": None,
        "CurrentVersion": LAST,
        "QueryVersion": LAST,
        "ActualVersion": LAST,
        "KeyDigest": b64(ABSENT_KEY),
        "Key": None,
    }
    if neighbour is not None:
        answer["Neighbour"] = neighbour
    return Question(ABSENT_KEY, None, snapshot, snapshot), answer


def neighbour(digest: bytes, version: int) -> Json:
    return {"KeyDigest": b64(digest), "Version": version, "History": history(version)}


def accepts(question: Question, answer: Json) -> None:
    question.verify(question.read(dumps(answer)))
    question.verify_with_oracle(answer)


def refuses(question: Question, answer: Json) -> None:
    with pytest.raises(VerificationError):
        question.verify(question.read(dumps(answer)))
    with pytest.raises(RejectedError):
        question.verify_with_oracle(answer)


@pytest.mark.parametrize("siblings", [0, 1, 16, 23])
def test_membership_needs_24_siblings(siblings: int) -> None:
    for enough in (24, 60, 256):
        accepts(*membership(enough))
    refuses(*membership(siblings))


@pytest.mark.parametrize("siblings", [0, 1, 16, 23])
def test_neighbour_needs_24_siblings(siblings: int) -> None:
    for enough in (24, 60, 100):
        accepts(*absence(enough, leaf(enough, VERSION), neighbour(KEY, VERSION)))
    refuses(*absence(siblings, leaf(siblings, VERSION), neighbour(KEY, VERSION)))


def test_neighbour_shares_the_whole_path() -> None:
    """At 101 siblings the path of the absent key differs from that of KEY in one bit."""
    accepts(*absence(100, leaf(100, VERSION), neighbour(KEY, VERSION)))
    own_height = 256 - 101
    prefix = int.from_bytes(ABSENT_KEY, "big") >> own_height << own_height
    refuses(*absence(101, shortcut_leaf(VERSION, prefix, own_height), neighbour(KEY, VERSION)))
    elsewhere = neighbour(log().digests[VERSION + 1], VERSION + 1)
    refuses(*absence(24, leaf(24, VERSION + 1), elsewhere))


def test_neighbour_is_in_the_log() -> None:
    """A leaf beyond the log needs no leaf in its history tree, so only the rule on versions can reject it."""
    for version in (LAST + 1, BEYOND, 31, 32, (1 << 64) - 1):
        refuses(*absence(24, leaf(24, version), {**neighbour(KEY, VERSION), "Version": version}))
        nodes = wire_path(history_path(log().digests, min(version, 31), LAST))
        refuses(*absence(24, leaf(24, version), {"KeyDigest": b64(KEY), "Version": version, "History": nodes}))


def test_actual_version_is_in_the_log() -> None:
    for version in (LAST + 1, BEYOND, 31):
        question, answer = membership(24, version)
        nodes = wire_path(history_path(log().digests, version, LAST))
        refuses(question, {**answer, "ActualVersion": version, "History": nodes})


def test_latest_version_is_one_where_the_log_holds_the_event() -> None:
    """The older occurrence is valid and answers the question; the tree claims a newer one that is not in the log."""
    for version in (11, 17, LAST, LAST + 1, BEYOND, (1 << 64) - 1):
        question, answer = membership(24, version)
        asked = Question(KEY, 10, log().snapshot(10), question.current_snapshot)
        older = {"QueryVersion": 10, "History": wire_path(history_path(log().digests, VERSION, 10))}
        latest = {"LatestVersion": version, "LatestHistory": history(version) if version <= LAST else {}}
        refuses(asked, {**answer, **older, **latest})
        refuses(asked, {**answer, **older, "LatestVersion": version})


@pytest.mark.parametrize("siblings", [1, 23, 24, 255, 256])
def test_empty_subtree_may_stand_anywhere(siblings: int) -> None:
    height = 256 - siblings
    accepts(*absence(siblings, DEFAULTS[height], None))
    refuses(*absence(siblings, DEFAULTS[height - 1] if height else DEFAULTS[1], None))


@pytest.mark.parametrize("siblings", [24, 25, 60])
def test_no_tree_proves_both(siblings: int) -> None:
    """If a leaf proves KEY present, no neighbour proves KEY absent under the same roots, whatever the leaf."""
    question, answer = membership(siblings)
    accepts(question, answer)
    claim = {**answer, "Exists": False, "History": None, "ActualVersion": LAST}
    refuses(question, claim)
    for version in range(LAST + 1):
        for digest in (log().digests[version], ABSENT_KEY, KEY):
            refuses(question, {**claim, "Neighbour": neighbour(digest, version)})


def test_siblings_of_257_levels_are_refused() -> None:
    question, answer = membership(256)
    extra = {**answer["Hyper"], hyper_key(0, 256): b64(bytes(32))} if isinstance(answer["Hyper"], dict) else {}
    refuses(question, {**answer, "Hyper": extra})
