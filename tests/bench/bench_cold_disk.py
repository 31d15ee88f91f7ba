"""How fast a file is read for the first time from a disk that fills while it is read, as EBS does from S3.

    sudo python3 tests/bench/bench_cold_disk.py           # 256 MB; 30 ms a block, 100 MB/s at most
    sudo python3 tests/bench/bench_cold_disk.py --megabytes 1024 --filling latency=60,ceiling=140

Past the page cache at several queue depths; by a mapping, as safetensors reads weights, with Linux's
read-ahead of 128 KiB and with what the image's udev rule sets; by 32 threads. And again, once it is filled.
For each: the blocks that were on their way at a time, and the CPU time of the disk's server.
"""

from __future__ import annotations

import argparse
import mmap
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from bake.localcloud import host  # noqa: E402
from bake.localcloud.machines import disks  # noqa: E402
from bake.localcloud.machines.filling import BLOCK, parse_speeds  # noqa: E402
from bake.localcloud.machines.lazy import READ_AHEAD, LazyDisk, set_read_ahead  # noqa: E402
from tests.localcloud.test_lazy_disks import mapped  # noqa: E402

MB = 1 << 20
OF_THE_RULE = 2560  # KiB


@dataclass(frozen=True)
class Way:
    """A way to read a file, which returns MB/s."""

    name: str
    read: Callable[[Path], float]
    read_ahead: int = READ_AHEAD


def directly(file: Path, depth: int, size: int, most: int) -> float:
    """MB/s of `depth` threads that read `size` bytes each past the page cache, `most` MiB of the file."""
    whole, opened = min(file.stat().st_size, most * MB), os.open(file, os.O_RDONLY | os.O_DIRECT)

    def one(offset: int) -> None:
        with mmap.mmap(-1, size) as aligned:
            os.preadv(opened, [aligned], offset)

    started = time.monotonic()
    with ThreadPoolExecutor(depth) as pool:
        list(pool.map(one, range(0, whole, size)))
    os.close(opened)
    return whole / (time.monotonic() - started) / 1e6


def make(disk: Path, megabytes: int) -> None:
    """A disk that holds `model`."""
    where = disk.with_name("making")
    with disk.open("wb") as file:
        file.truncate((megabytes + 256) * MB)
    host.run("mkfs.ext4", "-q", disk)
    disks.mount(disk, where)
    with (where / "model").open("wb") as model:
        for _ in range(megabytes):
            model.write(os.urandom(MB))
    disks.unmount(where)


def forget(file: Path) -> None:
    """Let the host's memory hold nothing of the file."""
    opened = os.open(file, os.O_RDONLY)
    os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(opened)


def measure(lazy: LazyDisk, where: Path, way: Way) -> str:
    """A line about one way, on a disk of which nothing is there yet."""
    lazy.mount(where)
    try:
        set_read_ahead(disks.mounted()[str(where)], way.read_ahead)
        before = lazy.figures()
        first = way.read(where / "model")
        after = lazy.figures()
        forget(where / "model")
        again = way.read(where / "model")
        cpu = after.cpu_seconds - before.cpu_seconds, lazy.figures().cpu_seconds - after.cpu_seconds
    finally:
        disks.unmount(where)
        lazy.unmount()
        lazy.forget()
    waited = after.depth_mean * after.busy_seconds - before.depth_mean * before.busy_seconds
    depth = waited / (after.busy_seconds - before.busy_seconds)
    return f"{way.name:<34}{first:7.1f} MB/s{depth:7.1f}{again:9.0f} MB/s   {cpu[0]:.2f} s, {cpu[1]:.2f} s"


def ways(megabytes: int) -> list[Way]:
    """What is compared; a depth of one reads less, since it takes long."""
    few = min(megabytes, 64)
    return [
        Way("direct, queue depth 1", partial(directly, depth=1, size=BLOCK, most=few)),
        Way("direct, queue depth 8", partial(directly, depth=8, size=BLOCK, most=megabytes)),
        Way("direct, queue depth 32", partial(directly, depth=32, size=BLOCK, most=megabytes)),
        Way("direct, 32 threads, 4 MiB each", partial(directly, depth=32, size=4 * MB, most=megabytes)),
        Way(f"mapped, read-ahead {READ_AHEAD} KiB", mapped),
        Way(f"mapped, read-ahead {OF_THE_RULE} KiB", mapped, OF_THE_RULE),
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--filling", default="", help="as `bake local up --lazy-disks` takes it")
    asked = parser.parse_args()
    print(f"{'':<34}{'first':>7}     {'depth':>7}{'again':>9}        the server's CPU")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        disk = Path(folder) / "disk.img"
        make(disk, asked.megabytes)
        lazy = LazyDisk(disk, parse_speeds(asked.filling).filling)
        for way in ways(asked.megabytes):
            print(measure(lazy, disk.with_name("root"), way), flush=True)


if __name__ == "__main__":
    main()
