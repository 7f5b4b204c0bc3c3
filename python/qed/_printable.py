"""Other people's text, made safe to print."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["beginning", "ending", "printable", "printable_json"]

_PRIVATE_KEY: Final = re.compile(r"PRIVATE\+KEY\+\S*")


def printable(text: str) -> str:
    r"""Return `text` on one line, with every character that a terminal would interpret rather than show escaped.

    Events, file names and server messages are other people's text: they must not move the cursor, or forge or break a
    line.

    Private keys are not shown at all: whoever gives the wrong file must not find them in a log afterwards.

    Args:
        text: Any text, including surrogates from undecodable arguments.

    Returns:
        The text, with escapes such as `\x1b` and `\n` for unprintable characters.
    """
    text = _PRIVATE_KEY.sub("PRIVATE+KEY+(hidden)", text)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def beginning(text: str, most: int) -> str:
    """Return the first words of `text`, at most `most` characters: half a digest would look like another one.

    A single word that is longer is cut.
    """
    if len(text) <= most:
        return text
    return text[:most].rpartition(" ")[0] or text[:most]


def ending(text: str, most: int) -> str:
    """Return the last words of `text`, as `beginning` does the first ones."""
    if len(text) <= most:
        return text
    return text[-most:].partition(" ")[2] or text[-most:]


def printable_json(text: str) -> str:
    r"""Return JSON with the meaning of `text`, with every character that a terminal would interpret escaped.

    Args:
        text: JSON on one line.

    Returns:
        The text, with escapes such as `\u009b` for unprintable characters, which only strings can contain.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _json_escape(char) for char in text)


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))
