"""`qed log-key`: the keys with which a log signs what it has shown, and a witness what it has seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from qed._files import PRIVATE, create_file
from qed.cli.options import FILE, RECEIPTS, command, current_session, group
from qed.cli.pem import blaming, read_private
from qed.log_keys import content_of_log_keys, new_log_keys, new_witness_keys, parse_log_keys

if TYPE_CHECKING:
    from qed.log_keys import SigningKey

__all__ = ["log_key"]

_COSIGNATURE: Final = 4
"""The kind of key that only witnesses have."""


@group(
    "log-key",
    examples=[
        "qed log-key generate --origin log.example.com/payments --out log.key",
        "qed log-key generate --witness witness.example.com/w1 --out witness.key",
        "qed log-key show log.key",
    ],
)
def log_key() -> None:
    """Make and show the keys with which a log or a witness signs.

    The public keys are one line each: give them to those who verify. A key has two kinds, Ed25519 and ML-DSA-44.
    """


@command(
    "generate",
    examples=[
        "qed log-key generate --origin log.example.com/payments --out log.key",
        "qed log-key generate --witness witness.example.com/w1 --out witness.key",
    ],
    is_offline=True,
)
@click.option("--origin", metavar="ORIGIN", help="The name of the log, such as log.example.com/payments.")
@click.option("--witness", metavar="NAME", help="The name of the witness, such as witness.example.com/w1.")
@click.option(
    "--out", "path", required=True, type=FILE, metavar="FILE", help="A new file, which only its owner may read."
)
def generate(*, origin: str | None, witness: str | None, path: str) -> None:
    """Make the keys of a log or of a witness, and print its public keys.

    The name is part of every signature and can never change, so choose one that is yours.
    """
    if (origin is None) == (witness is None):
        raise click.UsageError("expected --origin ORIGIN for a log, or --witness NAME for a witness")
    keys = new_witness_keys(witness) if origin is None else new_log_keys(origin)  # type: ignore[arg-type]  # one is given
    create_file(Path(path), content_of_log_keys(keys), mode=PRIVATE)
    _show(keys, path)


@command("show", examples=["qed log-key show log.key"], is_offline=True)
@click.argument("path", type=RECEIPTS, metavar="FILE")
def show(*, path: str) -> None:
    """Print the public keys of a key file, Ed25519 first.

    Nobody but its owner may be able to read the file.
    """
    content = read_private(path, may_group_read=False)
    with blaming(path):
        keys = parse_log_keys(content)
    _show(keys, path)


for _command in (generate, show):
    log_key.add_command(_command)


def _show(keys: list[SigningKey], path: str) -> None:
    """Print the public keys, one a line and nothing else: scripts use them as they are."""
    terminal = current_session().terminal
    for key in keys:
        terminal.line(key.vkey)
    owner = "Witness" if any(key.kind == _COSIGNATURE for key in keys) else "Origin"
    terminal.records([{"File": path, owner: keys[0].name, "Vkeys": [key.vkey for key in keys]}])
