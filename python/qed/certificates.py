"""What stands in a certificate: whom it names, and the key it certifies. This file reads and writes no files.

Certificates are X.509, by the library `cryptography`.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from qed._limits import ROLE_URI, ROLES
from qed.errors import CertificateError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

__all__ = [
    "Holder",
    "HostName",
    "PrivateKey",
    "PublicKey",
    "authority_extensions",
    "hash_for",
    "key_sha256",
    "names_in",
    "names_of",
    "new_key",
    "parse_host",
    "parse_key",
    "parse_request",
    "pem_of_key",
    "request",
]

PrivateKey: TypeAlias = (
    ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey | rsa.RSAPrivateKey
)
"""The kinds of keys that can sign."""
PublicKey: TypeAlias = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey | rsa.RSAPublicKey
HostName: TypeAlias = str | ipaddress.IPv4Address | ipaddress.IPv6Address

_KINDS: Final = {"DNSName": "DNS", "IPAddress": "IP", "UniformResourceIdentifier": "URI"}
"""The kinds of alternative names, as openssl calls them."""
_MALFORMED: Final = (
    ValueError,
    UnsupportedAlgorithm,
    InvalidSignature,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What `cryptography` raises for a signing request, which anyone may have written. They have no common class."""
_LEAST_RSA_BITS: Final = 2048
_LONGEST_COMMON_NAME: Final = 64
"""From RFC 5280, appendix A.1."""
_LONGEST_HOST: Final = 253
_LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NODE_ID: Final = re.compile(r"[\x21-\x29\x2b-\x7e]{1,255}")
"""Visible ASCII, as the server requires, but for `*`: in a certificate it would stand for any name."""


def parse_host(text: str) -> HostName:
    """Return a host as a certificate names it.

    Args:
        text: A host name such as `log.example.com`, or an IP address without brackets.

    Returns:
        The name or the address.

    Raises:
        CertificateError: It is neither. Wildcards are refused: a certificate names each of its hosts.
    """
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        pass
    # A number at the end would be a mistyped address.
    labels = text.split(".")
    if len(text) > _LONGEST_HOST or labels[-1].isdigit() or not all(map(_LABEL.fullmatch, labels)):
        raise CertificateError(f"expected a host name or an IP address, found {text!r}")
    return text


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Whom a certificate names: a server, which may be a member of a cluster, or a client.

    Attributes:
        common_name: Its name for people; 1 to 64 printable characters, or None for the first of its other names.
        node_id: Its node id, if it is a member; as a DNS name, by which the other members recognise it.
        hosts: The names and addresses at which a server is reached.
        roles: What a client may do, from `ROLES`; as URIs `qed:role:NAME`. Empty for a server.
    """

    common_name: str | None = None
    node_id: str | None = None
    hosts: tuple[HostName, ...] = ()
    roles: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.node_id is not None and not _NODE_ID.fullmatch(self.node_id):
            raise CertificateError(
                f"expected a node id of 1 to 255 visible ASCII characters without *, found {self.node_id!r}"
            )
        name = self.common_name
        if name is not None and not (0 < len(name) <= _LONGEST_COMMON_NAME and name.isprintable()):
            raise CertificateError(
                f"expected a name of 1 to {_LONGEST_COMMON_NAME} printable characters, found {name!r}"
            )
        if unknown := set(self.roles) - set(ROLES):
            raise CertificateError(f"expected roles from {', '.join(ROLES)}, found {', '.join(sorted(unknown))}")
        if not (self.node_id or self.hosts or self.roles):
            raise CertificateError("expected a node id, a host or a role to certify, found none of them")
        if self.roles and (self.node_id or self.hosts):
            # One certificate for both would make every stolen server key a client's, too.
            raise CertificateError("expected the roles of a client or the names of a server, found both")

    @property
    def name(self) -> str:
        """Its common name, or the first of its other names."""
        return self.common_name or str(self.names()[0].value)

    def names(self) -> list[x509.GeneralName]:
        """Return the subject alternative names, each once, in a fixed order: node id, hosts, roles."""
        found: list[x509.GeneralName] = [x509.DNSName(self.node_id)] if self.node_id else []
        found += [x509.DNSName(host) if isinstance(host, str) else x509.IPAddress(host) for host in self.hosts]
        found += [x509.UniformResourceIdentifier(ROLE_URI + role) for role in ROLES if role in self.roles]
        return list(dict.fromkeys(found))

    def subject(self) -> x509.Name:
        """Return the subject: the common name, or the first alternative name if it is short enough, or nothing."""
        is_short = len(self.name) <= _LONGEST_COMMON_NAME
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)] if is_short else [])

    def extensions(self) -> list[tuple[x509.ExtensionType, bool]]:
        """Return the extensions that depend on the holder only, each with whether it is critical."""
        # Members also dial each other, with the same certificate.
        usages = [] if self.roles else [ExtendedKeyUsageOID.SERVER_AUTH]
        usages += [ExtendedKeyUsageOID.CLIENT_AUTH] if self.roles or self.node_id else []
        # RFC 5280, 4.2.1.6: without a subject, the alternative names are critical.
        is_nameless = not list(self.subject())
        return [
            (x509.SubjectAlternativeName(self.names()), is_nameless),
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_usage(is_authority=False), True),
            (x509.ExtendedKeyUsage(usages), False),
        ]


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def authority_extensions() -> list[tuple[x509.ExtensionType, bool]]:
    """Return the extensions of an authority that signs holders' certificates, and no further authority's."""
    return [(x509.BasicConstraints(ca=True, path_length=0), True), (_usage(is_authority=True), True)]


def names_in(names: x509.SubjectAlternativeName | list[x509.GeneralName]) -> list[str]:
    """Return alternative names as text, such as `DNS:server0`, `IP:10.0.0.1` and `URI:qed:role:append`."""
    return [f"{_KINDS.get(type(name).__name__, type(name).__name__)}:{name.value}" for name in names]


def names_of(certificate: x509.Certificate) -> list[str]:
    """Return the alternative names in a certificate, in the form of `names_in`."""
    return [name for extension in certificate.extensions for name in _alternative_names(extension.value)]


def new_key() -> PrivateKey:
    """Return a new private key on the curve P-256, which every implementation of TLS accepts."""
    return ec.generate_private_key(ec.SECP256R1())


def pem_of_key(key: PrivateKey) -> bytes:
    """Return a private key as PEM (PKCS #8), not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def parse_key(pem: bytes) -> PrivateKey:
    """Return the private key in a PEM file.

    Raises:
        CertificateError: It holds no private key, or one that is encrypted, too short or of a kind that cannot sign.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise CertificateError("expected a key that is not encrypted: decrypt it with openssl pkey") from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError("expected a private key in PEM format") from None
    if not isinstance(key, PrivateKey):
        raise CertificateError(f"expected an EC, Ed25519, Ed448 or RSA key, found {type(key).__name__}")
    _require_long(key)
    return key


def _require_long(key: PrivateKey | PublicKey) -> None:
    if isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey) and key.key_size < _LEAST_RSA_BITS:
        raise CertificateError(f"expected an RSA key of at least {_LEAST_RSA_BITS} bits, found {key.key_size}")


def hash_for(key: PrivateKey) -> hashes.SHA256 | None:
    """Return the hash to sign with, or None for the keys that bring their own."""
    return None if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()


def key_sha256(key: CertificatePublicKeyTypes) -> str:
    """Return the SHA-256 of a public key's DER SubjectPublicKeyInfo, in hex: what members pin."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def request(key: PrivateKey, holder: Holder) -> bytes:
    """Return a certificate signing request (PKCS #10) as PEM.

    Args:
        key: The holder's private key. The request has only its public part.
        holder: Whom the certificate should name.
    """
    builder = x509.CertificateSigningRequestBuilder().subject_name(holder.subject())
    for extension, is_critical in holder.extensions():
        builder = builder.add_extension(extension, is_critical)
    return builder.sign(key, hash_for(key)).public_bytes(serialization.Encoding.PEM)


def parse_request(pem: bytes) -> tuple[PublicKey, list[str]]:
    """Return what a certificate signing request asks for.

    Args:
        pem: The PEM file.

    Returns:
        The public key to certify, and the requested alternative names in the form of `names_in`.

    Raises:
        CertificateError: It is not a request, its signature is wrong, or its key is of a kind that cannot sign.
    """
    try:
        found = x509.load_pem_x509_csr(pem)
        is_signed, key = found.is_signature_valid, found.public_key()
        names = [name for extension in found.extensions for name in _alternative_names(extension.value)]
    except _MALFORMED:
        raise CertificateError("expected a certificate signing request in PEM format") from None
    if not is_signed:
        raise CertificateError("expected a request that is signed with its own key, found a wrong signature")
    if not isinstance(key, PublicKey):
        raise CertificateError(f"expected an EC, Ed25519, Ed448 or RSA key, found {type(key).__name__}")
    _require_long(key)
    return key, names


def _alternative_names(extension: x509.ExtensionType) -> list[str]:
    return names_in(extension) if isinstance(extension, x509.SubjectAlternativeName) else []
