"""Several series of calls, carried out together."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from dishonesty import Faces, log_of
from harness.wait import LIMIT_S
from qed import AsyncClient, Receipts
from qed._client import calls
from qed._client.steps import Together, together
from qed.errors import QedError, StaleAnswer, Unavailable, VerificationError

if TYPE_CHECKING:
    from pathlib import Path

    from dishonesty import Reply
    from qed._client.steps import Calls, Steps

INFO, SHARDS, HEALTH = calls.info(), calls.shards(), calls.healthcheck()


def asks(*asked: calls.Call[object]) -> Calls[list[object]]:
    """Make calls one after the other and return their values."""
    values: list[object] = []
    for call in asked:
        value = yield call
        values.append(value)
    return values


def gives_up() -> Calls[None]:
    """Turn the error of a call into another one."""
    try:
        yield INFO
    except Unavailable as exc:
        raise StaleAnswer("gave up") from exc


def carried_out(steps: Steps[list[object]], *outcomes: list[object]) -> tuple[list[tuple[object, ...]], object]:
    """Return the calls of each step while `outcomes` came back, and the result or error."""
    sent: list[tuple[object, ...]] = []
    answers = iter(outcomes)
    try:
        step = next(steps)
        while True:
            assert isinstance(step, Together)
            sent.append(step.calls)
            step = steps.send(next(answers))
    except StopIteration as stop:
        return sent, stop.value
    except QedError as exc:
        return sent, exc


def test_each_series_gets_its_own_values_however_long_it_is() -> None:
    sent, result = carried_out(together(asks(INFO, SHARDS), asks(), asks(HEALTH)), [1, 2], [3])
    assert sent == [(INFO, HEALTH), (SHARDS,)]
    assert result == [[1, 3], [], [2]]


def test_nothing_to_ask_is_no_step() -> None:
    assert carried_out(together(asks(), asks())) == ([], [[], []])


def test_a_series_may_handle_its_error() -> None:
    _, error = carried_out(together(asks(SHARDS), gives_up()), [1, Unavailable("down")])
    assert isinstance(error, StaleAnswer)


def test_of_two_errors_the_first_counts() -> None:
    first, second = VerificationError("first"), VerificationError("second")
    _, error = carried_out(together(asks(INFO), asks(SHARDS)), [first, second])
    assert error is first


async def test_an_asynchronous_client_asks_for_both_proofs_of_a_receipt_at_once(tmp_path: Path) -> None:
    both = threading.Barrier(2)

    def wait_for_the_other(reply: Reply) -> Reply:
        both.wait(LIMIT_S)
        return reply

    with Faces(log_of(), name="a") as server, Receipts.open(tmp_path / "receipts.jsonl") as receipts:
        async with AsyncClient(server.url) as client:
            await client.keep(receipts, await client.add(b"first"))
            server.lies = dict.fromkeys(("membership", "incremental"), wait_for_the_other)
            await client.keep(receipts, await client.add(b"second"))
        assert (len(receipts), receipts.unlinked) == (2, [])
        server.lies = {"membership": lambda _: (500, "x"), "incremental": lambda _: (500, "x")}
        async with AsyncClient(server.url) as client:
            with pytest.raises(QedError, match="answered 500"):
                await client.keep(receipts, await client.add(b"third"))
        assert len(receipts) == 2
