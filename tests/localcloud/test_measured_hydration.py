"""The plan learns how fast a volume fills from what was measured on one, and from nothing else.

The disk is the local cloud's, filled lazily; seconds are its own figures, which a busy host makes no shorter.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from bake.account.starts import Started
from bake.hydration import Measured, parse
from bake.localcloud import host
from bake.localcloud.machines import disks
from bake.localcloud.machines.blocks import Figures
from bake.localcloud.machines.filling import BLOCK, Filling
from bake.localcloud.machines.lazy import LazyDisk
from bake.planning import hydration
from bake.planning.prices import Prices
from bake.planning.weights import WeightFiles
from bake.weights.flux import WeightFile
from tests.bake.instance_types import TYPES
from tests.bake.planning.test_pure import loaded

pytestmark = pytest.mark.root

SIZE = 48 << 20
QUEUE = 8
LATENCY = 150.0  # ms a block: what a busy host adds is little beside it
NEAR = 0.25


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk with weights of 48 MiB."""
    disk, where = tmp_path / "disk.img", tmp_path / "filling"
    with disk.open("wb") as file:
        file.truncate(2 * SIZE)
    host.run("mkfs.ext4", "-q", disk)
    disks.mount(disk, where)
    (where / "weights").write_bytes(os.urandom(SIZE))
    disks.unmount(where)
    return disk


@contextmanager
def mounted(disk: Path, where: Path, latency: float) -> Iterator[LazyDisk]:
    """A new volume of the same snapshot: nothing of it is there."""
    lazy = LazyDisk(disk, Filling(latency=latency, ceiling=10_000))
    lazy.forget()
    lazy.mount(where)
    try:
        yield lazy
    finally:
        disks.unmount(where)
        lazy.unmount()


def start(disk: Path, where: Path, latency: float) -> Figures:
    """Read the weights of a new volume at a deep queue, as a start does; what the disk has delivered."""
    with mounted(disk, where, latency) as lazy:
        before = lazy.figures()
        file = os.open(where / "weights", os.O_RDONLY)
        try:
            os.posix_fadvise(
                file, 0, 0, os.POSIX_FADV_RANDOM
            )  # the queue alone decides, not Linux's read-ahead
            with ThreadPoolExecutor(QUEUE) as readers:
                got = sum(readers.map(lambda place: len(os.pread(file, BLOCK, place)), range(0, SIZE, BLOCK)))
        finally:
            os.close(file)
        after = lazy.figures()
    assert got == SIZE
    assert after.on_demand - before.on_demand >= SIZE
    return after


def tag(found: Figures) -> str:
    """What a boot check writes of it."""
    return Measured(found.mb_per_s, found.on_demand, libraries=found.on_demand - SIZE, volume="gp3").text()


def planned(text: str) -> float:
    """Seconds of the lazy way in the plan of a bake that finds this tag."""
    measured = parse(text)
    assert measured is not None
    found = hydration.find(
        loaded(),
        WeightFiles({"transformer/one.safetensors": WeightFile(SIZE)}, "the disk"),
        TYPES["g6e.xlarge"],
        (0.0, False),
        Started("ami-0123456789abcdef0", "2026-11-30T00:00:00.000Z", measured),
        Prices(None, None, None),
    )
    assert found.chosen.name == "lazy" and found.chosen.seconds is not None
    return found.chosen.seconds


def test_the_plan_is_near_what_the_next_volume_takes_also_with_another_latency(
    disk: Path, tmp_path: Path
) -> None:
    where = tmp_path / "root"
    usual = tag(start(disk, where, LATENCY))
    assert planned(usual) == pytest.approx(start(disk, where, LATENCY).busy_seconds, rel=NEAR)
    slower = start(disk, where, 2 * LATENCY)  # the latency alone
    assert planned(usual) < (1 - NEAR) * slower.busy_seconds  # what nobody has measured yet
    assert planned(tag(slower)) == pytest.approx(start(disk, where, 2 * LATENCY).busy_seconds, rel=NEAR)
