"""The setting of a campaign: its folder, its members, and the faults that this machine supports."""

from __future__ import annotations

import random
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from campaign.clock import Clock, find_library
from campaign.credentials import Credentials
from campaign.disk import SmallDisk
from campaign.member import Member
from campaign.network import Network
from campaign.scene import Scene
from harness.cluster import Cluster
from harness.ports import SERVICES, ports_of_server
from harness.process import COMMAND

if TYPE_CHECKING:
    from campaign.faults import Need

__all__ = ["Setting"]

_PORTS: Final = (8800, 8700, 8600, 8500)
"""The same ports for every member: in the network, each has its own address."""


@dataclass
class Setting:
    """Everything that a run needs, set up and cleaned up.

    Args:
        count: How many members.
        seed: The seed of the random choices of faults.
        no_sandbox: Why there is no sandbox, or None in one.
    """

    count: int
    seed: int
    no_sandbox: str | None
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="qed-campaign-")))
    missing: dict[Need, str] = field(default_factory=dict)
    scene: Scene = field(init=False)
    credentials: Credentials = field(init=False)

    def __post_init__(self) -> None:
        network, disk, clocks = self._network(), self._disk(), self._clocks()
        members = []
        self.credentials = Credentials(self.folder)
        for index in range(self.count):
            name, host = f"server{index}", network.host(index) if network else "127.0.0.1"
            member = Member(
                name,
                self.folder / name,
                index=index,
                credentials=self.credentials,
                secret=self.credentials.secret,
                host=host,
                ports=dict(zip(SERVICES, _PORTS, strict=True)) if network else ports_of_server(),
                log=self.folder / f"{name}.log",
                extra=self.credentials.server_options(name, host),
                command=(*network.prefix(index), COMMAND) if network else (COMMAND,),
                environment=clocks[index].environment if clocks else {},
            )
            members.append(member)
        chance = random.Random(f"{self.seed}/faults")  # noqa: S311  # repeatable
        self.scene = Scene(Cluster(members), chance, network, clocks, disk)

    def clean(self, *, keep_logs: bool) -> None:
        """Remove processes, mounts and files; the output of members may be kept."""
        self.scene.cluster.kill()
        if self.scene.disk is not None:
            self.scene.disk.unmount()
        for member in self.scene.cluster.members:
            shutil.rmtree(member.folder, ignore_errors=True)
        if not keep_logs:
            shutil.rmtree(self.folder)

    def _network(self) -> Network | None:
        network = Network(self.count)
        if reason := self.no_sandbox or network.build():
            self.missing |= dict.fromkeys(("network", "filter", "loss", "narrow", "late"), reason)
            return None
        if reason := network.filter_failure():
            self.missing["filter"] = reason
        if reason := network.loss_failure():
            self.missing["loss"] = reason
        for shape in ("narrow", "late"):
            if reason := network.failure_of(shape):
                self.missing[shape] = reason
        return network

    def _disk(self) -> SmallDisk | None:
        disk = SmallDisk(self.folder / f"server{self.count - 1}")
        if reason := self.no_sandbox or disk.mount():
            self.missing["disk"] = reason
            return None
        return disk

    def _clocks(self) -> list[Clock]:
        library = find_library()
        if library is None:
            self.missing["clock"] = "libfaketime is not installed (Debian: faketime), or does not work"
            return []
        return [Clock(library, self.folder / f"server{index}.clock") for index in range(self.count)]
