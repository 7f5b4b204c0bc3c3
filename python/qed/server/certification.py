"""Certifying new servers that have a token: what they and a member send each other (FORMATS.md, "Between members")."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from qed.errors import MembershipRefused
from qed.server.frames import SMALL_FRAME_BYTES, decode, put, read_frame
from qed.server.handshake import HELLO_TIMEOUT_S

__all__ = ["Certified", "EnrolmentRequest", "read_enrolment_request", "requested_key", "send"]


class EnrolmentRequest(msgspec.Struct, frozen=True):
    """What a new server sends to a member that has a certificate of the right authority.

    Attributes:
        token: Public part of the token.
        proof: Signature of the token on the claim of the server.
        name: Node id of the server.
        member: Its number.
        signing_request: PKCS #10 in PEM, signed with the key of the server.
    """

    token: str
    proof: bytes
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
_ENCODER: Final = msgspec.json.Encoder()


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
