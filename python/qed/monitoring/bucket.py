"""A bucket of an object store that speaks the protocol of S3, as a source and as a target.

Writes are conditional: a tile or bundle is created only where there is none (`If-None-Match: *`), and the checkpoint is
replaced only where it is the one that was read (`If-Match`). A store that ignores these conditions is refused.

This file needs the package obstore, which not every installation has.
"""

from __future__ import annotations

import re
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NoReturn

import obstore
from obstore import exceptions
from obstore.store import S3Store

from qed._printable import beginning, printable
from qed.errors import MonitorError, ProtocolError, Unavailable
from qed.monitoring.s3 import SCHEME
from qed.monitoring.sources import CHECKPOINT, NotPublished, content_of, limit_of
from qed.monitoring.targets import Stored, Superseded, require_same

if TYPE_CHECKING:
    from collections.abc import Iterator

    from obstore import Attributes, PutMode
    from obstore.store import ClientConfig, RetryConfig, S3Config

    from qed._client.connections import Security
    from qed.monitoring.s3 import S3Options

__all__ = ["Bucket"]

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX: Final = re.compile(r"[A-Za-z0-9!_.*'()=-]+(/[A-Za-z0-9!_.*'()=-]+)*")
_RETRIES: Final = 4
_CREATE_TRIES: Final = 3
_PART_BYTES: Final = 1
"""Parts are given as they arrive."""
_NO_SUCH_TAG: Final = '"00000000000000000000000000000000"'

_STATUS: Final = re.compile(r"status code: ([0-9]{3})( [A-Za-z' -]{1,40})?")
_CODE: Final = re.compile(r"<Code>([A-Za-z0-9]{1,64})</Code>")
_OF_CREDENTIALS: Final = re.compile(r".{0,40}performing [A-Z]+ http://169\.254\.")
"""The request for credentials that the library makes on machines of Amazon, if there are none."""
_OK: Final = 200
_MOVED: Final = 301
_TOO_MANY_REQUESTS: Final = 429
_SERVER_ERROR: Final = 500
_SENTENCE_MOST: Final = 200


class Bucket:
    """The files of a log below a prefix in a bucket. Any number of threads may use it at once.

    Nothing is sent to it but what is published: no key of the log, and neither the API key nor the certificate.

    Args:
        url: `s3://BUCKET` or `s3://BUCKET/PREFIX`.
        options: How to reach it.
        security: How to check the server.
        timeout_s: How long one request may take.

    Raises:
        ValueError: The URL or the endpoint is invalid, or would be reached without TLS and is not on this machine.
    """

    api: Final = None

    def __init__(self, url: str, options: S3Options, security: Security, *, timeout_s: float) -> None:
        self.name: Final = url.rstrip("/")
        self._timeout_s: Final = timeout_s
        self._store: Final = _store(self.name, options, security, timeout_s)
        self._lock: Final = threading.Lock()
        self._is_conditional = False

    def probe(self) -> None:
        """See `Source.probe`."""

    def close(self) -> None:
        """See `Source.close`."""

    def read(self, path: str) -> bytes:
        """See `Source.read`."""
        return self._get(path).content

    def stored(self) -> Stored | None:
        """See `Target.stored`."""
        try:
            return self._get(CHECKPOINT)
        except NotPublished:
            return None

    def put_new(self, path: str, content: bytes) -> bool:
        """See `Target.put_new`."""
        for _ in range(_CREATE_TRIES):
            if self._create(path, content):
                self._require_conditional(path, content)
                return True
            try:
                require_same(f"{self.name}/{path}", self.read(path), content)
            except NotPublished:
                # Another publisher is about to write it, and has not finished.
                continue
            return False
        raise Unavailable(f"{self.name}/{path} cannot be written: it is there, and cannot be read")

    def replace(self, content: bytes, former: Stored | None) -> None:
        """See `Target.replace`."""
        if former is None:
            if not self._create(CHECKPOINT, content):
                raise Superseded
            return
        if former.tag is None:
            raise ProtocolError(f"{self.name}/{CHECKPOINT} has no ETag, so it cannot be replaced safely", status=_OK)
        if not self._put(CHECKPOINT, content, {"e_tag": former.tag}):
            raise Superseded

    def _require_conditional(self, path: str, content: bytes) -> None:
        """Check once that the store heeds both conditions. A file that is there is written again as it is if not."""
        with self._lock:
            if self._is_conditional:
                return
            ignored = "If-None-Match" if self._create(path, content) else None
            if ignored is None and self._put(path, content, {"e_tag": _NO_SUCH_TAG}):
                ignored = "If-Match"
            if ignored is not None:
                raise ProtocolError(
                    f"{self.name}: the store ignores {ignored}, so two publishers could overwrite each other: "
                    "expected one with conditional writes",
                    status=_OK,
                )
            self._is_conditional = True

    def _create(self, path: str, content: bytes) -> bool:
        """Write a file unless there is one, and return whether there was none."""
        return self._put(path, content, "create")

    def _put(self, path: str, content: bytes, mode: PutMode) -> bool:
        try:
            obstore.put(self._store, path, content, attributes=_attributes(path), mode=mode, use_multipart=False)
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
            return False
        except (exceptions.BaseError, FileNotFoundError, ValueError) as exc:
            self._fail(path, exc)
        return True

    def _get(self, path: str) -> Stored:
        deadline, place = time.monotonic() + self._timeout_s, f"{self.name}/{path}"
        try:
            found = obstore.get(self._store, path)
            encoding = found.attributes.get("Content-Encoding", "identity")
            parts: Iterator[bytes] = (bytes(part) for part in found.stream(min_chunk_size=_PART_BYTES))
            content = content_of(parts, encoding, limit=limit_of(path), place=place, until=deadline)
            return Stored(content, found.meta["e_tag"])
        except FileNotFoundError as exc:
            if _status(str(exc))[1] == "NoSuchBucket":
                self._fail(path, exc)
            raise NotPublished(f"{self.name} has no {path}") from exc
        except TimeoutError as exc:
            raise Unavailable(str(exc)) from exc
        except (exceptions.BaseError, ValueError) as exc:
            self._fail(path, exc)

    def _fail(self, path: str, exc: Exception) -> NoReturn:
        """Raise what an error of the library means. Its message quotes what the store has answered."""
        text, place = str(exc), f"{self.name}/{path}"
        status, code = _status(text)
        if _OF_CREDENTIALS.match(text):
            raise MonitorError(
                f"{self.name}: there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "or AWS_SKIP_SIGNATURE=true for a bucket that anyone can read"
            ) from exc
        if status is not None:
            said = f"{place}: the store answered {status}{f' {code}' if code else ''}"
            if status >= _SERVER_ERROR or status == _TOO_MANY_REQUESTS:
                raise Unavailable(said) from exc
            raise ProtocolError(said, status=status) from exc
        if "HTTP error" in text:
            raise Unavailable(f"{place}: the store cannot be reached, or does not answer in time") from exc
        if "incorrectly configured region" in text:
            said = f"{place}: the bucket is in another region: give --s3-region, or set AWS_REGION"
            raise ProtocolError(said, status=_MOVED) from exc
        raise ProtocolError(f"{place}: {_first_line(exc)}", status=_OK) from exc


def _attributes(path: str) -> Attributes:
    """Return the headers with which a file is to be served."""
    if path == CHECKPOINT:
        return {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "max-age=1"}
    return {"Content-Type": "application/octet-stream", "Cache-Control": "public, max-age=31536000, immutable"}


def _status(text: str) -> tuple[int | None, str]:
    """Return the status and the code of an error that the store has answered, as the library quotes it."""
    status, code = _STATUS.search(text), _CODE.search(text)
    return None if status is None else int(status[1]), "" if code is None else code[1]


def _store(url: str, options: S3Options, security: Security, timeout_s: float) -> S3Store:
    bucket, _, prefix = url.removeprefix(SCHEME).partition("/")
    if not _BUCKET.fullmatch(bucket) or not (prefix == "" or _PREFIX.fullmatch(prefix)) or ".." in url:
        raise ValueError(f"expected s3://BUCKET or s3://BUCKET/PREFIX, without query, found {url!r}")
    endpoint = options.url(is_insecure=not security.verify_tls)
    limit = timedelta(seconds=timeout_s)
    client: ClientConfig = {
        # An endpoint without TLS was found to be allowed.
        "allow_http": endpoint is not None and endpoint.startswith("http://"),
        "allow_invalid_certificates": not security.verify_tls,
        "timeout": limit,
        "connect_timeout": limit,
    }
    if security.ca is not None:
        client["root_certificate"] = security.ca.read_bytes()
    config: S3Config = {
        "bucket": bucket,
        "conditional_put": "etag",
        "virtual_hosted_style_request": options.is_virtual_hosted,
    }
    if endpoint is not None:
        config["aws_endpoint_url_s3"] = endpoint
    if options.region is not None:
        config["region"] = options.region
    retries: RetryConfig = {"max_retries": _RETRIES, "retry_timeout": limit}
    try:
        return S3Store(prefix=prefix or None, config=config, client_options=client, retry_config=retries)
    except Exception as exc:
        raise ValueError(f"{url}: {_first_line(exc)}") from exc


def _first_line(exc: Exception) -> str:
    """Return what an error of the library says, without what it prints for its programmers."""
    return beginning(printable(str(exc).partition("\n")[0]), _SENTENCE_MOST)
