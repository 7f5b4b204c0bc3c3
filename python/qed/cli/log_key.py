"""`qed log-key`: the keys with which a log signs what it has shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from qed._files import PRIVATE, create_file
from qed.cli.options import FILE, RECEIPTS, command, current_session, group
from qed.cli.pem import blaming, read_private
from qed.log_keys import content_of_log_keys, new_log_keys, parse_log_keys

if TYPE_CHECKING:
    from qed.log_keys import SigningKey

__all__ = ["log_key"]


@group(
    "log-key",
    examples=[
        "qed log-key generate --origin log.example.com/payments --out log.key",
        "qed log-key show log.key",
    ],
)
def log_key() -> None:
    """Make and show the keys with which a log signs.

    The public keys are one line each: give them to those who verify. A key has two kinds, Ed25519 and ML-DSA-44.
    """


@command("generate", examples=["qed log-key generate --origin log.example.com/payments --out log.key"])
@click.option(
    "--origin", required=True, metavar="ORIGIN", help="The name of the log, such as log.example.com/payments."
)
@click.option(
    "--out", "path", required=True, type=FILE, metavar="FILE", help="A new file, which only its owner may read."
)
def generate(*, origin: str, path: str) -> None:
    """Make the keys of a log, and print its public keys.

    The origin is part of every signature and can never change, so choose a name that is yours.
    """
    keys = new_log_keys(origin)
    create_file(Path(path), content_of_log_keys(keys), mode=PRIVATE)
    _show(keys, path)


@command("show", examples=["qed log-key show log.key"])
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
    terminal.records([{"File": path, "Origin": keys[0].name, "Vkeys": [key.vkey for key in keys]}])
