"""What a log has signed: receipts, bundles, proof files and checkpoints. Nothing is verified without a `qed.Policy`."""

from __future__ import annotations

from typing import Final, TypeAlias

from qed._qed import Checkpoint, Shown, SignedBundle, SignedReceipt, TlogProof, TrustFile

__all__ = [
    "SIGNED_BYTES_MAX",
    "Checkpoint",
    "Shown",
    "Signed",
    "SignedBundle",
    "SignedReceipt",
    "TlogProof",
    "TrustFile",
]

Signed: TypeAlias = SignedReceipt | SignedBundle | TlogProof

SIGNED_BYTES_MAX: Final = 24 * 1024 * 1024
"""The longest receipt. Bundles and proof files are shorter."""
