"""Other people's text, made safe to print."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    r"""Return `text` on one line, with every character that a terminal would obey, not show, spelt as an escape.

    Events, file names and server messages are other people's text: none may move the cursor, forge a line or break one.

    Args:
        text: Any text, also with surrogates from undecodable arguments.

    Returns:
        The same text where it is printable; `\x1b`, `\n` and their like in place of the rest.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
