"""The errors of a log: damage on our own disk, a peer's bytes and our own bug are three different things."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import qed
from qed import _qed
from qed.cli.main import main
from qed.errors import CorruptLog, InternalError, PageError
from seeds import SEED, chance
from test_against_oracle import completion_of, leading_replica

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXTENT_BYTES = 72
LOG_ID_BYTES = 16
DAMAGE_TRIES = 300


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[_qed.Replica]:
    replica = leading_replica(tmp_path / "data")
    yield replica
    replica.close()


def page_after(replica: _qed.Replica, extent: bytes) -> object:
    replica.ask_page(1, extent)
    completion = completion_of(replica)
    assert completion.ticket == 1
    return completion.result


def install(replica: _qed.Replica, page: bytes) -> object:
    """Return the exception that a page raises, or None."""
    try:
        replica.install(2, page)
    except qed.LogError as exc:
        return exc
    completion = completion_of(replica)
    assert completion.ticket == 2
    return completion.result


def require_page_error(outcome: object) -> None:
    assert isinstance(outcome, PageError), repr(outcome)
    assert not isinstance(outcome, CorruptLog)
    assert "damaged" not in str(outcome)


@pytest.mark.parametrize("garbage", [b"", b"garbage", bytes(EXTENT_BYTES - 1), bytes(EXTENT_BYTES + 1)])
def test_garbage_from_a_peer_never_says_that_our_disk_is_damaged(replica: _qed.Replica, garbage: bytes) -> None:
    require_page_error(install(replica, garbage))
    with pytest.raises(PageError):
        replica.ask_page(1, garbage)
    assert replica.failure() is None


@pytest.mark.parametrize("run_seed", [SEED])
def test_damaged_page_never_says_that_our_disk_is_damaged(replica: _qed.Replica, run_seed: int) -> None:
    dice = chance(run_seed)
    page = page_after(replica, bytes(EXTENT_BYTES + LOG_ID_BYTES))
    assert isinstance(page, bytes)
    for _ in range(DAMAGE_TRIES):
        damaged = bytearray(page)
        damaged[dice.randrange(len(page))] ^= 1 << dice.randrange(8)
        if (outcome := install(replica, bytes(damaged))) is not None:
            require_page_error(outcome)
    assert replica.failure() is None


def test_page_of_another_log_is_refused_on_both_sides(replica: _qed.Replica) -> None:
    replica.submit(3, [b"an event"])
    completion_of(replica)
    foreign = (1).to_bytes(8) + bytes(64 + LOG_ID_BYTES)
    answer = page_after(replica, foreign)
    require_page_error(answer)
    assert "differ" in str(answer)


def test_bug_has_an_exit_code_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    qed.Log(tmp_path).close()

    def fail(*_: object, **__: object) -> None:
        raise InternalError("a bug in qed: a test says so")

    monkeypatch.setattr("qed.log.Log.check", fail)
    with pytest.raises(SystemExit) as ended:
        main(["check", str(tmp_path)])
    assert ended.value.code == 70
    assert "a bug in qed: a test says so" in capsys.readouterr().err


def test_an_error_says_what_to_do_next(tmp_path: Path) -> None:
    with qed.Log(tmp_path / "data") as log:
        log.add_bulk([b"a", b"b", b"c"])
        with pytest.raises(qed.UnknownVersion) as swapped:
            log.incremental(2, 1)
    (tmp_path / "data" / "FORMAT").write_text("qed log, format 9\n")
    with pytest.raises(qed.UnsupportedFormat) as newer:
        qed.Log(tmp_path / "data")
    assert str(swapped.value).endswith("found 2 to 1: swap the two versions")
    assert str(newer.value).endswith(
        "found format 9: open it with the version of qed that wrote it, or with a newer one"
    )


def test_every_error_of_a_log_is_public() -> None:
    kinds = [qed.LogFull, qed.PageError]
    assert all(issubclass(kind, qed.LogError) for kind in kinds)
    assert issubclass(qed.InternalError, qed.QedError)
    assert not issubclass(qed.InternalError, qed.LogError)
