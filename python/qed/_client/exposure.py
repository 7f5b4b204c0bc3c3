"""Keys that travel where others can read them: a client warns once, before it sends the first."""

from __future__ import annotations

import warnings
from urllib.parse import urlsplit

from qed._hosts import is_loopback
from qed.errors import KeyExposedWarning

__all__ = ["Exposure"]


class Exposure:
    """Warns when a client first sends its key without TLS to another machine.

    Args:
        has_key: Whether the client has a key, and its caller wants to know.
    """

    def __init__(self, *, has_key: bool) -> None:
        self._is_due = has_key

    def note(self, url: str) -> None:
        """Note that a request is about to be sent to `url`.

        Raises:
            KeyExposedWarning: The caller has turned this warning into an error. Nothing is sent.
        """
        if not self._is_due:
            return
        parts = urlsplit(url)
        if parts.scheme == "https" or is_loopback(parts.hostname or ""):
            return
        self._is_due = False
        # The caller's line is far up the stack, and not on it at all with asyncio.
        message = f"the api key is sent to {parts.scheme}://{parts.netloc} without TLS: everyone on the way can read it"
        warnings.warn(message, KeyExposedWarning, stacklevel=1)
