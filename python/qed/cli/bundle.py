"""A bundle: a question, its answer and the snapshots to check it by, in one JSON file that needs no server."""

from __future__ import annotations

import json
import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from qed._wire import DIGEST_MEMBERSHIP_REQUEST, INCREMENTAL_REQUEST
from qed.cli.inputs import open_input
from qed.cli.questions import Answer, IncrementalQuestion, MembershipQuestion, Question, versions_of
from qed.cli.receipts import sync_folder
from qed.errors import MalformedProof, VerificationError
from qed.proofs import Digest, IncrementalProof, Snapshot, parse_answer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Bundle"]

# The longest answers, 256 hyper siblings and two history paths of 64 levels, take about 50 KB.
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
            question=msgspec.Raw(msgspec.json.encode(_question_form(asked))),
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
            is_exact = json.loads(text, object_pairs_hook=_once) == json.loads(bundle.to_json())
        except (msgspec.MsgspecError, ValueError) as exc:
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
            asked = DIGEST_MEMBERSHIP_REQUEST.decode(bytes(form.question))
            question = MembershipQuestion(Digest(asked.key_digest), asked.version)
            answer = parse_answer(bytes(form.answer))
        else:
            versions = INCREMENTAL_REQUEST.decode(bytes(form.question))
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
        with open_input(path) as file:
            return cls.from_json(file.read(_BYTES_MAX + 1))

    def save(self, path: Path) -> None:
        """Write the bundle to a file, synced: all of it, or the file stays as it was.

        Args:
            path: The file. What is no regular file, such as `/dev/stdout`, is written to as it is.

        Raises:
            OSError: It cannot be written; names the file.
        """
        try:
            if path.exists() and not path.is_file():
                path.write_bytes(self.to_json())
            else:
                # Unlike `resolve`, this leaves a loop of links to be found when the file is opened.
                _replace(Path(os.path.realpath(path)), self.to_json())
        except OSError as exc:
            exc.filename = str(path)
            raise

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


def _replace(path: Path, content: bytes) -> None:
    """Give a file new content in one step: a crash leaves the old one or the new one, and perhaps a file beside it."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with beside.open("xb") as file:
            with suppress(FileNotFoundError):
                os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _question_form(question: Question) -> dict[str, object]:
    if isinstance(question, MembershipQuestion):
        return {"KeyDigest": bytes(question.digest), "Version": question.version}
    return {"Start": question.start, "End": question.end}


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return a JSON object of which every field was given once: readers differ in which of two they believe."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is there twice")
    return found
