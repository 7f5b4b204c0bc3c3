"""The oracle gives the recorded answers: only then may anything else be compared with it."""

from __future__ import annotations

import pytest

import recorded
from oracle import Json, OracleLog, Request, event_digest
from oracle_verify import RejectedError, parse, verify_absence, verify_incremental, verify_membership


class RecordedOracle(OracleLog):
    """The oracle as a `recorded.Log`: it accepts events instead of digests."""

    def append_events(self, events: list[bytes]) -> list[Json]:
        return [self.snapshot(version) for version in self.append(map(event_digest, events)).versions]


@pytest.fixture(scope="module")
def loaded() -> OracleLog:
    """Return the log of 10,000 events, after comparing its roots after each bulk."""
    log = RecordedOracle()
    for bulk, root in zip(recorded.load_bulks(), recorded.load()["roots"], strict=True):
        last = log.snapshot(log.append(map(event_digest, bulk)).versions[-1])
        assert {name: last[name] for name in root} == root
    return log


def test_every_recorded_operation_is_reproduced() -> None:
    for row, outcome, demanded in recorded.replay(RecordedOracle()):
        assert outcome == demanded, f"row {row}"


@pytest.mark.parametrize("kind", ["membership", "absent", "incremental"])
def test_every_recorded_proof_of_10_000_events_is_reproduced(loaded: OracleLog, kind: str) -> None:
    for answer in recorded.load()[kind]:
        assert recorded.ask_again(loaded, answer) == answer


def test_every_recorded_proof_verifies(loaded: OracleLog) -> None:
    load = recorded.load()
    current = loaded.snapshot(9_999)
    for answer in load["membership"]:
        query = loaded.snapshot(answer["QueryVersion"])
        digest = recorded.key_digest(answer)
        verify_membership(
            digest, answer, version=answer["QueryVersion"], query_snapshot=query, current_snapshot=current
        )
    for answer in load["absent"]:
        verify_absence(recorded.key_digest(answer), answer, version=None, current_snapshot=current)
    for answer in load["incremental"]:
        start, end = loaded.snapshot(answer["Start"]), loaded.snapshot(answer["End"])
        verify_incremental(answer, start_snapshot=start, end_snapshot=end)


def test_older_occurrence_verifies() -> None:
    log = OracleLog()
    for name in [*range(16), 3]:
        log.append([event_digest(b"event %d" % name)])
    verify_membership(
        event_digest(b"event 3"),
        recorded.demanded(recorded.OLDER_ROW),
        version=10,
        query_snapshot=log.snapshot(10),
        current_snapshot=log.snapshot(16),
    )


def test_first_of_a_bulk_and_last_of_a_batch_wins() -> None:
    """Rows 51 and 52 show the rule for one bulk; by §3 the later of two requests wins, even within one batch."""
    log = OracleLog()
    first, second = event_digest(b"first"), event_digest(b"second")
    batch = log.commit([Request([first, second, first]), Request([second, second])])
    assert log.newest == {first: 0, second: 3}
    assert [added.versions for added in batch] == [[0, 1, 2], [3, 4]]
    assert len({str(log.snapshot(version)["HyperDigest"]) for version in range(5)}) == 1


def test_absent_events_only_are_added() -> None:
    log = OracleLog()
    old, new = event_digest(b"old"), event_digest(b"new")
    log.append([old])
    log.append([old])
    added = log.append([old, new, new], if_absent=True)
    assert added.is_new
    assert added.versions == [0, 2, 2]
    assert not log.append([new], if_absent=True).is_new


@pytest.mark.parametrize("text", ['{"a": 1, "a": 1}', "[]", "", "{", '{"a": {"b": 1, "b": 2}}', "[" * 100_000])
def test_ambiguous_json_is_rejected(text: str) -> None:
    with pytest.raises(RejectedError):
        parse(text)
