"""The whole download, in order."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

from prefetch.cache import Cache
from prefetch.disk import Disk, Place, require_ebs, require_instance_store, require_space, trace
from prefetch.events import say
from prefetch.hashing import RANGE_BYTES
from prefetch.hub import Hub
from prefetch.mirror import Mirror
from prefetch.patience import Patience
from prefetch.transfer import Sources, Transfer
from prefetch.wanted import Secrets, Wanted

AT_ONCE = 8
_UPLOADS = 2
_RATE_OVER = 15.0


def download(wanted: Wanted, secrets: Secrets, patience: Patience) -> None:
    """Download every wanted file into the cache and report it; raises Refused."""
    started = time.monotonic()
    place = trace(wanted.cache)
    if wanted.scratch:
        require_instance_store(place, wanted.stand_in)
    else:
        require_ebs(place, wanted.volume, wanted.stand_in)
    cache = Cache(wanted)
    cache.claim()
    sources = Sources(Mirror(secrets.mirror, patience.stall), Hub(wanted, secrets.token, patience))
    transfers = [Transfer(file, cache, sources, patience) for file in wanted.contents]
    if any(transfer.lacking and not sources.mirror.has(transfer.file) for transfer in transfers):
        sources.hub.compare_once()
    _tell_leftovers(cache)
    _tell_disk(place, wanted, transfers)
    _run(transfers, sources.mirror, cache)
    folder = cache.publish()
    _tell_ranges(wanted, transfers)
    last_byte = max(transfer.last_byte for transfer in transfers)
    say(
        "done",
        files={name: file.bytes for name, file in wanted.files.items()},
        bytes=sum(file.bytes for file in wanted.files.values()),
        fetched=sum(transfer.fetched for transfer in transfers),
        reused=sum(transfer.found for transfer in transfers),
        from_mirror=sum(transfer.from_mirror for transfer in transfers),
        folder=str(folder),
        seconds=round(time.monotonic() - started, 2),
        verified_seconds=round(max(transfer.hashed for transfer in transfers) - last_byte, 2),
    )


def _tell_ranges(wanted: Wanted, transfers: list[Transfer]) -> None:
    """Tell the hashes of each weights file's ranges, which workers check when they read them from S3."""
    ranges = {transfer.file.etag: transfer.ranges for transfer in transfers if transfer.ranges}
    for name, file in wanted.files.items():
        if file.etag in ranges:
            say("ranges", file=name, range_bytes=RANGE_BYTES, sha256=ranges[file.etag])


def _tell_leftovers(cache: Cache) -> None:
    leftovers = cache.clean()
    if leftovers:
        files = [vars(leftover) for leftover in leftovers]
        say("leftovers", files=files, bytes=sum(item.bytes for item in leftovers if item.removed))


def _tell_disk(place: Place, wanted: Wanted, transfers: list[Transfer]) -> None:
    missing = sum(transfer.lacking for transfer in transfers)
    # A resumed download has checked this before, and provisioning has used its share since.
    reserve = 0 if any(transfer.found for transfer in transfers) else wanted.reserve
    disk = place.disks[0] if place.disks else Disk(place.source, None, None)
    say(
        "disk",
        path=str(place.path),
        device=f"/dev/{disk.name}" if place.disks else disk.name,
        model=disk.model,
        serial=disk.serial,
        filesystem=place.filesystem,
        free=place.free,
        needed=missing + reserve,
        stand_in=wanted.stand_in is not None,
        scratch=wanted.scratch,
    )
    require_space(place, missing, reserve)


def _run(transfers: list[Transfer], mirror: Mirror, cache: Cache) -> None:
    """Run all transfers, several at once, followed by the mirror's uploads."""
    pool, later = ThreadPoolExecutor(AT_ONCE), ThreadPoolExecutor(_UPLOADS)
    uploads: list[Future[None]] = []

    def run(transfer: Transfer) -> None:
        transfer.run()
        if mirror.lacks(transfer.file):
            uploads.append(later.submit(mirror.keep, transfer.file, cache.blob(transfer.file)))

    progress = Progress(transfers)
    running = {pool.submit(run, transfer) for transfer in transfers}
    # Don't wait for threads that still run: a refusal must be reported at once.
    while running:
        done, running = wait(running, timeout=1.0, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
        for transfer in transfers:
            transfer.interrupt()
        progress.tell()
    wait(uploads)


class Progress:
    """Reports bytes done, rate and time left."""

    def __init__(self, transfers: list[Transfer]) -> None:
        self._transfers = transfers
        self._total = sum(transfer.file.bytes for transfer in transfers)
        self._seen = deque([(time.monotonic(), self._fetched())])

    def tell(self) -> None:
        """Report it."""
        now, fetched = time.monotonic(), self._fetched()
        self._seen.append((now, fetched))
        while now - self._seen[0][0] > _RATE_OVER:
            self._seen.popleft()
        since, before = self._seen[0]
        rate = (fetched - before) / (now - since) if now > since else 0.0
        done = sum(transfer.written for transfer in self._transfers)
        largest = max(self._transfers, key=lambda transfer: transfer.lacking)
        say(
            "progress",
            done=done,
            total=self._total,
            rate=round(rate),
            seconds_left=round((self._total - done) / rate) if rate else None,
            **({"file": largest.file.path} if largest.lacking else {}),
        )

    def _fetched(self) -> int:
        return sum(transfer.fetched for transfer in self._transfers)
