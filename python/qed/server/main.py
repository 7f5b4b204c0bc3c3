"""The `qed-server` command: parses the settings and serves until it receives a signal."""

from __future__ import annotations

import logging
import os
import resource
import shlex
import signal
import socket
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click
from click.core import ParameterSource

from qed._limits import LOG_LEVELS
from qed.errors import QedError
from qed.server.addresses import bound
from qed.server.config import Address, Limits, Pace, ServerTls, Settings, SettingsError, SigningSettings, Tls
from qed.server.logs import KeyValueFormatter, Line
from qed.server.opening import Opening
from qed.server.signals import handle_signals, hold_hangups
from qed.server.ways import Way, Ways

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from qed.server.access import Access
    from qed.server.node import Node
    from qed.server.tls import ServerContext

__all__ = ["main"]

_log = logging.getLogger(__name__)

_EXIT_FAILURE: Final = 1

_Command = TypeVar("_Command", bound="Callable[..., None]")


def _parse_address(_ctx: click.Context, _param: click.Parameter, text: str) -> Address:
    try:
        return Address.parse(text)
    except SettingsError as exc:
        raise click.BadParameter(str(exc)) from exc


def _parse_optional_address(ctx: click.Context, param: click.Parameter, text: str | None) -> Address | None:
    return None if text is None else _parse_address(ctx, param, text)


def _parse_ways(_ctx: click.Context, _param: click.Parameter, texts: tuple[str, ...]) -> tuple[Way, ...]:
    try:
        return tuple(Way.parse(text.strip()) for text in ",".join(texts).split(",") if text.strip())
    except SettingsError as exc:
        raise click.BadParameter(str(exc)) from exc


def _parse_url(_ctx: click.Context, _param: click.Parameter, text: str | None) -> Way | None:
    try:
        return None if text is None else Way.parse_url(text)
    except SettingsError as exc:
        raise click.BadParameter(str(exc)) from exc


def _parse_addresses(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> tuple[Address, ...]:
    return tuple(_parse_address(ctx, param, text) for text in ",".join(texts).split(",") if text.strip())


def _limit_options(command: _Command) -> _Command:
    """Give `command` one option for each setting of pace and each limit."""
    for limit in reversed([*fields(Pace), *fields(Limits)]):
        kind = click.INT if isinstance(limit.default, int) else click.FLOAT
        name = "--" + limit.name.replace("_", "-")
        option = click.option(name, type=kind, default=limit.default, show_default=True, help=limit.metadata["help"])
        command = option(command)
    return command


def _address_option(name: str, default: str, what: str) -> Callable[[_Command], _Command]:
    return click.option(
        name, metavar="HOST:PORT", callback=_parse_address, default=default, show_default=True, help=what
    )


def _advertise_options(command: _Command) -> _Command:
    """Give `command` an option for where others reach each address."""
    for name in ("raft", "metrics"):
        command = click.option(
            f"--{name}-advertise-addr",
            metavar="HOST:PORT",
            callback=_parse_optional_address,
            help=f"Address at which others reach --{name}-addr, if it differs: for a port mapping, or for 0.0.0.0.",
        )(command)
    for name in ("mgmt", "http"):
        command = click.option(
            f"--{name}-advertise-addr",
            f"{name}_advertise_addrs",
            envvar=f"QED_SERVER_{name.upper()}_ADVERTISE_ADDR",
            metavar="[NAME=]HOST:PORT,…",
            callback=_parse_ways,
            multiple=True,
            help=f"Address at which others reach --{name}-addr, if it differs. If clients come from several networks, "
            "one address for each, by names that are the same on every member.",
        )(command)
    return click.option(
        "--http-advertise-url",
        metavar="URL",
        callback=_parse_url,
        help="Base URL at which clients reach --http-addr through a proxy, such as https://log.example.com.",
    )(command)


def _tls_options(command: _Command) -> _Command:
    """Give `command` the options for TLS: with clients and operators, and between members."""
    for name, what in (
        ("tls-client-ca", "PEM file with the certificates that may sign those of clients, whose roles they name."),
        ("tls-key", "PEM file with the key of --tls-cert."),
        ("tls-cert", "PEM file with the certificate for clients and operators. They are read again on SIGHUP."),
        ("raft-tls-ca", "PEM file with the certificates that may sign those of members."),
        ("raft-tls-key", "PEM file with the key of this member's certificate."),
        ("raft-tls-cert", "PEM file with this member's certificate. Needs --raft-tls-key and --raft-tls-ca."),
    ):
        kind = click.Path(exists=True, dir_okay=False, path_type=Path)
        command = click.option(f"--{name}", type=kind, help=what)(command)
    return command


METRICS_ADDR: Final = "127.0.0.1:8600"
"""What members that have no address for metrics tell each other, as those of earlier builds do."""
_SIGNING: Final = (
    "origin",
    "signing_key",
    "signer",
    "submitter_key",
    "signer_command",
    "public_keys",
    "sign_memory",
    "policy",
    "trust_new_memory",
)
"""The options for signing."""


def _signing_options(command: _Command) -> _Command:
    """Give `command` the options for signing."""
    command = click.option(
        "--trust-new-memory",
        is_flag=True,
        help="Create --sign-memory although the log has events. Only if you are sure that nothing was signed that this "
        "log does not have.",
    )(command)
    for name, metavar, what in (
        ("public-keys", "FILE", "The public keys of the log, one a line, for --signer or --signer-command."),
        ("submitter-key", "FILE", "The key that signs requests to --signer."),
    ):
        kind = click.Path(path_type=Path)
        command = click.option(f"--{name}", metavar=metavar, type=kind, help=what)(command)
    command = click.option(
        "--signer-command",
        metavar="COMMAND",
        help="Command that signs, in place of --signing-key: it gets the text of a checkpoint, and prints lines.",
    )(command)
    command = click.option(
        "--signer",
        metavar="unix:PATH|URL",
        help="Where `qed signer run` listens, in place of --signing-key. Needs --submitter-key and --public-keys.",
    )(command)
    command = click.option(
        "--policy",
        type=click.Path(path_type=Path),
        help="File with the keys of the log and of witnesses, with their URLs. The server asks them to cosign, and "
        "publishes a checkpoint once there are as many as the policy demands.",
    )(command)
    command = click.option(
        "--sign-memory",
        type=click.Path(dir_okay=False, path_type=Path),
        help="File on another disk that remembers what was signed, so that an old copy of --data-dir signs nothing. "
        "It is created for an empty log.",
    )(command)
    command = click.option(
        "--signing-key",
        type=click.Path(path_type=Path),
        help="File with the private keys of the log, as `qed log-key generate` makes them; the same on every member.",
    )(command)
    return click.option(
        "--origin",
        metavar="NAME",
        help="Name of the log in what it signs, such as log.example.com/payments; the same on every member. It never "
        "changes. Needs --signing-key and --sign-memory.",
    )(command)


@click.command(context_settings={"auto_envvar_prefix": "QED_SERVER", "max_content_width": 120})
@click.option(
    "--node-id", default=socket.gethostname, show_default="the host name", help="Name of this member among its peers."
)
@_address_option("--http-addr", "127.0.0.1:8800", "Address for clients.")
@_address_option("--mgmt-addr", "127.0.0.1:8700", "Address for operators: `qed cluster`.")
@click.option(
    "--metrics-addr",
    metavar="HOST:PORT",
    callback=_parse_address,
    default=METRICS_ADDR,
    show_default="none",
    help="Address for metrics, such as 127.0.0.1:8600: Prometheus reads /metrics there.",
)
@_address_option("--raft-addr", "127.0.0.1:8500", "Address for the other members.")
@click.option(
    "--raft-join-addr",
    "raft_join_addrs",
    envvar="QED_SERVER_RAFT_JOIN_ADDR",
    metavar="HOST:PORT,…",
    callback=_parse_addresses,
    multiple=True,
    help="A member of the cluster to join, by its --raft-addr. Repeat it, or separate addresses by commas. Without it, "
    "an empty data folder starts a new cluster. A member that has joined no longer needs it.",
)
@_advertise_options
@click.option(
    "--cluster-secret-file",
    type=click.Path(path_type=Path),
    help="File with the secret that all members of the cluster know: 32 random bytes or more, as `qed cluster secret` "
    "makes them. Without it, --join-token-file or --raft-tls-*, the server is alone, and --raft-addr stays closed.",
)
@click.option(
    "--join-token-file",
    type=click.Path(path_type=Path),
    help="File with a token of `qed cluster token`, to join the cluster of --raft-join-addr without knowing its "
    "secret. It is used once, by the first start.",
)
@click.option(
    "--open",
    "is_open",
    envvar="QED_SERVER_OPEN",
    is_flag=True,
    help="Let everyone who can connect do everything, without a key. Needed only beyond this machine.",
)
@_tls_options
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    default=Path("qed-data"),
    show_default="./qed-data",
    help="Folder that holds the log. It is created if it does not exist.",
)
@click.option(
    "--backup-dir",
    type=click.Path(path_type=Path),
    show_default="backups in --data-dir",
    help="Folder for the backups that this server keeps, best on another disk. `qed backup create --to` needs none.",
)
@click.option(
    "--high-water",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File on another disk that notes, every second, how far this server is, so that it does not start on an old "
    "copy of --data-dir, nor on an empty folder.",
)
@_signing_options
@click.option(
    "--log",
    "log_level",
    envvar="QED_SERVER_LOG",
    type=click.Choice(LOG_LEVELS, case_sensitive=False),
    default="info",
    show_default=True,
    help="Lowest level of the lines that are logged to stderr.",
)
@_limit_options
@click.version_option(package_name="qed-log")
def main(  # noqa: PLR0913  # one argument an option
    *,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    raft_tls_cert: Path | None,
    raft_tls_key: Path | None,
    raft_tls_ca: Path | None,
    data_dir: Path,
    backup_dir: Path | None,
    high_water: Path | None,
    http_advertise_url: Way | None,
    http_advertise_addrs: tuple[Way, ...],
    mgmt_advertise_addrs: tuple[Way, ...],
    **others: Any,  # noqa: ANN401  # each option has the name and the type of its setting
) -> None:
    """Serve one member of a tamper-evident log until SIGTERM or SIGINT.

    Every option can also be set in the environment, as QED_SERVER_ and its name: QED_SERVER_DATA_DIR for --data-dir.
    Exit codes: 0 after a signal, 1 when the data folder, the port or the disk fails, 2 for wrong options.

    Example: qed-server --node-id server0 --http-addr 127.0.0.1:8800 --data-dir ./qed-data
    """
    try:
        settings = Settings(
            http_advertise_addr=_ways(http_advertise_url, *http_advertise_addrs),
            mgmt_advertise_addr=_ways(*mgmt_advertise_addrs),
            tls=_server_tls(tls_cert, tls_key, tls_client_ca),
            raft_tls=_tls(raft_tls_cert, raft_tls_key, raft_tls_ca),
            signing=_signing({name: others.pop(name) for name in _SIGNING}),
            data_dir=data_dir.absolute(),
            backup_dir=None if backup_dir is None else backup_dir.absolute(),
            serves_metrics=click.get_current_context().get_parameter_source("metrics_addr")
            is not ParameterSource.DEFAULT,
            high_water=None if high_water is None else high_water.absolute(),
            pace=Pace(**{setting.name: others.pop(setting.name) for setting in fields(Pace)}),
            limits=Limits(**{limit.name: others.pop(limit.name) for limit in fields(Limits)}),
            **others,
        )
    except SettingsError as exc:
        raise click.UsageError(str(exc)) from exc
    _run(settings)


def _ways(*found: Way | None) -> Ways | None:
    given = tuple(way for way in found if way is not None)
    return Ways(given) if given else None


def _server_tls(certificate: Path | None, key: Path | None, client_ca: Path | None) -> ServerTls | None:
    if certificate is None and key is None and client_ca is None:
        return None
    if certificate is None or key is None:
        raise SettingsError("expected --tls-cert and --tls-key together, also with --tls-client-ca")
    return ServerTls(certificate=certificate, key=key, client_ca=client_ca)


def _tls(certificate: Path | None, key: Path | None, ca: Path | None) -> Tls | None:
    if certificate is None and key is None and ca is None:
        return None
    if certificate is None or key is None or ca is None:
        raise SettingsError("expected --raft-tls-cert, --raft-tls-key and --raft-tls-ca together")
    return Tls(certificate=certificate, key=key, ca=ca)


def _signing(given: dict[str, Any]) -> SigningSettings | None:
    if not any(given.values()):
        return None
    origin, memory = given["origin"], given["sign_memory"]
    if origin is None or memory is None:
        raise SettingsError("expected --origin, --sign-memory and --signing-key together")
    return SigningSettings(
        origin=origin,
        memory=memory.absolute(),
        key=given["signing_key"],
        signer=given["signer"],
        submitter_key=given["submitter_key"],
        command=tuple(shlex.split(given["signer_command"] or "")),
        public_keys=given["public_keys"],
        policy=given["policy"],
        trusts_new_memory=given["trust_new_memory"],
    )


def _run(settings: Settings) -> None:
    """Open, serve, close; raise `SystemExit` on failure."""
    # The files of the store get their permissions from this: only the owner may read or write them.
    os.umask(0o077)
    _configure_logging(settings.log_level)
    handle_signals(_stop_before_serving)
    # A hangup would end the process. It is handled once the server can read its files again.
    hold_hangups()
    _raise_descriptor_limit(settings.limits)
    # Whoever has no means to tell members from strangers does not listen to them.
    raft = ["raft_addr"] if settings.has_credentials else []
    listeners = {name: _bind(getattr(settings, name)) for name in (*settings.http_names, *raft)}
    bound = {
        name: replace(getattr(settings, name), port=listener.getsockname()[1]) for name, listener in listeners.items()
    }
    try:
        settings = replace(settings, **bound)
    except SettingsError as exc:  # The system chose one port for two addresses.
        _fail(str(exc))
    _warn_of_unreachable_addresses(settings)
    begun_s = time.perf_counter()
    node = _open_node(settings)
    node.observation.since_s = begun_s
    node.observation.end_phase("open")
    _tell_of_image(node)
    try:
        access, tls = _access(node), _context(settings)
        for name, listener in listeners.items():
            _listen(getattr(settings, name), listener, settings.limits.max_connections)
        _serve(node, access, tls, listeners)
    finally:
        node.close_now()
    if node.failure is not None:
        _fail(f"stopped: {node.failure}")
    _log.info(Line("stopped", events=len(node)))


def _tell_of_image(node: Node) -> None:
    events, reason = node.image
    if reason is not None:
        _log.warning(Line("the tree image was not used, so all events were read", reason=reason))
    elif events:
        _log.info(Line("opened from the tree image", events=len(node), from_image=events))


def _warn_of_unreachable_addresses(settings: Settings) -> None:
    for name in settings.unreachable():
        addr = settings.advertised(name)
        _log.warning(Line("other members cannot reach this address: advertise another", name=name, addr=addr))


def _open_node(settings: Settings) -> Node:
    try:
        return _open_while_importing(settings)
    except SettingsError as exc:
        _fail(str(exc))
    except QedError as exc:
        _fail(f"cannot open the log in {settings.data_dir}: {exc}")
    except OSError as exc:
        _fail(f"cannot use the data folder {settings.data_dir}: {exc.strerror or exc}")


def _open_while_importing(settings: Settings) -> Node:
    opening = Opening(settings)
    try:
        # Importing the HTTP server takes a third of a second, enough to read half a million events.
        from qed.server import serving  # noqa: F401, PLC0415  # imported early, for `_serve`
        from qed.server.node import Node  # noqa: PLC0415  # as above

        return Node(settings, *opening.member())
    except BaseException:
        handle_signals(signal.SIG_IGN)
        opening.abandon()
        raise


def _access(node: Node) -> Access:
    """Return the gate of this server, or exit if it would be open to other machines without intention."""
    from qed.server.access import Access  # noqa: PLC0415  # imported while the log was opened

    access = Access(node.settings, node.keys, lambda: node.is_settled)
    try:
        access.require_intended()
    except SettingsError as exc:
        _fail(str(exc))
    return access


def _context(settings: Settings) -> ServerContext | None:
    """Return the TLS context for clients and operators, or exit if its files cannot be used."""
    if settings.tls is None:
        return None
    from qed.server.tls import ServerContext  # noqa: PLC0415  # most servers have none

    try:
        return ServerContext(settings.tls)
    except SettingsError as exc:
        _fail(str(exc))


def _serve(node: Node, access: Access, tls: ServerContext | None, listeners: dict[str, socket.socket]) -> None:
    from qed.server.serving import serve  # noqa: PLC0415  # imported while the log was opened

    serve(node, access, tls, listeners.get("raft_addr"), [listeners[name] for name in node.settings.http_names])


def _bind(address: Address) -> socket.socket:
    try:
        return bound(address)
    except SettingsError as exc:
        _fail(str(exc))


def _listen(address: Address, listener: socket.socket, backlog: int) -> None:
    # Two servers may both bind, but only one can listen. A server does not listen before its log is open: a client
    # whose connection is refused knows that nothing has arrived, and goes to another member at once.
    try:
        listener.listen(backlog)
    except OSError as exc:
        _fail(f"cannot listen on {address}: {exc.strerror or exc}")


def _raise_descriptor_limit(limits: Limits) -> None:
    # The usual soft limit of 1,024 is less than the largest number of connections plus the files of the store.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    room = limits.connections_within(hard)
    if room < limits.max_connections:
        _log.warning(
            Line(
                "too few file descriptors for --max-connections: raise ulimit -n",
                limit=hard,
                connections=room,
                wanted=limits.max_connections,
            )
        )


def _stop_before_serving(_number: int, _frame: FrameType | None) -> None:
    # Nothing has been accepted yet, so there is nothing to finish.
    raise SystemExit(0)


def _configure_logging(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("qed").setLevel(level.upper())
    # uvicorn logs a warning for every request that is not HTTP, so any stranger could fill the disk.
    logging.getLogger("uvicorn").setLevel(logging.DEBUG if level == "debug" else logging.ERROR)


def _fail(message: str) -> NoReturn:
    click.echo(f"qed-server: {message}", err=True)
    sys.exit(_EXIT_FAILURE)
