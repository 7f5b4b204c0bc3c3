"""A bundle: a question, its answer and the snapshots to check it by, in one JSON file that needs no server.

FORMATS.md, "Receipts and bundles". The snapshots in a bundle are only its author's claim; `verify` checks the answer
against snapshots that the caller trusts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Literal, TypeAlias

import msgspec

from qed._fields import unique_fields
from qed._files import open_at_once, save_file
from qed._receipt_lines import is_receipts_file
from qed._wire import DIGEST_MEMBERSHIP_REQUEST, INCREMENTAL_REQUEST
from qed.errors import ForkDetected, MalformedProof, ReceiptsError
from qed.proofs import Digest, IncrementalProof, Snapshot, parse_answer
from qed.questions import Answer, Extension, Membership, Question
from qed.trust import TrustedBy, TrustedSnapshots
from qed.verification import Finding, verify, versions_of

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from qed.receipts import Receipts
    from qed.trust import Trusted

__all__ = ["Bundle", "question_form"]

# The longest answers, 256 hyper siblings and two history paths of 64 levels, have about 50 KB.
_BYTES_MAX: Final = 1024 * 1024

_Kind: TypeAlias = Literal["membership", "incremental"]


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
        question: The question, exactly as it was asked. It is part of the bundle because one proof of absence can
            answer for many events.
        answer: The server's answer.
        snapshots: One snapshot for each version that the answer names, in their order.
    """

    question: Question
    answer: Answer
    snapshots: tuple[Snapshot, ...]

    @classmethod
    def of(cls, question: Question, answer: Answer, snapshots: Iterable[Snapshot]) -> Bundle:
        """Return the bundle of an answer.

        Args:
            question: The question.
            answer: The server's answer.
            snapshots: One for each version that the answer names, in any order.

        Returns:
            The bundle.

        Raises:
            MalformedProof: A snapshot is missing, or one is of another version.
        """
        ordered = tuple(sorted(snapshots, key=lambda snapshot: snapshot.version))
        found, wanted = [snapshot.version for snapshot in ordered], sorted(versions_of(answer))
        if found != wanted:
            raise MalformedProof(f"expected snapshots of versions {wanted}, found {found}")
        return cls(question, answer, ordered)

    def verify(self, trusted: Trusted | None = None, *, question: Question | None = None) -> Finding:
        """Verify the answer and return what it proves.

        Args:
            trusted: The roots that the caller trusts. None trusts the bundle's own snapshots, which shows only that the
                bundle is consistent; `trusted_by` of the finding then is `TrustedBy.BUNDLE`.
            question: The question to verify the answer for; by default the bundle's own.

        Returns:
            The finding.

        Raises:
            ForkDetected: `trusted` is None, and two snapshots of one version in the bundle differ.
            VerificationError: As for `qed.verify`.
        """
        if trusted is None:
            trusted = TrustedSnapshots(*self.snapshots, by=TrustedBy.BUNDLE)
        return verify(self.question if question is None else question, self.answer, trusted, is_kept=True)

    def compare(self, receipts: Receipts) -> None:
        """Check that the bundle and the receipts agree on every version that both have.

        Args:
            receipts: The caller's receipts.

        Raises:
            ForkDetected: Two snapshots of one version differ.
        """
        for snapshot in self.snapshots:
            known = receipts.get(snapshot.version)
            if known is not None and known != snapshot:
                raise ForkDetected(known, snapshot)

    def to_json(self) -> bytes:
        """Return the bundle as one line of JSON."""
        asked = self.question
        form = _Form(
            format="qed-bundle-1",
            kind="membership" if isinstance(asked, Membership) else "incremental",
            question=msgspec.Raw(msgspec.json.encode(question_form(asked))),
            answer=msgspec.Raw(self.answer.to_json()),
            snapshots=[msgspec.Raw(snapshot.to_json()) for snapshot in self.snapshots],
        )
        return msgspec.json.encode(form) + b"\n"

    @classmethod
    def from_json(cls, text: bytes) -> Bundle:
        """Parse a bundle.

        The JSON may be re-formatted, but must contain nothing beyond what is verified: a person who reads the file must
        not find a statement in it that no check covers.

        Args:
            text: Untrusted bytes.

        Returns:
            The bundle.

        Raises:
            MalformedProof: `text` is not a bundle.
        """
        if len(text) > _BYTES_MAX:
            raise MalformedProof(f"not a bundle: expected at most {_BYTES_MAX} bytes, found more")
        try:
            bundle = cls._parse(text)
            is_exact = json.loads(text, object_pairs_hook=unique_fields) == json.loads(bundle.to_json())
        except (msgspec.MsgspecError, ValueError) as exc:
            raise MalformedProof(f"not a bundle: {exc}") from exc
        except RecursionError:
            raise MalformedProof("not a bundle: nested too deeply") from None
        if not is_exact:
            raise MalformedProof("not a bundle: it contains fields that are not verified")
        return bundle

    @classmethod
    def _parse(cls, text: bytes) -> Bundle:
        form = msgspec.json.decode(text, type=_Form)
        question: Question
        answer: Answer
        if form.kind == "membership":
            asked = DIGEST_MEMBERSHIP_REQUEST.decode(bytes(form.question))
            question = Membership(Digest(asked.key_digest), asked.version)
            answer = parse_answer(bytes(form.answer))
        else:
            versions = INCREMENTAL_REQUEST.decode(bytes(form.question))
            question = Extension(versions.start, versions.end)
            answer = IncrementalProof.from_json(bytes(form.answer))
        return cls.of(question, answer, [Snapshot.from_json(bytes(raw)) for raw in form.snapshots])

    @classmethod
    def read(cls, file: BinaryIO) -> Bundle:
        """Return the bundle in an open file.

        Args:
            file: The open file; no more is read than the largest bundle, and a byte.

        Returns:
            The bundle.

        Raises:
            OSError: The file cannot be read.
            MalformedProof: The content is not a bundle.
        """
        return cls.from_json(file.read(_BYTES_MAX + 1))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Bundle:
        """Return the bundle in a file.

        Args:
            path: The file.

        Returns:
            The bundle.

        Raises:
            OSError: The file cannot be read.
            MalformedProof: The content is not a bundle.
        """
        with open_at_once(path) as file:
            return cls.read(file)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the bundle to a file and sync it. If that fails, the file keeps its old content.

        Args:
            path: The file. A path that is not a regular file, such as `/dev/stdout`, is written to directly.

        Raises:
            OSError: The file, which the error names, cannot be written.
            ReceiptsError: It is a receipts file, which cannot be had again.
        """
        target = Path(path)
        if target.is_file() and is_receipts_file(target):
            raise ReceiptsError(f"{path} is a receipts file: choose another name for the bundle")
        save_file(target, self.to_json())


def question_form(question: Question) -> Mapping[str, object]:
    """Return the fields of a question in a bundle."""
    if isinstance(question, Membership):
        return {"KeyDigest": bytes(question.digest), "Version": question.version}
    return {"Start": question.start, "End": question.end}
