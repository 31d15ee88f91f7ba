"""The warm-up on a disk that fills lazily: in which order it reads, how much, how deep, and what ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from bake.localcloud import host
from bake.localcloud.machines import disks, lazy
from bake.localcloud.machines.filling import BLOCK, Filling
from bake.localcloud.machines.lazy import LazyDisk

from .warming import WarmUp, cached, pages, part, trace, warm, whole

pytestmark = pytest.mark.root
MIB = 1 << 20
WEIGHTS = 12  # files of 4 MiB
# Fast enough for many tests, and slow enough for what happens in the middle.
QUICK, SLOW = Filling(latency=10, ceiling=200), Filling(latency=40, ceiling=12)

OTHERS = """
import mmap, os, sys
file = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
buffer = mmap.mmap(-1, 1 << 20)
os.preadv(file, [buffer], 0)
print(flush=True)
while True:
    os.preadv(file, [buffer], 0)
"""


class Volume:
    """A lazy disk with modules and weights, which can be made cold again."""

    def __init__(self, folder: Path) -> None:
        self.disk, self.where = folder / "disk.img", folder / "root"
        with self.disk.open("wb") as file:
            file.truncate(300 * MIB)
        host.run("mkfs.ext4", "-q", self.disk)
        disks.mount(self.disk, self.where)
        self.modules = [self.where / f"package-{n % 40}/{n}.pyc" for n in range(400)]
        self.weights = [self.where / f"{n}.safetensors" for n in range(WEIGHTS)]
        for file in self.modules:
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(os.urandom(3000))
        for file in self.weights:
            file.write_bytes(os.urandom(4 * MIB))
        self.size = len(self.modules) * 3000 + WEIGHTS * 4 * MIB
        self.entries = trace(libraries=map(whole, self.modules), transformer=map(whole, self.weights))
        disks.unmount(self.where)
        self.lazy = LazyDisk(self.disk, QUICK)

    def cool(self, filling: Filling = QUICK) -> None:
        """Nothing of it is in the page cache, and nothing has come from its snapshot."""
        self.end()
        self.lazy = LazyDisk(self.disk, filling)
        self.lazy.forget()
        self.lazy.mount(self.where)

    def end(self) -> None:
        if str(self.where) in disks.mounted():
            disks.unmount(self.where)
            self.lazy.unmount()

    def resident(self) -> list[float]:
        """The share of each file of weights that is in the page cache."""
        return [cached(file) / pages(file) for file in self.weights]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Volume]:
    volume = Volume(tmp_path_factory.mktemp("warm"))
    yield volume
    volume.end()


@pytest.fixture
def volume(made: Volume) -> Volume:
    made.cool()
    return made


def until(process: WarmUp, true: Callable[[], bool]) -> None:
    """Wait for something while the warm-up runs."""
    while not true():
        assert process.process.poll() is None, process.log.read_text()
        time.sleep(0.02)


def has_read(process: WarmUp, least: int) -> Callable[[], bool]:
    return lambda: process.told().get("bytes", -1) >= least


@contextmanager
def others(file: Path) -> Iterator[None]:
    """Another process reads from the same disk all the time."""
    with subprocess.Popen([sys.executable, "-c", OTHERS, str(file)], stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        try:
            yield
        finally:
            reader.kill()


def assert_in_memory(shares: list[float]) -> None:
    """All but a few pages of each file, which a host that is short of memory takes back."""
    assert min(shares, default=1.0) > 0.95


def read_from(where: Path) -> int:
    """Bytes that anybody has read from the disk which is mounted there."""
    device = where.stat().st_dev
    told = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text()
    return int(told.split()[2]) * 512


def test_it_reads_what_the_trace_says_deep_and_once_and_needs_little_memory(
    volume: Volume, tmp_path: Path
) -> None:
    assert volume.resident() == [0.0] * WEIGHTS
    done = warm(tmp_path, volume.entries)
    report, figures = done.report, volume.lazy.figures()
    assert (report["state"], report["bytes"], report["of"]) == ("done", volume.size, volume.size)
    assert volume.size <= report["from_disk"] <= 1.1 * volume.size, "modules end in the middle of a page"
    assert figures.depth_peak > 16
    assert figures.touched < 1.1 * volume.size + 8 * MIB, "blocks of folders and inodes beside it"
    assert done.peak < 48 * MIB
    before = read_from(volume.where)
    assert_in_memory(volume.resident())
    for file in volume.modules + volume.weights:
        file.read_bytes()
    assert read_from(volume.where) == before, "the worker finds all of it in memory"


def test_of_a_part_it_reads_no_more_whatever_the_read_ahead(volume: Volume, tmp_path: Path) -> None:
    lazy.set_read_ahead(disks.mounted()[str(volume.where)], 2560)
    parts = [part(file, at, 64 << 10) for file in volume.weights for at in (0, MIB + 100)]
    report = warm(tmp_path, trace(transformer=parts)).report
    assert report["bytes"] == 2 * WEIGHTS * 64 << 10
    assert [cached(file) for file in volume.weights] == [16 + 17] * WEIGHTS


def test_stopped_in_the_middle_it_has_read_in_order(made: Volume, tmp_path: Path) -> None:
    made.cool(SLOW)
    warming = WarmUp(tmp_path, made.entries)
    until(warming, has_read(warming, made.size // 2))
    warming.process.send_signal(signal.SIGTERM)
    done = warming.end()
    assert (done.code, done.report["state"]) == (0, "stopped")
    assert 0 < done.report["bytes"] < made.size
    read = made.resident()
    last = max(number for number, share in enumerate(read) if share)
    assert last < WEIGHTS - 1, "it was stopped"
    missing = sum(1 - share for share in read[:last]) * 4 * MIB
    assert missing < 33 * BLOCK, "more than the 32 requests that were in flight"
    assert done.report["stages"][0]["bytes"] == len(made.modules) * 3000


def test_killed_in_the_middle_the_next_one_goes_on(made: Volume, tmp_path: Path) -> None:
    made.cool(SLOW)
    first = WarmUp(tmp_path, made.entries)
    until(first, has_read(first, made.size // 4))
    first.process.kill()
    assert (first.end().code, first.told()["state"]) == (-signal.SIGKILL, "reading")
    started, left = first.told()["started"], first.told()["bytes"]
    done = warm(tmp_path, made.entries)
    assert (done.report["state"], done.report["bytes"]) == ("done", made.size)
    assert done.report["from_disk"] < made.size - left / 2, "what the first has read comes from memory"
    assert done.report["started"] == started
    assert "killed after" in done.said
    assert made.lazy.figures().touched >= made.size, "all of it has come from the snapshot"


def test_on_a_disk_that_does_not_answer_it_ends_when_it_is_told_to(volume: Volume, tmp_path: Path) -> None:
    volume.lazy.stall(600)
    try:
        warming = WarmUp(tmp_path, volume.entries)
        until(warming, lambda: warming.told().get("seconds", 0) > 0.5)
        warming.process.send_signal(signal.SIGTERM)
        while warming.told()["state"] == "reading":
            time.sleep(0.02)
    finally:
        volume.lazy.stall(0)  # the kernel itself keeps a process that waits for a folder's or inode's block
    done = warming.end()
    assert (done.code, done.report["state"], done.report["bytes"]) == (0, "stopped", 0)


def memory(tmp_path: Path, available: int) -> dict[str, object]:
    """The program's view of a machine that has so many bytes of memory to spare."""
    (tmp_path / "meminfo").write_text(f"MemTotal: 32 kB\nMemAvailable:  {available >> 10} kB\n")
    return {"MEMINFO": str(tmp_path / "meminfo"), "SHARE": 1.0}


def test_with_memory_for_a_part_it_keeps_what_comes_first(volume: Volume, tmp_path: Path) -> None:
    """The rest is filled from the snapshot, too, and takes no memory: it is read past the page cache."""
    room = volume.size // 2 + 16 * MIB  # beside what is in flight
    done = warm(tmp_path, volume.entries, **memory(tmp_path, room))
    assert (done.report["state"], done.report["bytes"]) == ("done", volume.size)
    assert 0 < done.report["past_cache"] < volume.size
    read = volume.resident()
    assert_in_memory(read[:4])
    assert max(read[-2:]) < 0.01, "one page a request, to see whether it is there"
    assert done.peak < 48 * MIB
    figures = volume.lazy.figures()
    assert figures.touched >= volume.size, "all of it was fetched"


def test_without_memory_it_gives_way_to_all_who_read_and_goes_on_after_them(
    volume: Volume, tmp_path: Path
) -> None:
    with others(volume.weights[-1]):
        warming = WarmUp(tmp_path, volume.entries, memory(tmp_path, 0))
        until(warming, lambda: warming.told().get("seconds", 0) > 0.5)
        assert warming.told()["bytes"] < volume.size / 10
    done = warming.end()
    assert (done.report["state"], done.report["past_cache"]) == ("done", volume.size)


@pytest.mark.parametrize("boots", [True, False], ids=["boots", "worker-starts"])
def test_beside_a_boot_it_reads_less_deep(volume: Volume, tmp_path: Path, boots: bool) -> None:
    with others(volume.weights[-1]):
        changes = {"BOOTS": 1e12, "STARTED": "/nowhere" if boots else str(tmp_path)}
        report = warm(tmp_path, volume.entries, **changes).report
    assert report["state"] == "done"
    assert (volume.lazy.figures().depth_peak <= 8) is boots, "blocks: a request may need two"


def test_a_full_disk_takes_its_report_only(volume: Volume, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    host.run("mount", "-t", "tmpfs", "-o", "size=64k", "none", full)
    try:
        with suppress(OSError):
            (full / "content").write_bytes(bytes(1 << 20))
        warming = WarmUp(tmp_path, volume.entries, report=full / "report.json")
        code, said = (done := warming.end()).code, done.said
    finally:
        host.run("umount", full)
    assert (code, said.count("report.json can't be written: No space left on device")) == (0, 1)
    assert "done: " in said
