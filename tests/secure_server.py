"""A server with TLS for its clients, and certificates for both."""

from __future__ import annotations

import signal
import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import httpx

from commands import qed, read_lines
from harness.process import COMMAND, Server
from harness.wait import LIMIT_S, wait_until
from qed.authority import Authority
from qed.certificates import Holder, new_key, parse_host, pem_of_key

if TYPE_CHECKING:
    from pathlib import Path

NOW: Final = datetime.now(UTC)
VALID: Final = timedelta(days=1)


def authority() -> Authority:
    return Authority.create("an authority", new_key(), now=NOW - timedelta(days=5), valid=timedelta(days=30))


def written(folder: Path, name: str, ca: Authority, holder: Holder, *, now: datetime = NOW) -> tuple[Path, Path]:
    """Write a certificate and its key, and return their paths."""
    key = new_key()
    certificate = ca.issue(key.public_key(), holder, now=now, valid=VALID)
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    paths[0].write_bytes(ca.pem_of(certificate))
    paths[1].write_bytes(pem_of_key(key))
    paths[1].chmod(0o600)
    return paths


def of_server(folder: Path, name: str, ca: Authority) -> tuple[Path, Path]:
    return written(folder, name, ca, Holder(common_name=name, hosts=(parse_host("127.0.0.1"), "localhost")))


def of_client(folder: Path, name: str, ca: Authority, *roles: str) -> tuple[str, str]:
    certificate, key = written(folder, name, ca, Holder(common_name=name, roles=roles))
    return str(certificate), str(key)


class Secure:
    """A server with TLS, with the authorities of its certificate and of its clients' ones."""

    def __init__(self, folder: Path, *extra: str, command: tuple[str, ...] = (COMMAND,)) -> None:
        self.folder = folder
        self.ca, self.clients = authority(), authority()
        (folder / "ca.pem").write_bytes(self.ca.pem())
        (folder / "clients.pem").write_bytes(self.clients.pem())
        certificate, key = of_server(folder, "server", self.ca)
        options = (
            "--tls-cert",
            str(certificate),
            "--tls-key",
            str(key),
            "--tls-client-ca",
            str(folder / "clients.pem"),
            *extra,
        )
        self.server = Server("secure", folder / "log", extra=options, command=command)
        self.server.start()

    @property
    def ca_file(self) -> str:
        return str(self.folder / "ca.pem")

    @property
    def at(self) -> tuple[str, ...]:
        """Return the options with which `qed` reaches it."""
        return "--endpoints", self.server.url, "--ca", self.ca_file

    @property
    def management(self) -> str:
        return f"https://{self.server.address('mgmt')}"

    def status(self, certificate: tuple[str, str] | None, url: str, method: str = "GET", **headers: str) -> int:
        context = ssl.create_default_context(cafile=self.ca_file)
        if certificate is not None:
            context.load_cert_chain(*certificate)
        with httpx.Client(verify=context, timeout=LIMIT_S) as http:
            return http.request(method, url, headers=headers, content=b"{" if method == "POST" else None).status_code

    def key_for(self, *roles: str) -> str:
        """Make a key, and return its text."""
        certificate, key = of_client(self.folder, "admin", self.clients, "operate")
        wanted = [part for role in roles for part in ("--role", role)]
        done = qed(*self.at, "--cert", certificate, "--cert-key", key, "--json", "keys", "create", *wanted)
        assert done.returncode == 0, done.stderr
        return str(read_lines(done.stdout)[0]["Key"])

    def replace_clients(self) -> None:
        """Accept the certificates of another authority from now on, and no longer those of this one."""
        self.clients = authority()
        (self.folder / "clients.pem").write_bytes(self.clients.pem())
        self.reload()

    def reload(self) -> None:
        lines = self.server.stderr.count("read again")
        self.server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.server.stderr.count("read again") > lines, "the certificates to be read again")
