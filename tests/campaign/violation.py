"""The finding that a campaign looks for."""

from __future__ import annotations


class Violation(AssertionError):
    """A promise of the cluster was broken."""
