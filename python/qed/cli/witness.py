"""`qed witness`: cosign the checkpoints of transparency logs."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from qed.cli.options import FILE, RECEIPTS, command, current_session, group
from qed.cli.terminal import configure_logging
from qed.server.addresses import Address, SettingsError
from qed.server.config import ServerTls

if TYPE_CHECKING:
    from qed.witness.settings import Settings
    from qed.witness.witness import Witness

__all__ = ["ADD_KEYS", "NEW_DATABASE", "TLS_CERT", "TLS_KEY", "address", "moment", "tls_of", "witness"]

TLS_CERT: Final = click.option(
    "--tls-cert", type=RECEIPTS, metavar="FILE", help="PEM file with the certificate. Read again on SIGHUP."
)
TLS_KEY: Final = click.option("--tls-key", type=RECEIPTS, metavar="FILE", help="PEM file with the key of --tls-cert.")
NEW_DATABASE: Final = click.option(
    "--new-database", is_flag=True, help="Make the database. Only for keys that have never signed anything."
)
ADD_KEYS: Final = click.option(
    "--add-keys",
    is_flag=True,
    help="Let keys sign that the database does not know. Only for keys that have never signed anything.",
)

_LISTEN: Final = "127.0.0.1:8900"
_RUN: Final = "qed witness run --key w.key --database w.db --logs logs.toml"
_KEY_CHARACTERS: Final = 60
"""As many as an Ed25519 key has, and more."""
_START_CHARACTERS: Final = 8
_DATABASE: Final = click.option(
    "--database", required=True, type=RECEIPTS, metavar="FILE", help="The database of the witness."
)


@group(
    "witness",
    examples=[
        f"{_RUN} --new-database",
        "qed witness status --database w.db",
        "qed witness evidence --database w.db",
    ],
)
def witness() -> None:
    """Run a witness, and show what it has cosigned.

    A witness cosigns the checkpoints of transparency logs (C2SP tlog-witness), each only if it extends the one before.
    """


def address(_ctx: click.Context, _param: click.Parameter, text: str) -> Address:
    """Return the address in an option."""
    try:
        return Address.parse(text)
    except SettingsError as exc:
        raise click.BadParameter(str(exc)) from exc


@command("run", examples=[f"{_RUN} --new-database", _RUN], is_offline=True)
@click.option(
    "--key",
    required=True,
    type=RECEIPTS,
    metavar="FILE",
    help="The private keys, as `qed log-key generate --witness` makes them.",
)
@click.option(
    "--database", required=True, type=FILE, metavar="FILE", help="What the witness has cosigned. It must never be lost."
)
@click.option(
    "--logs",
    multiple=True,
    type=RECEIPTS,
    metavar="FILE",
    help="A list of logs to cosign for, in TOML or as logs/v0. Can be repeated. Read again on SIGHUP.",
)
@click.option(
    "--vkey",
    "vkeys",
    multiple=True,
    metavar="VKEY",
    help="The public key of a log to cosign for. Can be repeated; those of one name are of one log.",
)
@click.option(
    "--listen",
    default=_LISTEN,
    show_default=True,
    callback=address,
    metavar="HOST:PORT",
    help="Address for logs and monitors.",
)
@click.option("--submission-prefix", default="", metavar="PATH", help="Path before /add-checkpoint, such as /witness.")
@click.option("--monitoring-prefix", default="", metavar="PATH", help="Path before /HASH/checkpoint.")
@TLS_CERT
@TLS_KEY
@click.option(
    "--allow-extensions",
    is_flag=True,
    help="Cosign checkpoints with extension lines too, with the key of kind 04 only.",
)
@NEW_DATABASE
@ADD_KEYS
def run(  # noqa: PLR0913  # one argument an option
    *,
    key: str,
    database: str,
    logs: tuple[str, ...],
    vkeys: tuple[str, ...],
    listen: Address,
    submission_prefix: str,
    monitoring_prefix: str,
    tls_cert: str | None,
    tls_key: str | None,
    allow_extensions: bool,
    new_database: bool,
    add_keys: bool,
) -> None:
    """Cosign checkpoints until SIGINT or SIGTERM, which both end with exit code 0.

    A log sends its checkpoints to /add-checkpoint. The last one that was cosigned is at /HASH/checkpoint, where HASH
    is the SHA-256 of the log's name in hexadecimal.
    """
    from qed.witness.settings import Settings  # noqa: PLC0415  # the HTTP server takes a third of a second to import

    session = current_session()
    if session.settings.log_level is None:
        configure_logging("info")
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    if not (logs or vkeys):
        raise click.UsageError("expected --logs FILE or --vkey VKEY: a witness cosigns only for logs that it knows")
    _serve(
        Settings(
            key=Path(key),
            database=Path(database),
            log_files=tuple(map(Path, logs)),
            vkeys=vkeys,
            listen=listen,
            submission_prefix=submission_prefix,
            monitoring_prefix=monitoring_prefix,
            tls=tls_of(tls_cert, tls_key),
            allows_extensions=allow_extensions,
            is_new=new_database,
            adds_keys=add_keys,
        )
    )


def tls_of(certificate: str | None, key: str | None) -> ServerTls | None:
    """Return the certificate that two options name, or None if neither is given."""
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise click.UsageError("expected --tls-cert and --tls-key together")
    return ServerTls(certificate=Path(certificate), key=Path(key), client_ca=None)


def _serve(settings: Settings) -> None:
    from qed.witness.serving import serve  # noqa: PLC0415  # as above

    terminal = current_session().terminal

    def announce(url: str, running: Witness) -> None:
        count = len(running.logs)
        terminal.line(f"Witness {running.name} listens on {url} for {count} log{'' if count == 1 else 's'}")
        terminal.records([{"Witness": running.name, "Url": url, "Vkeys": running.vkeys, "Logs": count}])

    serve(settings, on_listening=announce)


@command("status", examples=["qed witness status --database witness.db"], is_offline=True)
@_DATABASE
def status(*, database: str) -> None:
    """Show what a witness has cosigned last of each log, while it runs or not."""
    from qed.witness.store import Store  # noqa: PLC0415  # nothing else here needs SQLite

    terminal = current_session().terminal
    store = Store.open(Path(database))
    try:
        states, evidence, vkeys, dropped = store.states(), store.evidence(), store.vkeys(), store.dropped()
    finally:
        store.close()
    counts = {state.origin: sum(found.origin == state.origin for found in evidence) for state in states}
    terminal.lines(map(_shortened, vkeys))
    rows = [(state.origin, str(state.size), moment(state.time), str(counts[state.origin])) for state in states]
    terminal.table(["Log", "Size", "Cosigned", "Evidence"], rows)
    terminal.records(
        {
            "Origin": state.origin,
            "Size": state.size,
            "Root": state.root.hex(),
            "Time": state.time,
            "Evidence": counts[state.origin],
            "Dropped": sum(count for (origin, _), count in dropped.items() if origin == state.origin),
        }
        for state in states
    )


@command(
    "evidence",
    examples=["qed witness evidence --database witness.db", "qed --json witness evidence …"],
    is_offline=True,
)
@_DATABASE
def evidence(*, database: str) -> None:
    """Print the checkpoints that logs have signed, but that did not follow what the witness had cosigned.

    A `fork` is proof against the log: it has signed two roots of one size. An `unproven` one came with a wrong proof,
    which anyone can send.
    """
    from qed.witness.store import Store  # noqa: PLC0415  # as above

    terminal = current_session().terminal
    store = Store.open(Path(database))
    try:
        found, dropped = store.evidence(), store.dropped()
    finally:
        store.close()
    for one in found:
        terminal.fields(one.kind, [("Log", one.origin), ("Size", one.size), ("Received", moment(one.time))])
        terminal.lines([*one.note.splitlines(), "", "Cosigned before:", *one.last.splitlines()])
    terminal.records(
        {
            "Kind": one.kind,
            "Origin": one.origin,
            "Size": one.size,
            "Root": one.root.hex(),
            "Time": one.time,
            "Note": one.note,
            "Last": one.last,
        }
        for one in found
    )
    for (origin, kind), count in sorted(dropped.items()):
        terminal.note(
            f"{origin}: {count} more of kind {kind} were not kept, because the first ones take up all the room"
        )
    if not found:
        terminal.line("No evidence: every signed checkpoint extended the one before.")


for _command in (run, status, evidence):
    witness.add_command(_command)


def _shortened(vkey: str) -> str:
    """Return a public key on one line: one of ML-DSA-44 has 1.8 kB, and `qed log-key show` prints all of it."""
    name, key_id, key = vkey.split("+", 2)
    return vkey if len(key) <= _KEY_CHARACTERS else f"{name}+{key_id}+{key[:_START_CHARACTERS]}…"


def moment(seconds: int) -> str:
    """Return a time for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
