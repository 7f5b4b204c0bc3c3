"""Two histories under one name: the log is rolled back, rewritten or forked, or has two faces."""

from __future__ import annotations

import json
from typing import Final

from qed.drill.damage import copied
from qed.drill.drill import Drill, drill
from qed.drill.guards import Attack, Sighting, Unnoticed
from qed.drill.mask import masked
from qed.drill.scene import LOG, exchange, page_of

__all__ = ["DRILLS"]

DRILLS: Final[list[Drill[Attack]]] = []

_FORK_GUARD: Final = "fork guard"
_MONITOR: Final = "qed monitor"
_WITNESS: Final = "a witness"
_CLIENT: Final = "receipts of a client"
_CONFLICT: Final = 409
_UNPROCESSABLE: Final = 422


def _with_state(attack: Attack) -> None:
    """Give the attack a copy of the state of the monitor, with its copy of the log."""
    state = attack.scene.state
    copied(state, attack.folder)
    copied(state.with_name(f"{state.name}.copy"), attack.folder)


@drill(DRILLS, _FORK_GUARD)
def rollback(attack: Attack) -> Sighting:
    """Run the server on an old copy of its data folder."""
    attack.watch()
    server = attack.impostors.rolled_back
    return attack.signs_nothing(server, f"{attack.scene.size} were signed")


@drill(DRILLS, _FORK_GUARD)
def rollback_memory(attack: Attack) -> Sighting:
    """Run the server on old copies of data folder and sign memory."""
    scene = attack.scene
    data = copied(scene.old_data, attack.folder)
    memory = copied(scene.old_memory, attack.folder)
    attack.watch()
    server = scene.serve(data, memory, "--policy", scene.policy)
    try:
        return attack.signs_nothing(server, f"a witness has cosigned {scene.size}")
    finally:
        server.ended()


@drill(DRILLS, "high-water mark")
def rollback_high_water(attack: Attack) -> Sighting:
    """Run the server on an old copy of its data folder, with the note of how far it was."""
    scene = attack.scene
    data = copied(scene.old_data, attack.folder)
    memory = copied(scene.old_memory, attack.folder)
    note = copied(scene.high_water, attack.folder)
    attack.watch()
    server = attack.run.start("qed-server", *scene.options(data, memory), "--high-water", note)
    return attack.refuses_to_start(server, "old copy")


@drill(DRILLS, _CLIENT)
def rollback_client(attack: Attack) -> Sighting:
    """Answer a client from an old copy of the log."""
    return _answered(attack, attack.impostors.rolled_back.url, attack.scene.events[0], "STALE")


@drill(DRILLS, _MONITOR)
def rollback_monitor(attack: Attack) -> Sighting:
    """Show a monitor the log as it was before its last round."""
    scene = attack.scene
    _with_state(attack)
    old = (scene.old_data / "checkpoint").read_bytes()
    with masked(scene.server.url, lambda path, _: (200, old) if path == "/log/checkpoint" else None) as url:
        attack.watch()
        return attack.monitor(url, policy=scene.policy, kind="stale-source", code=5)


@drill(DRILLS, _WITNESS)
def rewrite(attack: Attack) -> Sighting:
    """Have a log cosigned that has another event in its past."""
    scene, witness = attack.scene, attack.scene.witnesses[0]
    note = (attack.impostors.rewritten / "checkpoint").read_bytes()
    attack.watch()
    sighting = _not_cosigned(attack, scene.size, note, _UNPROCESSABLE)
    done = attack.run.qed("witness", "evidence", "--database", witness.database, "--json")
    kept = [json.loads(line) for line in done.lines]
    if not any(found["Origin"] == LOG and found["Kind"] == "fork" for found in kept):
        raise Unnoticed(f"the witness has kept no evidence of it: {done.last_line}")
    return Sighting(sighting.text, witness.database)


@drill(DRILLS, _MONITOR)
def rewrite_monitor(attack: Attack) -> Sighting:
    """Show a monitor a log that has another event in its past."""
    _with_state(attack)
    folder = attack.impostors.rewritten
    attack.watch()
    sighting = attack.monitor(folder, policy=attack.scene.word, kind="fork")
    return attack.convicting(sighting)


@drill(DRILLS, "qed publish")
def rewrite_publisher(attack: Attack) -> Sighting:
    """Publish a log that has another event in its past, over the honest one."""
    scene = attack.scene
    folder, copy = attack.impostors.rewritten, copied(scene.published, attack.folder)
    attack.watch()
    sighting = attack.command("publish", folder, copy, "--policy", scene.word, "--once", words="^fork")
    return attack.convicting(sighting)


@drill(DRILLS, "qed audit --receipts")
def rewrite_auditor(attack: Attack) -> Sighting:
    """Rewrite an event for which a client has a receipt."""
    scene, folder = attack.scene, attack.impostors.rewritten
    attack.watch()
    sighting = attack.audit(folder, "--receipts", scene.receipts, policy=scene.word, kind="fork")
    return attack.convicting(sighting)


@drill(DRILLS, _WITNESS)
def fork(attack: Attack) -> Sighting:
    """Have a log cosigned that has other events since the old copy."""
    scene, server = attack.scene, attack.impostors.forked
    _, note = exchange(server.url, "/log/checkpoint")
    attack.watch()
    first = _not_cosigned(attack, scene.old_size, note, _CONFLICT)
    # It gives in and asks again, but has no proof from there.
    second = _not_cosigned(attack, scene.size, note, _UNPROCESSABLE)
    return Sighting(f"{first.text}, then {second.text}")


@drill(DRILLS, _MONITOR)
def fork_monitor(attack: Attack) -> Sighting:
    """Show a monitor a log that has other events since the old copy."""
    _with_state(attack)
    server = attack.impostors.forked
    attack.watch()
    return attack.convicting(attack.monitor(server.url, policy=attack.scene.word, kind="fork"))


@drill(DRILLS, _CLIENT)
def fork_client(attack: Attack) -> Sighting:
    """Deny an event to the client that has its receipt."""
    server, event = attack.impostors.forked, attack.scene.events[-1]
    return _answered(attack, server.url, event, "KO|FORK")


@drill(DRILLS, "memory of qed verify")
def two_faces_clients(attack: Attack) -> Sighting:
    """Give two clients receipts of two histories; they compare."""
    scene = attack.scene
    memory = copied(scene.client_memory, attack.folder)
    receipts = attack.impostors.forked_receipts
    attack.watch()
    trusted = ("--policy", scene.word, "--memory", memory)
    sighting = attack.verify(receipts, *trusted, verdict="FORK")
    return attack.convicting(sighting)


@drill(DRILLS, _MONITOR)
def two_faces_monitor(attack: Attack) -> Sighting:
    """Show a monitor two histories in its first round."""
    places = (attack.scene.server.url, attack.impostors.forked.url)
    attack.watch()
    return attack.convicting(attack.monitor(*places, policy=attack.scene.word, kind="fork"))


def _not_cosigned(attack: Attack, old: int, note: bytes, wanted: int) -> Sighting:
    """Ask a witness to cosign a checkpoint, with a proof that is made up; return how it refuses."""
    scene = attack.scene
    url = scene.witnesses[0].server.url
    page = f"{page_of(LOG)}/checkpoint"
    before = exchange(url, page)
    status, answer = exchange(url, "/add-checkpoint", b"old %d\n\n" % old + note)
    if status != wanted or before != exchange(url, page):
        raise Unnoticed(f"the witness answered {status}: {answer[:80]!r}")
    return Sighting(f"{status} {answer.decode(errors='replace').strip()}")


def _answered(attack: Attack, url: str, event: str, verdict: str) -> Sighting:
    """Ask a dishonest server for an event as a client with receipts does."""
    receipts = copied(attack.scene.receipts, attack.folder)
    attack.watch()
    done = attack.run.qed("membership", "--endpoints", url, "--event", event, "--receipts", receipts)
    return attack.verdict(done, verdict)
