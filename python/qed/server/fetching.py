"""Pages: how a member that is too far behind to catch up from entries reads the log of another."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from qed.errors import LogError, QedError
from qed.server.logs import Line
from qed.server.waiting import TASK, delays

if TYPE_CHECKING:
    from qed._qed import Replica
    from qed.server.members import Members
    from qed.server.transport import Transport
    from qed.server.waiting import Waiting

__all__ = ["Fetching"]

_log = logging.getLogger(__name__)

_RETRY_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
"""How long to wait before asking for pages again."""


class Fetching:
    """Reads pages of the log from another member, and installs them."""

    def __init__(
        self,
        replica: Replica,
        waiting: Waiting,
        members: Members,
        transport: Transport,
    ) -> None:
        self._replica = replica
        self._waiting = waiting
        self._members = members
        self._transport = transport

    async def run(self) -> None:
        """Fetch the missing part of the log, page by page, until this member can continue from entries."""
        _log.info(Line("catching up", events=len(self._replica)))
        retries = delays(*_RETRY_S)
        while (sender := self._members.status.fetch_from) is not None:
            try:
                await self._fetch_from(sender)
                retries = delays(*_RETRY_S)
            except QedError as exc:
                _log.warning(Line("catching up was interrupted", reason=exc))
                await asyncio.sleep(next(retries))
        _log.info(Line("caught up", events=len(self._replica)))

    async def _fetch_from(self, sender: int) -> None:
        """Fetch pages from `sender` until no more are needed, or the sender changes: this one may never answer."""
        pages = asyncio.ensure_future(self._transport.fetch(sender, self._replica.extent, self._install))
        other = asyncio.ensure_future(self._members.wait_until(lambda: self._members.status.fetch_from != sender))
        try:
            await asyncio.wait((pages, other), return_when=asyncio.FIRST_COMPLETED)
            if pages.done():
                pages.result()
        finally:
            for task in (pages, other):
                task.cancel()
            await asyncio.gather(pages, other, return_exceptions=True)

    async def _install(self, page: bytes) -> bool:
        """Append a page; return whether it was the last. The status is up to date once the page is installed."""
        ticket, installed = self._waiting.enter(TASK)
        try:
            self._replica.install(ticket, page)
        except LogError:
            self._waiting.leave(ticket)
            raise
        await installed
        return self._replica.status().fetch_from is None
