"""Limits and names that library, command line and server must agree on."""

from __future__ import annotations

from typing import Final

__all__ = [
    "APPEND",
    "BACKUP_EVENTS_PER_S",
    "BULK_KEYS_MAX",
    "KNOWS_NO_RECEIPTS",
    "LOG_LEVELS",
    "MAX_RATE_PER_S",
    "MAX_TOKEN_TTL_S",
    "MIN_RATE_PER_S",
    "NOT_SIGNED",
    "NOT_WITNESSED",
    "OBSERVE",
    "OPERATE",
    "PROVE",
    "ROLES",
    "ROLE_URI",
    "U64_LIMIT",
    "VERSION_LIMIT",
]

U64_LIMIT: Final = 2**64
"""Unsigned 64-bit integers are below it."""
VERSION_LIMIT: Final = U64_LIMIT
"""Versions are below it."""
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
"""The names of log levels in options, from the most verbose."""
APPEND: Final = "append"
"""The role to add events; likewise the next ones: to ask for proofs, to change the cluster, to see how it is."""
PROVE: Final = "prove"
OPERATE: Final = "operate"
OBSERVE: Final = "observe"
ROLES: Final = (APPEND, PROVE, OPERATE, OBSERVE)
"""What the holder of an API key or of a client certificate may do: any of these together."""
ROLE_URI: Final = "qed:role:"
"""A client certificate names its roles as URIs, this and the role, among its subject alternative names."""
MAX_TOKEN_TTL_S: Final = 30 * 86_400
"""Longest validity of a token to join with: a month."""
MIN_RATE_PER_S: Final = 0.001
"""The lowest rate that a key may have: one request or event in a quarter of an hour."""
MAX_RATE_PER_S: Final = 1_000_000_000
"""The highest one, which limits nothing."""
BACKUP_EVENTS_PER_S: Final = 1_250_000
"""The highest rate of a backup: less than half of what two cores can do, so that the servers keep time for clients."""
BULK_KEYS_MAX: Final = 1_000
"""Most keys of a bulk proof: making one keeps a thread busy for some milliseconds."""
NOT_SIGNED: Final = "this log is not signed: its servers were started without --origin"
"""Why there is no signed receipt of a log that was never meant to be signed."""
KNOWS_NO_RECEIPTS: Final = "the server does not know receipts: it is an older one"
"""Likewise, of an older server."""
NOT_WITNESSED: Final = "not witnessed yet"
"""Why there is no witnessed receipt: too few witnesses have cosigned in time."""
