"""What the acts of a cluster say, as far as library and server share it: who, from where and when; restoring a log.

The other deeds are the server's (`server/acts.py`).
"""

from __future__ import annotations

import os
import pwd
from datetime import UTC, datetime
from typing import Annotated

from msgspec import Meta, Struct, field

__all__ = ["Deed", "Moment", "Rebuilt", "Recovered", "Restored", "now", "user"]

Moment = Annotated[datetime, Meta(tz=True)]
"""A time with a time zone."""


def now() -> datetime:
    """Return the time in UTC, to the millisecond."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def user() -> str:
    """Return the name of the user who runs this process, as the author of an act."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


class Deed(Struct, frozen=True, kw_only=True, tag_field="deed"):
    """What all acts have in common.

    Attributes:
        who: The author's name.
        origin: Where the request came from; `from` in JSON.
        when: The time in UTC, by the clock of the member that was asked, or of the machine for those that no member was
            asked for.
    """

    who: str
    origin: str = field(name="from")
    when: Moment


class Restored(Deed, frozen=True, kw_only=True, tag="restored"):
    """The log was restored from a backup, as the only member of a new cluster.

    Attributes:
        backup: Which backup.
        cluster: Name of the cluster that was backed up.
        events: How many events the backup held.
    """

    backup: str
    cluster: str
    events: int


class Rebuilt(Deed, frozen=True, kw_only=True, tag="rebuilt"):
    """The log was restored from what it had published, as the only member of a new cluster. Its acts are lost.

    Attributes:
        log: The name with which it had signed.
        root: The root of the tree that was restored, in hexadecimal digits.
        events: How many events the tree has.
    """

    log: str
    root: str
    events: int


class Recovered(Deed, frozen=True, kw_only=True, tag="recovered"):
    """A survivor of a lost majority became the only member of a new cluster. Acknowledged events may be lost.

    Attributes:
        name: Name of the survivor.
        cluster: Name of the cluster that lost its majority.
        events: How many events the survivor held.
    """

    name: str
    cluster: str
    events: int
