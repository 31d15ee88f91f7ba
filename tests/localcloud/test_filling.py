"""What a lazy disk tells of itself, and what can be changed while it is mounted."""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from bake.localcloud import host
from bake.localcloud.machines import disks
from bake.localcloud.machines.filling import BLOCK, Filling
from bake.localcloud.machines.lazy import LazyDisk

pytestmark = pytest.mark.root

SIZE = 24 << 20
FAST = Filling(latency=4, ceiling=2000)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk of 64 MB that holds `model`, 24 MB in one piece."""
    disk = tmp_path_factory.mktemp("snapshot") / "disk.img"
    with disk.open("wb") as file:
        file.truncate(64 << 20)
    host.run("mkfs.ext4", "-q", disk)
    disks.mount(disk, disk.with_name("making"))
    (disk.with_name("making") / "model").write_bytes(os.urandom(SIZE))
    disks.unmount(disk.with_name("making"))
    return disk


@pytest.fixture
def disk(snapshot: Path, tmp_path: Path) -> Path:
    disks.clone(snapshot, tmp_path / "disk.img")
    return tmp_path / "disk.img"


@contextmanager
def filling(disk: Path, how: Filling) -> Iterator[tuple[LazyDisk, Path]]:
    """The disk, and its file `model`, while it is mounted."""
    lazy, where = LazyDisk(disk, how), disk.with_name("root")
    lazy.mount(where)
    try:
        yield lazy, where / "model"
    finally:
        lazy.stall(0)
        disks.unmount(where)
        lazy.unmount()


def read(file: Path, offsets: range, size: int = BLOCK, depth: int = 1) -> None:
    """Read `size` bytes at each offset past the page cache, `depth` at a time."""
    opened = os.open(file, os.O_RDONLY | os.O_DIRECT)

    def one(offset: int) -> None:
        with mmap.mmap(-1, size) as aligned:
            assert os.preadv(opened, [aligned], offset) == size

    try:
        with ThreadPoolExecutor(depth) as pool:
            list(pool.map(one, offsets))
    finally:
        os.close(opened)


def on_disk(file: Path, offset: int, size: int) -> set[int]:
    """The numbers of the disk's blocks that this part of a file lies in."""
    found = set()
    for line in host.run("filefrag", "-v", "-b1024", file).splitlines():
        columns = line.replace("..", " ").replace(":", " ").split()
        if columns and columns[0].isdigit():
            logical, physical, length = (1024 * int(columns[place]) for place in (1, 3, 5))
            for place in range(max(offset, logical), min(offset + size, logical + length), 1024):
                found.add((physical + place - logical) // BLOCK)
    return found


def eventually(what: str, true: Callable[[], bool]) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def numbers(ranges: list[tuple[int, int]]) -> set[int]:
    return {place // BLOCK for start, end in ranges for place in range(start, end, BLOCK)}


def test_it_tells_which_blocks_reads_have_touched(disk: Path) -> None:
    with filling(disk, FAST) as (lazy, model):
        wanted = on_disk(model, 5 << 20, 3 << 20)
        before = numbers(lazy.touched())
        assert len(wanted - before) >= 5  # mounting has read what describes the file
        read(model, range(5 << 20, 8 << 20, 128 << 10), 128 << 10)
        read(model, range(5 << 20, 8 << 20, BLOCK))
        assert numbers(lazy.touched()) == before | wanted
        figures = lazy.figures()
        assert figures.touched == len(before | wanted) * BLOCK
        assert figures.background == 0
        assert SIZE < figures.held < 2 * SIZE
    assert numbers(lazy.touched()) >= before | wanted, "it answers when it is unmounted, too"


def test_the_depth_of_first_reads_is_told(disk: Path) -> None:
    def depth(of: int, offsets: range) -> float:
        before = lazy.figures()
        read(model, offsets, depth=of)
        after = lazy.figures()
        waited = after.depth_mean * after.busy_seconds - before.depth_mean * before.busy_seconds
        assert after.first_reads > before.first_reads
        return waited / (after.busy_seconds - before.busy_seconds)

    with filling(disk, Filling(latency=20, ceiling=1000)) as (lazy, model):
        assert depth(1, range(0, 4 << 20, BLOCK)) < 2.1  # a read may lie in two blocks
        assert depth(8, range(4 << 20, 20 << 20, BLOCK)) > 4
        assert 8 <= lazy.figures().depth_peak <= 18


def waited(lazy: LazyDisk, reads: Callable[[], None]) -> float:
    """Seconds that each first read of a block waits by the settings, while `reads` reads."""
    before = lazy.figures()
    reads()
    after = lazy.figures()
    seconds = after.depth_mean * after.busy_seconds - before.depth_mean * before.busy_seconds
    return seconds / (after.first_reads - before.first_reads)


def test_the_latency_alone_can_be_doubled_while_it_is_mounted(disk: Path) -> None:
    with filling(disk, Filling(latency=10, ceiling=1000)) as (lazy, model):
        first = waited(lazy, lambda: read(model, range(0, 4 << 20, BLOCK)))
        lazy.change(latency=20.0)
        second = waited(lazy, lambda: read(model, range(8 << 20, 12 << 20, BLOCK)))
        assert second / first == pytest.approx(2, rel=0.2)
        assert lazy.filling == Filling(latency=20, ceiling=1000)


def test_first_reads_get_the_ceiling_at_most(disk: Path) -> None:
    with filling(disk, Filling(latency=2, ceiling=40)) as (lazy, model):
        before = lazy.figures()
        read(model, range(0, SIZE, BLOCK), depth=16)
        after = lazy.figures()
        came, busy = after.on_demand - before.on_demand, after.busy_seconds - before.busy_seconds
        assert 0.8 * 40 < came / busy / 1e6 < 1.1 * 40


def test_a_rate_fills_what_nobody_reads(disk: Path) -> None:
    with filling(disk, Filling(initialization_rate=100)) as (lazy, model):
        eventually("the disk is filled", lambda: lazy.figures().progress == 100)
        filled = lazy.figures()
        assert filled.background > filled.held / 2 > filled.touched
        assert filled.on_demand + filled.background == filled.held
        read(model, range(0, SIZE, BLOCK))
        after = lazy.figures()
        assert (after.first_reads, after.on_demand) == (filled.first_reads, filled.on_demand)
        assert after.touched > SIZE * 0.9, "what was there before it was read is told as well"


def test_it_goes_on_while_the_machine_is_off(disk: Path) -> None:
    with filling(disk, Filling(latency=1, initialization_rate=1)) as (lazy, _):
        assert lazy.figures().progress < 100
    lazy.change(initialization_rate=None)
    with filling(disk, Filling(latency=1, initialization_rate=None)) as (lazy, _):
        here = lazy.figures().background
    assert lazy.figures().background == here, "without a rate nothing comes"
    lazy.change(initialization_rate=10_000.0)
    with filling(disk, lazy.filling) as (again, _):
        eventually("the disk is filled", lambda: again.figures().progress == 100)


def test_a_read_from_a_stalled_disk_does_not_come_back(disk: Path) -> None:
    with filling(disk, FAST) as (lazy, model):
        touched = lazy.figures().touched
        lazy.stall(600)
        reader = threading.Thread(target=read, args=(model, range(0, BLOCK, BLOCK)))
        reader.start()
        eventually("the read has arrived", lambda: lazy.figures().touched > touched)
        assert reader.is_alive()
        lazy.stall(0)
        reader.join(60)
        assert not reader.is_alive()


def test_it_can_be_empty_again(disk: Path) -> None:
    with filling(disk, FAST) as (lazy, model):
        read(model, range(0, SIZE, BLOCK), depth=8)
    lazy.forget()
    assert lazy.touched() == []
    assert lazy.figures().progress == 0
