"""How fast a file is read for the first time from a disk that fills while it is read, as EBS does from S3.

    sudo python3 tests/bench/bench_cold_disk.py           # 256 MB, blocks at 17 MB/s one after the other
    sudo python3 tests/bench/bench_cold_disk.py --megabytes 1024 --rate 5

By a mapping, as the worker's weights are read: with Linux's read-ahead of 128 KiB, and with what the image's
udev rule sets. By 32 threads that read at once, which no read-ahead limits. And again, once it is filled.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from bake.localcloud import host  # noqa: E402
from bake.localcloud.machines import disks  # noqa: E402
from bake.localcloud.machines.filling import Filling  # noqa: E402
from bake.localcloud.machines.lazy import LazyDisk  # noqa: E402
from tests.localcloud.test_lazy_disks import ROOTFS, RULE, mapped, read_ahead  # noqa: E402

MB = 1 << 20


def make(disk: Path, megabytes: int, *, rule: bool) -> None:
    """A disk that holds `model`, and the image's rule or not."""
    where = disk.with_name("making")
    with disk.open("wb") as file:
        file.truncate((megabytes + 256) * MB)
    host.run("mkfs.ext4", "-q", disk)
    disks.mount(disk, where)
    with (where / "model").open("wb") as model:
        for _ in range(megabytes):
            model.write(os.urandom(MB))
    if rule:
        (where / RULE).parent.mkdir(parents=True)
        (where / RULE).write_text((ROOTFS / RULE).read_text())
    disks.unmount(where)


def threads(file: Path) -> float:
    """MB/s at which 32 threads read the file."""
    size, started = file.stat().st_size, time.monotonic()
    opened = os.open(file, os.O_RDONLY)
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda place: len(os.pread(opened, MB, place)), range(0, size, MB)))
    os.close(opened)
    return size / (time.monotonic() - started) / 1e6


@contextmanager
def filling(megabytes: int, rate: float, *, rule: bool) -> Iterator[Path]:
    """Where a new disk is mounted that fills lazily."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        disk, where = Path(folder) / "disk.img", Path(folder) / "root"
        make(disk, megabytes, rule=rule)
        lazy = LazyDisk(disk, Filling.in_sequence(rate))
        lazy.mount(where)
        try:
            yield where
        finally:
            disks.unmount(where)
            lazy.unmount()


def again(file: Path) -> float:
    """MB/s of a mapping once the disk is filled, with nothing of the file in memory."""
    opened = os.open(file, os.O_RDONLY)
    os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(opened)
    return mapped(file)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--rate", type=float, default=17.0)
    asked = parser.parse_args()
    ways: list[tuple[str, bool, Callable[[Path], float]]] = [
        ("mapped, without the rule", False, mapped),
        ("mapped, with the image's rule", True, mapped),
        ("32 threads, without the rule", False, threads),
    ]
    for what, rule, read in ways:
        with filling(asked.megabytes, asked.rate, rule=rule) as where:
            first = read(where / "model")
            kib = read_ahead(where)
            print(
                f"{what:<32}{kib:>6} KiB ahead: {first:6.1f} MB/s, again {again(where / 'model'):6.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
