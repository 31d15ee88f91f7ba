"""`bake local save`: keep the local cloud as it is, for copies. Heavy imports stay inside the command."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def save(folder: Path) -> None:
    """Save the local cloud in a new FOLDER: what the API holds, AMIs, and the disks of instances.

    `bake local up --saved FOLDER` starts a copy, with the same ids and addresses; machines that ran boot
    from their disks. Faults and keys are not saved. Where the file system shares blocks (btrfs, XFS), disks
    take no time and no room.

    \b
    Example:
      bake local save /var/tmp/before
      bake local down
      bake local up --saved /var/tmp/before
    """
    from bake.localcloud import host
    from bake.localcloud.lifecycle import cloud

    host.require_root()
    cloud.save(folder)
    click.echo(f"saved; a copy: bake local up --saved {folder}")
