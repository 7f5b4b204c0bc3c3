"""The fields of a JSON object: each at most once."""

from __future__ import annotations

__all__ = ["unique_fields"]


def unique_fields(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return a JSON object, for `json.loads(…, object_pairs_hook=unique_fields)`.

    Args:
        pairs: The names and values of its fields, in their order.

    Returns:
        The object.

    Raises:
        ValueError: A field occurs twice. Of two values, some readers use the first and others the last.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate field")
    return found
