"""One queue of ranges of the model's files, which the threads of one or more sources read at once.

The first source is the disk: what fails there fails the load. Each further source, such as S3, helps and is
never believed: the bytes it brings are hashed before they are used. It is dropped, with a reason, if they are
wrong, if it fails again and again, or if the disk has to take over what it holds for too long. So the
bandwidths decide how much comes from where, and the disk alone always suffices.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .ranges import Range, Schedule
from .report import Depth, SourceReport, StreamReport

# A source that failed at so many ranges is dropped.
FAILURES = 3
# Until somebody waits for the feed, the disk has so many threads at most: meanwhile libraries are imported
# from the same disk, in small reads that would queue behind those of more threads (worker/README.md).
GENTLE = 2
# Closing waits this long for reads under way. One that ends while Python exits may end the process badly.
_CLOSING_SECONDS = 0.5


class SourceFailed(Exception):
    """A source other than the disk could not read a range, after its own retries; says why."""


class Source(Protocol):
    """Where ranges come from. `read` is called by `threads` threads at once."""

    @property
    def name(self) -> str:
        """Such as "disk" or "s3", for reports."""

    @property
    def threads(self) -> int:
        """How many ranges it reads at once."""

    def read(self, part: Range, into: memoryview) -> None:
        """Fill `into`, which has the range's size. Raises SourceFailed; the disk raises OSError."""

    def close(self) -> None:
        """Reads under way are not needed any more, and none will follow; called once or more."""


@dataclass(frozen=True)
class Slot:
    """Memory of a range's size that a source fills: the range's place itself, or a buffer."""

    view: memoryview
    in_place: bool
    number: int = 0
    """A buffer's number, for a destination that reuses them."""


class Destination(Protocol):
    """Where ranges go. All methods but `finish` are called by several threads at once."""

    def take(self, part: Range, *, trusted: bool) -> Slot:
        """Memory to read the range into: its final place only if the bytes are `trusted`. May wait."""

    def land(self, part: Range, slot: Slot) -> None:
        """The slot holds the range: put it in its place. The same bytes may land twice."""

    def give_back(self, slot: Slot) -> None:
        """The slot's content is worthless."""

    def finish(self) -> None:
        """All ranges have landed: wait until all are in their places."""


@dataclass
class _Crew:
    """A source with its figures; guarded by the feed's lock."""

    source: Source
    is_disk: bool
    depth: Depth = field(default_factory=Depth)
    bytes: int = 0
    failures: int = 0
    dropped: str | None = None

    def report(self) -> SourceReport:
        depth = self.depth
        return SourceReport(self.source.name, self.bytes, depth.seconds, depth.mean, depth.peak, self.dropped)


class Feed:
    """Reads ranges from sources into a destination. `with Feed(…) as feed:` starts it and closes it.

    The disk is read by few threads at first, and by all as soon as `wait` is called.
    `on_landed` is called, by the threads, with the bytes that have arrived so far.
    """

    def __init__(
        self,
        ranges: Iterable[Range],
        sources: Sequence[Source],
        destination: Destination,
        on_landed: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._schedule = Schedule(ranges)
        self._destination = destination
        self._on_landed = on_landed
        self._crews = [_Crew(source, is_disk=not number) for number, source in enumerate(sources)]
        self._lock = threading.Condition()
        self._depth = Depth()
        self._started = self._ended = 0.0
        self._closed = False
        self._error: BaseException | None = None
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads."""
        self._started = time.monotonic()
        if not self._schedule.left:
            self._over.set()
        for crew in self._crews:
            self._start(crew, 0, min(crew.source.threads, GENTLE) if crew.is_disk else crew.source.threads)

    def _start(self, crew: _Crew, first: int, end: int) -> None:
        """Start some threads of a source. They are daemons: a read that hangs must not keep the process."""
        for number in range(first, end):
            name = f"{crew.source.name}-{number}"
            thread = threading.Thread(target=self._work, args=(crew,), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def wait(self) -> StreamReport:
        """Wait until all ranges are in their places. Raises what the disk or the destination raised."""
        self._start(self._crews[0], GENTLE, self._crews[0].source.threads)
        self._over.wait()
        if self._error is not None:
            raise self._error
        self._destination.finish()
        return self.report()

    def report(self) -> StreamReport:
        """The figures so far."""
        with self._lock:
            crews = tuple(crew.report() for crew in self._crews)
            seconds = (self._ended or time.monotonic()) - self._started
            return StreamReport(
                sum(crew.bytes for crew in crews), seconds, self._depth.mean, self._depth.peak, crews
            )

    def close(self) -> None:
        """Let all threads end after what they read now, and wait for those that end soon."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        for crew in self._crews:
            crew.source.close()
        deadline = time.monotonic() + _CLOSING_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def __enter__(self) -> Feed:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _work(self, crew: _Crew) -> None:
        try:
            while (part := self._next(crew)) is not None:
                self._bring(part, crew)
        except BaseException as error:  # a thread has nobody else to tell
            with self._lock:
                self._error = self._error or error
                self._closed = True
                self._lock.notify_all()
            self._over.set()

    def _next(self, crew: _Crew) -> Range | None:
        """The next range for this source; None if there will be none."""
        with self._lock:
            while not self._closed and self._schedule.left and not crew.dropped:
                now = time.monotonic()
                part = self._for_disk(now) if crew.is_disk else self._for_other(crew, now)
                if part is not None:
                    for depth in (crew.depth, self._depth):
                        depth.begins(now)
                    return part
                if not crew.is_disk:
                    return None
                self._lock.wait(self._schedule.patience(now))
            return None

    def _for_disk(self, now: float) -> Range | None:
        part = self._schedule.next_for_disk(now)
        for crew in self._crews:
            crew.dropped = crew.dropped or self._schedule.too_slow.get(crew.source.name)
        return part

    def _for_other(self, crew: _Crew, now: float) -> Range | None:
        return self._schedule.next_for_other(crew.source.name, now)

    def _bring(self, part: Range, crew: _Crew) -> None:
        # The disk reads into the final place, unless a checked range of another source may land there.
        trusted = crew.is_disk and not self._schedule.is_shared(part)
        slot = self._destination.take(part, trusted=trusted)
        wrong = self._read(part, slot, crew)
        if wrong is None and not self._closed and not self._schedule.has_landed(part):
            self._destination.land(part, slot)
        else:
            self._destination.give_back(slot)
        with self._lock:
            self._count(part, crew, wrong)
            done = sum(crew.bytes for crew in self._crews)
            self._lock.notify_all()
            if not self._schedule.left:
                self._ended = self._ended or time.monotonic()
                self._over.set()
        self._on_landed(done)

    def _read(self, part: Range, slot: Slot, crew: _Crew) -> str | None:
        """Why the bytes cannot be used; None if they are right. The disk's errors pass through."""
        try:
            crew.source.read(part, slot.view)
        except Exception as error:
            if crew.is_disk:
                raise
            return str(error) if isinstance(error, SourceFailed) else repr(error)
        if crew.is_disk or hashlib.sha256(slot.view).hexdigest() == part.sha256:
            return None
        crew.failures = FAILURES  # it is never asked again
        return f"wrong content of {part.file.name} at {part.offset:,}"

    def _count(self, part: Range, crew: _Crew, wrong: str | None) -> None:
        """A read of the range is over, in its place or not; the caller holds the lock."""
        now = time.monotonic()
        for depth in (crew.depth, self._depth):
            depth.ends(now)
        if wrong is None and self._schedule.landed(part):
            crew.bytes += part.size
        if crew.is_disk:
            self._schedule.disk_ended(part, now)
            return
        self._schedule.other_ended(part, now, failed=wrong is not None)
        crew.failures += wrong is not None
        if crew.failures >= FAILURES:
            crew.dropped = crew.dropped or wrong
