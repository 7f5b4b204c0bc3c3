"""The keys with which the log signs, as all members know them, folded from the acts."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

import msgspec

from qed.errors import MembershipRefused
from qed.server.acts import Rebuilt, Recovered, Restored, Signer, SignersChanged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qed.server.acts import Act

__all__ = ["SignerSet"]

_ED25519: Final = 1


class SignerSet:
    """The name of the log, and its keys.

    Attributes:
        log: The name with which the log signs; None if it never has. It changes only after the log was restored.
        signers: All keys that the log ever had under this name, in the order in which they were added.
        may_be_renamed: Whether the log was restored since it got its name, and may have lost signed entries.
    """

    def __init__(self) -> None:
        self.log: str | None = None
        self.signers: tuple[Signer, ...] = ()
        self.may_be_renamed = False

    def fold(self, act: Act | None) -> None:
        """Apply the next act of the history; those that are not about signers change nothing."""
        match act:
            case Restored() | Rebuilt() | Recovered():
                self.may_be_renamed = True
            case SignersChanged() if self.log in {None, act.log} or self.may_be_renamed:
                self.log, self.signers, self.may_be_renamed = act.log, tuple(act.signers), False

    @property
    def active(self) -> list[str]:
        """The public keys that sign now."""
        return [signer.vkey for signer in self.signers if signer.until is None]

    def without(self, key_id: str, size: int) -> tuple[Signer, ...] | None:
        """Return the signers once the key with this id is retired.

        Args:
            key_id: The id of the key, 8 hexadecimal digits.
            size: The largest size that it has signed.

        Returns:
            The signers; None if the key is retired already.

        Raises:
            MembershipRefused: There is no such key, or no other Ed25519 key would sign.
        """
        chosen = [signer for signer in self.signers if _id_of(signer.vkey) == key_id]
        if not chosen:
            raise MembershipRefused(f"the log has no key with the id {key_id}")
        if all(signer.until is not None for signer in chosen):
            return None
        if not any(_kind_of(vkey) == _ED25519 for vkey in self.active if _id_of(vkey) != key_id):
            raise MembershipRefused("no other Ed25519 key signs: start the leader with a new key first")
        return tuple(
            msgspec.structs.replace(signer, until=size) if signer in chosen and signer.until is None else signer
            for signer in self.signers
        )

    def with_keys(self, vkeys: Sequence[str], size: int, *, is_new_name: bool) -> tuple[Signer, ...] | None:
        """Return the signers once these keys are among them.

        Args:
            vkeys: The keys of the member that leads.
            size: From which size of the log on they sign.
            is_new_name: Whether they are the first ones of a name.

        Returns:
            The signers; None if nothing changes. A key that was retired stays retired.
        """
        old = () if is_new_name else self.signers
        known = {signer.vkey for signer in old}
        new = [Signer(vkey, size, None) for vkey in vkeys if vkey not in known]
        return (*old, *new) if new else None


def _id_of(vkey: str) -> str:
    return vkey.split("+", 2)[1]


def _kind_of(vkey: str) -> int:
    return base64.b64decode(vkey.split("+", 2)[2])[0]
