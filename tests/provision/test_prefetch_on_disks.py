"""Real disks below the cache: full, out of inodes, unusable, and with something mounted over them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .downloads import Downloads, HubProcess
from .test_prefetch import assert_whole, nothing_to_load
from .test_prefetch_faults import finished, refused


@pytest.fixture
def new_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes small ext4 disks, mounted."""
    mounted: list[Path] = []

    def make(size: int) -> Path:
        image, where = tmp_path / f"{len(mounted)}.img", tmp_path / f"disk-{len(mounted)}"
        with image.open("wb") as file:
            file.truncate(size)
        # Without a journal and reserved blocks nearly all of it can be used.
        subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", "-m", "0", image], check=True)
        where.mkdir()
        subprocess.run(["mount", "-o", "loop", image, where], check=True)
        mounted.append(where)
        return where

    yield make
    for where in mounted:
        subprocess.run(["umount", where], check=True)


@pytest.mark.root
def test_a_disk_that_is_full_at_seven_tenths(
    downloads: Downloads, hub: HubProcess, repository: Path, new_disk: Callable[[int], Path]
) -> None:
    disk = new_disk(16 << 20)
    downloads.cache = disk / "cache"
    hub.fault("*", "slow", rate=2e3, times=None)
    process = downloads.start()
    while not hub.sent():
        assert process.poll() is None
        time.sleep(0.005)
    filler = disk / "filler"  # what is installed beside the download takes its space
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    filler.write_bytes(bytes(free - int(downloads.bytes * 0.7)))
    hub.forget()
    run = downloads.finish(process)
    [entry] = run.all("refused")
    assert entry["kind"] == "space", run
    assert "full" in entry["reason"]
    assert nothing_to_load(downloads)
    filler.unlink()
    done = finished(downloads, repository).last("done")
    assert done["reused"] > downloads.bytes * 0.5


@pytest.mark.root
@pytest.mark.parametrize(
    ("left", "rate"),
    [pytest.param(5, 10e3, id="at-the-third-file"), pytest.param(14, 1e9, id="at-the-links")],
)
def test_a_disk_that_takes_no_more_files(
    downloads: Downloads,
    hub: HubProcess,
    repository: Path,
    new_disk: Callable[[int], Path],
    left: int,
    rate: float,
) -> None:
    """It has bytes left, but no inodes. That is said at once: at 10 kB/s the others would go on for long."""
    disk = new_disk(16 << 20)
    fillers = [disk / f"filler-{number}" for number in range(os.statvfs(disk).f_favail - left)]
    for filler in fillers:
        filler.touch()
    downloads.cache = disk / "cache"
    hub.fault("*.safetensors", "slow", rate=rate, times=None)
    assert "df -i" in refused(downloads, "space")["hint"]
    for filler in fillers:
        filler.unlink()
    hub.forget()
    finished(downloads, repository)


def test_a_cache_that_cannot_be_created_is_reported(downloads: Downloads, hub: HubProcess) -> None:
    downloads.cache.write_text("a file is in the way")
    assert str(downloads.cache) in refused(downloads, "disk")["reason"]
    assert hub.sent() == 0


@pytest.mark.root
@pytest.mark.parametrize("kind", ["tmpfs", "overlay"])
def test_a_local_clouds_disk_stands_in_and_what_lies_over_it_does_not(
    downloads: Downloads, repository: Path, new_disk: Callable[[int], Path], kind: str
) -> None:
    disk = new_disk(16 << 20)
    downloads.cache, downloads.stand_in = disk / "cache", "loop"
    told = downloads.run().last("disk")
    assert (told["filesystem"], told["stand_in"]) == ("ext4", True)
    assert told["device"].startswith("/dev/loop")
    assert told["free"] > told["needed"] >= downloads.bytes
    for name in ("upper", "work"):
        (disk / name).mkdir()
    layers = f"lowerdir={downloads.cache},upperdir={disk}/upper,workdir={disk}/work"
    options = ["-o", layers] if kind == "overlay" else []
    subprocess.run(["mount", "-t", kind, *options, kind, downloads.cache], check=True)
    try:
        entry = downloads.run().last("refused")
    finally:
        subprocess.run(["umount", downloads.cache], check=True)
    assert (entry["kind"], kind in entry["reason"]) == ("not-ebs", True)
    assert_whole(downloads, repository)
