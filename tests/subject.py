"""The real log, answering in wire form, so that it can be compared with the oracle and the recorded answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oracle import AddedLaterError, Json, RefusedError
from oracle_verify import parse
from qed import _qed
from qed.errors import AddedLater, UnknownVersion

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class Subject:
    """A real log, in memory or under `path`, with the calls of `OracleLog`. It raises the oracle's errors."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = None if path is None else str(path)
        self.log = _qed.Log.open(self._path)

    def reopen(self) -> None:
        self.log.close()
        self.log = _qed.Log.open(self._path)

    def append_events(self, events: list[bytes]) -> list[Json]:
        return wire_snapshots(self.log.add(events))

    def append(self, digests: Iterable[bytes], *, if_absent: bool = False) -> _qed.Added:
        return self.log.add([_qed.Digest(digest) for digest in digests], if_absent=if_absent)

    def snapshot(self, version: int) -> Json:
        return parse(self.log.snapshot(version).to_json())

    def prove(self, digest: bytes, version: int | None = None) -> _qed.MembershipProof | _qed.AbsenceProof:
        try:
            return self.log.membership(_qed.Digest(digest), version=version)
        except AddedLater as refusal:
            raise AddedLaterError(refusal.first_version) from refusal
        except UnknownVersion as refusal:
            raise RefusedError(str(refusal)) from refusal

    def membership(self, digest: bytes, version: int | None = None, *, key: bytes | None = None) -> Json:
        return parse(self.prove(digest, version).to_json(key=key))

    def incremental(self, start: int, end: int) -> Json:
        try:
            return parse(self.log.incremental(start, end).to_json())
        except UnknownVersion as refusal:
            raise RefusedError(str(refusal)) from refusal


def wire_snapshots(added: _qed.Added) -> list[Json]:
    return [parse(snapshot.to_json()) for snapshot in added.snapshots]
