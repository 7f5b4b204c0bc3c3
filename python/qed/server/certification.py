"""Certifying new servers that have a token: what they and a member send each other (FORMATS.md, "Between members")."""

from __future__ import annotations

import contextlib
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from qed.certificates import parse_request
from qed.errors import CertificateError, MembershipRefused

__all__ = ["ENROLMENT_REQUEST", "Certified", "EnrolmentRequest", "requested_key"]


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


ENROLMENT_REQUEST: Final = msgspec.json.Decoder(EnrolmentRequest)


def requested_key(request: EnrolmentRequest) -> Ed25519PublicKey:
    """Return the public key to sign, whose owner has made the request.

    Raises:
        MembershipRefused: The signing request is malformed, of another kind of key, or not signed by it.
    """
    with contextlib.suppress(CertificateError):
        key, _ = parse_request(request.signing_request.encode())
        if isinstance(key, Ed25519PublicKey):
            return key
    raise MembershipRefused("expected a signing request of an Ed25519 key")
