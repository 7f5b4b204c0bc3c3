"""Events from the options of a command: a text, the bytes of a file, or only a digest."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, TypedDict

import click

from qed._files import open_at_once
from qed.evidence import EVIDENCE_BYTES_MAX
from qed.proofs import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qed.cli.terminal import Terminal

__all__ = [
    "EVENT_BYTES_MAX",
    "EventOptions",
    "content_of_evidence",
    "describe",
    "digest_given",
    "event_given",
    "open_input",
    "size_of",
]

# Sending an event needs several copies of it in memory, so a file chosen by mistake must not fill the memory.
EVENT_BYTES_MAX: Final = 256 * 1024 * 1024
_READ_BYTES: Final = 1 << 20
# A smaller file is hashed before a progress bar could be seen.
_SHOWN_BYTES: Final = 64 * 1024 * 1024


class EventOptions(TypedDict, total=False):
    """The options that name one event."""

    event: str | None
    file: str | None
    event_digest: Digest | None


@contextmanager
def open_input(path: str) -> Iterator[BinaryIO]:
    """Open a file for reading bytes.

    Args:
        path: The file, or `-` for stdin.

    Yields:
        The open file.

    Raises:
        OSError: The file cannot be opened.
    """
    if path == "-":
        if sys.stdin is None:
            raise click.UsageError("stdin is closed")
        yield sys.stdin.buffer
        return
    with Path(path).open("rb") as file:
        yield file


def content_of_evidence(path: str) -> bytes:
    """Return the content of a file of evidence, at most one byte more than such a file has.

    Args:
        path: The file, or `-` for stdin.

    Returns:
        The content. It is not verified.

    Raises:
        OSError: The file cannot be read.
    """
    with open_input("-") if path == "-" else open_at_once(path) as file:
        return file.read(EVIDENCE_BYTES_MAX + 1)


def event_given(given: EventOptions) -> bytes:
    """Return the event that exactly one of `--event` and `--file` names.

    Args:
        given: The options.

    Returns:
        The event.

    Raises:
        click.UsageError: None or several were given, or the file is too large for an event.
        OSError: The file cannot be read.
    """
    _require_one(given)
    text, path = given.get("event"), given.get("file")
    if text is not None:
        # The exact bytes that the shell passed, even if they are not valid text.
        return os.fsencode(text)
    if path is None:
        raise click.UsageError("expected the event itself, --event or --file, found only its digest")
    with open_input(path) as file:
        event = file.read(EVENT_BYTES_MAX + 1)
    if len(event) > EVENT_BYTES_MAX:
        raise click.UsageError(f"{path}: expected at most {EVENT_BYTES_MAX} bytes to send as an event, found more")
    return event


def digest_given(given: EventOptions, terminal: Terminal) -> Digest:
    """Return the digest of the event that exactly one of `--event`, `--file` and `--event-digest` names.

    A file is hashed as it is read, so it may have any size.

    Args:
        given: The options.
        terminal: Shows the progress of a large file.

    Returns:
        The digest.

    Raises:
        click.UsageError: None or several were given.
        OSError: The file cannot be read.
    """
    _require_one(given)
    digest, path = given.get("event_digest"), given.get("file")
    if digest is not None:
        return digest
    if path is None:
        return Digest.of(event_given(given))
    with open_input(path) as file:
        return _digest_of_stream(file, terminal)


def _digest_of_stream(file: BinaryIO, terminal: Terminal) -> Digest:
    size_bytes = size_of(file)
    is_shown = size_bytes is None or size_bytes >= _SHOWN_BYTES
    hashed = hashlib.sha256()
    with terminal.reading(size_bytes) if is_shown else nullcontext(lambda _: None) as advance:
        while part := file.read(_READ_BYTES):
            hashed.update(part)
            advance(len(part))
    return Digest(hashed.digest())


def size_of(file: BinaryIO) -> int | None:
    """Return the size of a file in bytes, or None for a pipe or a device."""
    status = os.fstat(file.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def describe(given: EventOptions, digest: Digest) -> str:
    """Return the event's description in a line for people.

    Args:
        given: The options that name it.
        digest: Its digest.

    Returns:
        Its text, its file or its digest.
    """
    text, path = given.get("event"), given.get("file")
    if text is not None:
        return f"key [ {text} ]"
    return f"digest [ {digest.hex()} ]" if path is None else f"file [ {path} ]"


def _require_one(given: EventOptions) -> None:
    names = {f"--{name.replace('_', '-')}": value for name, value in given.items()}
    found = [name for name, value in names.items() if value is not None]
    if len(found) != 1:
        raise click.UsageError(f"expected one of {', '.join(names)}, found {' and '.join(found) or 'none of them'}")
