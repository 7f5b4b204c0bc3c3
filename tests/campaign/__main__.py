"""The command: `python -m campaign --minutes 10 --seed 1 --members 3`, in the folder `tests`."""

from __future__ import annotations

import secrets
import sys
from typing import TYPE_CHECKING

import click

from campaign import sandbox
from campaign.complaints import last_lines
from campaign.faults import FAULTS
from campaign.run import Campaign
from campaign.setting import Setting

if TYPE_CHECKING:
    from campaign.faults import Need


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="How long.")
@click.option("--seed", type=int, help="What is drawn at random is drawn from this. Default: any.")
@click.option("--members", type=click.IntRange(3, 9), default=3, show_default=True, help="How many members.")
def main(minutes: float, seed: int | None, members: int) -> None:
    """Run a cluster under faults and load, then audit it. Exit code 1 if it broke a promise."""
    if seed is None:
        seed = secrets.randbelow(1 << 32)
        sys.argv += ["--seed", str(seed)]
    no_sandbox = sandbox.enter(["-m", "campaign", *sys.argv[1:]])
    setting = Setting(members, seed, no_sandbox)
    click.echo(f"seed {seed}, {members} members, {minutes:g} minutes, files in {setting.folder}")
    _echo_missing(setting.missing)
    campaign = Campaign(setting, minutes)
    is_sound = False
    try:
        campaign.run()
        is_sound = True
    except Exception as exc:  # noqa: BLE001  # any error is reported with the seed
        setting.scene.cluster.kill()
        click.echo(last_lines(setting.scene.cluster.members))
        click.echo(f"\nseed {seed}: {type(exc).__name__}: {exc}")
    finally:
        setting.clean(keep_logs=not is_sound)
    click.echo(f"\n{campaign.summary.table()}\n")
    click.echo(f"seed {seed}: {'every promise was kept' if is_sound else 'BROKEN'}")
    sys.exit(not is_sound)


def _echo_missing(missing: dict[Need, str]) -> None:
    for fault in FAULTS:
        if reason := missing.get(fault.need):
            click.echo(f"skipped: {fault.name}: {reason}")


if __name__ == "__main__":
    main()
