"""`qed evidence`: what a file of evidence proves against a log. Without any server."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

import click

from qed.cli.inputs import content_of_evidence
from qed.cli.options import INPUT, command, current_session, policy_option
from qed.errors import VerificationError
from qed.evidence import Evidence, Verdict
from qed.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qed.cli.terminal import Terminal
    from qed.evidence import Judgement

__all__ = ["evidence"]

_EXIT_UNPROVEN: Final = 1
_SIDES: Final = ("A", "B")


@command(
    "evidence",
    examples=[
        "qed evidence fork-61c3….json --policy policy",
        "qed --json evidence fork-61c3….json --policy policy",
    ],
)
@click.argument("file", type=INPUT)
@policy_option("The keys of logs that you trust to be theirs.")
def evidence(*, file: str, policy: str) -> None:
    """Check a file of evidence against a log, without any server.

    Exit code 0 means that the file proves what it says: the log has signed what no honest log signs. Exit code 1 means
    that it does not: the checkpoints are consistent, no key of the policy has signed them, or it is a mere suspicion.
    """
    terminal = current_session().terminal
    trust = Policy.load(policy).trust
    content = content_of_evidence(file)
    try:
        found = Evidence.from_json(content)
        judgement = found.judge(trust)
    except VerificationError as exc:
        terminal.records([{"Verdict": "unproven", "Reason": str(exc)}])
        terminal.line("The file proves nothing.")
        raise
    verdict = Verdict(judgement.verdict)
    _show(terminal, found, judgement, verdict)
    if verdict is not Verdict.CONVICTED:
        raise click.exceptions.Exit(_EXIT_UNPROVEN)


def _show(terminal: Terminal, evidence: Evidence, judgement: Judgement, verdict: Verdict) -> None:
    terminal.fields("Evidence:", _fields(evidence, judgement))
    for line in _sentences(evidence, judgement, verdict):
        terminal.line(line)
    terminal.records([_record(evidence, judgement, verdict)])


def _fields(evidence: Evidence, judgement: Judgement) -> Iterator[tuple[str, object]]:
    yield "Kind", evidence.kind
    yield "Log", evidence.origin
    if evidence.index is not None:
        yield "Index", evidence.index
    for side, (size, root, vkeys) in zip(_SIDES, judgement.signed, strict=False):
        yield f"{side}.Size", size
        yield f"{side}.Root", root.hex()
        for vkey in vkeys:
            yield f"{side}.SignedBy", "+".join(vkey.split("+", 2)[:2])


def _sentences(evidence: Evidence, judgement: Judgement, verdict: Verdict) -> Iterator[str]:
    log, sizes = evidence.origin, [size for size, _, _ in judgement.signed]
    match verdict, evidence.kind:
        case Verdict.CONVICTED, "same-size":
            yield f"{log} has signed two different roots for size {sizes[0]}."
            yield "This is a fork: the log has shown different people different histories."
        case Verdict.CONVICTED, "same-index":
            yield f"{log} has signed trees of sizes {sizes[0]} and {sizes[1]}."
            yield f"Their entries {evidence.index} differ."
            yield "This is a fork: the log has shown different people different histories."
        case Verdict.CONVICTED, _:
            yield f"{log} has signed a tree of size {sizes[0]} whose entry {evidence.index} no log of qed can have."
        case Verdict.INNOCENT, "same-size" | "same-index" | "suspicion":
            yield "Not a fork: one honest log can have signed both checkpoints."
        case Verdict.INNOCENT, _:
            yield f"Entry {evidence.index} is as it should be: this proves nothing against {log}."
        case Verdict.UNREPLAYED, _:
            first, last = evidence.replay or (None, None)
            yield f"{log} has signed entry {evidence.index}. Whether it is wrong follows from the entries before it."
            yield f"Run qed audit URL --evidence FILE: it replays the log up to versions {first} to {last}."
        case _:
            yield f"{log} has signed both checkpoints. Nothing here shows whether one tree extends the other."
            yield "This is a suspicion, not a proof."


def _record(evidence: Evidence, judgement: Judgement, verdict: Verdict) -> dict[str, object]:
    return {
        "Kind": evidence.kind,
        "Verdict": verdict.value,
        "Origin": evidence.origin,
        "Index": evidence.index,
        "Signed": [
            {"Size": size, "Root": base64.b64encode(bytes(root)).decode(), "Vkeys": vkeys}
            for size, root, vkeys in judgement.signed
        ],
        "FoundAt": evidence.found_at,
        "Sources": evidence.sources,
    }
