"""All members together."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from campaign.violation import Violation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from campaign.member import Member

__all__ = ["Cluster"]

_WHOLE_LIMIT_S: Final = 60.0
_POLL_S: Final = 0.05


class Cluster:
    """The members, whether they run or not."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members

    def start(self) -> None:
        """Begin a cluster with the first member, let the others join, and return once all vote."""
        first, *others = self.members
        first.start()
        for member in others:
            member.launch(join=[first])
        self.await_whole()

    def kill(self) -> None:
        """Leave no process behind."""
        for member in self.members:
            if member.is_running:
                member.kill()

    def leader(self) -> Member | None:
        """Return the leader by the word of the member with the latest term, if anybody knows one."""
        views = [view for member in self.members if member.is_running and (view := member.view())]
        latest = max(views, key=lambda view: view.term, default=None)
        return next((member for member in self.members if latest and member.name == latest.leader_id), None)

    def others(self, member: Member) -> list[Member]:
        """Return all members but one."""
        return [other for other in self.members if other is not member]

    def await_whole(self) -> None:
        """Return once all members follow one leader, vote, and hold equally much of what was committed before.

        Raises:
            Violation: That takes too long, or a member has ended.
        """
        deadline = time.monotonic() + _WHOLE_LIMIT_S
        while reason := self._lack():
            if time.monotonic() > deadline:
                raise Violation(f"the cluster is not whole {_WHOLE_LIMIT_S:g} s after its faults: {reason}")
            time.sleep(_POLL_S)

    def await_equal_length(self) -> int:
        """Return the length of all logs once it is the same. Nobody adds meanwhile.

        Raises:
            Violation: That takes too long.
        """
        deadline = time.monotonic() + _WHOLE_LIMIT_S
        while True:
            views = [member.view() for member in self.members]
            positions = {(view.events, view.applied_index) if view else None for view in views}
            if len(positions) == 1 and (position := positions.pop()):
                return position[0]
            if time.monotonic() > deadline:
                raise Violation(f"the members do not reach one length: {positions}")
            time.sleep(_POLL_S)

    def check_running(self) -> None:
        """Raise `Violation` if a member has ended by itself."""
        for member in self.members:
            if member.has_ended_unasked():
                raise Violation(f"{member.name} has ended by itself")

    def _lack(self) -> str | None:
        self.check_running()
        views = [member.view() for member in self.members]
        if silent := [member.name for member, view in zip(self.members, views, strict=True) if view is None]:
            return f"{', '.join(silent)} does not answer"
        known = [view for view in views if view is not None]
        if len({(view.leader_id, view.term) for view in known}) != 1 or not known[0].leader_id:
            return f"leaders are {[(view.leader_id, view.term) for view in known]}"
        names = {member.name for member in self.members}
        for view in known:
            roles = {member.node_id: member.role for member in view.members}
            if set(roles) != names or "learner" in roles.values():
                return f"{view.node_id} knows {roles}"
        return None
