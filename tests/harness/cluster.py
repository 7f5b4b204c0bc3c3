"""Servers that are members of one cluster."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Generic

import httpx
from typing_extensions import TypeVar

from harness.process import Server
from harness.wait import LIMIT_S, wait_while
from qed.server.cluster_secret import make_secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from qed import _wire

__all__ = ["Cluster", "assert_goes_on", "new_cluster", "new_secret"]

_ANSWER_LIMIT_S: Final = 1.0

_Member = TypeVar("_Member", bound=Server, default=Server)


class Cluster(Generic[_Member]):
    """Members, running or not."""

    def __init__(self, members: Iterable[_Member]) -> None:
        self.members = list(members)

    def start(self) -> None:
        """Begin a cluster with the first member, let the others join, and return once it is whole.

        Raises:
            StartFailed: A process ended.
            TimedOut: It does not become whole.
        """
        first, *others = self.members
        try:
            first.start()
            for member in others:
                member.join = (first.address("raft"),)
                member.launch()
            for member in others:
                member.wait_listening()
            self.wait_whole()
        except BaseException:
            self.kill()
            raise

    def heal(self) -> None:
        """Start every member that is not running, and return once the cluster is whole."""
        down = [member for member in self.members if not member.is_running]
        for member in down:
            member.launch()
        for member in down:
            member.wait_listening()
        self.wait_whole()

    def give_up(self, lost: _Member) -> None:
        """Let the next server that joins under the name of a member take its place, as soon as the leader misses it."""

        def refusal() -> str:
            leader = self.known_leader()
            if leader is None or leader is lost:
                return "no leader"
            try:
                return leader.give_up(lost.name)
            except OSError as exc:
                return str(exc)

        wait_while(refusal, f"{lost.name} to be given up")

    def remove(self, name: str) -> None:
        """Remove a member for good, as an operator would."""
        url = f"http://{self.leader().address('mgmt')}/cluster/remove"
        httpx.post(url, json={"name": name}, timeout=LIMIT_S).raise_for_status()

    @contextmanager
    def joined_by(self, joiner: _Member) -> Iterator[None]:
        """Have a server that was started as one more member, and in the end remove it for good.

        Raises:
            TimedOut: It does not become a member.
        """
        self.members.append(joiner)
        try:
            self.wait_whole()
            yield
        finally:
            self.members.remove(joiner)
            self.remove(joiner.name)
            joiner.wait()

    def kill(self) -> None:
        """Kill all processes."""
        for member in self.members:
            member.kill()

    def forget(self) -> None:
        """Kill all processes, and delete their stderr files."""
        for member in self.members:
            member.forget()

    @property
    def urls(self) -> list[str]:
        """Return the base URLs of all members, up or down."""
        return [member.url for member in self.members]

    def names(self) -> set[str]:
        """Return the names of all members."""
        return {member.name for member in self.members}

    def named(self, name: str) -> _Member:
        """Return the member with this name."""
        return next(member for member in self.members if member.name == name)

    def running(self) -> list[_Member]:
        """Return the members that have a process."""
        return [member for member in self.members if member.is_running]

    def leader(self) -> _Member:
        """Return the leader once all running members agree on it.

        Raises:
            TimedOut: They do not agree.
        """
        found: list[_Member] = []

        def missing() -> str:
            leaders = {member.name: view and view.leader_id for member, view in self._views(self.running())}
            found[:] = [member for member in self.running() if {member.name} == set(leaders.values())]
            return "" if found else f"leaders {leaders}"

        wait_while(missing, "a leader")
        return found[0]

    def known_leader(self) -> _Member | None:
        """Return the leader according to the member with the latest term, if it knows one."""
        views = [view for _, view in self._views(self.running()) if view is not None]
        latest = max(views, key=lambda view: view.term, default=None)
        return next((member for member in self.members if latest and member.name == latest.leader_id), None)

    def others(self, member: _Member) -> list[_Member]:
        """Return all members but one."""
        return [other for other in self.members if other is not member]

    def followers(self) -> list[_Member]:
        """Return the running members that do not lead, once there is a leader."""
        leader = self.leader()
        return [member for member in self.running() if member is not leader]

    def follower(self) -> _Member:
        """Return a running member that does not lead, once there is a leader."""
        return self.followers()[0]

    def wait_whole(self, *, limit_s: float = LIMIT_S) -> None:
        """Return once the cluster is whole, even while clients add to it.

        All members run. They agree on the leader, the term and who the members are. None of them is a learner. All have
        applied whatever had been committed when they were first asked, so without load all have applied equally much.

        Raises:
            AssertionError: A member is not running.
            TimedOut: It does not become whole.
        """
        committed = 0

        def missing() -> str:
            nonlocal committed
            self._check_running()
            views = self._views(self.members)
            if silent := [member.name for member, view in views if view is None]:
                return f"no answer from {', '.join(silent)}"
            known = [view for _, view in views if view is not None]
            committed = committed or max(view.commit_index for view in known)
            return _disagreement(known, self.names()) or _arrears(known, committed)

        wait_while(missing, "the cluster to be whole", limit_s=limit_s)

    def _check_running(self) -> None:
        for member in self.members:
            assert member.is_running, f"{member.name} does not run: {member.stderr}"

    @staticmethod
    def _views(members: list[_Member]) -> list[tuple[_Member, _wire.Cluster | None]]:
        return [(member, _view(member)) for member in members]


def new_cluster(folder: Path, size: int, *extra: str) -> Cluster:
    """Return a cluster of members `server0` and so on, not started, with these additional options."""
    names = [f"server{number}" for number in range(size)]
    secret = new_secret(folder)
    return Cluster(Server(name, folder / name, extra=extra, secret=secret) for name in names)


def new_secret(folder: Path) -> Path:
    """Return a new file with the secret of a cluster, in `folder`, which is created if it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "cluster-secret"
    path.touch(mode=0o600)
    path.write_text(make_secret())
    return path


def assert_goes_on(cluster: Cluster, name: str) -> None:
    """Check that the same members are alive, that each handles an add, and that none has logged an error."""
    cluster.wait_whole()
    for member in cluster.members:
        answer = member.add(f"{name} {member.name}".encode())
        assert answer.status_code == 201, answer.text
    version = answer.json()["Version"]
    roots = {httpx.get(f"{member.url}/snapshots/{version}", timeout=LIMIT_S).text for member in cluster.members}
    assert len(roots) == 1, roots
    for member in cluster.members:
        assert member.process.poll() is None
        for word in ("Traceback", "unexpected", "exception", "panicked"):
            assert word not in member.stderr


def _view(member: Server) -> _wire.Cluster | None:
    try:
        return member.view(limit_s=_ANSWER_LIMIT_S)
    except OSError:
        return None


def _disagreement(views: list[_wire.Cluster], names: set[str]) -> str:
    leaders = {view.node_id: (view.leader_id, view.term) for view in views}
    if len(set(leaders.values())) != 1 or not views[0].leader_id:
        return f"leaders and terms {leaders}"
    for view in views:
        roles = {member.node_id: member.role for member in view.members}
        if set(roles) != names or "learner" in roles.values():
            return f"{view.node_id} knows {roles}"
    return ""


def _arrears(views: list[_wire.Cluster], committed: int) -> str:
    applied = {view.node_id: view.applied_index for view in views}
    return f"applied {applied} of {committed}" if min(applied.values()) < committed else ""
