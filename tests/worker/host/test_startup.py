"""A slow start gets more time and one that hangs does not, with real reads and datagrams."""

from __future__ import annotations

import mmap
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flux_worker.host.monitor import Monitor
from flux_worker.host.notify import Notifier
from flux_worker.host.startup import COMPUTING_SECONDS, Progress, StartupMonitor, Usage

MB = 1 << 20


def usage(at: float, read: float = 0, cpu: float = 0, mapped: float = 0) -> Usage:
    """At so many seconds, so many MiB read and mapped and seconds computed since the start."""
    return Usage(int(read * MB), cpu, at, int(mapped * MB))


def made_progress(*later: Usage, step_before: int = -1) -> list[bool]:
    """What is told of a worker that is looked at so."""
    progress = Progress(usage(0))
    found = []
    for number, now in enumerate(later):
        if number == step_before:
            progress.step()
        found.append(progress.made_progress(now))
    return found


def test_bytes_that_come_in_are_progress() -> None:
    assert made_progress(usage(5, read=100), usage(10, read=101), usage(15, read=101)) == [True, True, False]


def test_a_trickle_counts_once_it_is_a_mebibyte() -> None:
    assert made_progress(*(usage(5 * n, read=n / 4) for n in range(1, 9))) == [False, False, False, True] * 2


def test_what_another_worker_has_read_is_progress_where_it_is_mapped() -> None:
    """The one that comes second reads nothing itself; what it has put onto its GPU, it maps no more."""
    maps = [50, 100, 2, 4, 4]
    found = made_progress(*(usage(5 * n, mapped=size) for n, size in enumerate(maps, 1)))
    assert found == [True, True, False, True, False]


def test_weights_that_another_has_read_are_progress_where_they_are_streamed() -> None:
    """Reads of what is in memory already are neither reads from the disk nor mappings."""
    looks = [replace(usage(5 * n), streamed=size * MB) for n, size in enumerate([0, 50, 50, 90], 1)]
    assert made_progress(*looks) == [False, True, False, True]


def test_pages_that_come_and_go_are_none() -> None:
    assert not any(made_progress(*(usage(5 * n, mapped=n % 2 / 2) for n in range(1, 20))))


def test_the_kernel_counts_what_the_process_maps(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(4 * MB))  # and so it is in memory
    before = Usage.now()
    with (tmp_path / "file").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert sum(mapped[:: mmap.PAGESIZE]) == 0
        after = Usage.now()
    assert after.came_since(before) >= 4 * MB
    assert after.read == before.read


def test_a_step_is_progress_once() -> None:
    assert made_progress(usage(5), usage(10), usage(15), step_before=1) == [False, True, False]


def test_a_thread_that_polls_is_none() -> None:
    assert not any(made_progress(*(usage(5 * n, cpu=0.05 * n) for n in range(1, 9))))


def test_processors_that_are_busy_count_for_a_while() -> None:
    """Kernels are compiled without a byte read; who spins for a GPU that hangs is as busy, and for ever."""
    last = int(COMPUTING_SECONDS / 5)
    found = made_progress(*(usage(5 * n, cpu=5.0 * n) for n in range(1, 2 * last)))
    assert found == [True] * (last - 1) + [False] * last


def test_bytes_let_processors_be_busy_anew() -> None:
    late = COMPUTING_SECONDS + 5
    assert made_progress(
        usage(late, cpu=late), usage(late + 5, 2, late + 5), usage(late + 10, 2, late + 10)
    ) == [
        False,
        True,
        True,
    ]


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """What systemd hears, up to now; it listens at NOTIFY_SOCKET."""
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))

        def all_told() -> list[str]:
            try:
                while True:
                    heard.extend(listener.recv(999).decode().splitlines())
            except BlockingIOError:
                return heard

        yield all_told


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def disk_read(file: Path, size: int) -> None:
    """Write `size` bytes and read them from the disk itself, not from memory."""
    file.write_bytes(bytes(size))
    with file.open("rb") as content:
        os.fsync(content.fileno())
        os.posix_fadvise(content.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while content.read(MB):
            pass


def test_the_kernel_counts_what_the_process_reads(tmp_path: Path) -> None:
    before = Usage.now()
    disk_read(tmp_path / "file", 4 * MB)
    started = time.process_time()
    while time.process_time() - started < 0.2:
        pass
    after = Usage.now()
    if after.read == before.read:
        pytest.skip("this host's temporary files lie in memory")
    assert after.read - before.read >= 4 * MB
    assert after.cpu - before.cpu >= 0.2


def test_systemd_is_asked_for_more_time_and_told_how_far_it_is(
    told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = 0

    def now() -> Usage:
        nonlocal read
        read += 50 * MB
        return Usage(read, 0, time.monotonic())

    monkeypatch.setattr(Usage, "now", now)
    with StartupMonitor(Monitor(Notifier()), stall_seconds=7, interval=0.05) as startup:
        startup.doing("Loading the model", 10 * 50 * MB)
        until(lambda: any("0.5 of 0.5 GB read" in line for line in told()))
    assert "EXTEND_TIMEOUT_USEC=7000000" in told()
    assert "STATUS=Loading the model" in told()
    assert any(line.startswith("STATUS=Loading the model: 0.1 of 0.5 GB read, ") for line in told())
    assert all(line.endswith(" MB/s") for line in told() if "read" in line)


def test_streamed_weights_are_told_and_get_more_time(
    told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Usage, "now", lambda: Usage(0, 0, time.monotonic()))
    with StartupMonitor(Monitor(Notifier()), stall_seconds=7, interval=0.05) as startup:
        startup.doing("Loading the model", 500_000_000)
        startup.streamed(123_000_000)
        until(lambda: any(": 0.1 of 0.5 GB read, " in line for line in told()))
        startup.streamed(100_000_000)  # of another thread, late
        startup.streamed(500_000_000)
        until(lambda: any(": 0.5 of 0.5 GB read, " in line for line in told()))
    assert "EXTEND_TIMEOUT_USEC=7000000" in told()


def test_a_worker_that_hangs_is_given_no_more_time(
    told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = threading.Semaphore(0)

    def now() -> Usage:
        looks.release()
        return Usage(0, 0, time.monotonic())

    monkeypatch.setattr(Usage, "now", now)
    with StartupMonitor(Monitor(Notifier()), interval=0.01) as startup:
        startup.doing("Loading the model", MB)
        assert all(looks.acquire(timeout=60) for _ in range(20))
    assert told() == ["STATUS=Loading the model"]


def test_the_watch_ends_with_its_block_whatever_ended_that(told: Callable[[], list[str]]) -> None:
    with pytest.raises(KeyError), StartupMonitor(Monitor(Notifier())):
        raise KeyError
    assert "start-up" not in {thread.name for thread in threading.enumerate()}
    assert told() == []
