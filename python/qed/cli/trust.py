"""Trusted roots from the options of a command, or from a person at the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import click

from qed.cli.options import DIGEST, VERSION
from qed.errors import NotTrusted
from qed.proofs import Digest, HistoryRoot, HyperRoot
from qed.trust import TrustedRoots

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qed.cli.terminal import Terminal
    from qed.questions import Question

__all__ = ["EndRoots", "MembershipRoots", "Person", "end_roots", "given_end_roots", "given_roots", "membership_roots"]


class MembershipRoots(TypedDict):
    """The options that give roots for a membership question."""

    hyper_digest: Digest | None
    current_version: int | None
    history_digest: Digest | None
    query_version: int | None
    current_history_digest: Digest | None


class EndRoots(TypedDict):
    """The options that give the roots of both ends of a range."""

    start_digest: Digest | None
    end_digest: Digest | None


def membership_roots(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of `MembershipRoots`, in the order of the help page."""
    for option in (
        click.option(
            "--current-history-digest",
            type=DIGEST,
            metavar="HEX",
            help="Trusted HistoryDigest of --current-version, if it differs from --query-version.",
        ),
        click.option("--query-version", type=VERSION, metavar="N", help="The version of --history-digest."),
        click.option("--history-digest", type=DIGEST, metavar="HEX", help="Trusted HistoryDigest of --query-version."),
        click.option("--current-version", type=VERSION, metavar="N", help="The version of --hyper-digest."),
        click.option("--hyper-digest", type=DIGEST, metavar="HEX", help="Trusted HyperDigest of --current-version."),
    ):
        function = option(function)
    return function


def end_roots(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of `EndRoots`, in the order of the help page."""
    for option in (
        click.option("--end-digest", type=DIGEST, metavar="HEX", help="Trusted HistoryDigest of the later version."),
        click.option(
            "--start-digest", type=DIGEST, metavar="HEX", help="Trusted HistoryDigest of the earlier version."
        ),
    ):
        function = option(function)
    return function


def given_roots(given: MembershipRoots) -> TrustedRoots | None:
    """Return the roots that were given for a membership question.

    Args:
        given: The options.

    Returns:
        The roots with their versions, or None if none were given.

    Raises:
        click.UsageError: A digest has no version, a version has no digest, or two digests of one version differ.
    """
    _require_pair(
        given["hyper_digest"] or given["current_history_digest"], given["current_version"], "hyper", "current"
    )
    _require_pair(given["history_digest"], given["query_version"], "history", "query")
    roots: list[HistoryRoot | HyperRoot] = []
    if given["current_version"] is not None and given["hyper_digest"] is not None:
        roots.append(HyperRoot(given["current_version"], given["hyper_digest"]))
    if given["current_version"] is not None and given["current_history_digest"] is not None:
        roots.append(HistoryRoot(given["current_version"], given["current_history_digest"]))
    if given["query_version"] is not None and given["history_digest"] is not None:
        roots.append(HistoryRoot(given["query_version"], given["history_digest"]))
    return _trusted(roots)


def given_end_roots(given: EndRoots, start: int, end: int) -> TrustedRoots | None:
    """Return the roots that were given for the ends of a range.

    Args:
        given: The options.
        start: The earlier version.
        end: The later version.

    Returns:
        The roots with their versions, or None if none were given.
    """
    pairs = ((start, given["start_digest"]), (end, given["end_digest"]))
    roots = [HistoryRoot(version, digest) for version, digest in pairs if digest is not None]
    return _trusted(roots)


def _trusted(roots: Sequence[HistoryRoot | HyperRoot]) -> TrustedRoots | None:
    try:
        return TrustedRoots(*roots) if roots else None
    except ValueError as exc:
        raise click.UsageError(f"two digests were given for one version: {exc}") from exc


def _require_pair(digest: Digest | None, version: int | None, root: str, what: str) -> None:
    """Refuse half of a root: without its version the server could choose which version the digest is of."""
    if digest is not None and version is None:
        raise click.UsageError(f"--{root}-digest needs its version: give --{what}-version N too")
    if digest is None and version is not None:
        raise click.UsageError(f"--{what}-version needs its digest: give --{root}-digest HEX too")


class Person(TrustedRoots):
    """A person at the terminal, who is asked for each root that was not given as an option.

    Args:
        terminal: The person's terminal.
        question: The question to the log.
        given: Roots that were given as options.
    """

    def __init__(self, terminal: Terminal, question: Question, given: TrustedRoots | None) -> None:
        super().__init__()
        self._terminal = terminal
        self._question = question
        self._given = given or TrustedRoots()
        self._answered: dict[str, Digest] = {}

    def history_root(self, version: int) -> HistoryRoot:
        """Return the history root of a version: as given, or else as the person answers."""
        try:
            return self._given.history_root(version)
        except NotTrusted:
            return HistoryRoot(version, self._ask(self._history_name(version), version))

    def hyper_root(self, version: int) -> HyperRoot:
        """Return the hyper root of a version: as given, or else as the person answers."""
        try:
            return self._given.hyper_root(version)
        except NotTrusted:
            return HyperRoot(version, self._ask("hyperDigest for current version", version))

    def _history_name(self, version: int) -> str:
        ends = {getattr(self._question, "start", None): "starting ", getattr(self._question, "end", None): "ending "}
        return f"{ends.get(version, '')}historyDigest for version"

    def _ask(self, name: str, version: int) -> Digest:
        """Ask for a root until the answer is a digest."""
        prompt = f"Please, provide the {name} [ {version} ]: "
        while prompt not in self._answered:
            answer = self._terminal.ask(prompt)
            if answer is None:
                raise click.UsageError(f"no {name} {version} was given, so nothing was verified")
            try:
                self._answered[prompt] = Digest.from_hex(answer)
            except ValueError:
                self._terminal.note(f"expected 64 hex digits, found {len(answer)} characters")
        return self._answered[prompt]
