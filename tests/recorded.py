"""The answers recorded from BBVA QED 1.0.0-rc2, and the ones required where this project differs on purpose."""

from __future__ import annotations

import base64
import json
from functools import cache
from pathlib import Path
from struct import pack
from typing import TYPE_CHECKING, Any, Protocol, cast

from oracle import AddedLaterError, Json, RefusedError, b64, event_digest, sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOLDER = Path(__file__).parent / "vectors"
LOAD_BULK = 500

CLAMPED_ROW, ADDED_LATER_ROW, OLDER_ROW = 26, 27, 45
ADDED_LATER: Json = {"error": "added_later", "FirstVersion": 9}
REFUSED: Json = {"error": "refused"}


class Prover(Protocol):
    """A log under test: it answers in wire form or with a `RefusedError`."""

    def membership(self, digest: bytes, version: int | None = None, *, key: bytes | None = None) -> Json: ...
    def incremental(self, start: int, end: int) -> Json: ...


class Log(Prover, Protocol):
    """A log under test that also accepts events."""

    def append_events(self, events: list[bytes]) -> list[Json]: ...


# The recorded JSON belongs to this repository and keeps its shape, so its fields are used without checks.
Row = dict[str, Any]


@cache
def operations() -> list[Row]:
    return cast("list[Row]", json.loads((FOLDER / "qed-rc2-basic.json").read_text()))


@cache
def load() -> Row:
    return cast("Row", json.loads((FOLDER / "qed-rc2-load-10k.json").read_text()))


def load_bulks() -> list[list[bytes]]:
    events = [b"case-%d" % number for number in range(10_000)]
    return [events[start : start + LOAD_BULK] for start in range(0, len(events), LOAD_BULK)]


def outcome(answer: Callable[[], Json]) -> Json:
    """Return an answer, or the refusal as the error body that a server would send, without its text."""
    try:
        return answer()
    except AddedLaterError as refusal:
        return {"error": "added_later", "FirstVersion": refusal.first_version}
    except RefusedError:
        return dict(REFUSED)


def ask(log: Prover, request: Row) -> Json:
    """Return the outcome of a recorded membership, digest-membership or incremental request."""
    if "Start" in request:
        return outcome(lambda: log.incremental(request["Start"], request["End"]))
    version = request.get("Version")
    if "KeyDigest" in request:
        return outcome(lambda: log.membership(base64.b64decode(request["KeyDigest"]), version))
    event = base64.b64decode(request["Key"])
    return outcome(lambda: log.membership(event_digest(event), version, key=event))


def replay(log: Log) -> Iterator[tuple[int, object, object]]:
    """Do all operations of the basic file in order; yield each row's number, outcome and required outcome."""
    for number, row in enumerate(operations()):
        if row["op"] == "add":
            yield number, log.append_events([base64.b64decode(row["event"])]), [row["snapshot"]]
        elif row["op"] == "bulk":
            events = [base64.b64decode(event) for event in row["events"]]
            yield number, log.append_events(events), row["snapshots"]
        else:
            yield number, ask(log, row["request"]), demanded(number)


def demanded(number: int) -> Json:
    row = operations()[number]
    if number == CLAMPED_ROW:
        return {**row["response"], "QueryVersion": 15}
    if number == ADDED_LATER_ROW:
        return ADDED_LATER
    if number == OLDER_ROW:
        return _older_occurrence()
    return REFUSED if row["status"] == 412 else cast("Json", row["response"])


def _older_occurrence() -> Json:
    """Return the answer for `event 3`, added at versions 3 and 16, at version 10, assembled from recorded parts.

    The hyper path is that of the previous row, from the same tree. Row 24 (the tree at 8) has the frozen nodes of leaf
    3's history path at 10; only the partial node over versions 8 to 10 is computed, from the recorded events.
    """
    present = operations()[OLDER_ROW - 1]["response"]
    history = {**operations()[24]["response"]["History"], "8|3": _partial_node_8_to_10()}
    latest = {"LatestVersion": 16, "LatestHistory": present["History"]}
    return {**present, "QueryVersion": 10, "ActualVersion": 3, **latest, "History": history}


def _partial_node_8_to_10() -> str:
    """Return the node at index 8, height 3 of the tree at 10, spelled out: `H(data, be64 index, be16 height)`."""
    leaves = [sha256(event_digest(b"event %d" % version), pack(">QH", version, 0)) for version in (8, 9, 10)]
    over_8_and_9 = sha256(leaves[0], leaves[1], pack(">QH", 8, 1))
    over_10 = sha256(leaves[2], pack(">QH", 10, 1))
    at_height_2 = sha256(over_8_and_9, over_10, pack(">QH", 8, 2))
    return b64(sha256(at_height_2, pack(">QH", 8, 3)))


def key_digest(answer: Row) -> bytes:
    return base64.b64decode(answer["KeyDigest"])


def ask_again(log: Prover, answer: Row) -> Json:
    """Return the outcome of the request that `answer` was recorded for."""
    if "Start" in answer:
        return ask(log, answer)
    return ask(log, {"Key": answer["Key"], "Version": answer["QueryVersion"]})
