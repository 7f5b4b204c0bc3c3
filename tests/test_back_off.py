"""When to ask again what has failed."""

from __future__ import annotations

import pytest

from qed.server.back_off import LONG, SHORT, BackOff, Waits


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def waits(chance: float, kinds: list[Waits]) -> list[float]:
    back_off = BackOff(clock=Clock(), chance=lambda: chance)
    found = []
    for kind in kinds:
        back_off.fail(kind)
        found.append(back_off.wait_s())
    return found


def test_waits_double_up_to_their_limit_and_half_of_each_is_left_to_chance() -> None:
    assert waits(1.0, [SHORT] * 4) == [1, 2, 4, 8]
    assert waits(0.0, [SHORT] * 4) == [0.5, 1, 2, 4]
    assert waits(1.0, [SHORT] * 2000)[-1] == 600
    assert waits(1.0, [LONG] * 2000)[-1] == 4 * 3600
    assert waits(0.0, [LONG] * 2000)[-1] == 2 * 3600


def test_another_kind_of_failure_begins_anew() -> None:
    assert waits(1.0, [SHORT, SHORT, LONG, LONG, SHORT]) == [1, 2, 60, 120, 1]


def test_a_wait_runs_out_and_a_success_ends_it() -> None:
    clock = Clock()
    back_off = BackOff(clock=clock, chance=lambda: 1.0)
    assert back_off.wait_s() == 0
    back_off.fail(LONG)
    clock.now = 59.0
    assert back_off.wait_s() == pytest.approx(1.0)
    clock.now = 61.0
    assert back_off.wait_s() == 0
    back_off.fail(LONG)
    assert back_off.wait_s() == 120
    back_off.reset()
    assert back_off.wait_s() == 0
    back_off.fail(LONG)
    assert back_off.wait_s() == 60


def test_a_wait_is_never_shorter_than_the_service_asked_for() -> None:
    back_off = BackOff(clock=Clock(), chance=lambda: 1.0)
    back_off.fail(SHORT, least_s=1800)
    assert back_off.wait_s() == 1800
    back_off.fail(SHORT, least_s=0.1)
    assert back_off.wait_s() == 2
