"""Which hosts mean this machine: for the server's doors and for the client's warning alike."""

from __future__ import annotations

import pytest

from qed._hosts import is_loopback
from qed.server.addresses import Address


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost", "LocalHost"])
def test_a_loopback_host_means_this_machine(host: str) -> None:
    assert is_loopback(host)
    assert Address(host, 1).is_loopback


@pytest.mark.parametrize("host", ["::", "10.0.0.1", "localhost.example.com", "127.0.0.1.example.com", ""])
def test_any_other_host_may_be_elsewhere(host: str) -> None:
    assert not is_loopback(host)
    assert not Address(host, 1).is_loopback
