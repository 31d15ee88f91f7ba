"""Run the script of a hostile base on the disk of a machine that has not booted yet.

Instance stores are only mapped: machines have none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bake.errors import BakeError
from bake.localcloud import host
from bake.localcloud.images.hostile import HostileBase
from bake.localcloud.machines import disks, isolation, rooted_files
from bake.localcloud.machines.nspawn import NSPAWN_USES, Machine
from bake.localcloud.settings import Settings

LIMIT = 300.0  # seconds: a busy host is ten times slower at times


def preparation(settings: Settings, base: HostileBase | None) -> Callable[[Machine], None]:
    """Return what a launch does with a machine's new disk; nothing unless the base is hostile."""

    def prepare(machine: Machine) -> None:
        if base is not None:
            plant(settings, base, machine.disk, machine.root)

    return prepare


def plant(settings: Settings, base: HostileBase, disk: Path, root: Path) -> None:
    """Run the base's script in the tree of `disk`, which is mounted at `root` meanwhile.

    The script runs isolated like a machine: its root is not the host's, and it has no network.
    """
    if not base.script:
        return
    disks.mount(disk, root)
    try:
        if paths := rooted_files.leading_out(root, NSPAWN_USES):
            raise BakeError(f"the script can't run on {disk}: links lead out of it at {', '.join(paths)}")
        arguments = (base.system, base.hostile.name)
        host.run(*_command(settings, root), *arguments, stdin=base.script, timeout=LIMIT)
    finally:
        disks.unmount(root)


def _command(settings: Settings, root: Path) -> list[str]:
    return [
        "systemd-nspawn", "--quiet", "--settings=no", "--register=no", "--keep-unit", "--pipe",
        f"--directory={root}", f"--machine=plant-{root.parent.name}",
        *([] if settings.trust_guests else isolation.OPTIONS),
        "--private-network", "--resolv-conf=off", "--timezone=off", "--link-journal=no",
        "--setenv=SYSTEMD_OFFLINE=1", "--setenv=DEBIAN_FRONTEND=noninteractive",
        "bash", "-s", "--",
    ]  # fmt: skip
