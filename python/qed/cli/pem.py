"""PEM files: those that are read are bounded, and keys among them private; those that are written replace nothing."""

from __future__ import annotations

import os
import re
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from qed._files import PRIVATE, create_file, is_exposed, open_at_once, replace_file
from qed.errors import CertificateError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Output", "blaming", "read_pem", "read_private"]

_PUBLIC: Final = 0o644
_KEY: Final = ".key"
_MOST_BYTES: Final = 1 << 20
"""A file chosen by mistake must not fill the memory."""


@contextmanager
def blaming(path: str) -> Iterator[None]:
    """Name a file in the message of every `CertificateError` that the block raises."""
    try:
        yield
    except CertificateError as exc:
        raise CertificateError(f"{path}: {exc}") from exc


def read_pem(path: str) -> bytes:
    """Return the content of a PEM file.

    Raises:
        CertificateError: It is too large.
        OSError: It cannot be read.
    """
    return _read(path, is_private=False)


def read_private(path: str, *, may_group_read: bool = True) -> bytes:
    """Return the content of a file with a private key.

    Raises:
        CertificateError: It is too large, or other users may read or write it.
        OSError: It cannot be read.
    """
    return _read(path, is_private=True, may_group_read=may_group_read)


def _read(path: str, *, is_private: bool, may_group_read: bool = True) -> bytes:
    with blaming(path), open_at_once(path) as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if is_private and (is_exposed(mode) or (not may_group_read and mode & stat.S_IRWXG)):
            raise CertificateError(f"others can read or change this key (mode {mode:04o}): chmod 600 it")
        content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise CertificateError(f"expected a PEM file of at most {_MOST_BYTES} bytes, found more")
    return content


@dataclass(frozen=True)
class Output:
    """The files that a command writes: one name with several suffixes.

    Attributes:
        prefix: The name without a suffix, with its folder.
        is_forced: Whether existing files are replaced.
    """

    prefix: Path
    is_forced: bool

    @classmethod
    def named(cls, prefix: str | None, name: str, *, is_forced: bool) -> Output:
        """Return the output at `prefix`, or named after `name` in this folder."""
        # A node id may hold a slash.
        return cls(Path(prefix or re.sub(r"[^A-Za-z0-9_.-]|^\.", "_", name)), is_forced)

    def path(self, suffix: str) -> Path:
        """Return the path of one of the files."""
        return self.prefix.with_name(self.prefix.name + suffix)

    def require_free(self, *suffixes: str) -> None:
        """Check that these files can be written, before anything is made for them.

        Raises:
            click.UsageError: A file exists and is not to be replaced, or its folder does not exist.
        """
        if not self.prefix.name or not self.prefix.parent.is_dir():
            raise click.UsageError(f"--out: expected a name in a folder that exists, found {str(self.prefix)!r}")
        found = [str(self.path(suffix)) for suffix in suffixes if os.path.lexists(self.path(suffix))]
        if found and not self.is_forced:
            raise click.UsageError(
                f"{' and '.join(found)} would be replaced: give --out PREFIX to keep, or --force to replace"
            )

    def write(self, contents: Mapping[str, bytes]) -> None:
        """Write all files, or none unless existing ones are replaced; those named `.key` with mode 0600.

        Args:
            contents: The content by suffix.

        Raises:
            OSError: A file cannot be written, or has appeared since `require_free`.
        """
        made: list[Path] = []
        try:
            for suffix, content in contents.items():
                path, mode = self.path(suffix), PRIVATE if suffix == _KEY else _PUBLIC
                if self.is_forced:
                    replace_file(path, content, mode=mode, keep_mode=False)
                else:
                    create_file(path, content, mode=mode)
                    made.append(path)
        except BaseException:
            for path in made:
                path.unlink(missing_ok=True)
            raise
