"""What a log has signed: receipts, bundles, proof files and checkpoints. Nothing is verified without a `qed.Policy`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from qed._qed import Checkpoint, Shown, SignedBundle, SignedReceipt, TlogProof, TrustFile

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "SIGNED_BYTES_MAX",
    "Checkpoint",
    "Shown",
    "Signed",
    "SignedBundle",
    "SignedReceipt",
    "TlogProof",
    "TrustFile",
    "trust_in",
]

Signed: TypeAlias = SignedReceipt | SignedBundle | TlogProof

SIGNED_BYTES_MAX: Final = 24 * 1024 * 1024
"""The longest receipt. Bundles and proof files are shorter."""


def trust_in(vkeys: Iterable[str]) -> TrustFile:
    """Return what verifies checkpoints of a log with these public keys, and demands nothing else of it."""
    return TrustFile.parse("".join([*(f"log {vkey}\n" for vkey in vkeys), "quorum none\n"]).encode())
