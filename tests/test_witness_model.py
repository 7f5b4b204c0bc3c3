"""A witness beside a model of ten lines, and what its clock and its rate allow."""

from __future__ import annotations

import asyncio
import base64
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from qed.log_keys import new_witness_keys, parse_log_keys
from qed.witness.allowance import Allowance
from qed.witness.known_logs import KnownLog, KnownLogs
from qed.witness.store import Store
from qed.witness.witness import Answer, Witness
from seeds import searching
from witnesses import ForeignLog, consistency, request, root_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qed.log_keys import SigningKey

COSIGNED: dict[str, str] = json.loads((Path(__file__).parent / "vectors" / "trust.json").read_text())["cosigned"]
NAME: Final = "witness.example.com/w1"
KEYS: Final = new_witness_keys(NAME)
LOG: Final = ForeignLog("log.example.com/model")
LOG.grow(40)
NOW: Final = 1_767_225_600


@dataclass
class Clock:
    """A clock that a test sets."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class Bench:
    """A witness without a network, which a test can restart."""

    folder: Path
    keys: list[SigningKey] = field(default_factory=lambda: KEYS)
    logs: Sequence[ForeignLog] = (LOG,)
    clock: Clock = field(default_factory=Clock)
    failures: int = 0

    def __post_init__(self) -> None:
        self.witness = self._made(Store.create(self.database, self.keys))

    @property
    def database(self) -> Path:
        return self.folder / "witness.db"

    def _made(self, store: Store) -> Witness:
        logs = KnownLogs([KnownLog.of([log.vkey]) for log in self.logs], witness=NAME)
        return Witness(self.keys, store, logs, clock=self.clock, on_failure=self._note_failure)

    def _note_failure(self) -> None:
        self.failures += 1

    def restart(self) -> None:
        self.witness.close()
        self.witness = self._made(Store.open(self.database, self.keys))

    def ask(self, body: bytes) -> Answer:
        return asyncio.run(self.witness.add_checkpoint(body))

    def times(self, answer: Answer) -> set[int]:
        """Return the times of all lines."""
        assert answer.status == 200, answer
        return {int.from_bytes(base64.b64decode(line.split(" ")[2])[4:12], "big") for line in answer.body.splitlines()}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.witness.close()


def test_the_recorded_cosignature_is_made_again(tmp_path: Path) -> None:
    seed = base64.b64encode(b"\x04" + bytes.fromhex(COSIGNED["witness_seed"])).decode()
    name, key, _ = COSIGNED["witness_vkey"].split("+", 2)
    keys = parse_log_keys(f"PRIVATE+KEY+{name}+{key}+{seed}\n".encode())
    assert [key.vkey for key in keys] == [COSIGNED["witness_vkey"]]
    log = ForeignLog(COSIGNED["origin"])
    text, _, lines = COSIGNED["checkpoint"].partition("\n\n")
    made = Bench(tmp_path, keys, (log,), Clock(1_767_139_200.9))
    answer = made.ask(request(0, [], log.sign(text + "\n")))
    assert answer == Answer(200, lines.splitlines(keepends=True)[1])  # type: ignore[arg-type]  # a status is a number
    digest = COSIGNED["origin_hash"].rjust(64, "0")
    assert asyncio.run(made.witness.last_note(digest)) == log.sign(text + "\n") + answer.body
    made.witness.close()


def test_a_clock_that_goes_back_a_little_repeats_the_last_time(bench: Bench) -> None:
    assert bench.times(bench.ask(LOG.request(0, 3))) == {NOW}
    bench.clock.now -= 60
    assert bench.times(bench.ask(LOG.request(3, 4))) == {NOW}
    bench.clock.now += 61.9
    assert bench.times(bench.ask(LOG.request(4, 5))) == {NOW + 1}


def test_a_clock_that_goes_back_further_stops_the_witness(bench: Bench) -> None:
    assert bench.times(bench.ask(LOG.request(0, 3))) == {NOW}
    for back in (61, 3600, NOW, NOW + 100):
        bench.clock.now = NOW - back
        answer = bench.ask(LOG.request(3, 4))
        assert (answer.status, answer.retry_after_s) == (503, 60)
    # Nothing was noted meanwhile, and it goes on when the clock has caught up.
    bench.restart()
    assert bench.ask(LOG.request(4, 5)).body == "3\n"
    bench.clock.now = NOW - 60
    assert bench.times(bench.ask(LOG.request(3, 4))) == {NOW}


def test_time_0_is_never_signed(bench: Bench) -> None:
    for now in (0.9, 0, -1, -NOW):
        bench.clock.now = now
        assert bench.ask(LOG.request(0, 3)).status == 503
    bench.clock.now = 1
    assert bench.times(bench.ask(LOG.request(0, 3))) == {1}


def test_a_key_that_signs_several_logs_needs_each_to_be_listed(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    own, other = ForeignLog("one.example.com", _key=key), ForeignLog("other.example.com", _key=key)
    own.grow(3)
    other.grow(3)
    made = Bench(tmp_path, logs=(own,))
    assert made.ask(other.request(0)).status == 404
    made.witness.logs = KnownLogs([KnownLog.of([log.vkey]) for log in (own, other)], witness=NAME)
    # The signature of one log over a text of the other.
    _, line = own.sign(other.text()).split("\n\n")
    assert made.ask(request(0, [], f"{other.text()}\n{line}")).status == 403
    assert made.ask(other.request(0)).status == 200
    made.witness.close()


def test_an_allowance_fills_at_its_rate() -> None:
    clock = Clock(0)
    allowance = Allowance(86_400, clock=clock)
    for _ in range(3600):
        assert allowance.wait_s() == 0
        allowance.take()
    assert allowance.wait_s() == 1
    clock.now = 2.5
    for _ in range(2):
        assert allowance.wait_s() == 0
        allowance.take()
    assert allowance.wait_s() == 1
    clock.now = 10**9
    assert allowance.wait_s() == 0
    for _ in range(3600):
        allowance.take()
    assert allowance.wait_s() == 1
    rare = Allowance(1, clock=clock)
    for _ in range(10):
        rare.take()
    assert rare.wait_s() == 86_400


# What a request of the property may have: the branch of the log, its sizes, and what is wrong with it.
FORK: Final = ForeignLog(LOG.origin, [*LOG.leaves[:20], *(bytes([i]) * 32 for i in range(20))], LOG._key)
REQUESTS: Final = st.tuples(
    st.sampled_from([LOG, LOG, LOG, FORK]),
    st.one_of(st.none(), st.integers(0, 40)),
    st.integers(0, 40),
    st.sampled_from(["honest", "honest", "honest", "proof", "signature", "restart", "clock"]),
    st.integers(-100, 100),
)


class Model:
    """What the witness must do, from what it has cosigned: the leaves, and when."""

    def __init__(self) -> None:
        self.leaves: list[bytes] = []
        self.time = 0

    def status(self, old: int, leaves: list[bytes], proof: list[bytes], now: int, *, is_signed: bool) -> int:
        size = len(self.leaves)
        extends = leaves[:size] == self.leaves and proof == consistency(leaves, old)
        checks = ((is_signed, 403), (old <= len(leaves), 400), (old == size, 409), (extends, 422))
        for holds, status in (*checks, (now >= self.time - 60, 503)):
            if not holds:
                return status
        self.leaves, self.time = leaves, max(now, self.time)
        return 200


@searching(300)
@given(st.lists(REQUESTS, max_size=12))
def test_any_sequence_of_requests_is_answered_as_the_model_says(
    requests: list[tuple[ForeignLog, int | None, int, str, int]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench, model = Bench(Path(folder)), Model()
        try:
            for log, old, size, kind, number in requests:
                step(bench, model, log, len(model.leaves) if old is None else old, size, kind, number)
        finally:
            bench.witness.close()


def step(  # noqa: PLR0913, PLR0917 - one argument for each part of a request
    bench: Bench, model: Model, log: ForeignLog, old: int, size: int, kind: str, number: int
) -> None:
    if kind == "restart":
        bench.restart()
    elif kind == "clock":
        bench.clock.now += number
    leaves, text = log.leaves[:size], log.text(size)
    proof, note = consistency(leaves, old), log.sign(text)
    if kind == "proof":
        proof = [*proof, bytes(32)] if number % 2 or not proof else proof[:-1]
    elif kind == "signature":
        note = ForeignLog(log.origin).sign(text)
    answer = bench.ask(request(old, proof, note))
    expected = model.status(old, leaves, proof, int(bench.clock.now), is_signed=kind != "signature")
    assert answer.status == expected, answer
    if expected == 200:
        assert bench.times(answer) == {model.time}
        assert root_of(model.leaves) == root_of(leaves)
    elif expected == 409:
        assert answer.body == f"{len(model.leaves)}\n"
