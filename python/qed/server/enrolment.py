"""How a token is exchanged for a certificate (FORMATS.md, "Between members").

A new server first asks for the certificate of the authority, as a stranger, and compares its key with the token. From
then on it talks only to members that have a certificate of that authority. A removed member has one, too, so none of
them gets the token: each gets a signature of it, which is of use to nobody but this server.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import TYPE_CHECKING, Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from qed._files import PRIVATE, replace_file
from qed.errors import ClusterError, MembershipRefused, Unavailable
from qed.server.acts import number_text
from qed.server.certification import Certified, EnrolmentRequest
from qed.server.config import CERTIFICATE_FILE, SettingsError
from qed.server.frames import SMALL_FRAME_BYTES, TransportError, decode, put, read_frame
from qed.server.handshake import PROTOCOL, REPLY_TIMEOUT_S, Hello, Mismatch, Stream, connect_with, open_stream
from qed.server.logs import Line
from qed.server.member_key import read_or_make_key
from qed.server.pins import peer_of, pin_of
from qed.server.tokens import Claim, read_token
from qed.server.waiting import delays

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from qed.server.config import Address, Settings
    from qed.server.tokens import Token

__all__ = ["Newcomer", "enrol", "seek_certificate"]

_log = logging.getLogger(__name__)

_RETRY_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
"""How long to wait before asking the members again."""
_HELLO: Final = Hello(PROTOCOL, "enrol", cluster="", sender=0, receiver=0, raft_addr="")


_CERTIFIED: Final = msgspec.json.Decoder(Certified)
_ENCODER: Final = msgspec.json.Encoder()


class Newcomer:
    """A new server, which has a key and a number, but no certificate."""

    def __init__(self, key: Ed25519PrivateKey, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self._key = key
        self._pin = pin_of(key.public_key())

    def request(self, token: Token, asked: bytes) -> EnrolmentRequest:
        """Return what it sends to use a token.

        Args:
            token: The token.
            asked: The pin of the member to which it sends this.
        """
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "qed member")])
        signing = x509.CertificateSigningRequestBuilder(subject).sign(self._key, None).public_bytes(Encoding.PEM)
        claim = Claim(self._pin, asked, number_text(self.number), self.name)
        return EnrolmentRequest(token.id, claim.signed_with(token), self.name, self.number, signing.decode())

    def is_key_of(self, certificate: x509.Certificate) -> bool:
        """Return whether a certificate is for the key of this server."""
        return pin_of(certificate.public_key()) == self._pin


async def seek_certificate(settings: Settings, number: int) -> None:
    """Exchange the token of these settings for a certificate in the data folder, however long that takes.

    Args:
        settings: They name the token and the members to ask.
        number: The number of this member.

    Raises:
        MembershipRefused: The token is not valid.
        Mismatch: None of the members to ask is of the cluster that the token is for.
        SettingsError: The file holds no token, or the key of this member cannot be used.
        OSError: The folder cannot be written.
    """
    if settings.join_token_file is None:
        raise SettingsError("expected --join-token-file")
    token, folder, retries = read_token(settings.join_token_file), settings.data_dir, delays(*_RETRY_S)
    newcomer = Newcomer(read_or_make_key(folder), settings.node_id, number)
    while True:
        certificate = await _enrol_at_any(settings.raft_join_addrs, token, newcomer)
        if certificate is not None:
            replace_file(folder / CERTIFICATE_FILE, certificate, mode=PRIVATE)
            return
        await asyncio.sleep(next(retries))


async def _enrol_at_any(addresses: Sequence[Address], token: Token, newcomer: Newcomer) -> bytes | None:
    """Ask one member after another; return None if a retry may help.

    Raises:
        MembershipRefused: A member refuses the token, and no other accepts it.
        Mismatch: Nobody at these addresses is of the cluster that the token is for.
    """
    refusals: list[MembershipRefused] = []
    mismatches: list[Mismatch] = []
    for address in addresses:
        try:
            return await enrol(address, token, newcomer)
        except MembershipRefused as exc:
            refusals.append(exc)
        except Mismatch as exc:
            # Anyone may be there. It is an error of the operator only if there is no other address.
            mismatches.append(exc)
        except (TransportError, ClusterError) as exc:
            _log.info(Line("no certificate yet", address=address, reason=exc))
    if refusals:
        raise refusals[0]
    if len(mismatches) == len(addresses):
        raise mismatches[0]
    for mismatch in mismatches:
        _log.warning(Line("no certificate yet", reason=mismatch))
    return None


async def enrol(address: Address, token: Token, newcomer: Newcomer) -> bytes:
    """Exchange a token for a certificate, at the member with this address.

    Returns:
        The certificate of the new server, then that of the authority, in PEM, and nothing else.

    Raises:
        TransportError: Nobody answers there as a member that can sign certificates.
        Mismatch: The member there is not of the cluster that the token is for.
        MembershipRefused: The token is not valid.
        Unavailable: There is no leader.
    """
    authority = await _authority(address, token)
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cadata=_pem(authority).decode())
    try:
        stream = await _open(address, context)
    except ssl.SSLCertVerificationError as exc:
        raise TransportError(
            f"{address} did not show a certificate of the cluster that the token is for ({exc.verify_message})"
        ) from exc
    try:
        await _next(stream)
        asked = peer_of(stream.writer)
        if asked is None:
            raise TransportError(f"{address} did not show a certificate")
        put(stream.writer, _ENCODER.encode(newcomer.request(token, asked.pin)))
        answer = await _next(stream)
    finally:
        stream.writer.transport.abort()
    if answer.error:
        raise (MembershipRefused if answer.error == "refused" else Unavailable)(answer.message)
    certificate = _parse(answer.certificate)
    if not newcomer.is_key_of(certificate):
        raise TransportError(f"{address} sent a certificate for another key")
    _require_signed(certificate, authority)
    return _pem(certificate) + _pem(authority)


async def _authority(address: Address, token: Token) -> x509.Certificate:
    """Return the certificate that whoever is at this address calls the authority's: its key is the token's."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    context.check_hostname = False
    # Nothing but a public certificate is asked for, and the token says which is the right one.
    context.verify_mode = ssl.CERT_NONE
    stream = await _open(address, context)
    try:
        authority = _parse((await _next(stream)).certificate)
    finally:
        stream.writer.transport.abort()
    if pin_of(authority.public_key()) != token.authority:
        raise Mismatch(f"{address} does not belong to the cluster that the token is for")
    _require_signed(authority, authority)
    return authority


async def _open(address: Address, context: ssl.SSLContext) -> Stream:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    stream = await connect_with(address, context)
    await open_stream(stream, _HELLO)
    return stream


async def _next(stream: Stream) -> Certified:
    try:
        async with asyncio.timeout(REPLY_TIMEOUT_S):
            return decode(_CERTIFIED, await read_frame(stream.reader, SMALL_FRAME_BYTES))
    except TimeoutError as exc:
        raise TransportError(f"{stream.address} did not answer in time") from exc


def _parse(pem: str) -> x509.Certificate:
    """Return the only certificate in a text.

    Whoever sent the text may have written more into it. Only the certificate that is returned was examined, so only
    that one may be used from here on, and not the text.

    Raises:
        TransportError: The text holds no certificate with a key of a known kind, or several.
    """
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
        for certificate in found:
            certificate.public_key()
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as exc:
        raise TransportError("the other side sent something else than a certificate") from exc
    if len(found) != 1:
        raise TransportError(f"expected one certificate, found {len(found)}")
    return found[0]


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _require_signed(certificate: x509.Certificate, authority: x509.Certificate) -> None:
    """Check that an authority has signed a certificate.

    Raises:
        TransportError: It has not.
    """
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as exc:
        raise TransportError("the other side sent a certificate that the authority has not signed") from exc
