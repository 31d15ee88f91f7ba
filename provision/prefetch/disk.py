"""Find the disk of a directory, and check that it is EBS: only EBS goes into a snapshot."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prefetch.failures import Refused

EBS = "Amazon Elastic Block Store"
INSTANCE_STORE = "Amazon EC2 NVMe Instance Storage"
SYS = Path("/sys")
_HINT = "the cache must lie on the root EBS volume: set weights.cache to a directory there"


@dataclass(frozen=True)
class Disk:
    """A whole disk below a file system. Model and serial are the kernel's, or None."""

    name: str
    model: str | None
    serial: str | None


@dataclass(frozen=True)
class Place:
    """A directory with its file system and disks; memory, overlay and network file systems have none."""

    path: Path
    source: str
    filesystem: str
    mounted_at: str
    disks: tuple[Disk, ...]

    @property
    def free(self) -> int:
        """Bytes that an ordinary user may still write."""
        return shutil.disk_usage(_existing(self.path)).free


def trace(path: Path, sys: Path = SYS) -> Place:
    """Follow a directory (which need not exist yet) down to its disks, through partitions and mappings."""
    there = _existing(path)
    mount = _mount(there)
    number = there.stat().st_dev
    device = sys / "dev" / "block" / f"{os.major(number)}:{os.minor(number)}"
    if not device.exists() and mount["source"].startswith("/dev/"):
        # btrfs has its own device number; its source names the disk, with the subvolume in brackets.
        device = sys / "class" / "block" / mount["source"].split("[")[0].rpartition("/")[2]
    disks = _disks(device.resolve(), sys) if device.exists() else ()
    return Place(path, mount["source"], mount["fstype"], mount["target"], tuple(dict.fromkeys(disks)))


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _mount(path: Path) -> dict[str, str]:
    done = subprocess.run(
        ["findmnt", "--json", "--output", "SOURCE,FSTYPE,TARGET", "--target", str(path)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(
        json.loads(done.stdout)["filesystems"][-1]
    )  # of several mounts at one path the last one counts


def _disks(device: Path, sys: Path) -> Iterator[Disk]:
    below = sorted((device / "slaves").iterdir()) if (device / "slaves").is_dir() else []
    if below:  # LVM, RAID, encryption
        for slave in below:
            yield from _disks(slave.resolve(), sys)
        return
    disk = device.parent if (device / "partition").exists() else device
    yield Disk(disk.name, _read(disk / "device" / "model"), _read(disk / "device" / "serial"))


def _read(file: Path) -> str | None:
    return file.read_text().strip() or None if file.is_file() else None


def require_ebs(place: Place, volume: str | None, stand_in: str | None, sys: Path = SYS) -> None:
    """Raise Refused, with the device named, unless every disk of `place` is the volume to be imaged.

    `stand_in` is how the kernel's names of a local cloud's disks begin, where those stand in for EBS.
    """
    if not place.disks:
        raise Refused("not-ebs", f"{place.path} lies on {_described(place)}, which no snapshot holds", _HINT)
    for disk in place.disks:
        if why := _objection(disk, volume, stand_in, sys):
            raise Refused("not-ebs", f"{place.path} lies on /dev/{disk.name} {why}", _HINT)


def require_instance_store(place: Place, stand_in: str | None) -> None:
    """Raise Refused unless every disk of `place` is an instance store: these files must be on no image.

    `stand_in` is the kind of file system that stands for one on a local cloud.
    """
    disks = ", ".join(f"/dev/{disk.name} ({disk.model or 'no model'})" for disk in place.disks)
    if stand_in is not None:
        right = place.filesystem == stand_in
    else:
        right = bool(disks) and all(disk.model == INSTANCE_STORE for disk in place.disks)
    if not right:
        lies = disks or _described(place)
        hint = "leave weights.scratch out, or bake on a type that has an instance store"
        raise Refused("not-scratch", f"{place.path} lies on {lies}, which is no instance store", hint)


def _described(place: Place) -> str:
    return f"{place.filesystem} ({place.source}, mounted at {place.mounted_at})"


def _objection(disk: Disk, volume: str | None, stand_in: str | None, sys: Path) -> str | None:
    """Return the objection to a disk, or None."""
    if stand_in is not None:
        local = disk.name.startswith(stand_in)
        return (
            None
            if local
            else f"({disk.model or 'no model'}), not on a disk of the local cloud's ({stand_in}…)"
        )
    if disk.model == EBS:
        serial = volume.replace("-", "") if volume else disk.serial
        return (
            None if disk.serial == serial else f"(EBS volume {disk.serial}), not on the root volume {volume}"
        )
    # Xen's disks have no model. The one with the root file system is EBS, or it could not be imaged.
    if disk.model is None and disk.name.startswith("xvd"):
        root = trace(Path("/"), sys)
        return None if disk in root.disks else "(a Xen disk beside the root volume)"
    return f"({disk.model or 'no model'}), which is no EBS volume: an image does not hold what is on it"


def require_space(place: Place, missing: int, reserve: int) -> None:
    """Raise Refused unless `missing` bytes fit and leave `reserve` bytes free."""
    needed = missing + reserve
    if place.free < needed:
        raise Refused(
            "space",
            f"{place.path} needs {needed / 1e9:.2f} GB ({missing / 1e9:.2f} GB of weights are missing, "
            f"{reserve / 1e9:.2f} GB stay free), {_described(place)} has {place.free / 1e9:.2f} GB",
            "docs/fit.md has the choices, all yours: base.remove, weights.scratch, root_volume.size_gib",
        )
