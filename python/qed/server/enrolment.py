"""How a token is exchanged for a certificate (FORMATS.md, "Between members").

A new server first asks for the certificate of the authority, as a stranger, and compares its key with the token. From
then on it talks only to members that have a certificate of that authority, and shows one of them the secret.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import TYPE_CHECKING, Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from qed._files import PRIVATE, replace_file
from qed.errors import ClusterError, MembershipRefused, Unavailable
from qed.server.config import CERTIFICATE_FILE, SettingsError
from qed.server.frames import SMALL_FRAME_BYTES, TransportError, decode, put, read_frame
from qed.server.handshake import (
    HELLO_TIMEOUT_S,
    PROTOCOL,
    REPLY_TIMEOUT_S,
    Hello,
    Mismatch,
    Stream,
    connect_with,
    open_stream,
)
from qed.server.logs import Line
from qed.server.member_key import read_or_make_key
from qed.server.pins import pin_of
from qed.server.tokens import read_token
from qed.server.waiting import delays

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from qed.server.config import Address, Settings
    from qed.server.tokens import Token

__all__ = [
    "Certified",
    "EnrolmentRequest",
    "Newcomer",
    "enrol",
    "read_enrolment_request",
    "requested_key",
    "seek_certificate",
    "send",
]

_log = logging.getLogger(__name__)

_RETRY_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
"""How long to wait before asking the members again."""
_HELLO: Final = Hello(PROTOCOL, "enrol", cluster="", sender=0, receiver=0, raft_addr="")


class EnrolmentRequest(msgspec.Struct, frozen=True):
    """What a new server sends to a member that has a certificate of the right authority.

    Attributes:
        token: Public part of the token.
        secret: The secret of the token.
        name: Node id of the server.
        member: Its number.
        signing_request: PKCS #10 in PEM, signed with the key of the server.
    """

    token: str
    secret: bytes
    name: str
    member: int
    signing_request: str


class Certified(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a member answers: first the certificate of the authority, then that of the new server, or why there is none.

    Attributes:
        certificate: PEM.
        error: Empty, or a code: `refused`, `unavailable`.
        message: The reason in words.
    """

    certificate: str = ""
    error: str = ""
    message: str = ""


_REQUEST: Final = msgspec.json.Decoder(EnrolmentRequest)
_CERTIFIED: Final = msgspec.json.Decoder(Certified)
_ENCODER: Final = msgspec.json.Encoder()


class Newcomer:
    """A new server, which has a key and a number, but no certificate."""

    def __init__(self, key: Ed25519PrivateKey, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self._key = key

    def request(self, token: Token) -> EnrolmentRequest:
        """Return what it sends to use a token."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "qed member")])
        signing = x509.CertificateSigningRequestBuilder(subject).sign(self._key, None).public_bytes(Encoding.PEM)
        return EnrolmentRequest(token.id, token.secret, self.name, self.number, signing.decode())

    def is_key_of(self, certificate: x509.Certificate) -> bool:
        """Return whether a certificate is for the key of this server."""
        return pin_of(certificate.public_key()) == pin_of(self._key.public_key())


async def seek_certificate(settings: Settings, number: int) -> None:
    """Exchange the token of these settings for a certificate in the data folder, however long that takes.

    Args:
        settings: They name the token and the members to ask.
        number: The number of this member.

    Raises:
        MembershipRefused: The token is not valid.
        Mismatch: A member to ask is not of the cluster that the token is for.
        SettingsError: The file holds no token, or the key of this member cannot be used.
        OSError: The folder cannot be written.
    """
    if settings.join_token_file is None:
        raise SettingsError("expected --join-token-file")
    token, folder, retries = read_token(settings.join_token_file), settings.data_dir, delays(*_RETRY_S)
    newcomer = Newcomer(read_or_make_key(folder), settings.node_id, number)
    while True:
        for address in settings.raft_join_addrs:
            try:
                certificate = await enrol(address, token, newcomer)
            except (Mismatch, MembershipRefused):
                raise
            except (TransportError, ClusterError) as exc:
                _log.info(Line("no certificate yet", address=address, reason=exc))
            else:
                replace_file(folder / CERTIFICATE_FILE, certificate, mode=PRIVATE)
                return
        await asyncio.sleep(next(retries))


async def enrol(address: Address, token: Token, newcomer: Newcomer) -> bytes:
    """Exchange a token for a certificate, at the member with this address.

    Returns:
        The certificate of the new server, then that of the authority, in PEM.

    Raises:
        TransportError: Nobody answers there, or the member cannot sign certificates.
        Mismatch: The member there is not of the cluster that the token is for.
        MembershipRefused: The token is not valid.
        Unavailable: There is no leader.
    """
    authority = await _authority(address, token)
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cadata=authority.decode())
    stream = await _open(address, context)
    try:
        await _next(stream)
        put(stream.writer, _ENCODER.encode(newcomer.request(token)))
        answer = await _next(stream)
    finally:
        stream.writer.transport.abort()
    if answer.error:
        raise (MembershipRefused if answer.error == "refused" else Unavailable)(answer.message)
    certificate = answer.certificate.encode()
    if not newcomer.is_key_of(_parse(certificate)):
        raise TransportError(f"{address} sent a certificate for another key")
    return certificate + authority


async def _authority(address: Address, token: Token) -> bytes:
    """Return the certificate that whoever is at this address calls the authority's, in PEM: its key is the token's."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    context.check_hostname = False
    # Nothing but a public certificate is asked for, and the token says which is the right one.
    context.verify_mode = ssl.CERT_NONE
    stream = await _open(address, context)
    try:
        pem = (await _next(stream)).certificate.encode()
    finally:
        stream.writer.transport.abort()
    if pin_of(_parse(pem).public_key()) != token.authority:
        raise Mismatch(f"{address} does not belong to the cluster that the token is for")
    return pem


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


def _parse(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as exc:
        raise TransportError("the other side sent something else than a certificate") from exc


# The side of the member that signs.


async def read_enrolment_request(reader: asyncio.StreamReader) -> EnrolmentRequest:
    """Return the request of a new server.

    Raises:
        TransportError: The frame is not a valid request, or the stream ended.
        TimeoutError: No request arrived in time.
    """
    async with asyncio.timeout(HELLO_TIMEOUT_S):
        return decode(_REQUEST, await read_frame(reader, SMALL_FRAME_BYTES))


async def send(writer: asyncio.StreamWriter, answer: Certified) -> None:
    """Send an answer to a new server.

    Raises:
        TransportError: The stream ended.
    """
    put(writer, _ENCODER.encode(answer))
    await writer.drain()


def requested_key(request: EnrolmentRequest) -> Ed25519PublicKey:
    """Return the public key to sign, whose owner has made the request.

    Raises:
        MembershipRefused: The signing request is malformed, of another kind of key, or not signed by it.
    """
    try:
        found = x509.load_pem_x509_csr(request.signing_request.encode())
        key = found.public_key()
        if isinstance(key, Ed25519PublicKey) and found.is_signature_valid:
            return key
    except ValueError:
        pass
    raise MembershipRefused("expected a signing request of an Ed25519 key")
