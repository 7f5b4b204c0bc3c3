"""A certificate authority: its own certificate, and those that it signs. This file reads and writes no files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from qed.certificates import (
    Holder,
    PrivateKey,
    PublicKey,
    authority_extensions,
    hash_for,
    parse_key,
)
from qed.errors import CertificateError

__all__ = ["Authority"]

_BACKDATED: Final = timedelta(minutes=5)
"""Certificates are valid this long before they are made, for machines whose clocks are behind."""


@dataclass(frozen=True)
class Authority:
    """A certificate authority with its private key.

    Attributes:
        certificate: Its certificate.
        key: Its private key.
        chain: The certificates between it and a root, which the holders of its certificates must present, too.
    """

    certificate: x509.Certificate
    key: PrivateKey
    chain: tuple[x509.Certificate, ...] = ()

    @classmethod
    def create(cls, name: str, key: PrivateKey, *, now: datetime, valid: timedelta) -> Authority:
        """Return a new authority, whose certificate is signed by itself.

        Args:
            name: Its name for people; 1 to 64 printable characters.
            key: Its private key.
            now: The time, with its zone.
            valid: How long its certificate is valid; it must end before the year 10,000.

        Returns:
            The authority.

        Raises:
            CertificateError: The name is invalid.
        """
        # A holder's rules for names are those of an authority.
        subject = Holder(common_name=name, hosts=("localhost",)).subject()
        start = _whole_seconds(now) - _BACKDATED
        builder = _builder(subject, subject, key.public_key(), (start, _whole_seconds(now) + valid))
        for extension, is_critical in authority_extensions():
            builder = builder.add_extension(extension, is_critical)
        return cls(builder.sign(key, hash_for(key)), key)

    @classmethod
    def load(cls, certificates: bytes, key: bytes) -> Authority:
        """Return the authority in two PEM files.

        Args:
            certificates: Its certificate. If it is not a root, the certificates between it and its root follow.
            key: Its private key.

        Returns:
            The authority.

        Raises:
            CertificateError: The first is no authority's certificate, or the second is not its key.
        """
        try:
            own, *rest = x509.load_pem_x509_certificates(certificates)
            is_authority = own.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
            public = own.public_key()
        except x509.ExtensionNotFound:
            is_authority, public = False, None
        except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension):
            raise CertificateError("expected certificates in PEM format") from None
        if not is_authority:
            raise CertificateError("expected the certificate of an authority, found one that may not sign others")
        private = parse_key(key)
        if public != private.public_key():
            raise CertificateError("expected the key of this authority, found another one")
        between = [found for found in (own, *rest) if found.issuer != found.subject]
        return cls(own, private, tuple(between))

    def issue(self, key: PublicKey, holder: Holder, *, now: datetime, valid: timedelta) -> x509.Certificate:
        """Return a certificate for a holder, signed by this authority.

        Args:
            key: The holder's public key.
            holder: Whom the certificate names.
            now: The time, with its zone.
            valid: How long the certificate is valid, from now on.

        Returns:
            The certificate.

        Raises:
            CertificateError: This authority's own certificate is not valid for all that time.
        """
        first, last = self.certificate.not_valid_before_utc, self.certificate.not_valid_after_utc
        now = _whole_seconds(now)
        if not first <= now <= last:
            raise CertificateError(f"expected an authority that is valid now, found one valid from {first} to {last}")
        if now + valid > last:
            raise CertificateError(
                f"expected a certificate that ends before its authority does, on {last:%Y-%m-%d}: "
                f"at most {(last - now).days} days are left"
            )
        builder = _builder(
            holder.subject(), self.certificate.subject, key, (max(now - _BACKDATED, first), now + valid)
        ).add_extension(self._own_key_id(), critical=False)
        for extension, is_critical in holder.extensions():
            builder = builder.add_extension(extension, is_critical)
        return builder.sign(self.key, hash_for(self.key))

    def _own_key_id(self) -> x509.AuthorityKeyIdentifier:
        try:
            own = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        except x509.ExtensionNotFound:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)

    def pem(self) -> bytes:
        """Return its certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def pem_of(self, certificate: x509.Certificate) -> bytes:
        """Return a certificate that it signed as PEM, followed by those between it and the root."""
        return b"".join(found.public_bytes(serialization.Encoding.PEM) for found in (certificate, *self.chain))


def _whole_seconds(moment: datetime) -> datetime:
    """Return a time as certificates can say it."""
    return moment.replace(microsecond=0)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, validity: tuple[datetime, datetime]
) -> x509.CertificateBuilder:
    start, end = validity
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )
