"""Volumes beside the root volume: sparse files on the host, block devices in a machine.

A loop device lies above the file. The kernel hands no devices to a container, so the host makes the node in
the machine's /dev, also while the machine runs, and the names that udev would give it. The machine's root may
read and write the device; mounting is refused to it, as everything is that needs the host's root.

A machine may keep a node under another name, and let go of the loop device by an ioctl. So the daemon holds
the device open as long as the node works, and takes the node's owner and mode away before it lets go: the
kernel may give the number to another machine's disk next.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bake.errors import BakeError
from bake.localcloud import host
from bake.localcloud.machines import disks, rooted_files, udev

log = logging.getLogger(__name__)

FILE = "volume.img"
_BY_ID = "disk/by-id"


class VolumeFiles:
    """The disks of volumes that are no machine's root: a folder each, beside those of the machines."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, volume: str) -> Path:
        """The file of a volume, there or not."""
        return self._folder / volume / FILE

    def make(self, volume: str, gib: int, source: Path | None) -> None:
        """Make a volume's file of `gib` GiB: a copy of `source`, or empty. Its file system stays as it is."""
        file = self.path(volume)
        file.parent.mkdir(parents=True, exist_ok=True)
        if source is not None:
            disks.clone(source, file)
        else:
            file.touch(mode=0o600)
        extend(file, gib)

    def adopt(self, volume: str, disk: Path) -> None:
        """Take over the disk of a machine whose root it was."""
        self.path(volume).parent.mkdir(parents=True, exist_ok=True)
        disk.rename(self.path(volume))

    def hand_over(self, volume: str, disk: Path) -> None:
        """Make a volume the root disk of a machine."""
        disk.parent.mkdir(parents=True, exist_ok=True)
        self.path(volume).rename(disk)
        self.forget(volume)

    def forget(self, volume: str) -> None:
        """Remove a volume's file, if it has one."""
        shutil.rmtree(self._folder / volume, ignore_errors=True)

    def clear(self) -> None:
        """Remove all volumes' files."""
        for folder in self._folder.glob("vol-*"):
            shutil.rmtree(folder, ignore_errors=True)


def extend(file: Path, gib: int) -> None:
    """Make a disk `gib` GiB large, unless it is; what is on it does not learn of that."""
    if file.stat().st_size < gib * disks.GIB:
        os.truncate(file, gib * disks.GIB)


class BlockDevice:
    """One volume of one machine: `name` is the kernel's, as nvme1n1; `links` are further names in /dev."""

    def __init__(self, file: Path, name: str, links: tuple[str, ...]) -> None:
        self.file, self.name, self.links = file, name, links
        self._loop = ""
        self._held: int | None = None
        self._node: int | None = None

    def connect(self) -> None:
        """Put a loop device above the file, unless there is one."""
        if self._held is None:
            self._loop = host.run("losetup", "--find", "--show", self.file).strip()
            self._held = os.open(self._loop, os.O_RDONLY | os.O_CLOEXEC)

    def plug(self, root: Path) -> None:
        """Make the node and its names in the /dev below `root`, owned by whoever owns that /dev."""
        self.connect()
        with _folder(root, "dev") as dev:
            with suppress(FileNotFoundError):
                os.unlink(self.name, dir_fd=dev)
            number = os.stat(self._loop).st_rdev  # noqa: PTH116
            os.mknod(self.name, stat.S_IFBLK | 0o600, number, dir_fd=dev)
            node = os.open(self.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dev)
            facts, owner = os.fstat(node), os.fstat(dev)
            # Only the node just made: the machine may have put something else in its place by now.
            if not stat.S_ISBLK(facts.st_mode) or (facts.st_rdev, facts.st_dev) != (number, owner.st_dev):
                os.close(node)
                raise BakeError(f"the machine took /dev/{self.name} away while it was made")
            os.chown(f"/proc/self/fd/{node}", owner.st_uid, owner.st_gid)
            self._node = node
        for link in self.links:
            _link(root, link, self.name)

    def unplug(self, root: Path | None) -> None:
        """Let nobody open the node any more, and remove it where the machine's `root` is still there."""
        if self._node is not None:
            os.chown(f"/proc/self/fd/{self._node}", 0, 0)
            os.chmod(f"/proc/self/fd/{self._node}", 0)  # noqa: PTH101 - of the node itself, by its descriptor
            os.close(self._node)
            self._node = None
        if root is not None:
            for name in (self.name, *self.links):
                folder, _, last = f"dev/{name}".rpartition("/")
                with suppress(OSError), _folder(root, folder) as where:
                    os.unlink(last, dir_fd=where)

    def disconnect(self) -> None:
        """Write what the machine has written to the file, and remove the loop device."""
        if self._held is not None:
            self.flush()
            os.close(self._held)
            self._held = None
            host.run("losetup", "--detach", self._loop, check=False)

    def flush(self) -> None:
        """Write what the machine has written to the file."""
        if self._held is not None:
            os.fsync(self._held)

    def learn_size(self) -> None:
        """Tell the machine that the file has grown."""
        if self._held is not None:
            host.run("losetup", "--set-capacity", self._loop)


class BlockDevices:
    """The volumes of one machine by their ids, beside the root volume; thread-safe."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.RLock()
        self._devices: dict[str, BlockDevice] = {}
        self._init: int | None = None

    def add(self, volume: str, file: Path, device: str, *, nvme: bool) -> None:
        """Attach a volume as `device` (/dev/sdf): at once if the machine runs, else when it starts.

        Its name is the next /dev/nvme1n1 on types with NVMe, else /dev/xvdf.
        """
        with self._lock:
            mapped = device.removeprefix("/dev/")
            name = self._next_nvme() if nvme else mapped.replace("sd", "xvd", 1)
            links = [f"{_BY_ID}/nvme-Amazon_Elastic_Block_Store_{volume.replace('-', '')}"] if nvme else []
            if mapped != name:
                links.append(mapped)
            self._devices[volume] = added = BlockDevice(file, name, tuple(links))
            if self._init is not None:
                self._plug(added)

    def remove(self, volume: str) -> None:
        """Detach a volume, if it is attached."""
        with self._lock:
            if (device := self._devices.pop(volume, None)) is not None:
                device.unplug(_root_of(self._init))
                device.disconnect()

    def plug(self, init: int) -> None:
        """Give all volumes to a machine whose init has this pid and does not run yet."""
        with self._lock:
            self._init = init
            for device in self._devices.values():
                self._plug(device)

    def release(self) -> None:
        """Take the loop devices away from a machine that is off; the volumes stay attached."""
        with self._lock:
            self._init = None
            for device in self._devices.values():
                device.unplug(None)
                device.disconnect()

    def flush(self, volume: str) -> None:
        """Write what the machine has written to a volume to its file."""
        with self._lock:
            if volume in self._devices:
                self._devices[volume].flush()

    def learn_size(self, volume: str) -> None:
        """Tell the machine that a volume's file has grown."""
        with self._lock:
            if volume in self._devices:
                self._devices[volume].learn_size()

    def _plug(self, device: BlockDevice) -> None:
        root = _root_of(self._init)
        if root is not None:
            if not udev.names_as_mapped(self._root):
                device.links = tuple(link for link in device.links if link.startswith(_BY_ID))
            device.plug(root)

    def _next_nvme(self) -> str:
        taken = {device.name for device in self._devices.values()}
        return next(name for number in range(1, 1000) if (name := f"nvme{number}n1") not in taken)


def _root_of(init: int | None) -> Path | None:
    return Path(f"/proc/{init}/root") if init is not None else None


@contextmanager
def _folder(root: Path, path: str) -> Iterator[int]:
    """A folder below `root` as a descriptor; no link leads out of `root`."""
    where = rooted_files.look(root, path, os.O_DIRECTORY)
    try:
        yield where
    finally:
        os.close(where)


def _link(root: Path, link: str, name: str) -> None:
    """Make a further name in /dev; one that the machine has already stays as it is."""
    *folders, last = link.split("/")
    below = "dev"
    with suppress(OSError):
        for folder in folders:
            with _folder(root, below) as parent, suppress(FileExistsError):
                os.mkdir(folder, 0o755, dir_fd=parent)
            below = f"{below}/{folder}"
        with _folder(root, below) as where:
            os.symlink(f"{'../' * len(folders)}{name}", last, dir_fd=where)
