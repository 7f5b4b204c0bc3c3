"""Signed answers: a question, its answer, and the checkpoint that the roots beneath the answer rest on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from qed._client import calls
from qed._client.fresh_answers import fresh_answer
from qed.bundle import question_form
from qed.errors import MalformedProof, SigningError, VerificationError
from qed.questions import Extension
from qed.signed import SignedBundle
from qed.verification import versions_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qed._client.calls import Consistency
    from qed._client.steps import Calls
    from qed._wire import ReceiptLevel
    from qed.questions import Answer, Question
    from qed.signed import SignedReceipt

__all__ = ["signed_answer"]

_TRIES: Final = 4
"""How often to ask until answer and checkpoint fit together. A log that is in use grows between two calls."""


class _End(msgspec.Struct, rename="pascal"):
    version: int


class _Parts(msgspec.Struct, rename="pascal"):
    """The parts of a receipt of one version that a bundle needs."""

    entries: list[str]
    proof: list[str]
    snapshots: list[msgspec.Raw]
    end: _End | None
    checkpoint: str

    @property
    def text(self) -> str:
        """The checkpoint without its signatures, of which a later one of the same tree may have others."""
        return self.checkpoint.partition("\n\n")[0]

    @property
    def size(self) -> int:
        lines = self.text.split("\n")
        if len(lines) < 2 or not (lines[1].isascii() and lines[1].isdigit()):  # noqa: PLR2004  # name and size
            raise VerificationError("expected a checkpoint with a size in the receipt, found none")
        return int(lines[1])


def signed_answer(question: Question, level: ReceiptLevel, consistency: Consistency | None) -> Calls[SignedBundle]:
    """Ask a question, and have the log sign the state that the answer is about.

    1. The question is asked.
    2. For each version that the answer names, a receipt has its entry and a proof that it is in a signed tree.
    3. All of them must be of one tree. If the question is about the newest state, the tree must end with the answer's.

    If the log grew meanwhile, all is asked again.

    Args:
        question: What to ask.
        level: Who must have signed. A witnessed checkpoint may take some seconds.
        consistency: Whether the answer must include everything acknowledged before.

    Yields:
        Calls, to be sent their values.

    Returns:
        The answer as a signed bundle. It is not verified.

    Raises:
        SigningError: The log is not signed, or not witnessed in time; a version is inside a commit batch; or the log
            grows too quickly.
        VerificationError: The answer or a receipt is not what was asked for.
        QedError: The server refused, or could not be reached.
    """
    for _ in range(_TRIES):
        # 1.
        answer: Answer = yield from fresh_answer(question, None, consistency)
        versions = sorted(versions_of(answer))
        # 2. The newest first, because only that may have to wait.
        receipts: dict[int, _Parts] = {}
        for version in reversed(versions):
            receipt: SignedReceipt = yield calls.receipt(version, last=None, level=level)
            receipts[version] = _parts(receipt, version)
        # 3.
        newest = receipts[versions[-1]]
        is_of_one_tree = len({parts.text for parts in receipts.values()}) == 1
        is_newest = isinstance(question, Extension) or question.version is not None or newest.size == versions[-1] + 1
        if is_of_one_tree and is_newest:
            return _bundle(question, answer, [(version, receipts[version]) for version in versions], newest.checkpoint)
    raise SigningError(
        f"the log grows while it is asked, so no checkpoint ends with its answer: ask about version {versions[-1]}"
    )


def _parts(receipt: SignedReceipt, version: int) -> _Parts:
    parts = msgspec.json.decode(receipt.to_json(), type=_Parts)
    if parts.end is not None:
        raise SigningError(
            f"version {version} is inside a commit batch, and only its end, version {parts.end.version}, has signed "
            "roots: ask about that"
        )
    return parts


def _bundle(question: Question, answer: Answer, parts: Sequence[tuple[int, _Parts]], checkpoint: str) -> SignedBundle:
    """Return the bundle, after checking that its parts fit together.

    Raises:
        VerificationError: They do not.
    """
    fields: Mapping[str, object] = {
        "Format": "qed-bundle-2",
        "Kind": "incremental" if isinstance(question, Extension) else "membership",
        "Question": question_form(question),
        "Answer": msgspec.Raw(answer.to_json()),
        "Snapshots": [each.snapshots[0] for _, each in parts],
        "Entries": [{"Version": version, "Entry": each.entries[0], "Proof": each.proof} for version, each in parts],
        "Checkpoint": checkpoint,
    }
    try:
        return SignedBundle.from_json(msgspec.json.encode(fields))
    except MalformedProof as exc:
        raise VerificationError(f"the answer and its receipts do not fit together: {exc}") from exc
