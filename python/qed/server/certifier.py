"""The member that exchanges tokens for certificates: the other end of `enrolment`."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from qed._limits import U64_LIMIT
from qed.errors import MembershipRefused, QedError
from qed.server.certification import Certified, EnrolmentRequest, requested_key
from qed.server.config import SettingsError, require_node_id
from qed.server.handshake import LeaderRequest
from qed.server.logs import Line, OncePerMinute
from qed.server.pins import pin_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from qed.server.admissions import Admissions
    from qed.server.credentials import Credentials
    from qed.server.leader_requests import LeaderRequests

__all__ = ["Certifier"]

_log = logging.getLogger(__name__)


class Certifier:
    """Exchanges tokens for certificates. Whoever asks is a stranger until its token has been verified.

    Attributes:
        refused: How many requests were refused since the start.
    """

    def __init__(self, admissions: Admissions, leader_requests: LeaderRequests) -> None:
        self.refused = 0
        self._admissions = admissions
        self._leader_requests = leader_requests
        # Strangers together get one turn at a time: a few streams to the leader are all that this member has.
        self._turn = asyncio.Semaphore(1)
        self._once_per_minute = OncePerMinute()

    async def certify(self, request: EnrolmentRequest, host: str, credentials: Credentials | None) -> Certified:
        """Return a certificate for a new server, or why it gets none.

        Args:
            request: What it has sent.
            host: Where it is.
            credentials: Those of this member.
        """
        if credentials is None or credentials.authority is None:
            return Certified(error="unavailable", message="this member cannot sign certificates")
        try:
            key = await self._redeem(request, host, credentials.pin)
        except (MembershipRefused, SettingsError) as exc:
            self.refused += 1
            is_due = self._once_per_minute.is_due(host, "token")
            line = Line(
                "token refused", peer=host, name=request.name[:100], reason=str(exc)[:200], refused=self.refused
            )
            _log.log(logging.WARNING if is_due else logging.DEBUG, line)
            return Certified(error="refused", message=str(exc))
        except QedError as exc:
            return Certified(error="unavailable", message=str(exc))
        return Certified(credentials.authority.sign(key).decode())

    async def _redeem(self, request: EnrolmentRequest, host: str, own_pin: bytes) -> Ed25519PublicKey:
        """Have a token redeemed; return the key of the server that has it.

        Raises:
            MembershipRefused: The token is not valid, or not for this server.
            SettingsError: The name of the server is invalid.
            ClusterError: It could not be redeemed now.
        """
        require_node_id(request.name)
        if not 0 < request.member < U64_LIMIT:
            raise MembershipRefused(f"expected the number of a member, found {request.member}")
        key = requested_key(request)
        redeemed = LeaderRequest(
            "redeem",
            name=request.name,
            id=request.member,
            key=pin_of(key),
            token=request.token,
            proof=request.proof,
            asked=own_pin,
            origin=host,
        )
        async with self._turn:
            if not self._admissions.knows(request.token):
                # It may have been made just now.
                await self._leader_requests.catch_up()
            if not self._admissions.is_redeemed(redeemed):
                await self._leader_requests.ask_leader(redeemed)
        return key
