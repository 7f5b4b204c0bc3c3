"""What a member shows to the others, and whose certificates it accepts: TLS 1.3 contexts for both ends of a stream.

They come from the cluster secret, from a token that was exchanged for a certificate, or from the operator's own
certificates. Every certificate leads to a public key; which keys are members' is for the membership to say.
"""

from __future__ import annotations

import ssl
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from qed._files import read_regular
from qed.server.cluster_authority import ClusterAuthority
from qed.server.cluster_secret import read_secret
from qed.server.config import CERTIFICATE_FILE, SettingsError
from qed.server.member_key import KEY_FILE, read_or_make_key
from qed.server.pins import dns_names, pin_of
from qed.server.private_files import read_private

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from qed.server.config import Settings, Tls

__all__ = ["Credentials", "of_authority", "read_credentials"]

_PUBLIC_BYTES: Final = 1024 * 1024
"""Most bytes of a file with certificates."""


@dataclass(frozen=True)
class Credentials:
    """What a member shows to the others, and whose certificates it accepts.

    Attributes:
        pin: SHA-256 of this member's public key, 32 bytes.
        accepting: For streams that others dial.
        dialling: For streams to a member whose key is known.
        meeting: For streams to an address whose member is not known yet. If `is_named`, its certificate must name the
            host in the address.
        authority: Signs certificates of new members, if this member knows the cluster secret.
        authorities: SHA-256 of the public keys of the authorities whose certificates it accepts, sorted.
        authority_pin: SHA-256 of the public key of the cluster's own authority; None with certificates of an operator.
        is_named: Whether certificates must name their member: the authority may also sign what is no member.
    """

    pin: bytes
    accepting: ssl.SSLContext
    dialling: ssl.SSLContext
    meeting: ssl.SSLContext
    authorities: tuple[bytes, ...]
    authority: ClusterAuthority | None = None
    authority_pin: bytes | None = None
    is_named: bool = False


def read_credentials(settings: Settings) -> Credentials | None:
    """Return the credentials that the settings name, or that the data folder holds.

    Returns:
        The credentials; None if there are none, or if a token must be exchanged first.

    Raises:
        SettingsError: A file cannot be read, others may read it, or it does not hold what it should.
        OSError: The data folder cannot be written.
    """
    if settings.raft_tls is not None:
        return _of_files(settings.raft_tls, settings.node_id)
    if settings.cluster_secret_file is not None:
        return of_authority(ClusterAuthority.of_secret(read_secret(settings.cluster_secret_file)), settings.data_dir)
    if settings.has_certificate:
        return _of_folder(settings.data_dir)
    return None


def of_authority(authority: ClusterAuthority, folder: Path) -> Credentials:
    """Return the credentials of the member with this data folder, whose key an authority signs.

    Raises:
        SettingsError: The member's key cannot be used.
        OSError: The folder cannot be written.
    """
    key = read_or_make_key(folder)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{CERTIFICATE_FILE}.") as certificate:
        # The module ssl reads certificates from files only.
        certificate.write(authority.sign(key.public_key()))
        certificate.flush()
        accepting, dialling = _contexts(authority.pem, certificate.name, folder / KEY_FILE)
    # A new member with a token has no certificate yet.
    accepting.verify_mode = ssl.CERT_OPTIONAL
    pins = _pins([authority.certificate])
    return Credentials(
        pin_of(key.public_key()),
        accepting,
        dialling,
        meeting=dialling,
        authorities=pins,
        authority=authority,
        authority_pin=pins[0],
    )


def _of_folder(folder: Path) -> Credentials:
    path, key = folder / CERTIFICATE_FILE, read_or_make_key(folder)
    own, *authorities = _certificates(path)
    if pin_of(own.public_key()) != pin_of(key.public_key()) or len(authorities) != 1:
        raise SettingsError(
            f"expected the certificate for the key in {folder / KEY_FILE}, and that of its authority, in {path}: "
            "remove it, and join with a new token"
        )
    accepting, dialling = _contexts(_pem(authorities), path, folder / KEY_FILE)
    return Credentials(
        pin_of(own.public_key()),
        accepting,
        dialling,
        meeting=dialling,
        authorities=_pins(authorities),
        authority_pin=pin_of(authorities[0].public_key()),
    )


def _of_files(tls: Tls, name: str) -> Credentials:
    own = _certificates(tls.certificate)[0]
    if name not in (found := dns_names(own)):
        raise SettingsError(
            f"expected the certificate in {tls.certificate} to name this member: subjectAltName=DNS:{name}, "
            f"found {', '.join(found) or 'no name'}"
        )
    read_private(tls.key, "the key of the certificate")
    authorities = _certificates(tls.ca)
    accepting, dialling = _contexts(_pem(authorities), tls.certificate, tls.key)
    _, meeting = _contexts(_pem(authorities), tls.certificate, tls.key)
    meeting.check_hostname = True
    return Credentials(
        pin_of(own.public_key()), accepting, dialling, meeting, authorities=_pins(authorities), is_named=True
    )


def _certificates(path: Path) -> list[x509.Certificate]:
    """Return the certificates in a PEM file: at least one."""
    try:
        return x509.load_pem_x509_certificates(read_regular(path, _PUBLIC_BYTES))
    except OSError as exc:
        raise SettingsError(f"cannot read certificates from {path}: {exc.strerror or exc}") from exc
    except ValueError as exc:
        raise SettingsError(f"expected certificates in PEM in {path}, and it is damaged or holds none") from exc


def _pins(certificates: list[x509.Certificate]) -> tuple[bytes, ...]:
    return tuple(sorted({pin_of(certificate.public_key()) for certificate in certificates}))


def _pem(certificates: list[x509.Certificate]) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def _contexts(
    authorities: bytes, certificate: str | os.PathLike[str], key: os.PathLike[str]
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the contexts for accepting and for dialling. Each end must show a certificate of the authorities."""
    accepting, dialling = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Members are known by their keys, wherever they are.
    dialling.check_hostname = False
    # A resumed session would skip the certificate, which may have been replaced since.
    accepting.num_tickets = 0
    try:
        for context in (accepting, dialling):
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=authorities.decode())
            # An encrypted key is refused: OpenSSL would ask the terminal for its password.
            context.load_cert_chain(certificate, key, password="")
        _try_handshake(accepting, dialling)
    except ssl.SSLCertVerificationError as exc:
        raise SettingsError(
            f"the authority does not confirm the certificate in {certificate}: {exc.verify_message}"
        ) from exc
    except (OSError, ssl.SSLError) as exc:
        reason = str(getattr(exc, "reason", None) or getattr(exc, "strerror", None) or exc).lower().replace("_", " ")
        raise SettingsError(f"cannot use the certificate in {certificate} with the key in {key}: {reason}") from exc
    return accepting, dialling


def _try_handshake(accepting: ssl.SSLContext, dialling: ssl.SSLContext) -> None:
    """Let this member connect to itself, in memory: dates, purposes and signatures are checked as on a stream.

    Raises:
        ssl.SSLError: The certificate would be refused.
    """
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [accepting.wrap_bio(there, back, server_side=True), dialling.wrap_bio(back, there)]
    while ends:
        for end in reversed(ends):
            try:
                end.do_handshake()
                ends.remove(end)
            except ssl.SSLWantReadError:
                pass
