"""Where a log is published: a URL or a folder with a checkpoint, tiles and bundles (C2SP tlog-tiles).

Nothing that a source gives is verified here. Its length is bounded, and it comes from where it was asked for: a
redirect to another host is an error.
"""

from __future__ import annotations

import errno
import math
import random
import threading
import time
import zlib
from typing import TYPE_CHECKING, Final, Protocol

import httpx

from qed._client.connections import HttpSettings
from qed._client.deadline import deadline
from qed._client.sockets import Sockets
from qed._client.topology import Topology, is_base_url
from qed._client.transports import Transport
from qed._files import read_regular
from qed.errors import DamagedFile, ProtocolError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from qed._client.connections import Security

__all__ = [
    "BUNDLE_BYTES_MAX",
    "CHECKPOINT",
    "CHECKPOINT_BYTES_MAX",
    "FolderSource",
    "NotPublished",
    "Source",
    "UrlSource",
    "content_of",
    "limit_of",
]

CHECKPOINT: Final = "checkpoint"
CHECKPOINT_BYTES_MAX: Final = 256 * 1024
BUNDLE_BYTES_MAX: Final = 27_648
"""The longest bundle of a qed log, when it is not compressed."""
_TILE_BYTES_MAX: Final = 256 * 32
_NO_FILE: Final = frozenset({errno.EINVAL, errno.EISDIR, errno.ENXIO, errno.ELOOP})
"""What is there is a folder, a pipe or a device; a socket; or links that lead nowhere."""

_TRIES: Final = 4
_BACKOFF_S: Final = 0.2
_RETRY_AFTER_MAX_S: Final = 30.0
_REDIRECTS_MAX: Final = 3
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_OK: Final = 200
_GONE: Final = frozenset({404, 410})
_BUSY: Final = frozenset({429, 500, 502, 503, 504})
_GZIP_WINDOW: Final = 31


class NotPublished(Unavailable):
    """The source does not have the file."""


class Source(Protocol):
    """Where a log is published."""

    @property
    def name(self) -> str:
        """The source, for people."""

    @property
    def api(self) -> str | None:
        """The base URL of the server of qed that publishes the log, or None if it is none."""

    def probe(self) -> None:
        """Find out where the files are; errors as for `read`."""

    def read(self, path: str) -> bytes:
        """Return the content of a file. It is not verified.

        Args:
            path: `checkpoint`, or the path of a tile or a bundle.

        Returns:
            The content, not compressed, at most as long as such a file can be.

        Raises:
            NotPublished: There is no such file.
            Unavailable: The source cannot be reached.
            DamagedFile: It is longer than such a file can be, or cannot be decompressed.
            ProtocolError: The server refuses, or sends to another host.
        """

    def close(self) -> None:
        """Close all connections."""


def limit_of(path: str) -> int:
    """Return how long a file of a log can be, in bytes."""
    if path == CHECKPOINT:
        return CHECKPOINT_BYTES_MAX
    return BUNDLE_BYTES_MAX if path.startswith("tile/entries/") else _TILE_BYTES_MAX


class FolderSource:
    """A folder with the files of a log.

    Args:
        folder: The folder.

    Raises:
        OSError: It is not a folder.
    """

    api: Final = None

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise NotADirectoryError(20, "expected a folder with a checkpoint and tiles, found none", str(folder))
        self.name: Final = str(folder)
        self._folder: Final = folder

    def probe(self) -> None:
        """See `Source.probe`."""

    def read(self, path: str) -> bytes:
        """See `Source.read`."""
        limit = limit_of(path)
        try:
            content = read_regular(self._folder / path, limit)
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise NotPublished(f"{self.name} has no {path}") from exc
        except OSError as exc:
            if exc.errno in _NO_FILE:
                raise DamagedFile(f"{self.name}/{path}: {exc.strerror}") from exc
            raise Unavailable(f"{self.name}: {path} cannot be read: {exc.strerror}") from exc
        return _bounded(content, limit, f"{self.name}/{path}")

    def close(self) -> None:
        """See `Source.close`."""


class UrlSource:
    """The files of a log below a URL. Any number of threads may read at once.

    Args:
        url: The prefix of the files, or the base URL of a server of qed, which has them below `/log`.
        security: How to check the server.
        timeout_s: How long one request may take.

    Raises:
        ValueError: The URL is invalid.
    """

    def __init__(self, url: str, security: Security, *, timeout_s: float) -> None:
        self.name: Final = url.rstrip("/")
        if not is_base_url(self.name):
            shown = "one with an @" if "@" in url else repr(url)
            raise ValueError(
                f"expected a URL such as https://log.example.com/log, without user or query, found {shown}"
            )
        settings = HttpSettings.of(Topology((self.name,)), security, timeout_s=timeout_s)
        self._timeout_s: Final = timeout_s
        self._client: Final = httpx.Client(
            transport=Transport(settings.tls, Sockets()), headers=settings.headers, timeout=settings.timeout
        )
        self._host: Final = _host_of(httpx.URL(self.name))
        self._has_path: Final = httpx.URL(self.name).path not in {"", "/"}
        self._prefix: str | None = self.name if self._has_path else None
        self._lock: Final = threading.Lock()

    @property
    def api(self) -> str | None:
        """See `Source.api`."""
        return None if self._has_path or self._prefix in {None, self.name} else self.name

    def probe(self) -> None:
        """See `Source.probe`."""
        self._found_prefix()

    def read(self, path: str) -> bytes:
        """See `Source.read`."""
        return self._read_below(self._found_prefix(), path)

    def close(self) -> None:
        """See `Source.close`."""
        self._client.close()

    def _found_prefix(self) -> str:
        """Return where the files are. A URL without a path is that of a server of qed, or a prefix."""
        with self._lock:
            if self._prefix is None:
                try:
                    self._read_below(f"{self.name}/log", CHECKPOINT)
                    self._prefix = f"{self.name}/log"
                except NotPublished:
                    self._read_below(self.name, CHECKPOINT)
                    self._prefix = self.name
            return self._prefix

    def _read_below(self, prefix: str, path: str) -> bytes:
        url, limit = f"{prefix}/{path}", limit_of(path)
        for left in range(_TRIES - 1, -1, -1):
            try:
                return self._get(url, limit)
            except _BusyError as exc:
                if not left:
                    raise Unavailable(str(exc)) from exc
                wait_s = exc.retry_after_s
            except (httpx.TransportError, TimeoutError) as exc:
                if not left:
                    raise Unavailable(f"{url}: {exc or type(exc).__name__}") from exc
                wait_s = None
            time.sleep(_pause_s(_TRIES - left, wait_s))
        raise Unavailable(url)

    def _get(self, url: str, limit: int) -> bytes:
        # One deadline for all: a server could send a byte of its answer now and then.
        with deadline(self._timeout_s):
            for _ in range(_REDIRECTS_MAX + 1):
                with self._client.stream("GET", url, headers={"Accept-Encoding": "gzip"}) as response:
                    if response.status_code in _REDIRECTS:
                        url = self._same_host(url, response)
                        continue
                    return _body(response, limit)
        raise DamagedFile(f"{url}: more than {_REDIRECTS_MAX} redirects")

    def _same_host(self, url: str, response: httpx.Response) -> str:
        # httpx has refused what is no URL.
        target = httpx.URL(url).join(response.headers.get("location", ""))
        if _host_of(target) != self._host:
            raise ProtocolError(f"{url} redirects to another host, {target.host}", status=response.status_code)
        return str(target)


class _BusyError(Exception):
    """The server may answer later.

    Attributes:
        retry_after_s: When, as it said, or None.
    """

    def __init__(self, message: str, retry_after_s: float | None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


def _host_of(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _pause_s(tries: int, asked_s: float | None) -> float:
    if asked_s is not None:
        return min(asked_s, _RETRY_AFTER_MAX_S)
    return _BACKOFF_S * 2.0**tries * random.uniform(0.5, 1.0)  # noqa: S311  # spreads retries, no secret


def _body(response: httpx.Response, limit: int) -> bytes:
    url, status = str(response.url), response.status_code
    if status in _GONE:
        raise NotPublished(f"{url} answered {status}")
    if status in _BUSY:
        after = response.headers.get("retry-after", "")
        raise _BusyError(f"{url} answered {status}", float(after) if after.isascii() and after.isdigit() else None)
    if status != _OK:
        raise ProtocolError(f"{url} answered {status}", status=status)
    encoding = response.headers.get("content-encoding", "identity")
    return content_of(response.iter_raw(), encoding, limit=limit, place=url)


def content_of(parts: Iterable[bytes], encoding: str, *, limit: int, place: str, until: float = math.inf) -> bytes:
    """Return the content of a file, not compressed.

    Args:
        parts: What arrives, one part after the other.
        encoding: `identity` or `gzip`, as the header Content-Encoding has it.
        limit: How long the content may be, in bytes.
        place: The file, for people.
        until: When it must be complete, on the clock `time.monotonic`.

    Returns:
        The content.

    Raises:
        DamagedFile: It is longer, or cannot be decompressed.
        TimeoutError: It was not complete in time.
    """
    if encoding == "identity":
        return _joined(parts, limit, place, until)
    if encoding != "gzip":
        raise DamagedFile(f"{place} answered in the encoding {encoding!r}, which was not asked for")
    return _joined(_unzipped(parts, limit, place), limit, place, until)


def _joined(parts: Iterable[bytes], limit: int, url: str, until: float) -> bytes:
    content = bytearray()
    for part in parts:
        content += part
        _bounded(content, limit, url)
        if time.monotonic() > until:
            raise TimeoutError(f"{url} was not complete in time")
    return bytes(content)


def _unzipped(parts: Iterable[bytes], limit: int, url: str) -> Iterator[bytes]:
    """Decompress. A small body may expand to a gigabyte, so each step is bounded, too."""
    inflate = zlib.decompressobj(_GZIP_WINDOW)
    try:
        for part in parts:
            yield inflate.decompress(part, limit + 1)
            if inflate.unconsumed_tail or inflate.unused_data:
                raise DamagedFile(f"{url} answered with more than one file of at most {limit} bytes")
    except zlib.error as exc:
        raise DamagedFile(f"{url} answered with bytes that are not gzip") from exc
    if not inflate.eof:
        raise DamagedFile(f"{url} answered with gzip that is cut off")


def _bounded(content: bytes | bytearray, limit: int, place: str) -> bytes:
    if len(content) > limit:
        raise DamagedFile(f"{place} has more than {limit} bytes")
    return bytes(content)
