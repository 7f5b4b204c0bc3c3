"""`Client` and `AsyncClient` behind one interface, so that each test covers both."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import pytest

from qed import AsyncClient, Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Connect(Protocol):
    """Makes a client with the arguments of `Client`, closed when the test ends."""

    def __call__(self, *endpoints: str, **settings: Any) -> Client: ...  # noqa: ANN401  # as Client's own


class _Blocking:
    """An `AsyncClient` that is called from a thread."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._runner = asyncio.Runner()

    def __getattr__(self, name: str) -> Callable[..., object]:
        method = getattr(self._client, name)
        return lambda *args, **kwargs: self._runner.run(method(*args, **kwargs))

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()


@pytest.fixture(params=["Client", "AsyncClient"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    made: list[Client] = []

    def make(*endpoints: str, **settings: Any) -> Client:  # noqa: ANN401  # as Client's own
        if request.param == "Client":
            made.append(Client(endpoints, **settings))
        else:
            made.append(cast("Client", _Blocking(AsyncClient(endpoints, **settings))))
        return made[-1]

    yield make
    for client in made:
        client.close()


def open_sockets() -> set[str]:
    """Return the inodes of all sockets that this process has open."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:  # the listing's own descriptor
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found
