"""One member of a campaign."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from campaign.connection import Connection, NoReply, Request
from campaign.violation import Violation
from harness.process import Server

__all__ = ["Member"]

_TRANSFER_LIMIT_S: Final = 1.0


@dataclass(eq=False, kw_only=True)
class Member(Server):
    """A server under faults.

    Attributes:
        index: Its number in this campaign.
        may_fail: Whether its disk is being filled, so that it may end by itself.
    """

    index: int
    may_fail: bool = False

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
        request = Request("POST", "/cluster/transfer", b'{"name":"%s"}' % self.name.encode())
        with Connection((self.host, self.ports["mgmt"]), _TRANSFER_LIMIT_S) as connection, suppress(NoReply):
            connection.ask(request)

    def check_running(self) -> None:
        """Raise `Violation` if its process has ended by itself."""
        if self.has_ended_by_itself and not self.may_fail:
            raise Violation(f"{self.name} has ended by itself")
