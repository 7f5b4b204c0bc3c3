"""What the name of a host says about where it is."""

from __future__ import annotations

import ipaddress

__all__ = ["is_everywhere", "is_loopback"]


def is_loopback(host: str) -> bool:
    """Return whether a name or an IP address, without brackets, can only mean this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_everywhere(host: str) -> bool:
    """Return whether an IP address, without brackets, means all interfaces: nobody can connect to it."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
