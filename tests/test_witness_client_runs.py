"""A log and real witnesses: growing, crashes, and logs that were rolled back or forked."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

import qed
from cosigners import Chronicle, log_of
from qed.server.back_off import BackOff
from qed.server.witness_client import WitnessClient
from qed.server.witness_exchange import AcknowledgedSizes
from qed.server.witness_outcomes import OutcomeKind, SightingKind
from witnesses import ForeignLog, WitnessProcess, consistency

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from qed.server.witness_outcomes import Round

RUN: Final[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors" / "trust.json").read_text())["witness_run"]
LIMIT_S: Final = 20.0


@pytest.fixture
def log() -> ForeignLog:
    return log_of(1)


@pytest.fixture
def witness(tmp_path: Path, log: ForeignLog) -> Iterator[WitnessProcess]:
    process = WitnessProcess(tmp_path, extra=("--vkey", RUN["vkey"]))
    process.make_key()
    process.know(log)
    try:
        process.start("--new-database")
        yield process
    finally:
        process.forget()


@pytest.fixture
async def clients() -> AsyncIterator[list[WitnessClient]]:
    made: list[WitnessClient] = []
    yield made
    for client in made:
        await client.aclose()


def policy_for(vkey: str, *witnesses: tuple[list[str], str]) -> qed.Policy:
    """Return a policy in which each witness with its keys and URL has to cosign with all its keys."""
    lines, names = [f"log {vkey}"], []
    for number, (vkeys, url) in enumerate(witnesses):
        for kind, key in enumerate(vkeys):
            names.append(f"w{number}-{kind}")
            lines.append(f"witness {names[-1]} {key} {url}")
    return qed.Policy("\n".join([*lines, f"group all all {' '.join(names)}", "quorum all", ""]).encode())


def client_for(log: ForeignLog, *witnesses: WitnessProcess, made: list[WitnessClient], **known: int) -> WitnessClient:
    policy = policy_for(log.vkey, *((witness.vkeys(), witness.url) for witness in witnesses))
    acknowledged = AcknowledgedSizes({witness.url: known.get("acknowledged", 0) for witness in witnesses})
    made.append(
        WitnessClient(
            policy, acknowledged=acknowledged, back_off=lambda: BackOff(clock=lambda: 0.0, chance=lambda: 0.0)
        )
    )
    return made[-1]


async def ask(client: WitnessClient, log: ForeignLog) -> Round:
    client.ask_again()
    return await client.cosign(log.sign(log.text()), Chronicle(log), limit_s=LIMIT_S)


async def test_a_log_grows_and_every_checkpoint_is_cosigned_with_both_keys(
    witness: WitnessProcess, log: ForeignLog, clients: list[WitnessClient]
) -> None:
    client = client_for(log, witness, made=clients)
    for count in (0, 1, 1, 4, 1, 13, 0, 200):
        log.grow(count)
        before = int(time.time())
        result = await ask(client, log)
        assert result.is_quorum_met, result
        assert result.checkpoint.witnesses == ["w0-0", "w0-1"]
        (outcome,) = result.outcomes
        assert outcome.time is not None
        assert (outcome.cosigned, before <= outcome.time) == (("w0-0", "w0-1"), True)
        assert result.note == witness.last(log.origin).text
        (sighting,) = await client.newest(log.origin)
        assert (sighting.kind, sighting.checkpoint is not None) == (SightingKind.FOUND, True)
        assert sighting.checkpoint is not None
        assert sighting.checkpoint.note == result.note


async def test_a_client_that_knows_nothing_goes_on_where_another_one_stopped(
    witness: WitnessProcess, log: ForeignLog, clients: list[WitnessClient]
) -> None:
    log.grow(6)
    assert (await ask(client_for(log, witness, made=clients), log)).is_quorum_met
    # As after a witness that was killed between its commit and its answer: it has what the log does not know of.
    assert (await ask(client_for(log, witness, made=clients), log)).is_quorum_met
    log.grow(6)
    assert (await ask(client_for(log, witness, made=clients), log)).is_quorum_met
    log.grow(6)
    assert (await ask(client_for(log, witness, made=clients, acknowledged=7), log)).is_quorum_met


async def test_a_log_that_was_rolled_back_is_told_so_with_its_own_signature(
    witness: WitnessProcess, log: ForeignLog, clients: list[WitnessClient]
) -> None:
    log.grow(6)
    published = await ask(client_for(log, witness, made=clients), log)
    del log.leaves[5:]
    client = client_for(log, witness, made=clients)
    (sighting,) = await client.newest(log.origin)
    assert sighting.checkpoint is not None
    assert (sighting.checkpoint.size, sighting.checkpoint.note) == (7, published.note)
    result = await ask(client, log)
    assert not result.is_quorum_met
    (outcome,) = result.ahead
    assert (outcome.size, outcome.newest is not None) == (7, True)
    assert outcome.newest is not None
    assert outcome.newest.note == published.note
    # Others have signed for it since, so it has the size again, but not the root.
    log.leaves += [bytes([number]) * 32 for number in range(3)]
    result = await ask(client, log)
    (outcome,) = result.disagreeing
    assert (outcome.kind, outcome.newest is not None) == (OutcomeKind.DISAGREES, True)
    assert witness.last(log.origin).text == published.note
    del log.leaves[7:]
    (outcome,) = (await ask(client_for(log, witness, made=clients, acknowledged=7), log)).disagreeing
    assert outcome.kind is OutcomeKind.DISAGREES


async def test_witnesses_that_crash_and_come_back_cosign_again(
    tmp_path: Path, log: ForeignLog, clients: list[WitnessClient]
) -> None:
    folders = [tmp_path / name for name in ("1", "2")]
    processes = [WitnessProcess(folder, name=f"witness.example.com/{folder.name}") for folder in folders]
    for folder, process in zip(folders, processes, strict=True):
        folder.mkdir()
        process.make_key()
        process.know(log)
        process.start("--new-database")
    try:
        client = client_for(log, *processes, made=clients)
        assert (await ask(client, log)).is_quorum_met
        address = processes[1].url.removeprefix("http://")
        processes[1].kill()
        log.grow(3)
        result = await ask(client, log)
        assert [outcome.kind for outcome in result.outcomes] == [OutcomeKind.COSIGNED, OutcomeKind.UNREACHABLE]
        assert result.checkpoint.witnesses == ["w0-0", "w0-1"]
        assert not result.is_quorum_met
        processes[1].start("--listen", address)
        result = await client.cosign(result.note, Chronicle(log), limit_s=LIMIT_S)
        assert result.outcomes[1].kind is OutcomeKind.WAITING
        client.ask_again()
        result = await client.cosign(result.note, Chronicle(log), limit_s=LIMIT_S)
        assert result.is_quorum_met
    finally:
        for process in processes:
            process.forget()


async def test_a_witness_with_a_restored_database_heals(
    witness: WitnessProcess, log: ForeignLog, clients: list[WitnessClient]
) -> None:
    client = client_for(log, witness, made=clients)
    assert (await ask(client, log)).is_quorum_met
    assert witness.stop() == 0
    shutil.copy(witness.database, witness.folder / "copy.db")
    address = witness.url.removeprefix("http://")
    witness.start("--listen", address)
    log.grow(4)
    assert (await ask(client, log)).is_quorum_met
    assert witness.stop() == 0
    (witness.folder / "copy.db").replace(witness.database)
    witness.start("--listen", address)
    log.grow(4)
    assert (await ask(client, log)).is_quorum_met


async def test_a_log_that_a_witness_does_not_know_is_a_matter_of_configuration(
    witness: WitnessProcess, clients: list[WitnessClient]
) -> None:
    stranger = ForeignLog("log.example.com/stranger")
    stranger.grow(3)
    client = client_for(stranger, witness, made=clients)
    result = await ask(client, stranger)
    assert result.outcomes[0].kind is OutcomeKind.MISCONFIGURED
    assert result.outcomes[0].detail == "it answered 404: this witness does not sign for this log"
    assert (await client.newest(stranger.origin))[0].kind is SightingKind.NONE


class Recorded:
    """The log of the recorded run: leaf hashes that are numbered."""

    leaves: Final = [bytes([0x2A, number]) + bytes(30) for number in range(5)]

    async def consistency(self, old: int, new: int) -> Sequence[bytes]:
        return consistency(self.leaves[:new], old)


def recorded_notes() -> dict[int, str]:
    """Return the signed notes of the recorded run by size."""
    accepted = [step["request"].partition("\n\n")[2] for step in RUN["steps"] if step["status"] == 200]
    return {int(note.split("\n")[1]): note for note in accepted}


async def run_the_recorded_log(vkeys: list[str], url: str, made: list[WitnessClient]) -> None:
    """Submit the checkpoints of the recorded run in their order, and then what the run had refused."""
    notes = recorded_notes()
    assert sorted(notes) == [1, 3, 5]
    policy = policy_for(RUN["vkey"], (vkeys, url))

    async def submit(size: int, proofs: Recorded, acknowledged: int = 0) -> tuple[Round, AcknowledgedSizes]:
        sizes = AcknowledgedSizes({url: acknowledged})
        made.append(WitnessClient(policy, acknowledged=sizes))
        return await made[-1].cosign(notes[size], proofs, limit_s=LIMIT_S), sizes

    for size in (1, 3, 5, 5):
        # Each starts from nothing, so each but the first is answered with the size.
        result, sizes = await submit(size, Recorded())
        assert result.is_quorum_met, result
        assert sizes.of(url) == size
    result, _ = await submit(3, Recorded())
    assert [outcome.size for outcome in result.ahead] == [5]
    result, _ = await submit(1, Recorded(), acknowledged=5)
    assert [outcome.size for outcome in result.ahead] == [5]


async def test_the_recorded_log_is_cosigned(witness: WitnessProcess, clients: list[WitnessClient]) -> None:
    await run_the_recorded_log(witness.vkeys(), witness.url, clients)


async def test_a_wrong_proof_is_refused_and_the_right_one_is_not(
    witness: WitnessProcess, clients: list[WitnessClient]
) -> None:
    class Wrong(Recorded):
        async def consistency(self, old: int, new: int) -> Sequence[bytes]:
            return [bytes(32), *(await super().consistency(old, new))[1:]]

    notes, policy = recorded_notes(), policy_for(RUN["vkey"], (witness.vkeys(), witness.url))
    clients.append(WitnessClient(policy))
    assert (await clients[0].cosign(notes[1], Recorded())).is_quorum_met
    result = await clients[0].cosign(notes[5], Wrong())
    assert [outcome.kind for outcome in result.disagreeing] == [OutcomeKind.DISAGREES]
    clients[0].ask_again()
    assert (await clients[0].cosign(notes[5], Recorded())).is_quorum_met
