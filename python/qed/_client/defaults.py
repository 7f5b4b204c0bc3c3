"""The defaults of both clients, and so of the command line. Nothing is imported: `qed --help` shows them, quickly."""

from __future__ import annotations

from typing import Final

__all__ = ["DEFAULT_ATTEMPTS", "DEFAULT_ENDPOINT", "DEFAULT_READ", "DEFAULT_SEND", "DEFAULT_TIMEOUT_S"]

DEFAULT_ENDPOINT: Final = "http://127.0.0.1:8800"
DEFAULT_TIMEOUT_S: Final = 10.0
DEFAULT_ATTEMPTS: Final = 3
DEFAULT_READ: Final = "primary-preferred"
DEFAULT_SEND: Final = "digest"
