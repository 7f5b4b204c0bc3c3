"""Certificates for tests, of any authority and for any dates."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from qed.server.config import Tls

if TYPE_CHECKING:
    from pathlib import Path

DAY = dt.timedelta(days=1)
LOOPBACK = "127.0.0.1"


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@dataclass
class Operator:
    """An operator's own authority, in a folder."""

    folder: Path
    name: str = "an operator"

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.path = self.folder / "ca.pem"
        now = dt.datetime.now(dt.UTC)
        draft = x509.CertificateBuilder(
            _name(self.name), _name(self.name), self.key.public_key(), 1, now - DAY, now + DAY
        )
        draft = draft.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.path.write_bytes(draft.sign(self.key, SHA256()).public_bytes(Encoding.PEM))

    def key_of(self, name: str) -> ec.EllipticCurvePrivateKey:
        """Return the key of a certificate that was signed before."""
        key = load_pem_private_key((self.folder / f"{name}.key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key

    def issue(
        self,
        name: str,
        *hosts: str,
        dates: tuple[dt.timedelta, dt.timedelta] = (-DAY, DAY),
        usages: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> Tls:
        """Sign a certificate with these DNS names and for 127.0.0.1, and return its files."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        start, end = (now + date for date in dates)
        number = x509.random_serial_number()
        draft = x509.CertificateBuilder(_name(self.name), _name("a server"), key.public_key(), number, start, end)
        names: list[x509.GeneralName] = [x509.DNSName(host) for host in (name, *hosts)]
        names.append(x509.IPAddress(ipaddress.ip_address(LOOPBACK)))
        draft = draft.add_extension(x509.SubjectAlternativeName(names), critical=False)
        draft = draft.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        files = Tls(certificate=self.folder / f"{name}.pem", key=self.folder / f"{name}.key", ca=self.path)
        files.certificate.write_bytes(draft.sign(self.key, SHA256()).public_bytes(Encoding.PEM))
        files.key.touch(mode=0o600)
        files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return files
