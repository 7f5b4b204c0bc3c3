"""The secret, the certificates and the API keys of a campaign's cluster, made with `qed`, as an operator makes them."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Credentials", "Role", "header_of"]

_QED: Final = str(Path(sys.executable).with_name("qed"))

Role = Literal["append", "prove", "operate"]
_ROLES: Final[tuple[Role, ...]] = ("append", "prove", "operate")


def header_of(key: str) -> Mapping[str, str]:
    """Return the header that presents an API key."""
    return {"api-key": key}


class Credentials:
    """What members and clients of one cluster show to each other.

    Args:
        folder: Where the files are written.

    Attributes:
        secret: The file with the secret of the cluster.
        context: For connections to the API and the management of members, as a client without a certificate.
        revoked: A key with every role that was revoked before any client started; empty until there are keys.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.secret = folder / "cluster-secret"
        self._qed("cluster", "secret", "--out", "cluster-secret")
        self._qed("certs", "ca", "--name", "a campaign")
        self._qed("certs", "client", "--name", "operator", "--role", "operate", "--out", "operator")
        self.context = ssl.create_default_context(cafile=folder / "ca.pem")
        self._certified = ssl.create_default_context(cafile=folder / "ca.pem")
        self._certified.load_cert_chain(folder / "operator.pem", folder / "operator.key")
        self._keys: dict[Role, str] = {}
        self.revoked = ""

    def server_options(self, name: str, host: str) -> tuple[str, ...]:
        """Make the certificate of a server, and return the options with which it has no call without a credential."""
        self._qed("certs", "server", "--host", host, "--out", name)
        files = {"--tls-cert": f"{name}.pem", "--tls-key": f"{name}.key", "--tls-client-ca": "ca.pem"}
        return tuple(f"{option}={self._folder / file}" for option, file in files.items())

    def make_keys(self, url: str) -> None:
        """Make a key for each role, and another one that is revoked again, with the certificate of the operator."""
        self._keys = {role: self._make_key(url, role) for role in _ROLES}
        self.revoked = self._make_key(url, *_ROLES)
        self._operate(url, "keys", "revoke", self.revoked.split("_")[1])

    def key_of(self, role: Role) -> str:
        """Return the key that has only this role."""
        return self._keys[role]

    def of_operator(self) -> tuple[ssl.SSLContext, Mapping[str, str]]:
        """Return context and headers for an operator: with a certificate until there are keys, then with a key."""
        if not self._keys:
            return self._certified, {}
        return self.context, header_of(self._keys["operate"])

    def _make_key(self, url: str, *roles: Role) -> str:
        options = [word for role in roles for word in ("--role", role)]
        return str(json.loads(self._operate(url, "--json", "keys", "create", *options))["Key"])

    def _operate(self, url: str, *words: str) -> str:
        files = ("--ca", "ca.pem", "--cert", "operator.pem", "--cert-key", "operator.key")
        return self._qed("--endpoints", url, *files, *words)

    def _qed(self, *words: str) -> str:
        done = subprocess.run([_QED, *words], cwd=self._folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"qed {' '.join(words)}: {done.stderr}")
        return done.stdout
