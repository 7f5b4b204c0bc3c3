"""One member of a campaign."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from campaign.connection import Connection, NoReply, Request
from campaign.credentials import header_of
from campaign.violation import Violation
from harness.process import Server

if TYPE_CHECKING:
    from campaign.connection import Address
    from campaign.credentials import Credentials, Role

__all__ = ["Member"]

_OPERATOR_LIMIT_S: Final = 1.0


@dataclass(eq=False, kw_only=True)
class Member(Server):
    """A server under faults.

    Attributes:
        index: Its number in this campaign.
        credentials: Those of its cluster.
        may_fail: Whether its disk is being filled, so that it may end by itself.
    """

    index: int
    credentials: Credentials
    may_fail: bool = False
    _as_operator: dict[Address, Connection] = field(default_factory=dict)

    @property
    def mgmt_address(self) -> Address:
        """Return host and port for operators."""
        return self.host, self.ports["mgmt"]

    def connect(self, role: Role, limit_s: float) -> Connection:
        """Return a connection of a client with the key for a role."""
        headers = header_of(self.credentials.key_of(role))
        return Connection(self.http_address, limit_s, self.credentials.context, headers)

    def stop(self) -> int:
        """Stop it as an operator would.

        Raises:
            Violation: It does not stop cleanly.
        """
        status = super().stop()
        if status and not self.may_fail:
            raise Violation(f"{self.name} exited with {status} after SIGTERM")
        return status

    def transfer(self) -> None:
        """Ask it to become leader; there may be no answer."""
        with suppress(OSError):
            self._exchange("POST", "/cluster/transfer", self.mgmt_address, b'{"name":"%s"}' % self.name.encode())

    def check_running(self) -> None:
        """Raise `Violation` if its process has ended by itself."""
        if self.has_ended_by_itself and not self.may_fail:
            raise Violation(f"{self.name} has ended by itself")

    def use_keys(self) -> None:
        """Show an operator's key from now on, not a certificate."""
        self._as_operator.clear()

    def _exchange(
        self, method: str, path: str, address: Address, body: bytes = b"", *, limit_s: float = _OPERATOR_LIMIT_S
    ) -> tuple[int, bytes]:
        # A handshake for each of the many questions whether the cluster is whole would cost more than the faults.
        connection = self._as_operator.get(address)
        if connection is None:
            connection = Connection(address, min(limit_s, _OPERATOR_LIMIT_S), *self.credentials.of_operator())
            self._as_operator[address] = connection
        try:
            reply = connection.ask(Request(method, path, body))
        except NoReply as exc:
            raise ConnectionError(f"{path}: {exc}") from exc
        return reply.status, reply.body
