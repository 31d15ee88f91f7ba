"""Disks that fill while they are read, like EBS volumes made from a snapshot.

EBS fetches a block from S3 when it is first read, and the reader waits for it ("Initialize Amazon EBS
volumes"). Here a FUSE file system of one file (fuse_disk.py, one process per disk) shows the disk's file and
delays the first read of each block; a loop device with direct I/O lies above it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from bake.errors import BakeError, UsageError
from bake.localcloud import host
from bake.localcloud.machines import disks, udev
from bake.resources import IMPORTED_FROM

# KiB, Linux's default read-ahead for EC2's disks; a loop device over FUSE would have 2,560.
READ_AHEAD = 128
FILE = "lazy.img"  # beside the disk
SERVER = "bake.localcloud.machines.fuse_disk"
_START_SECONDS = 60.0
_SECTORS_PER_KIB = 2  # blockdev counts in 512 bytes


class LazyDisk:
    """A disk whose blocks arrive at `rate` MB/s when they are read one after the other."""

    def __init__(self, disk: Path, rate: float) -> None:
        self._disk = disk
        self._rate = rate
        self._file = disk.with_name(FILE)  # the machine reads and writes the disk through this file
        self._log = disk.with_name("lazy.log")
        self._server: subprocess.Popen[bytes] | None = None

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

    def _serve(self) -> None:
        """Start the file system's process, and wait until the file is mounted."""
        self._file.touch(mode=0o600)
        with self._log.open("wb") as log:
            server = subprocess.Popen(
                [sys.executable, "-m", SERVER, str(self._disk), str(self._file), str(self._rate)],
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


def rate_of(text: str) -> float:
    """Parse a fill rate in MB/s. Raises UsageError."""
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0.1 <= rate <= 10_000:
        raise UsageError(f"disks fill at 0.1 to 10,000 MB/s, not at {text!r}")
    return rate


def set_read_ahead(device: str, kib: int) -> None:
    """Set the read-ahead of a block device to `kib` KiB."""
    host.run("blockdev", "--setra", str(kib * _SECTORS_PER_KIB), device)
