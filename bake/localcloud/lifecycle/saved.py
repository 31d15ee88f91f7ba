"""The folder of a saved local cloud.

`network` is where its machines have their addresses, `api.pickle` has AWS's records, `disks/` the disks of
instances and volumes, `images/` the AMIs and snapshots. Machines of a copy boot from their disks as after a
power cut, with the same ids and addresses; its schedules are carried out, and its spot requests are filled
again, as the saved cloud's. Not saved are faults, access keys, sessions and notices of spot interruptions.
"""

from __future__ import annotations

import os
from pathlib import Path

from bake.errors import UsageError
from bake.localcloud.machines import disks
from bake.localcloud.settings import Settings

NETWORK, RECORDS, DISKS, IMAGES = "network", "api.pickle", "disks", "images"


def check(folder: Path, settings: Settings) -> None:
    """Raise UsageError unless a cloud with these settings can be a copy of the saved one.

    Whoever can write its records could run programs as root: they are a pickle.
    """
    try:
        network = (folder / NETWORK).read_text(encoding="utf-8")
        for one in (folder, folder / RECORDS):
            if (facts := one.stat()).st_uid != os.geteuid() or facts.st_mode & 0o022:
                raise UsageError(
                    f"{one} belongs to somebody else, or others may write to it: it is not trusted",
                    hint="save the cloud again, or make the folder root's own",
                )
    except OSError as error:
        raise UsageError(
            f"{folder} has no saved cloud: {error.strerror}", hint="bake local save --help"
        ) from error
    if network != str(settings.network):
        raise UsageError(
            f"the cloud in {folder} was saved on the network {network}, where its machines' addresses are",
            hint=f"BAKE_LOCAL_NETWORK={network}",
        )


def link_images(source: Path, target: Path) -> None:
    """Take the files of an image store, which are never written again, without copying them."""
    target.mkdir(exist_ok=True)
    for file in source.iterdir():
        if ".partial" in file.name or (target / file.name).exists():
            continue
        disks.link_or_clone(file, target / file.name)
