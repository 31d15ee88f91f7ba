"""Disks that fill while they are read, as EBS volumes do that were made from a snapshot.

EBS fetches a block from S3 when it is first read, and whoever reads waits for it ("Initialize Amazon EBS
volumes"). Here the disk's file is shown once more by a FUSE file system of one file (fuse_disk.py, a process
for each disk), which delays the first read of each block; a loop device with direct I/O lies above it.
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

# KiB that Linux reads ahead of EC2's disks, where nobody says otherwise; a loop device over FUSE has 2,560.
READ_AHEAD = 128
FILE = "lazy.img"  # beside the disk
SERVER = "bake.localcloud.machines.fuse_disk"
_START_SECONDS = 60.0
_SECTORS_PER_KIB = 2  # blockdev counts in 512 bytes


class LazyDisk:
    """A disk whose blocks come at `rate` MB/s when one is read after the other."""

    def __init__(self, disk: Path, rate: float) -> None:
        self._disk = disk
        self._rate = rate
        self._file = disk.with_name(FILE)  # by which the disk is read and written
        self._log = disk.with_name("lazy.log")
        self._server: subprocess.Popen[bytes] | None = None

    def mount(self, where: Path) -> None:
        """Mount it at `where`, with the read-ahead that the udev rules on it give to an EBS disk.

        No udev runs in a machine here, so its rules are read and followed from outside.
        """
        self._serve()
        where.mkdir(parents=True, exist_ok=True)
        # Direct: else the host's memory reads ahead and keeps what it read, which EBS does for nobody.
        loop = host.run("losetup", "--direct-io=on", "--find", "--show", self._file).strip()
        try:
            set_read_ahead(loop, READ_AHEAD)
            host.run("mount", "-t", "ext4", "-o", "barrier=0", loop, where)
            set_read_ahead(loop, udev.read_ahead(where, udev.EBS_DISK) or READ_AHEAD)
        finally:
            host.run("losetup", "--detach", loop, check=False)  # as soon as nobody uses it any more

    def unmount(self) -> None:
        """Take down what `mount` put up; the file system on the disk must be unmounted already."""
        disks.unmount(self._file)
        if self._server is not None:
            # A mount namespace made meanwhile may hold the file for longer, and the process with it.
            self._server.kill()
            self._server.wait()
            self._server = None

    def _serve(self) -> None:
        """Start the file system's process, and wait until the file is there."""
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
    """MB/s at which a disk may fill. Raises UsageError."""
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0.1 <= rate <= 10_000:
        raise UsageError(f"disks fill at 0.1 to 10,000 MB/s, not at {text!r}")
    return rate


def set_read_ahead(device: str, kib: int) -> None:
    """Let the kernel read `kib` KiB ahead of this block device."""
    host.run("blockdev", "--setra", str(kib * _SECTORS_PER_KIB), device)
