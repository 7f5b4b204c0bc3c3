"""Signed checkpoints and receipts from their definitions: an oracle that shares no code with the core.

The log is that of the vectors: version `i` has the event `event i`, and batches of three end at versions 2, 5 and 8.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

if TYPE_CHECKING:
    from collections.abc import Sequence

    import qed

__all__ = [
    "LOG",
    "NOW",
    "ORIGIN",
    "OWN",
    "WITNESSES",
    "Signer",
    "World",
    "b64",
    "bundle_of",
    "event",
    "honest_entry",
    "leaf",
    "membership_bundle",
    "policy_of",
    "signed_log",
]

OWN: Final[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors" / "trust.json").read_text())["own"]
ORIGIN: Final = "log.example.com/test"
NOW: Final = 1_700_000_000
SIZE: Final = 9
BATCH: Final = 3


def b64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def event(version: int) -> bytes:
    return f"event {version}".encode()


def _digest(text: str, version: int) -> bytes:
    return hashlib.sha256(f"{text} {version}".encode()).digest()


@dataclass(frozen=True)
class Signer:
    """A key with a name: Ed25519 of a log (kind 1) or a witness (kind 4), or ML-DSA-44 of either (kind 6)."""

    name: str
    kind: int
    number: int

    @property
    def _key(self) -> Ed25519PrivateKey | MLDSA44PrivateKey:
        seed = bytes([self.number]) * 32
        return MLDSA44PrivateKey.from_seed_bytes(seed) if self.kind == 6 else Ed25519PrivateKey.from_private_bytes(seed)

    @property
    def _public(self) -> bytes:
        return bytes([self.kind]) + self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def _id(self) -> bytes:
        return hashlib.sha256(self.name.encode() + b"\n" + self._public).digest()[:4]

    @property
    def vkey(self) -> str:
        return f"{self.name}+{self._id.hex()}+{b64(self._public)}"

    def line(self, text: str, time: int = NOW, *, context: bytes | None = None) -> str:
        """Return the signature line for the text of a checkpoint; `context` is that of ML-DSA-44, which is empty."""
        key = self._key
        if isinstance(key, MLDSA44PrivateKey):
            signature = struct.pack(">Q", time) + key.sign(self._subtree(text, time), context)
        elif self.kind == 1:
            signature = key.sign(text.encode())
        else:
            signature = struct.pack(">Q", time) + key.sign(f"cosignature/v1\ntime {time}\n{text}".encode())
        return self.line_of(signature)

    def line_of(self, signature: bytes) -> str:
        """Return a line of this key with any signature."""
        return f"\u2014 {self.name} {b64(self._id + signature)}\n"

    def _subtree(self, text: str, time: int) -> bytes:
        """Return what ML-DSA-44 signs of a checkpoint: the tree from its first leaf on, and not the extension lines."""
        origin, size, tree = text.split("\n")[:3]
        names = [bytes([len(name)]) + name for name in (self.name.encode(), origin.encode())]
        start = b"subtree/v1\n\0" + names[0] + struct.pack(">Q", time) + names[1]
        return start + struct.pack(">QQ", 0, int(size)) + base64.b64decode(tree)


LOG: Final = Signer(ORIGIN, 1, 1)
WITNESSES: Final = tuple(Signer(f"w{number}.example.com", 4, 10 + number) for number in (1, 2, 3))


def policy_of(quorum: str = "two", *more: str) -> str:
    """Return a policy with the log and three witnesses; the group `two` is two of them."""
    lines = [f"log {LOG.vkey}", *(f"witness w{i} {witness.vkey}" for i, witness in enumerate(WITNESSES, 1))]
    return "\n".join([*lines, *more, "group two 2 w1 w2 w3", f"quorum {quorum}", ""])


def leaf(entry: bytes) -> bytes:
    return hashlib.sha256(b"\0" + entry).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256().digest()
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + root(leaves[:half]) + root(leaves[half:])).digest()


def range_proof(leaves: Sequence[bytes], first: int, end: int, low: int = 0) -> list[bytes]:
    high = low + len(leaves)
    if high <= first or end <= low:
        return [root(leaves)]
    if len(leaves) == 1:
        return []
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return range_proof(leaves[:half], first, end, low) + range_proof(leaves[half:], first, end, low + half)


def honest_entry(version: int) -> bytes:
    is_last = version % BATCH == BATCH - 1
    start = bytes([1, is_last]) + struct.pack(">Q", version) + hashlib.sha256(event(version)).digest()
    return start + (_digest("history", version) + _digest("hyper", version) if is_last else b"")


@dataclass
class World:
    """What a log has signed, honest by default."""

    entries: list[bytes] = field(default_factory=lambda: [honest_entry(version) for version in range(SIZE)])
    origin: str = ORIGIN
    extensions: str = ""

    @property
    def text(self) -> str:
        tree = root([leaf(entry) for entry in self.entries])
        return f"{self.origin}\n{len(self.entries)}\n{b64(tree)}\n{self.extensions}"

    def note(self, *lines: str) -> str:
        """Return the note with these lines, by default those of the log and the first two witnesses."""
        return f"{self.text}\n{''.join(lines or self.lines())}"

    def lines(self) -> list[str]:
        return [signer.line(self.text) for signer in (LOG, *WITNESSES[:2])]

    def proof(self, first: int, end: int) -> list[str]:
        return [b64(node) for node in range_proof([leaf(entry) for entry in self.entries], first, end)]

    def snapshot(self, version: int) -> dict[str, object]:
        return {
            "EventDigest": b64(hashlib.sha256(event(version)).digest()),
            "HistoryDigest": b64(_digest("history", version)),
            "HyperDigest": b64(_digest("hyper", version // BATCH * BATCH + BATCH - 1)),
            "Version": version,
        }

    def receipt(self, first: int = 3, end: int = 4, note: str | None = None) -> dict[str, Any]:
        """Return the receipt of a range within a batch."""
        last = (end - 1) // BATCH * BATCH + BATCH - 1
        batch_end = {"Version": last, "Entry": b64(self.entries[last]), "Proof": self.proof(last, last + 1)}
        return {
            "Format": "qed-receipt-1",
            "First": first,
            "Entries": [b64(entry) for entry in self.entries[first:end]],
            "Proof": self.proof(first, end),
            "End": None if last == end - 1 else batch_end,
            "Snapshots": [self.snapshot(version) for version in range(first, end)],
            "Checkpoint": self.note() if note is None else note,
        }


def signed_log(log: qed.Log) -> World:
    """Return what the log signs: its entries, at most 255."""
    size = len(log)
    rest = bytes(log.tile(f"tile/entries/000.p/{size}"))
    entries = []
    while rest:
        (length,) = struct.unpack(">H", rest[:2])
        entries.append(rest[2 : 2 + length])
        rest = rest[2 + length :]
    return World(entries=entries)


def bundle_of(world: World, kind: str, question: object, answer: qed.Answer | None, *versions: int) -> dict[str, Any]:
    """Return the signed bundle of an answer that rests on the roots of these versions."""

    def snapshot(entry: bytes) -> dict[str, object]:
        parts = [b64(entry[10 + 32 * i : 42 + 32 * i]) for i in range(3)]
        (version,) = struct.unpack(">Q", entry[2:10])
        return dict(zip(("EventDigest", "HistoryDigest", "HyperDigest"), parts, strict=True)) | {"Version": version}

    return {
        "Format": "qed-bundle-2",
        "Kind": kind,
        "Question": question,
        "Answer": None if answer is None else json.loads(answer.to_json()),
        "Snapshots": [snapshot(world.entries[version]) for version in versions if world.entries[version][1] & 1],
        "Entries": [
            {"Version": version, "Entry": b64(world.entries[version]), "Proof": world.proof(version, version + 1)}
            for version in versions
        ],
        "Checkpoint": world.note(),
    }


def membership_bundle(log: qed.Log, asked: bytes) -> dict[str, Any]:
    """Return a bundle with the answer to whether an event is in the log, which has at most 255 events."""
    question = {"KeyDigest": b64(hashlib.sha256(asked).digest()), "Version": None}
    return bundle_of(signed_log(log), "membership", question, log.membership(asked), len(log) - 1)
