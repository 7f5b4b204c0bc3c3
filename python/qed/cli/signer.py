"""`qed signer`: hold the private keys of a log, and sign only what extends what was signed before."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from qed.cli.options import FILE, RECEIPTS, command, current_session, group
from qed.cli.terminal import configure_logging
from qed.cli.witness import ADD_KEYS, NEW_DATABASE, TLS_CERT, TLS_KEY, address, moment, tls_of

if TYPE_CHECKING:
    from qed.server.addresses import Address
    from qed.witness.witness import Witness

__all__ = ["signer"]

_LISTEN: Final = "127.0.0.1:8901"
_RUN: Final = "qed signer run --key log.key --database signer.db --submitter VKEY --socket /run/qed/signer.sock"
_STATUS: Final = "qed signer status --database signer.db"


@group("signer", examples=[f"{_RUN} --new-database", _STATUS])
def signer() -> None:
    """Run a signer, and show what it has signed.

    A signer holds the private keys of a log, so that its servers need not. It signs a checkpoint only if it extends
    the one that it signed before.
    """


@command("run", examples=[f"{_RUN} --new-database", _RUN])
@click.option(
    "--key",
    required=True,
    type=RECEIPTS,
    metavar="FILE",
    help="The private keys, as `qed log-key generate --origin` makes them.",
)
@click.option(
    "--database", required=True, type=FILE, metavar="FILE", help="What the signer has signed. It must never be lost."
)
@click.option(
    "--submitter",
    "submitters",
    required=True,
    multiple=True,
    metavar="VKEY",
    help="The public key of a server that may ask, with a name below that of the log. Can be repeated.",
)
@click.option("--socket", type=FILE, metavar="PATH", help="Unix socket to listen on, for its owner only.")
@click.option(
    "--listen",
    default=_LISTEN,
    show_default=True,
    callback=address,
    metavar="HOST:PORT",
    help="Address to listen on, unless there is a socket.",
)
@TLS_CERT
@TLS_KEY
@NEW_DATABASE
@ADD_KEYS
def run(  # noqa: PLR0913  # one argument an option
    *,
    key: str,
    database: str,
    submitters: tuple[str, ...],
    socket: str | None,
    listen: Address,
    tls_cert: str | None,
    tls_key: str | None,
    new_database: bool,
    add_keys: bool,
) -> None:
    """Sign checkpoints until SIGINT or SIGTERM, which both end with exit code 0.

    A server sends its checkpoints to /add-checkpoint, signed with the key of a submitter.
    """
    from qed.signer.serving import serve  # noqa: PLC0415  # the HTTP server takes a third of a second to import
    from qed.signer.settings import Settings  # noqa: PLC0415  # as above

    session = current_session()
    if session.settings.log_level is None:
        configure_logging("info")
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    if socket is not None and tls_cert is not None:
        raise click.UsageError("expected --socket or --tls-cert, found both: a Unix socket needs no TLS")

    def announce(where: str, running: Witness) -> None:
        session.terminal.line(f"Signer of {running.name} listens on {where}")
        session.terminal.records([{"Origin": running.name, "Url": where, "Vkeys": running.vkeys}])

    serve(
        Settings(
            key=Path(key),
            database=Path(database),
            submitters=submitters,
            listen=listen if socket is None else Path(socket),
            tls=tls_of(tls_cert, tls_key),
            is_new=new_database,
            adds_keys=add_keys,
        ),
        on_listening=announce,
    )


@command("status", examples=[_STATUS])
@click.option("--database", required=True, type=RECEIPTS, metavar="FILE", help="The database of the signer.")
def status(*, database: str) -> None:
    """Show what a signer has signed last, and what it has refused, while it runs or not."""
    from qed.witness.store import Store  # noqa: PLC0415  # nothing else here needs SQLite

    terminal = current_session().terminal
    store = Store.open(Path(database), owner="signer")
    try:
        states, refused, vkeys = store.states(), len(store.evidence()), store.vkeys()
    finally:
        store.close()
    terminal.lines(vkeys)
    rows = [(state.origin, str(state.size), moment(state.time), str(refused)) for state in states]
    terminal.table(["Log", "Size", "Signed", "Refused"], rows)
    terminal.records(
        {
            "Origin": state.origin,
            "Size": state.size,
            "Root": state.root.hex(),
            "Time": state.time,
            "Refused": refused,
        }
        for state in states
    )


for _command in (run, status):
    signer.add_command(_command)
