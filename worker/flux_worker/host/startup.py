"""Extend systemd's start timeout while the start makes progress, and report how far it is.

A fresh volume fetches each block from S3 on first read: 34 GB may take half an hour, while TimeoutStartSec=
is meant for a worker that hangs. So the timeout is extended (EXTEND_TIMEOUT_USEC, sd_notify(3)) while bytes
come in or steps are finished. Workers of one instance map the same files, and what one has read from the disk
is there for the others: so weights that were streamed count, wherever they came from, and pages that are
mapped anew. CPU load counts for a limited time only: a process that waits in vain for a GPU may be spinning.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from .monitor import Monitor

# Seconds without progress that systemd waits once the unit's own timeout is over.
STALL_SECONDS = 120.0
# Seconds for which CPU load alone counts as progress: kernels compile in one to two minutes.
COMPUTING_SECONDS = 900.0
# Seconds between two checks.
_INTERVAL = 5.0
# Fewer bytes are not progress: the thread that polls for spot notices reads a page now and then.
_LEAST_BYTES = 1 << 20
# As a share of one CPU. Polling threads take a hundredth of it.
_BUSY = 0.1


@dataclass(frozen=True)
class Usage:
    """Bytes read from disks and CPU seconds until the monotonic time `at`; bytes of files mapped by then, and
    of weights that were streamed."""

    read: int
    cpu: float
    at: float
    mapped: int = 0
    streamed: int = 0

    @classmethod
    def now(cls) -> Usage:
        """As the kernel counts: with bytes that page faults fetched, without cached ones (proc(5))."""
        return cls(_bytes_read(), _cpu_seconds(), time.monotonic(), _bytes_mapped())

    def came_since(self, before: Usage) -> int:
        """Bytes that came into this process since then, whoever read them from the disk."""
        streamed = self.streamed - before.streamed
        return max(self.read - before.read, self.mapped - before.mapped, streamed, 0)


def _bytes_read() -> int:
    with suppress(OSError, ValueError, KeyError):
        lines = Path("/proc/self/io").read_text().splitlines()
        return int(dict(line.split(": ") for line in lines)["read_bytes"])
    return 0


def _bytes_mapped() -> int:
    """Pages of files in this process; they are fewer once a component of the model is on its device."""
    with suppress(OSError, ValueError, KeyError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(dict(line.split(":", 1) for line in lines)["RssFile"].split()[0]) * 1024
    return 0


def _cpu_seconds() -> float:
    """CPU seconds of the whole unit, since compilers run as processes; without a unit, of this process."""
    with suppress(OSError, ValueError, KeyError, StopIteration):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        group = next(line[len("0::") :] for line in lines if line.startswith("0::/"))
        if group.endswith(".service"):
            content = Path(f"/sys/fs/cgroup{group}/cpu.stat").read_text()
            return int(dict(line.split() for line in content.splitlines())["usage_usec"]) / 1e6
    return time.process_time()


class Progress:
    """Distinguishes a slow start from one that hangs."""

    def __init__(self, first: Usage, computing_seconds: float = COMPUTING_SECONDS) -> None:
        self._computing_seconds = computing_seconds
        self._last = self._counted = first
        self._sure = first.at
        self._steps = threading.Event()

    def step(self) -> None:
        """A step is finished."""
        self._steps.set()

    def made_progress(self, now: Usage) -> bool:
        """Whether the start made progress since the last call."""
        busy = now.cpu - self._last.cpu > _BUSY * (now.at - self._last.at)
        self._last = now
        # From the lowest that it was: it shrinks where mapped files are closed, and then grows again.
        self._counted = replace(self._counted, mapped=min(self._counted.mapped, now.mapped))
        if now.came_since(self._counted) >= _LEAST_BYTES or self._steps.is_set():
            self._steps.clear()
            self._counted = now
            self._sure = now.at
            return True
        return busy and now.at - self._sure < self._computing_seconds


class StartupMonitor:
    """Monitors the start from its own thread while its block runs."""

    def __init__(
        self, monitor: Monitor, *, stall_seconds: float = STALL_SECONDS, interval: float = _INTERVAL
    ) -> None:
        self._monitor = monitor
        self._stall_seconds = stall_seconds
        self._interval = interval
        self._previous = Usage.now()
        self._progress = Progress(self._previous)
        self._what, self._size, self._came = "", 0, 0
        self._streamed = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="start-up", daemon=True)

    def doing(self, text: str, size: int = 0) -> None:
        """Begin a phase of the start, in which `size` bytes will be read if that is known."""
        self._what, self._size, self._came = text, size, 0
        self._monitor.doing(text)

    def streamed(self, size: int) -> None:
        """So many bytes of weights have been read by now; may be called from any thread."""
        self._streamed = max(self._streamed, size)

    def step(self) -> None:
        """A step is finished."""
        self._progress.step()
        self._monitor.ping()

    def __enter__(self) -> StartupMonitor:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(self._interval):
            now = replace(Usage.now(), streamed=self._streamed)
            if self._progress.made_progress(now):
                self._monitor.extend_start(self._stall_seconds)
            came = now.came_since(self._previous)
            self._came += came
            if came >= _LEAST_BYTES:
                self._monitor.doing(self._describe(came / (now.at - self._previous.at)))
            self._previous = now

    def _describe(self, rate: float) -> str:
        """Such as "Loading the model: 12.3 of 33.7 GB read, 21 MB/s"; `rate` in bytes a second."""
        read = self._came
        if self._size:
            amount = f"{min(read, self._size) / 1e9:.1f} of {self._size / 1e9:.1f} GB"
        else:
            amount = f"{read / 1e9:.1f} GB" if read >= 1e9 else f"{read / 1e6:.0f} MB"
        return f"{self._what}: {amount} read, {rate / 1e6:.0f} MB/s"
