"""`qed certs`: an authority, and the certificates that it signs for servers, members and clients."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypedDict, TypeVar, Unpack

import click

from qed._limits import ROLES
from qed.authority import Authority
from qed.certificates import (
    Holder,
    HostName,
    PrivateKey,
    PublicKey,
    key_sha256,
    names_in,
    names_of,
    new_key,
    parse_host,
    parse_key,
    parse_request,
    pem_of_key,
    request,
)
from qed.cli.durations import DurationType
from qed.cli.options import RECEIPTS, command, current_session, group
from qed.cli.pem import Output, blaming, read_pem, read_private
from qed.errors import CertificateError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from cryptography import x509

__all__ = ["certs"]

_Command = TypeVar("_Command", bound="Callable[..., None]")


class _HostType(click.ParamType[HostName]):
    name = "host"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> HostName:
        try:
            return parse_host(str(value))
        except CertificateError as exc:
            self.fail(str(exc), param, ctx)


class _OutputOptions(TypedDict):
    """Where a command writes."""

    out: str | None
    force: bool


class _AuthorityOptions(_OutputOptions):
    """The options of `qed certs ca`."""

    name: str
    valid: timedelta


class _RequestOptions(_OutputOptions):
    """Whom a certificate names, and its key."""

    name: str | None
    node_id: str | None
    hosts: tuple[HostName, ...]
    roles: tuple[str, ...]
    key: str | None


class _SigningOptions(_OutputOptions):
    """What a certificate is signed with, and for how long."""

    ca: str
    ca_key: str
    csr: str | None
    key: str | None
    valid: timedelta


class _ServerOptions(_SigningOptions):
    """The options of `qed certs server`."""

    node_id: str | None
    hosts: tuple[HostName, ...]


class _ClientOptions(_SigningOptions):
    """The options of `qed certs client`."""

    name: str
    roles: tuple[str, ...]


def _options(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    def decorate(function: _Command) -> _Command:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_NODE_ID: Final = click.option("--node-id", metavar="NODE", help="The --node-id of a member, which its peers check.")
_HOST: Final = click.option(
    "--host",
    "hosts",
    type=_HostType(),
    multiple=True,
    metavar="HOST",
    help="A name or IP address of the server; repeat.",
)
_KEY: Final = click.option("--key", type=RECEIPTS, metavar="PATH", help="Certify this private key, not a new one.")
_OUTPUT: Final = (
    click.option("--out", metavar="PREFIX", help="Write PREFIX.pem and PREFIX.key. Default: after the name."),
    click.option("--force", is_flag=True, help="Replace files that exist."),
)


def _role(*, is_required: bool) -> Callable[[_Command], _Command]:
    what = "What the client may do; repeat."
    return click.option("--role", "roles", type=click.Choice(ROLES), multiple=True, required=is_required, help=what)


def _valid(default: str) -> Callable[[_Command], _Command]:
    what = f"How long it is valid, such as 12h or 90d. Default: {default}."
    return click.option("--valid", type=DurationType(), default=default, metavar="DURATION", help=what)


_SIGNING: Final = (
    click.option("--ca", type=RECEIPTS, default="ca.pem", metavar="PATH", help="The authority. Default: ca.pem."),
    click.option("--ca-key", type=RECEIPTS, default="ca.key", metavar="PATH", help="Its key. Default: ca.key."),
    _KEY,
    click.option("--csr", type=RECEIPTS, metavar="PATH", help="Certify the key of this signing request."),
    _valid("365d"),
)


@group(
    "certs",
    examples=[
        "qed certs ca",
        "qed certs server --node-id server0 --host 10.0.0.1",
        "qed certs client --name backup-job --role prove --role observe",
    ],
)
def certs() -> None:
    """Make certificates for servers, members and clients.

    Keys are written with mode 0600, and no file is replaced without --force. Give the members of a cluster an authority
    of their own: a certificate that it signs for a host is also one for a member of that name.
    """


@command("ca", examples=["qed certs ca", 'qed certs ca --name "qed members" --valid 3650d --out members-ca'])
@click.option("--name", default="qed CA", metavar="TEXT", help="Its name for people. Default: qed CA.")
@_valid("3650d")
@_options(*_OUTPUT)
def authority(**given: Unpack[_AuthorityOptions]) -> None:
    """Make an authority: its certificate, and the key that signs others.

    Keep its key off the servers. Without --out the files are ca.pem and ca.key.
    """
    output = Output.named(given["out"], "ca", is_forced=given["force"])
    output.require_free(".pem", ".key")
    key = new_key()
    made = Authority.create(given["name"], key, now=_now(), valid=given["valid"])
    output.write({".key": pem_of_key(key), ".pem": made.pem()})
    _show_certificate(made.certificate, output.path(".pem"), str(output.path(".key")))


@command(
    "server",
    examples=[
        "qed certs server --host log.example.com --host 10.0.0.1",
        "qed certs server --node-id server0 --host 10.0.0.1 --valid 90d",
        "qed certs server --node-id server0 --host 10.0.0.1 --key server0.key --force",
    ],
)
@_options(_NODE_ID, _HOST, *_SIGNING, *_OUTPUT)
def server(**given: Unpack[_ServerOptions]) -> None:
    """Make a certificate for a server, by its hosts, or for a member, by its node id as well.

    A cluster pins the key of each member when it is admitted. To renew a member's certificate, certify the same key
    again, with --key server0.key --force, and send SIGHUP to the server.
    """
    _certify(Holder(node_id=given["node_id"], hosts=given["hosts"]), given)


@command(
    "client",
    examples=[
        "qed certs client --name ci --role append",
        "qed certs client --name alice --role operate --csr alice.csr",
    ],
)
@click.option("--name", required=True, metavar="TEXT", help="The client's name, which servers log.")
@_options(_role(is_required=True), *_SIGNING, *_OUTPUT)
def client(**given: Unpack[_ClientOptions]) -> None:
    """Make a certificate for a client, which holds its roles.

    For servers whose --tls-client-ca is this authority. A role is a URI such as qed:role:append in the certificate.
    """
    _certify(Holder(common_name=given["name"], roles=given["roles"]), given)


@command(
    "csr",
    examples=[
        "qed certs csr --node-id server0 --host 10.0.0.1",
        "qed certs csr --name alice --role operate --key alice.key",
    ],
)
@click.option("--name", metavar="TEXT", help="A client's name.")
@_options(_NODE_ID, _HOST, _role(is_required=False), _KEY, *_OUTPUT)
def csr(**given: Unpack[_RequestOptions]) -> None:
    """Make a signing request, for an authority elsewhere; the key stays here.

    Writes PREFIX.csr, and PREFIX.key unless --key is given.
    """
    holder = Holder(common_name=given["name"], node_id=given["node_id"], hosts=given["hosts"], roles=given["roles"])
    output = _output(given, holder)
    output.require_free(".csr", *([] if given["key"] else [".key"]))
    key = new_key() if given["key"] is None else _read_key(given["key"])
    new = {} if given["key"] else {".key": pem_of_key(key)}
    output.write({**new, ".csr": request(key, holder)})
    _show(
        "Made signing request with values:",
        {
            "Request": str(output.path(".csr")),
            "Key": given["key"] or str(output.path(".key")),
            "Subject": holder.subject().rfc4514_string(),
            "Names": names_in(holder.names()),
            "KeySha256": key_sha256(key.public_key()),
        },
    )


for _command in (authority, server, client, csr):
    certs.add_command(_command)


def _certify(holder: Holder, given: _SigningOptions) -> None:
    """Sign a certificate for a holder, and write it with its key, if that is new."""
    if given["csr"] is not None and given["key"] is not None:
        raise click.UsageError("--csr cannot be combined with --key: the request has the key to certify")
    is_new = given["csr"] is None and given["key"] is None
    output = _output(given, holder)
    output.require_free(".pem", *([".key"] if is_new else []))
    certificates, private = read_pem(given["ca"]), read_private(given["ca_key"])
    with blaming(f"{given['ca']}, {given['ca_key']}"):
        authority = Authority.load(certificates, private)
    key = new_key() if given["key"] is None else _read_key(given["key"])
    public = key.public_key() if given["csr"] is None else _read_request(given["csr"], holder)
    made = authority.issue(public, holder, now=_now(), valid=given["valid"])
    new = {".key": pem_of_key(key)} if is_new else {}
    output.write({**new, ".pem": authority.pem_of(made)})
    _show_certificate(made, output.path(".pem"), str(output.path(".key")) if is_new else given["key"])


def _output(given: _OutputOptions, holder: Holder) -> Output:
    return Output.named(given["out"], holder.name, is_forced=given["force"])


def _read_key(path: str) -> PrivateKey:
    pem = read_private(path)
    with blaming(path):
        return parse_key(pem)


def _read_request(path: str, holder: Holder) -> PublicKey:
    """Return the key in a signing request, which must not ask for more names than the holder is given."""
    pem = read_pem(path)
    with blaming(path):
        key, names = parse_request(pem)
        granted = names_in(holder.names())
        if beyond := [name for name in names if name not in granted]:
            raise CertificateError(
                f"expected a request for some of {', '.join(granted)}, found one for {', '.join(beyond)} too: "
                "grant each name with an option"
            )
    return key


def _now() -> datetime:
    return datetime.now(UTC)


def _show_certificate(made: x509.Certificate, path: Path, key_path: str | None) -> None:
    _show(
        "Made certificate with values:",
        {
            "Certificate": str(path),
            "Key": key_path,
            "Subject": made.subject.rfc4514_string(),
            "Names": names_of(made),
            "NotBefore": _iso(made.not_valid_before_utc),
            "NotAfter": _iso(made.not_valid_after_utc),
            "SerialNumber": f"{made.serial_number:x}",
            "KeySha256": key_sha256(made.public_key()),
        },
    )


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _show(title: str, values: Mapping[str, str | list[str] | None]) -> None:
    """Print what was made; of a file that was not written or a list without names, only to programs."""
    terminal = current_session().terminal
    shown = ((label, ", ".join(value) if isinstance(value, list) else value) for label, value in values.items())
    terminal.fields(title, [(label, text) for label, text in shown if text])
    terminal.records([values])
