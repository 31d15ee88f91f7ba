#!/usr/bin/env python3
"""Why: a fresh volume is filled from S3 while it is read. Read ahead what a worker needs.

    warm.py TRACE REPORT WORKER_ENV

flux-warm.service runs this early in each boot. TRACE says which bytes of which files a start reads, in order;
what does not fit this image is left out, and without a trace the order is a static one (reading_order.py).
REPORT is replaced once a second. Exit code 0 whatever happens: a worker starts without this, only later.

Only the standard library, and little of it: on such a volume each module costs a wait. Python 3.9 or later.

Measured on the local cloud's lazy disk (30 ms a block of 512 KiB, 136 MB/s at most). A file of 419 MB in
requests of 512 KiB: one thread 33 MB/s, 8 threads 126, 16 to 64 threads 134. Requests of 4 MiB are no faster
and need 137 MiB of memory instead of 26. POSIX_FADV_WILLNEED: 134 MB/s in steps of 512 KiB, 24 in steps of
4 MiB, since the kernel drops what exceeds one request; how deep it reads can be neither set nor seen.
O_DIRECT is as fast for half the CPU time (3 % of a core against 7), but the worker would have to read all of
it again. 4,000 Python modules (93 MB): one thread 7.3 s, 8 threads 2.6 s, 32 threads 1.3 s. So: 32 threads
that read through the page cache, and past it only what would find no room there.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import signal
import stat
import sys
import threading
import time

HERE = os.path.dirname(os.path.realpath(__file__))
VENV = os.path.dirname(os.path.dirname(sys.executable))
sys.path.insert(0, HERE)  # which `python -I` leaves out
from reading_order import FORMAT, Range, bytes_of, read_text, read_trace, static_order
from surroundings import TICK, TICKS, Surroundings, read_here

CHUNK = 512 << 10  # bytes of one request; EBS fetches blocks of that size
THREADS = 32
# While the system boots, what it reads waits behind at most so many requests of ours: EC2's NVMe disks have
# no I/O scheduler, and without one the unit's I/O class means nothing. 1,000 modules read one by one take
# 6.3 s alone, 13.3 beside 32 requests, 7.5 beside 6, 6.2 beside 4.
POLITE = 4
# That ends when the worker starts, for which systemd makes this folder, or so many seconds after the kernel.
STARTED, BOOTS = "/run/flux-worker", 60.0
# Of the memory that is available, at most this share is filled: more would push out what the worker has not
# read yet, and the oldest first, which it needs first.
SHARE = 0.7
PAGE = 4096
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
ENDS = {signal.SIGTERM, signal.SIGINT}
WAKE = signal.SIGUSR1  # from the last thread to the main one


class Unfit(Exception):
    """Why a file can't be read as the trace says."""


class Part:
    """A range whose file is opened for the first of its requests and closed after the last."""

    def __init__(self, stage: str, of: Range, requests: int) -> None:
        self.stage, self.of, self._left = stage, of, requests
        self.device = 0  # where it lies, once it is open
        self.failed = ""
        self._lock = threading.Lock()
        self._files: dict = {}  # flags -> file descriptor

    def descriptor(self, flags: int = 0) -> int:
        """Open it once for all threads; Unfit unless it is what was recorded."""
        with self._lock:
            if self.failed:
                raise Unfit(self.failed)
            if flags not in self._files:
                self._files[flags] = self._open(flags)
            return self._files[flags]

    def _open(self, flags: int) -> int:
        # Not a link or a pipe that somebody put in its place.
        file = os.open(self.of.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW | flags)
        found, why = os.fstat(file), ""
        if not stat.S_ISREG(found.st_mode):
            why = "is no regular file"
        elif found.st_size != self.of.size:
            why = "has another size than in the trace"
        elif found.st_mtime_ns != self.of.mtime_ns:
            why = "was changed after the trace"
        if why:
            os.close(file)
            raise Unfit(why)
        self.device = found.st_dev
        # Only what is asked for, whatever the device's read-ahead.
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
        return file

    def release(self, done: int = 1) -> None:
        """So many requests are done."""
        with self._lock:
            self._left -= done
            if self._left == 0:
                for file in self._files.values():
                    os.close(file)

    def read(self, offset: int, length: int, buffer: memoryview, direct: bool) -> None:
        """Read these bytes into the page cache, or past it. Raises Unfit, OSError."""
        file, end = self.descriptor(), offset + length
        if direct and not _is_cached(file, offset):
            file = self.descriptor(os.O_DIRECT)  # which wants whole pages
            offset, end = offset // PAGE * PAGE, -(-end // PAGE) * PAGE
        while offset < end:
            got = os.preadv(file, [buffer[: end - offset]], offset)
            if got == 0 or got % PAGE:
                break  # the end of the range or of the file
            offset += got


def _is_cached(file: int, offset: int) -> bool:
    """Whether the page cache has this byte: then the worker was here first."""
    try:
        return os.preadv(file, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except OSError:
        return False


def requests(stages: list):
    """(part, offset, length) of each request, in the order of the trace."""
    for name, ranges in stages:
        for of in ranges:
            end = of.offset + bytes_of(of)
            edges = [of.offset, *range((of.offset // CHUNK + 1) * CHUNK, end, CHUNK), end]
            part = Part(name, of, len(edges) - 1)
            for left in range(len(edges) - 1, 0, -1):
                if part.failed:
                    part.release(left)
                    break
                yield part, edges[-left - 1], edges[-left] - edges[-left - 1]


class Report:
    """What has been read of what, and how."""

    def __init__(self, file: str, recorded: str) -> None:
        self.lock = threading.RLock()
        self._file, self._unwritten = file, False
        self._begun = time.monotonic()
        self.facts = {"format": FORMAT, "recorded": recorded, "started": _boottime(), "ended": None}
        self.bytes = self.of = self.cached = self.unfit = 0  # bytes
        self._busy = 0.0  # seconds of all requests together
        self._stages: dict = {}  # name -> [bytes, seconds at its first request, and at its last]
        self._notes: list = []
        self._reasons: dict = {}  # reason -> [number of ranges, one of the paths]

    def seconds(self) -> float:
        return time.monotonic() - self._begun

    def note(self, text: str) -> None:
        """Once, for the journal and for the report."""
        if text not in self._notes:
            say(text)
            self._notes.append(text)

    def begins(self, stage: str) -> None:
        self._stages.setdefault(stage, [0, self.seconds(), self.seconds()])

    def read(self, part: Part, length: int, seconds: float, direct: bool) -> None:
        """A request has ended well."""
        self.bytes += length
        self.cached += 0 if direct else length
        self._busy += seconds
        stage = self._stages[part.stage]
        stage[0], stage[2] = stage[0] + length, self.seconds()

    def skip(self, part: Part, why: str) -> None:
        """A range can't be read: each reason is told once, since a trace of another image has thousands."""
        self.unfit += bytes_of(part.of)
        self._reasons.setdefault(why, [0, part.of.path])[0] += 1

    def as_dict(self, state: str) -> dict:
        took = max(self.seconds(), 1e-3)
        reasons = [f"{n} left out, such as {path}: {why}" for why, (n, path) in self._reasons.items()]
        return {
            **self.facts,
            "bytes": self.bytes,
            "of": self.of,
            "from_disk": read_here(),
            "past_cache": self.bytes - self.cached,
            "seconds": round(took, 3),
            "queue_depth": round(self._busy / took, 2),
            "cpu_seconds": round(time.process_time(), 3),
            "stages": [
                {"name": name, "bytes": size, "seconds": round(last - first, 3)}
                for name, (size, first, last) in self._stages.items()
            ],
            "skipped": self._notes + reasons,
            "state": state,
        }

    def write(self, state: str) -> None:
        """Replace the file. That it can't be written is told once, and does not end the reading."""
        with self.lock:
            told = self.as_dict(state)
        try:
            with open(f"{self._file}.new", "w", encoding="utf-8") as file:
                json.dump(told, file)
            os.replace(f"{self._file}.new", self._file)
        except OSError as error:
            if not self._unwritten:
                say(f"the report {self._file} can't be written: {error.strerror}")
            self._unwritten = True

    def end(self, state: str) -> None:
        """Write it for the last time, and say so in the journal."""
        self.facts["ended"] = _boottime()
        with self.lock:
            told = self.as_dict(state)
        took, rate = told["seconds"], told["bytes"] / 1e6 / told["seconds"]
        for line in told["skipped"][len(self._notes) :]:
            say(line)
        say(
            f"{state}: {told['bytes']:,} of {told['of']:,} bytes in {took:.1f} s, {rate:.0f} MB/s, "
            f"queue depth {told['queue_depth']}, {told['cpu_seconds']:.1f} s of CPU time"
        )
        self.write(state)


def say(text: str) -> None:
    """A line for the journal, if there is one."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


def _boottime() -> float:
    """Seconds since the kernel started."""
    return round(time.clock_gettime(time.CLOCK_BOOTTIME), 3)


class Reader:
    """Reads stages on many threads, in their order, until all is read or a signal of ENDS comes."""

    def __init__(self, report: Report) -> None:
        self.report, self.state = report, "reading"
        self._surroundings = Surroundings()
        self._turn = threading.Condition(report.lock)
        self._depth, self._flying, self._alive = 0, 0, 0
        self._asked = 0  # bytes of the requests in flight

    def read(self, stages: list) -> None:
        """`state` says how that ended: done, stopped or failed."""
        self.report.of += sum(bytes_of(one) for stage in stages for one in stage.ranges)
        self._requests, self._exhausted, self.state = requests(stages), False, "reading"
        self.report.write("reading")
        self._look()
        self._start()
        ticks = 0
        while self._alive and self.state == "reading":
            got = signal.sigtimedwait(ENDS | {WAKE}, TICK)
            if got is not None and got.si_signo in ENDS:
                self.state = "stopped"
            ticks += 1
            self._look()
            if ticks % TICKS == 0:
                self.report.write("reading")
        if self.state == "reading":
            self.state = "done" if self._exhausted else "failed"

    def _start(self) -> None:
        """As many threads as there may be."""
        for number in range(THREADS):
            try:
                threading.Thread(target=self._work, daemon=True).start()
            except RuntimeError as error:
                self.report.note(f"{number} threads instead of {THREADS}: {error}")
                return
            with self._turn:
                self._alive += 1

    def _look(self) -> None:
        """Give way to a boot; past the page cache to everybody, since those bytes are read twice."""
        self._surroundings.look(self._asked)
        busy = self._surroundings.busy()
        with self._turn:
            self._depth = self._polite() if busy else THREADS
            self._turn.notify_all()

    def _polite(self) -> int:
        """How deep to read beside others."""
        if self._is_full():
            return 0 if self._surroundings.devices else 1  # by which a disk becomes known
        return POLITE if _boottime() < BOOTS and not os.path.exists(STARTED) else THREADS

    def _is_full(self) -> bool:
        """Whether the page cache has been given its share of the memory."""
        return self.report.cached + (self._flying + 1) * CHUNK > SHARE * self._surroundings.memory

    def _work(self) -> None:
        try:
            buffer = memoryview(mmap.mmap(-1, CHUNK + 2 * PAGE, PRIVATE))
            while (taken := self._take()) is not None:
                self._do(*taken, buffer)
        except Exception as error:
            with self._turn:
                self.report.note(f"a thread ended by {type(error).__name__}: {error}")
        finally:
            with self._turn:
                self._alive -= 1
            os.kill(os.getpid(), WAKE)

    def _take(self):
        """(part, offset, length, past the page cache?) of the next request, at its turn; None at the end."""
        with self._turn:
            self._turn.wait_for(lambda: self._flying < self._depth or self.state != "reading")
            taken = next(self._requests, None) if self.state == "reading" else None
            if taken is None:
                self._exhausted = True
                return None
            self._flying += 1
            self._asked += taken[2]
            self.report.begins(taken[0].stage)
            return (*taken, self._is_full())

    def _do(self, part: Part, offset: int, length: int, direct: bool, buffer: memoryview) -> None:
        began, why = time.monotonic(), ""
        try:
            part.read(offset, length, buffer, direct)
        except (Unfit, OSError) as error:
            why = getattr(error, "strerror", None) or str(error)
        took = time.monotonic() - began
        part.release()
        with self._turn:
            self._flying -= 1
            self._asked -= length
            self._surroundings.devices |= {part.device} - {0}
            if not why:
                self.report.read(part, length, took, direct)
            elif not part.failed:
                part.failed = why
                self.report.skip(part, why)
            self._turn.notify()


def warm(trace: str, report_file: str, worker_env: str) -> None:
    """Read the trace; then, where it does not fit this image, what a static order has."""
    recorded, stages, wrong = read_trace(trace)
    report = Report(report_file, recorded)
    _go_on(report, report_file)
    if wrong:
        report.note(wrong)
    reader = Reader(report)
    try:
        reader.read(stages)
        if reader.state == "done" and report.unfit * 2 >= report.of:
            report.note("the trace is of little or no use here: a static order follows")
            report.facts["recorded"] = "static"
            reader.read(static_order(worker_env, VENV))
        state = reader.state
    except Exception as error:
        report.note(f"ended by {type(error).__name__}: {error}; the worker reads the rest itself")
        state = "failed"
    report.end(state)


def _go_on(report: Report, file: str) -> None:
    """After a warm-up that was killed: what it has read is read again from memory."""
    try:
        found = json.loads(read_text(file))
        if found["state"] == "reading":
            report.facts["started"] = found["started"]
            report.note(
                f"the warm-up before this one was killed after {found['bytes']:,} bytes: this one goes on"
            )
    except (OSError, ValueError, LookupError, TypeError):
        return


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {*ENDS, WAKE})  # before there are threads
    threading.stack_size(256 << 10)
    warm(*sys.argv[1:])
    os._exit(0)  # requests in flight are not waited for


if __name__ == "__main__":
    main()
