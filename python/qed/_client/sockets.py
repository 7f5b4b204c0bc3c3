"""The open sockets of a client, so that a forked child can drop its copies of them.

A child gets a copy of every descriptor of its parent. If both used one connection, each would read the other's answers.
After a fork, before anything else runs in the child, every client gets new connections, and the child's copies of the
parent's sockets are replaced with /dev/null. Nothing is written to those sockets, and nothing is shut down: the parent
keeps using them.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

if TYPE_CHECKING:
    from typing import Final

__all__ = ["Forked", "Sockets", "renew_after_fork"]


class Forked(Protocol):
    """Something that holds connections when the process forks."""

    def renew(self) -> None:
        """Use new connections from here on. Runs in the child, which has only this thread."""

    def drop_inherited(self) -> None:
        """Close the child's copies of the parent's sockets."""


class Sockets:
    """The sockets that one client has opened.

    An entry may be out of date: the socket was closed, and its descriptor may belong to another file by now. The inode
    reveals that, because no two sockets share one. So entries need not be removed, and each descriptor has at most one.
    """

    def __init__(self) -> None:
        self._inodes: dict[int, int] = {}

    def note(self, opened: object) -> None:
        """Record a socket.

        Args:
            opened: The socket, as a network stream of httpcore gives it; a stream without one is ignored.
        """
        fileno = getattr(opened, "fileno", None)
        if fileno is not None and (descriptor := fileno()) >= 0:
            self._inodes[descriptor] = os.fstat(descriptor).st_ino

    def drop_inherited(self) -> None:
        """Replace every recorded socket that is still open with /dev/null, in a forked child.

        The descriptor stays in use, because the child's copies of the parent's objects will close it by number. An
        event loop that still watches it finds a file that it never registered, and so leaves the parent's alone.
        """
        inodes, self._inodes = self._inodes, {}
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor, inode in inodes.items():
            with suppress(OSError):  # already closed
                if os.fstat(descriptor).st_ino == inode:
                    os.dup2(nothing, descriptor, inheritable=False)
        os.close(nothing)


_FORKED: Final[WeakSet[Forked]] = WeakSet()


def renew_after_fork(owner: Forked) -> None:
    """Renew `owner` in every child that is forked from here on, as long as the owner is alive."""
    _FORKED.add(owner)


def _in_child() -> None:
    owners = list(_FORKED)
    # Renew first: a later failure, for instance for lack of a descriptor, must not leave a connection shared.
    for owner in owners:
        owner.renew()
    for owner in owners:
        owner.drop_inherited()


os.register_at_fork(after_in_child=_in_child)
