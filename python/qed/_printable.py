"""Other people's text, made safe to print."""

from __future__ import annotations

__all__ = ["printable", "printable_json"]


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


def printable_json(text: str) -> str:
    r"""Return JSON that means the same as `text`, with every character that a terminal would obey spelt as an escape.

    Args:
        text: JSON on one line.

    Returns:
        The same text where it is printable; `\u009b` and its like in place of the rest, which only strings can hold.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _json_escape(char) for char in text)


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))
