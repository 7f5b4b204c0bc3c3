"""Lies to one reader: something is withheld, hidden or forged, or was true once; and a key that was retired is used."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, Final

from qed.drill.damage import copied
from qed.drill.drill import Drill, drill
from qed.drill.forgery import signed
from qed.drill.mask import masked
from qed.drill.scene import LOG, WITNESSES, exchange, page_of
from qed.log_keys import new_log_keys, new_witness_keys
from qed.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qed.drill.guards import Attack, Sighting
    from qed.log_keys import SigningKey

__all__ = ["DRILLS"]

DRILLS: Final[list[Drill[Attack]]] = []

_VERIFY: Final = "qed verify"
_AUDIT: Final = "qed audit"
_MONITOR: Final = "qed monitor"
_FORMAT: Final = "qed-trust-1"
_MAX_AGE_S: Final = 1
_NO_DIGEST: Final = base64.b64encode(bytes(32)).decode()


# Something is withheld or hidden.


@drill(DRILLS, _AUDIT)
def withheld_tile(attack: Attack) -> Sighting:
    """Withhold a tile of the published log."""
    return _withheld(attack, "tile/0/000")


@drill(DRILLS, _AUDIT)
def withheld_entries(attack: Attack) -> Sighting:
    """Withhold a bundle of entries of the published log."""
    return _withheld(attack, "tile/entries/000")


@drill(DRILLS, "qed monitor --witness")
def withheld_growth(attack: Attack) -> Sighting:
    """Hide from a new monitor that the log has grown."""
    scene = attack.scene
    old = (scene.old_data / "checkpoint").read_bytes()
    server = scene.witnesses[0].server
    with masked(scene.server.url, lambda path, _: (200, old) if path == "/log/checkpoint" else None) as url:
        attack.watch()
        given = ("--witness", server.url + page_of(LOG), "--grace", "0")
        return attack.monitor(url, *given, policy=scene.policy, kind="rollback")


@drill(DRILLS, _AUDIT)
def hidden_event(attack: Attack) -> Sighting:
    """Sign a hyper tree without one of the events."""
    folder = attack.impostors.hiding
    attack.watch()
    return attack.audit(folder, policy=attack.scene.twin_policy, kind="replay-mismatch")


@drill(DRILLS, _MONITOR)
def hidden_event_monitor(attack: Attack) -> Sighting:
    """Show a monitor a log whose hyper tree lacks an event."""
    folder = attack.impostors.hiding
    attack.watch()
    return attack.monitor(folder, policy=attack.scene.twin_policy, kind="replay-mismatch")


@drill(DRILLS, _AUDIT)
def other_answers(attack: Attack) -> Sighting:
    """Answer questions otherwise than the published entries do."""
    url = attack.scene.server.url

    def lie(path: str, _: bytes | None) -> tuple[int, bytes] | None:
        if not path.startswith("/snapshots/"):
            return None
        status, answer = exchange(url, path)
        return status, json.dumps(json.loads(answer) | {"HyperDigest": _NO_DIGEST}).encode()

    with masked(url, lie) as lying:
        attack.watch()
        return attack.audit(lying, policy=attack.scene.policy, kind="answer-mismatch")


# A receipt is forged.


@drill(DRILLS, _VERIFY)
def forged_key(attack: Attack) -> Sighting:
    """Sign a receipt with other keys under the name of the log."""
    return _verified(attack, _resigned(attack, new_log_keys(LOG)), "KO", "key")


@drill(DRILLS, _VERIFY)
def forged_signature(attack: Attack) -> Sighting:
    """Put the signature of another checkpoint on a receipt."""
    other = (attack.scene.published / "checkpoint").read_text().partition("\n\n")[2]
    receipt = _old_receipt(attack)
    receipt["Checkpoint"] = receipt["Checkpoint"].partition("\n\n")[0] + "\n\n" + other
    return _verified(attack, receipt, "KO", "signature")


@drill(DRILLS, _VERIFY)
def forged_witnesses(attack: Attack) -> Sighting:
    """Cosign a receipt with other keys under the names of the witnesses."""
    cosigning = [key for name in WITNESSES for key in new_witness_keys(name)]
    return _verified(attack, _resigned(attack, [*attack.scene.keys, *cosigning]), "Inconclusive", "witnesses enough")


@drill(DRILLS, _VERIFY)
def forged_event(attack: Attack) -> Sighting:
    """Give the receipt of another event."""
    return _verified(attack, _old_receipt(attack), "KO", "event digest", "--event", attack.scene.events[0])


@drill(DRILLS, _VERIFY)
def forged_entry(attack: Attack) -> Sighting:
    """Put another event into the entry of a receipt."""
    receipt = _old_receipt(attack)
    entry = bytearray(base64.b64decode(receipt["Entries"][0]))
    entry[-70] ^= 1
    receipt["Entries"] = [base64.b64encode(entry).decode()]
    return _verified(attack, receipt, "KO", "root")


@drill(DRILLS, _VERIFY)
def forged_proof(attack: Attack) -> Sighting:
    """Change a hash in the proof of a receipt."""
    receipt = _old_receipt(attack)
    receipt["Proof"][0] = _NO_DIGEST
    return _verified(attack, receipt, "KO", "root")


# It was true once.


@drill(DRILLS, "memory of qed verify")
def old_absence(attack: Attack) -> Sighting:
    """Show a client with a memory the absence of an event that is there by now."""
    memory = copied(attack.scene.client_memory, attack.folder)
    given = ("--policy", attack.scene.policy, "--memory", memory)
    return attack.verify(_absence(attack), *given, verdict="STALE", words="seen before")


@drill(DRILLS, "MaxAge of the trust file")
def old_absence_max_age(attack: Attack) -> Sighting:
    """Show a client without a memory the absence of an event that is there by now."""
    trust, bundle = _trust(attack, MaxAge=_MAX_AGE_S), _absence(attack)
    given = ("--policy", trust, "--memory", attack.folder / "memory")
    return attack.verify(bundle, *given, verdict="Inconclusive", words="MaxAge")


@drill(DRILLS, "MaxAge of the trust file")
def old_checkpoint(attack: Attack) -> Sighting:
    """Publish a checkpoint whose cosignatures are old."""
    trust = _trust(attack, MaxAge=_MAX_AGE_S)
    attack.watch()
    return attack.audit(attack.scene.published, policy=trust, kind="stale", code=5)


@drill(DRILLS, "MaxSize of the trust file")
def retired_key(attack: Attack) -> Sighting:
    """Sign new events with stolen keys that the log has retired."""
    scene = attack.scene
    stolen = attack.impostors.forked_receipts
    retired = [{"Vkey": key.vkey, "MaxSize": scene.old_size} for key in scene.keys]
    trust = _trust(attack, keys=new_log_keys(LOG), has_witnesses=False, Retired=retired)
    given = ("--policy", trust, "--memory", attack.folder / "memory")
    # What the keys have signed before still counts.
    attack.run.qed("verify", scene.old_receipt, *given).require()
    attack.watch()
    return attack.verify(stolen, *given, verdict="KO", words="name of a key that signed")


def _withheld(attack: Attack, path: str) -> Sighting:
    """Return what an auditor finds where a file of the published log is missing."""
    folder = copied(attack.scene.published, attack.folder)
    (folder / path).unlink()
    attack.watch()
    return attack.audit(folder, policy=attack.scene.policy, kind="KO")


def _old_receipt(attack: Attack) -> dict[str, Any]:
    """Return the receipt, with all signatures, of the last event that there was."""
    found: dict[str, Any] = json.loads(attack.scene.old_receipt.read_bytes().splitlines()[-1])
    return found


def _resigned(attack: Attack, keys: Sequence[SigningKey]) -> dict[str, Any]:
    """Return that receipt with the signatures of other keys."""
    receipt = _old_receipt(attack)
    shown = Policy.load(attack.scene.policy).trust.endorse(receipt["Checkpoint"].encode(), now=2**40)
    receipt["Checkpoint"] = signed(shown.origin, shown.size, shown.root, keys).decode()
    return receipt


def _verified(attack: Attack, receipt: dict[str, Any], verdict: str, words: str, *extra: str) -> Sighting:
    """Return why `qed verify` does not accept a receipt."""
    path = attack.folder / "receipt"
    path.write_text(json.dumps(receipt))
    attack.watch()
    given = ("--policy", attack.scene.policy, "--memory", attack.folder / "memory")
    return attack.verify(path, *given, *extra, verdict=verdict, words=words)


def _absence(attack: Attack) -> Path:
    """Return the absence, with the signatures of its time, in the form in which it is shown to others."""
    receipt = _old_receipt(attack)
    version = attack.scene.old_size - 1
    entry = {"Version": version, "Entry": receipt["Entries"][0], "Proof": receipt["Proof"]}
    bundle = json.loads(attack.scene.absence.read_bytes())
    bundle |= {"Format": "qed-bundle-2", "Entries": [entry], "Checkpoint": receipt["Checkpoint"]}
    bundle["Question"]["Version"] = None
    path = attack.folder / "absence"
    path.write_text(json.dumps(bundle))
    attack.watch()
    return path


def _trust(attack: Attack, *, keys: Sequence[SigningKey] = (), has_witnesses: bool = True, **fields: object) -> Path:
    """Return a trust file with the policy of the log and further fields."""
    policy = attack.scene.policy_of(list(keys) or attack.scene.keys, has_witnesses=has_witnesses)
    path = attack.folder / "trust.json"
    path.write_text(json.dumps({"Format": _FORMAT, "Policy": policy, **fields}))
    return path
