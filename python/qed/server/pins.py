"""Pins: a member is known by the SHA-256 of its public key, whatever its certificate says (RFC 7469, section 2.4)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

if TYPE_CHECKING:
    import asyncio
    import ssl

    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

__all__ = ["PIN_BYTES", "Peer", "dns_names", "peer_of", "pin_of"]

PIN_BYTES: Final = 32


def pin_of(key: CertificatePublicKeyTypes) -> bytes:
    """Return the SHA-256 of a public key in its DER form, a SubjectPublicKeyInfo: 32 bytes."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


@dataclass(frozen=True)
class Peer:
    """The other end of a stream, as TLS has authenticated it: it has the key of this certificate.

    Attributes:
        pin: SHA-256 of its public key, 32 bytes.
        names: The DNS names in its certificate, as written there.
        address: Where it connects from, `host:port`; empty if that does not matter.
    """

    pin: bytes
    names: frozenset[str]
    address: str = ""

    @classmethod
    def of_certificate(cls, certificate: x509.Certificate, address: str = "") -> Peer:
        """Return the peer with a certificate that was verified."""
        return cls(pin_of(certificate.public_key()), frozenset(dns_names(certificate)), address)


def dns_names(certificate: x509.Certificate) -> list[str]:
    """Return the DNS names among a certificate's subject alternative names."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return names.get_values_for_type(x509.DNSName)


def peer_of(writer: asyncio.StreamWriter) -> Peer | None:
    """Return the other end of a TLS stream, or None if it has shown no certificate."""
    tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
    certificate = tls.getpeercert(binary_form=True)
    if certificate is None:
        return None
    host, port = (writer.get_extra_info("peername") or ("unknown", 0))[:2]
    address = f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    return Peer.of_certificate(x509.load_der_x509_certificate(certificate), address)
