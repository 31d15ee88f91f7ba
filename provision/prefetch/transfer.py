"""Transfer one file to disk, from whichever source serves it, until its hash is right."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import NoReturn

from prefetch.cache import Cache
from prefetch.events import say
from prefetch.failures import Refused, Transient, Wrong, of_the_disk
from prefetch.hashing import Hashing
from prefetch.hub import Hub, XetStream
from prefetch.mirror import Mirror
from prefetch.patience import Patience, Tries
from prefetch.wanted import File

# A connection below this many bytes a second counts as stalled.
_CRAWL = 1024
_OTHER_SOURCES_TRIES = 2


@dataclass(frozen=True)
class Sources:
    """The sources of files."""

    mirror: Mirror
    hub: Hub


@dataclass(frozen=True)
class Source:
    """One source of a file's bytes; `last` if no other follows."""

    name: str
    read: Callable[[File, int], Generator[bytes, None, None] | XetStream]
    last: bool


class Transfer:
    """The transfer of one content. Other threads read its counters while it runs."""

    def __init__(self, file: File, cache: Cache, sources: Sources, patience: Patience) -> None:
        self.file = file
        self.written = self.found = cache.there(file)
        self.fetched = 0
        self.from_mirror = 0
        self.ranges: list[str] = []
        self.last_byte = self.hashed = time.monotonic()
        self._cache = cache
        self._sources = sources
        self._patience = patience
        self._wrong_from_hub = 0
        self._givers: set[str] = set()
        self._stream: XetStream | None = None

    @property
    def lacking(self) -> int:
        """Bytes still missing."""
        return self.file.bytes - self.written

    def interrupt(self) -> None:
        """End a stalled connection that has no time limit of its own."""
        stream = self._stream
        # Xet delivers large pieces, seldom.
        if stream is not None and time.monotonic() - self.last_byte > 4 * self._patience.stall:
            stream.cancel()

    def run(self) -> None:
        """Return once the blob is in the cache, hashed and on disk; raises Refused."""
        while (etag := self._attempt()) != self.file.etag:
            self._discard(etag)
        self._cache.partial(self.file).replace(self._cache.blob(self.file))
        self.hashed = time.monotonic()

    def _attempt(self) -> str:
        """Complete the file and return its etag, wanted or not."""
        path = self._cache.partial(self.file)
        if self._cache.blob(self.file).exists():
            # Hidden while it is hashed again, since it is not trusted.
            self._cache.blob(self.file).replace(path)
        self._givers = {"the disk"} if self.written else set()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        hashing = Hashing(path, self.file)
        try:
            self._fill(descriptor, hashing)
            etag = hashing.result()
            self.ranges = hashing.ranges
            return etag
        except BaseException:
            hashing.give_up()
            raise
        finally:
            os.close(descriptor)

    def _fill(self, descriptor: int, hashing: Hashing) -> None:
        tries = Tries(self._patience, self.file.path)
        hashing.reached(self.written)
        while self.lacking:
            source = self._source()
            before = self.written
            try:
                with closing(source.read(self.file, self.written)) as chunks:
                    self._take(chunks, source, descriptor, hashing)
                if self.lacking:
                    raise Transient(f"the connection ended {self.lacking} bytes early")
            except Transient as error:
                if self.written > before:
                    tries.progressed()
                if not source.last and tries.failed + 1 >= _OTHER_SOURCES_TRIES:
                    self._bar(source.name, str(error))
                else:
                    tries.again(error)
            except Wrong as error:
                self._wrong(source, str(error))

    def _source(self) -> Source:
        mirror, hub = self._sources.mirror, self._sources.hub
        if mirror.has(self.file):
            return Source("the mirror", mirror.read, last=False)
        hub.compare_once()
        if hub.on_xet(self.file):
            return Source("Xet", hub.read_xet, last=False)
        return Source("the Hub", hub.read, last=True)

    def _take(self, chunks: Iterable[bytes], source: Source, descriptor: int, hashing: Hashing) -> None:
        """Write the received bytes; raises Transient if they come too slowly."""
        self.last_byte = since = time.monotonic()
        before = self.written
        self._stream = chunks if isinstance(chunks, XetStream) else None
        for chunk in chunks:
            part = memoryview(chunk)[: self.lacking]
            self._write(descriptor, part)
            self._givers.add(source.name)
            self.fetched += len(part)
            self.from_mirror += len(part) if source.name == "the mirror" else 0
            self.written += len(part)
            hashing.reached(self.written)
            self.last_byte = now = time.monotonic()
            if not self.lacking:
                return
            if now - since > self._patience.stall:
                if self.written - before < _CRAWL * (now - since):
                    raise Transient(f"only {self.written - before} bytes in {now - since:.0f} s")
                since, before = now, self.written

    def _write(self, descriptor: int, part: memoryview) -> None:
        try:
            while part:
                part = part[os.write(descriptor, part) :]
        except OSError as error:
            raise of_the_disk(
                error, self._cache.blobs, f"{self.file.path} lacks {self.lacking} bytes"
            ) from error

    def _bar(self, source: str, why: str) -> None:
        """Stop using this source for this file."""
        if source == "the mirror":
            self._sources.mirror.bar(self.file, why)
        else:
            self._sources.hub.bar_xet(self.file, why)

    def _wrong(self, source: Source, why: str) -> None:
        if not source.last:
            self._bar(source.name, why)
            return
        say("retry", file=self.file.path, why=f"the Hub {why}", attempt=self._wrong_from_hub + 1, wait=0)
        self._count_wrong(f"the Hub {why}")

    def _discard(self, etag: str) -> None:
        """Remove wrong content, report it, and fetch it again without the source that served it."""
        self._cache.partial(self.file).unlink()
        self.written = self.found = 0
        blamed = " and ".join(sorted(self._givers)) or "the disk"
        say("corrected", file=self.file.path, why=f"from {blamed} came {etag}, locked is {self.file.etag}")
        for other in self._givers - {"the disk", "the Hub"}:
            self._bar(other, "served other bytes than were locked")
        if self._givers == {"the Hub"}:
            self._count_wrong(f"the content that comes has the hash {etag}")

    def _count_wrong(self, what: str) -> None:
        """Refuse after the second wrong content; the first may be an accident."""
        self._wrong_from_hub += 1
        if self._wrong_from_hub > 1:
            self._refuse(what)

    def _refuse(self, what: str) -> NoReturn:
        self._sources.hub.compare()  # raises if the file has changed on the Hub
        raise Refused(
            "damaged",
            f"{self.file.path}: {what}, twice; locked are {self.file.bytes} bytes and {self.file.etag}",
            "does a proxy on the way change files? `bake lock --update` shows what the Hub has now",
        )
