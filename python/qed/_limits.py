"""Limits and names that library, command line and server must agree on."""

from __future__ import annotations

from typing import Final

__all__ = ["LOG_LEVELS", "ROLES", "ROLE_URI", "U64_LIMIT", "VERSION_LIMIT"]

U64_LIMIT: Final = 2**64
"""Unsigned 64-bit integers are below it."""
VERSION_LIMIT: Final = U64_LIMIT
"""Versions are below it."""
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
"""The names of log levels in options, from the most verbose."""
ROLES: Final = ("append", "prove", "operate", "observe")
"""What the holder of an API key or of a client certificate may do."""
ROLE_URI: Final = "qed:role:"
"""A client certificate names its roles as URIs, this and the role, among its subject alternative names."""
