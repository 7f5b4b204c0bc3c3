"""Why a server may have refused the certificate of this client: TLS 1.3 lets it hang up without a word."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from qed._printable import printable

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography import x509

__all__ = ["doubt"]


def doubt(path: Path) -> str:
    """Return what may be wrong with the client's certificate in a file, and what to do.

    Args:
        path: PEM file with the certificate, and perhaps those of authorities after it.

    Returns:
        The reason, for people. If the dates are right by this machine's clock, it is a guess.
    """
    # The import takes a tenth of a second, and is needed only after a failure.
    from cryptography import x509  # noqa: PLC0415  # as above

    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())[0]
    except (OSError, ValueError):
        return f"the server may refuse the certificate in {path}, which can no longer be read"
    present = datetime.now(UTC)
    if present > found.not_valid_after_utc:
        return f"the certificate in {path} expired on {found.not_valid_after_utc:%Y-%m-%d}: use a new one"
    if present < found.not_valid_before_utc:
        starts = f"{found.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        return f"the certificate in {path} is not valid before {starts}: check the clocks of both machines"
    return (
        f"the server may refuse the certificate in {path}: "
        f'check that its --tls-client-ca has the authority "{_issuer(found)}"'
    )


def _issuer(certificate: x509.Certificate) -> str:
    return printable(certificate.issuer.rfc4514_string())
