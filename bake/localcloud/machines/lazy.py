"""Disks that fill while they are read, like EBS volumes made from a snapshot.

EBS fetches a block from S3 when it is first read, and the reader waits for it ("Initialize Amazon EBS
volumes"). Here a FUSE file system of one file (fuse_disk.py, one process per disk) shows the disk's file and
delays the first read of each block; a loop device with direct I/O lies above it. It needs no cloud:

    disk = LazyDisk(path, Filling(latency=30, ceiling=100))  # a file that holds ext4; Filling(): as EBS
    disk.mount(where)
    before = disk.figures()  # bytes on demand and in the background, queue depth: blocks.Figures
    disk.touched()           # [(start, end), ...]: which bytes of the disk reads needed, in blocks of 512 KiB
    disk.change(latency=60)  # from now on
    disk.stall(5)            # no read comes back for 5 s; 0 ends that
    disks.unmount(where)     # bake.localcloud.machines.disks
    disk.unmount()
    disk.forget()            # as new: nothing of it is there

`touched` and `figures` count from when the disk was first mounted, over further mounts.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from bake.errors import BakeError
from bake.localcloud import host
from bake.localcloud.machines import disks, udev
from bake.localcloud.machines.blocks import FILE as KNOWN
from bake.localcloud.machines.blocks import BlockMap, Figures
from bake.localcloud.machines.filling import Filling
from bake.resources import IMPORTED_FROM

# KiB, Linux's default read-ahead for EC2's disks; a loop device over FUSE would have 2,560.
READ_AHEAD = 128
FILE = "lazy.img"  # beside the disk
SERVER = "bake.localcloud.machines.fuse_disk"
_START_SECONDS = 60.0
_SECTORS_PER_KIB = 2  # blockdev counts in 512 bytes


class LazyDisk:
    """A disk whose blocks arrive when they are first read, as `filling` says."""

    def __init__(self, disk: Path, filling: Filling) -> None:
        self.filling = filling
        self._disk = disk
        self._file = disk.with_name(FILE)  # the machine reads and writes the disk through this file
        self._log = disk.with_name("lazy.log")
        self._server: subprocess.Popen[bytes] | None = None
        self._map: BlockMap | None = None

    def mount(self, where: Path) -> None:
        """Mount it at `where`, with the read-ahead that its own udev rules set for an EBS disk.

        No udev runs in a machine, so the host reads and applies its rules.
        """
        self._serve()
        where.mkdir(parents=True, exist_ok=True)
        # Direct I/O: otherwise the host reads ahead and caches, which EBS does not.
        loop = host.run("losetup", "--direct-io=on", "--find", "--show", self._file).strip()
        try:
            set_read_ahead(loop, READ_AHEAD)
            host.run("mount", "-t", "ext4", "-o", "barrier=0", loop, where)
            set_read_ahead(loop, udev.read_ahead(where, udev.EBS_DISK) or READ_AHEAD)
        finally:
            host.run("losetup", "--detach", loop, check=False)  # takes effect with the last user's unmount

    def unmount(self) -> None:
        """End what `mount` started; the file system on the disk must be unmounted already."""
        disks.unmount(self._file)
        if self._server is not None:
            # A mount namespace made in the meantime may hold the file, and so the process, for longer.
            self._server.kill()
            self._server.wait()
            self._server = None

    def change(self, **settings: Any) -> None:
        """Change settings of Filling, which take effect at once; blocks on their way arrive as they would."""
        self.filling = replace(self.filling, **settings)
        if self._map is not None:
            self._map.set(self.filling)

    def stall(self, seconds: float) -> None:
        """Let no read come back for so long from now on, as on a disk that is broken; 0 ends that."""
        self._blocks.stall(seconds)

    def touched(self) -> list[tuple[int, int]]:
        """The ranges (start, end) in bytes that reads have needed of what the disk held, whole blocks."""
        return self._blocks.touched()

    def figures(self) -> Figures:
        """What it has delivered so far."""
        return self._blocks.figures(self._cpu_seconds())

    def forget(self) -> None:
        """Let nothing of the unmounted disk be there, as if it had just been made from a snapshot."""
        self._disk.with_name(KNOWN).unlink(missing_ok=True)
        self._map = None

    @property
    def _blocks(self) -> BlockMap:
        if self._map is None:
            self._map = BlockMap(self._disk)
            self._map.set(self.filling)
        return self._map

    def _cpu_seconds(self) -> float:
        """What the server has used, while it runs."""
        if self._server is None or self._server.poll() is not None:
            return 0.0
        fields = Path(f"/proc/{self._server.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _serve(self) -> None:
        """Start the file system's process, and wait until the file is mounted."""
        self._blocks.stall(0)  # what was told of an earlier mount
        self._file.touch(mode=0o600)
        with self._log.open("wb") as log:
            server = subprocess.Popen(
                [sys.executable, "-m", SERVER, str(self._disk), str(self._file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(IMPORTED_FROM)},
            )
        deadline = time.monotonic() + _START_SECONDS
        while str(self._file) not in disks.mounted():
            if server.poll() is not None or time.monotonic() > deadline:
                server.kill()
                server.wait()
                raise BakeError(f"the disk can't fill lazily:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.02)
        self._server = server


def set_read_ahead(device: str, kib: int) -> None:
    """Set the read-ahead of a block device to `kib` KiB."""
    host.run("blockdev", "--setra", str(kib * _SECTORS_PER_KIB), device)
