"""How a new volume gets the bytes that a start needs: the ways, their seconds and their dollars.

A volume made from a snapshot is empty, and is filled from S3 while it is read. What fills it faster costs
money for each launch or each hour. Figures that AWS publishes stand here with their source; how fast a volume
is filled unasked is taken from the profile's newest AMI, once one was measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from bake.account.answers import Unanswered
from bake.account.instance_types import InstanceType
from bake.account.starts import Started
from bake.planning.prices import Prices
from bake.planning.volume import MIB_PER_S, Reading, at_start
from bake.planning.weights import WeightFiles
from bake.profile import Profile
from bake.weights import flux

MONTH = 730.0  # hours, as AWS's own calculator counts
# MB/s of first reads at a deep queue, as others measured them: low and high.
LAZY, LAZY_IO2 = (100.0, 140.0), (700.0, 1200.0)
LAZY_SOURCE = (
    "published figures of first reads at a deep queue: 100 to 140 MB/s of gp3, 700 to 1,200 MB/s of io2; "
    "bake measures it at each boot check, and the next plan takes that"
)
# MiB/s that a launch can ask for, and that all volumes of a region get at once.
# https://docs.aws.amazon.com/ebs/latest/userguide/initalize-volume.html
SLOWEST, FASTEST, CEILING = 100, 300, 5000
# Dollars of a GiB of snapshot data up to a rate; AWS documents no usage type by which its price list has it.
# https://aws.amazon.com/ebs/pricing/
RATE_PRICES = ((200, 0.0024), (FASTEST, 0.0036))
# Dollars of a snapshot in one zone for an hour, where the price list has none.
# https://docs.aws.amazon.com/whitepapers/latest/how-aws-pricing-works/amazon-ebs.html
FAST_RESTORE = 0.75
# Volumes at once, and an hour: https://docs.aws.amazon.com/ebs/latest/userguide/volume-creation-credits.html
CREDITS, CREDIT_GIB = 10, 1024
# Dollars of a GET of S3 Standard: https://aws.amazon.com/s3/pricing/
GET = 4e-7
REQUEST = 8 << 20  # bytes of a GET
PUBLISHED = "as published for us-east-1"


@dataclass(frozen=True)
class Rate:
    """MB/s at which a volume is filled by what reads it first; `best` is the high end of what was published.

    `image` is the AMI whose boot check measured it; empty where nobody has.
    """

    mb_per_s: float
    best: float
    source: str
    image: str = ""


@dataclass(frozen=True)
class Reads:
    """Bytes that a start reads. `others`, Python and its libraries, are None until a start was measured."""

    weights: int
    others: int | None

    @property
    def bytes(self) -> int:
        """All that is known of."""
        return self.weights + (self.others or 0)


@dataclass(frozen=True)
class Way:
    """One way to fill the volume: seconds until a start has its bytes, and `best`, if all goes well.

    Seconds are None where the instance type's network is not known. Beside the instance it costs
    `launch_dollars` a launch and `hour_dollars` an hour. `chosen`: the profile asks for it.
    """

    name: str
    seconds: float | None
    best: float | None
    launch_dollars: float = 0.0
    hour_dollars: float = 0.0
    chosen: bool = False
    notes: tuple[str, ...] = ()

    def an_hour(self, launches: float) -> float:
        """Dollars of an hour with so many launches."""
        return self.hour_dollars + launches * self.launch_dollars


@dataclass(frozen=True)
class Hydration:
    """The ways, for the first of the workers' types. `reading` is what no way exceeds on EBS's side.

    `snapshot_gib` is the snapshot's data, which AWS bills (`at_most`: or less). `launches_per_hour` is the
    profile's; `worker_hour` the dollars of an instance's hour. Both may be None.
    """

    instance_type: str
    reads: Reads
    lazy: Rate
    reading: Reading
    snapshot_gib: float
    at_most: bool
    launches_per_hour: float | None
    worker_hour: float | None
    ways: tuple[Way, ...]

    @property
    def chosen(self) -> Way:
        """The way that the profile asks for: lazy, unless it asks for another."""
        return next(way for way in self.ways if way.chosen)

    def waiting(self, way: Way) -> float | None:
        """Dollars of the instance's time until it has its bytes; None if it is not known."""
        if self.worker_hour is None or way.seconds is None:
            return None
        return self.worker_hour * way.seconds / 3600


def find(
    profile: Profile,
    weights: WeightFiles,
    kind: InstanceType,
    snapshot: tuple[float, bool],
    started: Started | Unanswered | None,
    prices: Prices,
) -> Hydration:
    """The hydration plan. `snapshot` is the GiB of its data, and whether they are an upper bound."""
    snapshot_gib, at_most = snapshot
    measured = started if isinstance(started, Started) else None
    reads, reading = reads_of(profile, weights, measured), at_start(profile.root_volume, kind)
    there = _Ways(profile, kind, reads, reading, measured, snapshot_gib)
    restore = FAST_RESTORE if prices.fast_restore is None else prices.fast_restore
    return Hydration(
        instance_type=kind.name,
        reads=reads,
        lazy=there.lazy,
        reading=reading,
        snapshot_gib=snapshot_gib,
        at_most=at_most,
        launches_per_hour=profile.cold_start.launches_per_hour,
        worker_hour=prices.worker_hour,
        ways=tuple(there.all(restore)),
    )


def reads_of(profile: Profile, weights: WeightFiles, started: Started | None) -> Reads:
    """Bytes of the weights that are served; what else a start reads, the last one measured."""
    others = started.measured.libraries if started else None
    return Reads(flux.resident_bytes(weights.files, profile.weights.precision), others)


def lazy_rate(profile: Profile, started: Started | None) -> Rate:
    """How fast a volume is filled that nothing was asked for: as measured, else as published."""
    kind = profile.root_volume.type
    if started is not None and started.measured.rate is None and started.measured.volume in (None, kind):
        found = started.measured.mb_per_s
        told = f"measured: {started.measured.short}, by the boot check of {started.image}"
        return Rate(found, found, told, started.image)
    low, high = LAZY_IO2 if kind == "io2" else LAZY
    return Rate(low, high, LAZY_SOURCE)


def filling(rate: int, started: Started | None) -> float:
    """MB/s at which a VolumeInitializationRate fills a volume: as measured with it, else as asked for."""
    measured = started.measured if started else None
    return measured.mb_per_s if measured and measured.rate == rate else rate * MIB_PER_S


def rate_price(rate: int) -> float:
    """Dollars of a GiB of snapshot data at a VolumeInitializationRate in MiB/s."""
    return next(dollars for most, dollars in RATE_PRICES if rate <= most)


def at_once(rate: int) -> int:
    """How many volumes a region fills at once at a rate; EC2 refuses what exceeds that."""
    return CEILING // rate


def credits_of(size_gib: int) -> int:
    """Volumes at once that Fast Snapshot Restore gives a full start; they come back within the hour."""
    return max(1, min(CREDITS, CREDIT_GIB // size_gib))


@dataclass(frozen=True)
class _Ways:
    """What all ways have in common."""

    profile: Profile
    kind: InstanceType
    reads: Reads
    reading: Reading
    started: Started | None
    snapshot_gib: float

    @property
    def lazy(self) -> Rate:
        return lazy_rate(self.profile, self.started)

    def all(self, restore: float) -> Iterator[Way]:
        """Each way; exactly one is chosen."""
        asked, stream = self.profile.cold_start.volume_initialization_rate, bool(self.profile.weights.stream)
        rates = sorted({FASTEST, *([asked] if asked else [])})
        yield self._from_ebs("lazy", self.lazy.mb_per_s, self.lazy.best, not asked and not stream)
        for rate in rates:
            yield self._rated(rate, chosen=rate == asked and not stream)
        yield self._restored(restore)
        yield self._streamed("", self.lazy.mb_per_s, self.lazy.best, 0, stream and not asked)
        for rate in rates:
            fill, cost = filling(rate, self.started), self.snapshot_gib * rate_price(rate)
            yield self._streamed(f"rate {rate}", fill, fill, cost, stream and rate == asked)

    def _from_ebs(self, name: str, fill: float, best: float, chosen: bool) -> Way:
        return Way(name, self._seconds(fill), self._seconds(best), chosen=chosen)

    def _seconds(self, fill: float) -> float:
        return self.reads.bytes / (min(fill, self.reading.mb_per_s) * 1e6)

    def _rated(self, rate: int, *, chosen: bool) -> Way:
        fill = filling(rate, self.started)
        whole = self.snapshot_gib * flux.GIB / (fill * 1e6)
        return Way(
            _rate_name(rate),
            self._seconds(fill),
            self._seconds(fill),
            launch_dollars=self.snapshot_gib * rate_price(rate),
            chosen=chosen,
            notes=(
                f"${rate_price(rate)} a GiB of snapshot data, {PUBLISHED}; all of it is there after "
                f"{whole:.0f} s; {at_once(rate)} launches at once in a region ({CEILING:,} MiB/s in all)",
            ),
        )

    def _restored(self, dollars: float) -> Way:
        size = self.profile.root_volume.size_gib
        return Way(
            "Fast Snapshot Restore",
            self._seconds(math.inf),
            self._seconds(math.inf),
            hour_dollars=dollars,
            notes=(
                f"${dollars:.2f} an hour for each zone and snapshot; {credits_of(size)} launches at once, "
                f"{min(CREDITS, CREDIT_GIB / size):.3g} an hour, the others lazy; bake does not enable it",
            ),
        )

    def _streamed(self, rate: str, fill: float, best: float, dollars: float, chosen: bool) -> Way:
        kind = self.kind
        return Way(
            f"weights.stream and {rate}" if rate else "weights.stream",
            self._both(fill, kind.network_baseline),
            self._both(best, kind.network_peak),
            launch_dollars=dollars + math.ceil(self.reads.weights / REQUEST) * GET,
            chosen=chosen,
            notes=()
            if rate
            else (
                f"from EBS and S3 at once, by {_network(kind)}; GETs at ${GET * 1e6:.2f} a million, "
                f"{PUBLISHED}, by a gateway endpoint, which costs nothing; the bucket costs its storage",
            ),
        )

    def _both(self, fill: float, network: float) -> float | None:
        """Seconds where S3 gives weights beside EBS, and EBS alone all else."""
        if not network:
            return None
        ebs = min(fill, self.reading.mb_per_s)
        return max(self.reads.bytes / (ebs + network), (self.reads.others or 0) / ebs) / 1e6


def _network(kind: InstanceType) -> str:
    steady = f"{kind.network_baseline:.0f} MB/s" if kind.network_baseline else "a speed that is not known"
    peak = f", {kind.network_peak:.0f} MB/s at its peak" if kind.network_peak else ""
    return f"{kind.name}'s network with {steady}{peak}"


def _rate_name(rate: int) -> str:
    return f"VolumeInitializationRate {rate}"
