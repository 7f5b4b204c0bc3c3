"""Ports for the servers of this machine."""

from __future__ import annotations

import itertools
import os
import random
import socket
from typing import Final

__all__ = ["SERVICES", "free_ports", "ports_of_server"]

SERVICES: Final = ("http", "mgmt", "metrics", "raft")
"""The services of a server: for clients, operators, metrics, other members."""

# Below the ephemeral range, so that no connection uses the port of a stopped server. Each worker of pytest-xdist has
# ports of its own: a port that is free when it is drawn is free when the server binds it.
_WORKER: Final = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 4
_PORTS: Final = range(20_000 + 3_000 * _WORKER, 23_000 + 3_000 * _WORKER)


# Handed out in turn from a random one: servers that are made one after the other, and started later, never share one.
_START: Final = random.randrange(len(_PORTS))  # noqa: S311  # it need not be unguessable
_NEXT: Final = itertools.cycle([*_PORTS[_START:], *_PORTS[:_START]])


def free_ports(count: int) -> list[int]:
    """Return different ports of 127.0.0.1 that nothing listens on."""
    return list(itertools.islice(filter(_is_free, _NEXT), count))


def ports_of_server() -> dict[str, int]:
    """Return a free port for each service of a server."""
    return dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
