"""The certificate authority of a cluster, which signs the keys of its members.

Its key is derived from the cluster secret, so every member that knows the secret can sign, and nothing is sent to
prove that: showing a certificate of this authority, and having its key, is the proof.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["ClusterAuthority"]

_HKDF_INFO: Final = b"qed cluster CA 1"
_KEY_BYTES: Final = 32
_NOT_BEFORE: Final = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
"""Long ago: the clocks of the members need not agree."""
_NOT_AFTER: Final = dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)
"""RFC 5280, 4.1.2.5: no well-defined expiration. The membership decides who is a member, not a date."""


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


_AUTHORITY_NAME: Final = _named("qed cluster CA")
_MEMBER_NAME: Final = _named("qed member")
"""The certificate goes to anyone who connects, so it names nobody."""


@dataclass(frozen=True)
class ClusterAuthority:
    """An authority with its key.

    Attributes:
        certificate: Its own certificate; the same bytes on every member that derives it from the same secret.
    """

    certificate: x509.Certificate
    _key: Ed25519PrivateKey

    @classmethod
    def of_secret(cls, secret: bytes) -> ClusterAuthority:
        """Return the authority of the cluster with this secret: HKDF-SHA256 of it is the key (RFC 5869)."""
        derived = HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=_HKDF_INFO).derive(secret)
        key = Ed25519PrivateKey.from_private_bytes(derived)
        draft = _draft(_AUTHORITY_NAME, key.public_key(), serial=1)
        draft = draft.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        draft = draft.add_extension(_usage(key_cert_sign=True), critical=True)
        return cls(draft.sign(key, algorithm=None), key)

    @property
    def pem(self) -> bytes:
        """The certificate of the authority in PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    def sign(self, key: Ed25519PublicKey) -> bytes:
        """Return a certificate in PEM for the key of a member."""
        draft = _draft(_MEMBER_NAME, key, serial=x509.random_serial_number())
        draft = draft.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        draft = draft.add_extension(_usage(digital_signature=True), critical=True)
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        draft = draft.add_extension(x509.ExtendedKeyUsage(both), critical=False)
        own = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        draft = draft.add_extension(own, critical=False)
        return draft.sign(self._key, algorithm=None).public_bytes(Encoding.PEM)


def _draft(name: x509.Name, key: Ed25519PublicKey, *, serial: int) -> x509.CertificateBuilder:
    draft = x509.CertificateBuilder(issuer_name=_AUTHORITY_NAME, subject_name=name, public_key=key)
    draft = draft.serial_number(serial).not_valid_before(_NOT_BEFORE).not_valid_after(_NOT_AFTER)
    return draft.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
