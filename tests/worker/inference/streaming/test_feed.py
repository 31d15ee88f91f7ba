"""The queue of ranges, with real files and threads; a class with the file's bytes is the other source."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from flux_worker.inference.streaming.disk import Disk
from flux_worker.inference.streaming.feed import GENTLE, Feed, SourceFailed
from flux_worker.inference.streaming.host_memory import HostMemory
from flux_worker.inference.streaming.ranges import Range, Schedule
from flux_worker.inference.streaming.report import StreamReport

RANGE = 1 << 14
RANGES = 64


@dataclass
class Weights:
    """A file of random bytes, a place for it, and its ranges, the last one shorter."""

    file: Path
    content: bytes
    place: bytearray
    ranges: list[Range]

    def load(self, *sources: object) -> StreamReport:
        """Everything, into `place`."""
        with Feed(self.ranges, sources, HostMemory({self.file: memoryview(self.place)})) as feed:  # type: ignore[arg-type]
            return feed.wait()


@pytest.fixture
def weights(tmp_path: Path) -> Weights:
    content = os.urandom(RANGE * RANGES - 5)
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    parts = [content[start : start + RANGE] for start in range(0, len(content), RANGE)]
    ranges = [
        Range(file, number * RANGE, len(part), hashlib.sha256(part).hexdigest())
        for number, part in enumerate(parts)
    ]
    return Weights(file, content, bytearray(len(content)), ranges)


@dataclass
class Other:
    """A source beside the disk that has the same bytes; `before` may fail, wait or give others."""

    content: bytes
    before: Callable[[Range], bytes | None] = lambda _: None
    threads: int = 2
    name: str = "s3"
    asked: list[int] = field(default_factory=list)

    def read(self, part: Range, into: memoryview) -> None:
        self.asked.append(part.offset)
        other = self.before(part)
        into[:] = other or self.content[part.offset : part.offset + part.size]

    def close(self) -> None:
        pass


class SlowDisk(Disk):
    """Reads nothing before the other source has read so many ranges."""

    def __init__(self, file: Path, other: Other, ranges: int) -> None:
        super().__init__([file], threads=2)
        self._other, self._ranges = other, ranges
        self.read_ranges: list[int] = []

    def read(self, part: Range, into: memoryview) -> None:
        deadline = time.monotonic() + 60
        while len(self._other.asked) < self._ranges:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        super().read(part, into)
        self.read_ranges.append(part.offset)


def shares(report: StreamReport) -> dict[str, int]:
    return {source.name: source.bytes for source in report.sources}


def test_the_disk_alone_brings_every_byte_with_several_reads_at_once(weights: Weights) -> None:
    together = threading.Barrier(4)

    class FourAtOnce(Disk):
        def read(self, part: Range, into: memoryview) -> None:
            together.wait(60)
            super().read(part, into)

    report = weights.load(FourAtOnce([weights.file], threads=4))
    assert weights.place == weights.content
    assert shares(report) == {"disk": len(weights.content)}
    assert report.peak_depth == report.sources[0].peak_depth == 4
    assert report.seconds > 0 and 0 < report.mean_depth <= 4 and not report.dropped


def test_the_disk_is_read_gently_until_somebody_waits(weights: Weights) -> None:
    """Reads end only when all twelve threads are there."""
    together = threading.Barrier(12)
    begun: list[int] = []

    class Together(Disk):
        def read(self, part: Range, into: memoryview) -> None:
            begun.append(part.offset)
            together.wait(60)
            super().read(part, into)

    weights.ranges = weights.ranges[:60]  # five times twelve
    disk = Together([weights.file], threads=12)
    with Feed(weights.ranges, [disk], HostMemory({weights.file: memoryview(weights.place)})) as feed:
        while len(begun) < GENTLE:
            time.sleep(0.001)
        assert {thread.name for thread in threading.enumerate() if thread.name.startswith("disk-")} == {
            f"disk-{number}" for number in range(GENTLE)
        }
        assert feed.wait().peak_depth == 12


def test_another_source_takes_from_the_back_while_the_disk_takes_from_the_front(weights: Weights) -> None:
    def after_twenty(_: Range) -> None:
        while len(other.asked) > 20 and len(disk.read_ranges) < RANGES - 22:
            time.sleep(0.001)

    other = Other(weights.content, after_twenty)
    disk = SlowDisk(weights.file, other, ranges=20)
    report = weights.load(disk, other)
    assert weights.place == weights.content
    assert min(other.asked[:20]) >= (RANGES - 21) * RANGE
    assert max(disk.read_ranges[:20]) <= 22 * RANGE
    brought = shares(report)
    assert brought["s3"] + brought["disk"] == len(weights.content)
    assert brought["s3"] >= 20 * RANGE - 5 and brought["disk"] >= 40 * RANGE


def test_what_the_disk_reads_last_is_read_twice_and_the_first_counts(weights: Weights) -> None:
    """The disk begins with all that is left, and never ends."""
    released = threading.Event()

    class Stuck(Disk):
        def read(self, part: Range, into: memoryview) -> None:
            released.wait(60)

    report = weights.load(Stuck([weights.file], threads=4), Other(weights.content))
    assert weights.place == weights.content
    assert shares(report) == {"disk": 0, "s3": len(weights.content)}
    released.set()


def test_a_wrong_byte_is_seen_and_its_source_dropped(weights: Weights) -> None:
    def one_wrong_byte(part: Range) -> bytes:
        return (
            b"\0" + weights.content[part.offset + 1 : part.offset + part.size]
            if len(other.asked) == 3
            else b""
        )

    # A byte that is 0 already would be right.
    weights.content = weights.content.replace(b"\0", b"\1")
    weights.file.write_bytes(weights.content)
    weights.ranges = [
        Range(r.file, r.offset, r.size, hashlib.sha256(weights.content[r.offset :][: r.size]).hexdigest())
        for r in weights.ranges
    ]
    other = Other(weights.content, one_wrong_byte, threads=1)
    report = weights.load(SlowDisk(weights.file, other, ranges=3), other)
    assert weights.place == weights.content
    assert report.dropped["s3"].startswith("wrong content of model.safetensors at ")
    assert len(other.asked) == 3


@pytest.mark.parametrize("error", [SourceFailed("503 SlowDown"), RuntimeError("a bug")], ids=["said", "bug"])
def test_a_source_that_fails_again_and_again_is_dropped_and_the_disk_reads_its_ranges(
    weights: Weights, error: Exception
) -> None:
    def fail(_: Range) -> bytes:
        raise error

    other = Other(weights.content, fail, threads=1)
    report = weights.load(SlowDisk(weights.file, other, ranges=3), other)
    assert weights.place == weights.content
    assert str(error) in report.dropped["s3"]
    assert shares(report) == {"disk": len(weights.content), "s3": 0}
    assert len(other.asked) == 3


def test_a_source_that_fails_once_goes_on(weights: Weights) -> None:
    def fail_once(_: Range) -> None:
        if len(other.asked) == 1:
            raise SourceFailed("timed out")

    other = Other(weights.content, fail_once, threads=1)
    report = weights.load(SlowDisk(weights.file, other, ranges=10), other)
    assert weights.place == weights.content
    assert not report.dropped and shares(report)["s3"] > 0


def test_a_source_that_hangs_holds_nothing_up(weights: Weights) -> None:
    released = threading.Event()
    other = Other(weights.content, lambda _: (released.wait(60) and None) or None)
    report = weights.load(SlowDisk(weights.file, other, ranges=2), other)
    assert weights.place == weights.content
    assert report.dropped["s3"].startswith("too slow: it held ")
    released.set()


@pytest.mark.parametrize(("held_for", "slow"), [(1.0, False), (3.9, False), (4.1, True)])
def test_only_a_source_that_is_far_slower_than_usual_is_called_slow(held_for: float, slow: bool) -> None:
    """The disk takes over what is left at the end in any case."""
    parts = [Range(Path("weights"), number, 1, "0" * 64) for number in range(3)]
    schedule = Schedule(parts)
    brought = schedule.next_for_other("s3", 0.0)
    assert brought is not None and schedule.landed(brought)
    schedule.other_ended(brought, 1.0, failed=False)
    held = schedule.next_for_other("s3", 1.0)
    own = schedule.next_for_disk(1.0)
    assert own is not None and schedule.landed(own)
    schedule.disk_ended(own, 1.01)
    assert schedule.next_for_disk(1.0 + held_for) == held
    assert bool(schedule.too_slow) is slow


def test_what_has_no_hash_is_the_disks_alone_and_stays_in_order(weights: Weights) -> None:
    third = weights.ranges[2]
    parts = [part if part is third else replace(part, sha256=None) for part in weights.ranges]
    schedule = Schedule(parts)
    assert [schedule.next_for_other("s3", 0.0) for _ in range(3)] == [parts[2], None, None]
    disks = [part for _ in parts if (part := schedule.next_for_disk(0.0))]
    assert disks == [*parts[:2], *parts[3:]]


def test_a_file_that_shrinks_meanwhile_ends_the_load_with_its_name(weights: Weights) -> None:
    disk = Disk([weights.file])
    os.truncate(weights.file, 5 * RANGE + 1)
    with pytest.raises(OSError, match=r"model\.safetensors ends at .* bytes, before its weights do"):
        weights.load(disk, Other(weights.content, threads=0))


def test_a_disk_that_fails_ends_the_load_with_its_error() -> None:
    """The kernel answers a read of a process's memory at address 0 with an I/O error."""
    file = Path("/proc/self/mem")
    place = HostMemory({file: memoryview(bytearray(RANGE))})
    with (
        Feed([Range(file, 0, RANGE)], [Disk([file])], place) as feed,
        pytest.raises(OSError, match="Errno 5"),
    ):
        feed.wait()


def test_a_missing_file_is_named(weights: Weights) -> None:
    weights.file.unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        Disk([weights.file])


def test_a_file_that_is_replaced_meanwhile_does_not_matter(weights: Weights) -> None:
    disk = Disk([weights.file])
    (weights.file.parent / "new").write_bytes(b"other")
    (weights.file.parent / "new").replace(weights.file)
    weights.load(disk)
    assert weights.place == weights.content


def test_closing_ends_the_threads(weights: Weights) -> None:
    before = threading.active_count()
    released = threading.Event()

    class Waiting(Disk):
        def read(self, part: Range, into: memoryview) -> None:
            released.wait(60)
            super().read(part, into)

    with Feed(
        weights.ranges, [Waiting([weights.file])], HostMemory({weights.file: memoryview(weights.place)})
    ) as feed:
        assert threading.active_count() > before
        feed.close()
        released.set()
    deadline = time.monotonic() + 60
    while threading.active_count() > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert sum(shares(feed.report()).values()) < len(weights.content)


HANGS = """
import sys, threading
from pathlib import Path
from flux_worker.host.stop import Stopped, StopRequest
from flux_worker.inference.streaming.disk import Disk
from flux_worker.inference.streaming.feed import Feed
from flux_worker.inference.streaming.host_memory import HostMemory
from flux_worker.inference.streaming.ranges import Range

class Hanging(Disk):
    def read(self, part, into):
        print("reading", flush=True)
        threading.Event().wait()

file = Path(sys.argv[1])
stop = StopRequest()
try:
    with Feed([Range(file, 0, 1)], [Hanging([file])], HostMemory({file: memoryview(bytearray(1))})) as feed:
        feed.wait()
except Stopped:
    print("stopped", flush=True)
"""


def test_a_request_to_stop_ends_a_load_whose_reads_hang(weights: Weights) -> None:
    command = [sys.executable, "-c", HANGS, str(weights.file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as loading:
        assert loading.stdout is not None
        assert loading.stdout.readline() == "reading\n"
        loading.send_signal(signal.SIGTERM)
        assert loading.communicate(timeout=60)[0] == "stopped\n"
    assert loading.returncode == 0


def test_progress_is_told_with_bytes(weights: Weights) -> None:
    told: list[int] = []
    place = HostMemory({weights.file: memoryview(weights.place)})
    with Feed(weights.ranges, [Disk([weights.file], threads=1)], place, told.append) as feed:
        feed.wait()
    assert told == sorted(told) and told[-1] == len(weights.content)
    assert len(told) == RANGES
