"""How to reach a bucket in an object store that speaks the protocol of S3."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

from qed._hosts import is_loopback

__all__ = ["SCHEME", "S3Options"]

SCHEME: Final = "s3://"
_ENDPOINT: Final = re.compile(r"(https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[A-Za-z0-9._/-]*)?")
_VARIABLES: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


@dataclass(frozen=True)
class S3Options:
    """How to reach a bucket. Credentials, and what is None here, come from the usual variables of the environment.

    Attributes:
        endpoint: URL of the store; None for that of `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`, or of Amazon.
        region: Its region; None for that of `AWS_REGION`, or us-east-1.
        is_virtual_hosted: Whether the host of the endpoint is that of the bucket. Otherwise the bucket is in the path.
    """

    endpoint: str | None = None
    region: str | None = None
    is_virtual_hosted: bool = False

    def url(self, *, is_insecure: bool) -> str | None:
        """Return the URL of the store, or None for that of Amazon.

        Args:
            is_insecure: Whether it may be reached without TLS on another machine.

        Returns:
            The URL, without a slash at its end.

        Raises:
            ValueError: It is invalid, or would be reached without TLS.
        """
        named = (os.environ.get(variable) for variable in _VARIABLES)
        endpoint = self.endpoint or next(filter(None, named), None)
        if endpoint is None:
            return None
        found = _ENDPOINT.fullmatch(endpoint)
        if found is None:
            shown = "one with an @" if "@" in endpoint else repr(endpoint)
            raise ValueError(f"expected the URL of a store such as https://s3.example.com, found {shown}")
        if found[1] == "http" and not is_insecure and not is_loopback(found[2].strip("[]")):
            raise ValueError(f"{endpoint} is not encrypted: expected https, or a store on this machine, or --insecure")
        return endpoint.rstrip("/")
