"""A bundle: a question, its answer and the snapshots to check it by, in one JSON file that needs no server."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from qed.cli.questions import Answer, IncrementalQuestion, MembershipQuestion, Question, versions_of
from qed.errors import MalformedProof, VerificationError
from qed.proofs import Digest, IncrementalProof, Snapshot, parse_answer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Bundle"]

# The longest answers, 256 hyper siblings and two history paths of 64 levels, take about 50 KB.
_BYTES_MAX: Final = 1024 * 1024

_Kind: TypeAlias = Literal["membership", "incremental"]


class _Membership(msgspec.Struct, rename="pascal", forbid_unknown_fields=True):
    key_digest: bytes
    version: int | None


class _Incremental(msgspec.Struct, rename="pascal", forbid_unknown_fields=True):
    start: int
    end: int


class _Form(msgspec.Struct, rename="pascal", forbid_unknown_fields=True):
    format: Literal["qed-bundle-1"]
    kind: _Kind
    question: msgspec.Raw
    answer: msgspec.Raw
    snapshots: list[msgspec.Raw]


@dataclass(frozen=True)
class Bundle:
    """One answer with its question and snapshots.

    Attributes:
        question: What was asked, a version beyond the log as the last one. It stands beside the answer, for the same
            proof of absence answers for many events.
        answer: What a server said.
        snapshots: One snapshot for each version the answer speaks of, in their order.
    """

    question: Question
    answer: Answer
    snapshots: tuple[Snapshot, ...]

    @classmethod
    def of(cls, question: Question, answer: Answer, snapshots: Iterable[Snapshot]) -> Bundle:
        """Return the bundle of an answer.

        Args:
            question: What was asked.
            answer: What a server said.
            snapshots: One for each version it speaks of, in any order.

        Returns:
            The bundle.

        Raises:
            MalformedProof: There are fewer, more or other snapshots than that.
        """
        ordered = tuple(sorted(snapshots, key=lambda snapshot: snapshot.version))
        found, wanted = [snapshot.version for snapshot in ordered], sorted(versions_of(answer))
        if found != wanted:
            raise MalformedProof(f"expected snapshots of versions {wanted}, found {found}")
        if isinstance(question, MembershipQuestion) and question.version is not None:
            question = replace(question, version=min(question.version, wanted[-1]))
        return cls(question, answer, ordered)

    def to_json(self) -> bytes:
        """Return the bundle as one line of JSON."""
        asked = self.question
        form = _Form(
            format="qed-bundle-1",
            kind="membership" if isinstance(asked, MembershipQuestion) else "incremental",
            question=msgspec.Raw(msgspec.json.encode(_form_of(asked))),
            answer=msgspec.Raw(self.answer.to_json()),
            snapshots=[msgspec.Raw(snapshot.to_json()) for snapshot in self.snapshots],
        )
        return msgspec.json.encode(form) + b"\n"

    @classmethod
    def from_json(cls, text: bytes) -> Bundle:
        """Return the bundle that `text` spells.

        The JSON may be re-formatted, but must say nothing beside what is verified: whoever reads the file itself must
        not find a statement in it that no check has seen.

        Args:
            text: Untrusted bytes.

        Returns:
            The bundle.

        Raises:
            MalformedProof: `text` is not a bundle.
        """
        if len(text) > _BYTES_MAX:
            raise MalformedProof(f"not a bundle: larger than {_BYTES_MAX} bytes")
        try:
            bundle = cls._parse(text)
            is_exact = msgspec.json.decode(text) == msgspec.json.decode(bundle.to_json())
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise MalformedProof(f"not a bundle: {exc}") from exc
        except RecursionError:
            raise MalformedProof("not a bundle: nested too deeply") from None
        if not is_exact:
            raise MalformedProof("not a bundle: it says more than its proof and snapshots do")
        return bundle

    @classmethod
    def _parse(cls, text: bytes) -> Bundle:
        form = msgspec.json.decode(text, type=_Form)
        question: Question
        answer: Answer
        if form.kind == "membership":
            asked = msgspec.json.decode(form.question, type=_Membership)
            question, answer = _membership(asked), parse_answer(bytes(form.answer))
        else:
            versions = msgspec.json.decode(form.question, type=_Incremental)
            question = IncrementalQuestion(versions.start, versions.end)
            answer = IncrementalProof.from_json(bytes(form.answer))
        return cls.of(question, answer, [Snapshot.from_json(bytes(raw)) for raw in form.snapshots])

    @classmethod
    def load(cls, path: str) -> Bundle:
        """Return the bundle in a file.

        Args:
            path: The file, or `-` for stdin.

        Returns:
            The bundle.

        Raises:
            OSError: The file cannot be read.
            MalformedProof: It is not a bundle.
        """
        if path == "-":
            return cls.from_json(sys.stdin.buffer.read(_BYTES_MAX + 1))
        with Path(path).open("rb") as file:
            return cls.from_json(file.read(_BYTES_MAX + 1))

    def compare(self, receipts: Mapping[int, Snapshot]) -> None:
        """Check that the bundle tells of no other snapshots than those that were received.

        Args:
            receipts: What was received, by version. A version without a receipt is passed over.

        Raises:
            VerificationError: A snapshot differs from its receipt.
        """
        for snapshot in self.snapshots:
            if receipts.get(snapshot.version, snapshot) != snapshot:
                raise VerificationError(f"the bundle's snapshot of version {snapshot.version} is not the one received")


def _form_of(question: Question) -> _Membership | _Incremental:
    if isinstance(question, MembershipQuestion):
        return _Membership(bytes(question.digest), question.version)
    return _Incremental(question.start, question.end)


def _membership(form: _Membership) -> MembershipQuestion:
    try:
        return MembershipQuestion(Digest(form.key_digest), form.version)
    except ValueError:
        raise MalformedProof(f"expected a digest of 32 bytes, found {len(form.key_digest)}") from None
