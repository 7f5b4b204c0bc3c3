"""`qed cluster signers`: the keys with which the log signs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click
import msgspec

from qed.cli.client import connect
from qed.cli.options import command, current_session

if TYPE_CHECKING:
    from qed._wire import SignerRow

__all__ = ["signers"]

_ID_DIGITS: Final = 8
_SHOWN: Final = 48
"""Characters of a public key: those of ML-DSA-44 are 1.8 kB. `--json` has them whole."""


@command(
    "signers", examples=["qed cluster signers", "qed cluster signers --retire 4afe702e", "qed cluster signers --json"]
)
@click.option("--retire", metavar="ID", help="Sign nothing more with the key of this id.")
def signers(*, retire: str | None) -> None:
    """Show the keys with which the log signs.

    To change a key, put the new one into the key files of all members, below the old one, and restart them one after
    the other. Both sign then. Give users a policy with both, wait until they have it, and retire the old one. Policies
    keep a retired key, with the last size that it has signed.
    """
    if retire is not None and (len(retire) != _ID_DIGITS or not set(retire) <= set("0123456789abcdef")):
        raise click.UsageError(f"--retire: expected the id of a key, 8 hexadecimal digits, found {retire!r}")
    session = current_session()
    with connect(session.settings) as client:
        found = client.signers() if retire is None else client.retire_signer(retire)
    terminal = session.terminal
    terminal.fields("Keys of the log:", [("Log", found.log or "not signed yet")])
    if found.signers:
        terminal.table(("id", "signs", "public key"), [_row(signer) for signer in found.signers])
    terminal.records([msgspec.to_builtins(found)])


def _row(signer: SignerRow) -> tuple[str, str, str]:
    until = "on" if signer.until is None else f"to {signer.until:,}, retired"
    return signer.vkey.split("+", 2)[1], f"from size {signer.since:,} {until}", f"{signer.vkey[:_SHOWN]}…"
