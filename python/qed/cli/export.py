"""`qed export`: give others a proof in a format that their tools read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qed._files import open_at_once, save_file
from qed.cli.inputs import open_input
from qed.cli.options import FILE, INPUT, command, current_session
from qed.cli.signed import content_of
from qed.errors import MalformedProof
from qed.signed import SignedBundle, SignedReceipt, TlogProof

if TYPE_CHECKING:
    from qed.signed import Signed

__all__ = ["export"]


@command(
    "export",
    examples=[
        "qed export --tlog-proof receipt.json --out event.tlog-proof",
        "qed export --tlog-proof proof.json > event.tlog-proof",
    ],
    is_offline=True,
)
@click.option(
    "--tlog-proof",
    "path",
    type=INPUT,
    required=True,
    metavar="PATH",
    help="A signed receipt of one event, or a signed bundle; - is stdin.",
)
@click.option("--out", type=FILE, metavar="PATH", help="Write to this file. Default: stdout.")
def export(*, path: str, out: str | None) -> None:
    """Write a proof as a C2SP .tlog-proof file, which tools of other transparency logs verify.

    Nothing is verified here. The file has the entry of the log, the proof that it is in the tree, and the signed
    checkpoint. Of a bundle, it is the entry of the newest version that the answer rests on.
    """
    with open_input("-") if path == "-" else open_at_once(path) as file:
        content = content_of(file)
    if content.bundle is not None or content.unsigned or len(content.signed) != 1:
        raise MalformedProof("expected one signed receipt or bundle, found another file")
    proof = _proof_of(content.signed[0])
    if out is None:
        sys.stdout.buffer.write(proof.to_bytes())
        sys.stdout.buffer.flush()
        return
    save_file(Path(out), proof.to_bytes())
    current_session().terminal.note(f"wrote the proof to {out}")


def _proof_of(signed: Signed) -> TlogProof:
    if isinstance(signed, SignedReceipt | SignedBundle):
        return signed.to_proof()
    return signed
