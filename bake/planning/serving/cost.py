"""Multiply what a worker does with what AWS charges for it. A price that is not known stays unknown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

from bake.account.answers import Unanswered
from bake.account.instance_types import InstanceType
from bake.account.price_list import Price
from bake.account.serving_prices import ServingPrices
from bake.account.starts import Started
from bake.planning import starts
from bake.planning.hydration import MONTH
from bake.planning.serving import speed
from bake.planning.serving.calls import (
    CALLS_OF_A_JOB,
    CALLS_OF_A_RENEWAL,
    CALLS_OF_AN_IDLE_WORKER,
    RENEWALS,
    STANDING,
    VISIBILITY_SECONDS,
    Call,
)
from bake.planning.serving.speed import Seconds
from bake.planning.starts import Start
from bake.planning.weights import WeightFiles
from bake.profile import Profile

BYTES_A_PIXEL = 3


@dataclass(frozen=True)
class Dollars:
    """An amount, and what it is without, because its price is not known."""

    known: float = 0.0
    without: tuple[str, ...] = ()

    def __add__(self, other: Dollars) -> Dollars:
        return Dollars(self.known + other.known, tuple(dict.fromkeys((*self.without, *other.without))))

    def __mul__(self, count: float) -> Dollars:
        return Dollars(self.known * count, self.without if count else ())

    @property
    def nothing(self) -> bool:
        """Whether not even a part of it is known."""
        return bool(self.without) and not self.known


@dataclass(frozen=True)
class Usage:
    """What the reader says of the jobs. `seconds` and `image_mb` are None where nobody measured them."""

    images: int = 1
    seconds: Seconds | None = None
    image_mb: float | None = None
    pixels: int = speed.SIDE**2
    visibility: int = VISIBILITY_SECONDS

    @property
    def megabytes(self) -> float:
        """Megabytes of an image; where nobody measured them those of its pixels, which PNG hardly exceeds."""
        return self.pixels * BYTES_A_PIXEL / 1e6 if self.image_mb is None else self.image_mb

    @property
    def size_source(self) -> str:
        """Where the megabytes are from."""
        if self.image_mb is not None:
            return "given"
        return f"an upper bound: {self.pixels:,} pixels of {BYTES_A_PIXEL} bytes, uncompressed"


@dataclass(frozen=True)
class Line:
    """So many units of something, and what they cost together; `price` is that of one unit (0: free)."""

    what: str
    count: float
    price: float | None
    dollars: Dollars


@dataclass(frozen=True)
class Serving:
    """What an image costs on one instance type in one market, and what an hour without jobs costs.

    `devices` images are drawn at once. `seconds` are None where nobody has measured or published them, and
    then so is `drawing`. `cold` is what is paid before the first image.
    """

    type: str
    market: str
    hour: Dollars
    volume: Dollars
    devices: int | None
    seconds: Seconds | None
    drawing: Dollars | None
    image: Dollars | None
    idle: Dollars
    start: Start | None
    cold: Dollars | None

    @property
    def cold_seconds(self) -> float | None:
        """Seconds of a start."""
        return self.start.seconds if self.start else None


@dataclass(frozen=True)
class Costs:
    """All of it. `job` is a line for each kind of call, `renewals` are those of a job at the slowest type."""

    profile: str
    prices: ServingPrices
    usage: Usage
    job: tuple[Line, ...]
    renewals: int | None
    requests: Dollars
    kept: Dollars
    moved: Dollars
    servings: tuple[Serving, ...]
    idle: tuple[Line, ...]
    standing: tuple[Line, ...]
    at_zero: Dollars


def total(amounts: Iterable[Dollars]) -> Dollars:
    """The sum."""
    return reduce(Dollars.__add__, amounts, Dollars())


@dataclass(frozen=True)
class _Pricing:
    """What a unit costs."""

    prices: ServingPrices

    def of(self, product: str | None, count: float = 1.0) -> Dollars:
        """Dollars of so many units; a product that does not exist here is free."""
        if product is None or product not in self.prices.units:
            return Dollars()
        return amount(self.prices.units[product], self.prices.titles[product].title) * count

    def line(self, what: str, product: str | None, count: float) -> Line:
        found = None if product is None else self.prices.units[product]
        price = 0.0 if product is None else None if isinstance(found, Unanswered) else found
        return Line(what, count, price, self.of(product, count))


def amount(price: Price, what: str) -> Dollars:
    """One unit's dollars."""
    return Dollars(without=(what,)) if price is None or isinstance(price, Unanswered) else Dollars(price)


@dataclass(frozen=True)
class _Shared:
    """What all types have in common; `beside` is an image without its instance, `waiting` an idle hour."""

    profile: Profile
    prices: ServingPrices
    weights: WeightFiles
    beside: Dollars
    waiting: Dollars
    started: Started | Unanswered | None


def compute(
    profile: Profile,
    prices: ServingPrices,
    types: Mapping[str, InstanceType],
    weights: WeightFiles,
    usage: Usage,
    started: Started | Unanswered | None = None,
) -> Costs:
    """Add up what serving costs; `types` are those that EC2 described, `started` what a start was last."""
    pricing = _Pricing(prices)
    drawn = {name: _seconds(profile, types.get(name), usage) for name in profile.worker_types}
    renewals = _renewals([one for one in drawn.values() if one is not None], usage)
    job = tuple(_job(pricing, usage, renewals or 0))
    requests = total(line.dollars for line in job)
    kept, moved = (pricing.of(name, usage.megabytes / 1e3) for name in ("storage", "transfer"))
    idle = tuple(
        pricing.line(_named([one.call]), one.call.product, one.per_hour) for one in CALLS_OF_AN_IDLE_WORKER
    )
    standing = tuple(pricing.line(one.what, one.product, one.count) for one in STANDING)
    alone = [line for line, one in zip(standing, STANDING, strict=True) if not one.needs_workers]
    beside = requests * (1 / usage.images) + kept + moved
    shared = _Shared(profile, prices, weights, beside, total(line.dollars for line in idle), started)
    servings = tuple(
        _serving(shared, name, market, types.get(name), drawn[name])
        for name in profile.worker_types
        for market in ("on-demand", "spot")
    )
    at_zero = total(line.dollars for line in alone)
    return Costs(
        profile.name, prices, usage, job, renewals, requests, kept, moved, servings, idle, standing, at_zero
    )


def _seconds(profile: Profile, kind: InstanceType | None, usage: Usage) -> Seconds | None:
    if usage.seconds is not None or kind is None or kind.device is None:
        return usage.seconds
    return speed.published(kind.device.name, profile.weights.precision)


def _renewals(drawn: Sequence[Seconds], usage: Usage) -> int | None:
    """How often a job is renewed while its images are drawn, where that takes longest; None if unknown."""
    if not drawn:
        return None
    return int(max(one.value for one in drawn) * usage.images // (usage.visibility / RENEWALS))


def _job(pricing: _Pricing, usage: Usage, renewals: int) -> Iterable[Line]:
    """A line for each service and product, in the order of the calls."""
    kinds: dict[tuple[str, str | None], list[Call]] = {}
    for call in CALLS_OF_A_JOB:
        kinds.setdefault((call.service, call.product), []).append(call)
    for (_, product), calls in kinds.items():
        count = sum(usage.images if call.per_image else 1 for call in calls)
        yield pricing.line(_named(calls), product, count)
    for call in CALLS_OF_A_RENEWAL if renewals else ():
        yield pricing.line(f"{_named([call])}, renewed", call.product, renewals)


def _named(calls: Sequence[Call]) -> str:
    """`S3 PutObject (the claim, the image, the record)`."""
    operations = ", ".join(dict.fromkeys(call.operation for call in calls))
    whys = ", ".join(dict.fromkeys(call.why for call in calls))
    return f"{calls[0].service} {operations} ({whys})"


def _serving(
    shared: _Shared, name: str, market: str, kind: InstanceType | None, seconds: Seconds | None
) -> Serving:
    """One type in one market."""
    profile, hours = shared.profile, shared.prices.hours[name]
    told = hours.spot if market == "spot" else hours.on_demand
    hour = amount(told, f"the hour of {name} ({market})")
    month = amount(shared.prices.volume, f"the volume ({profile.root_volume.type})")
    volume = month * (profile.root_volume.size_gib / MONTH)
    devices = _devices(profile, kind)
    per_second = (hour + volume) * (1 / 3600)
    drawing = None if seconds is None or devices is None else per_second * (seconds.value / devices)
    start = None if kind is None else starts.expected(profile, shared.weights, kind, shared.started)
    return Serving(
        type=name,
        market=market,
        hour=hour,
        volume=volume,
        devices=devices,
        seconds=seconds,
        drawing=drawing,
        image=None if drawing is None else drawing + shared.beside,
        idle=hour + volume + shared.waiting * (devices or 1),
        start=start,
        cold=None if start is None else per_second * start.seconds + _beside(profile),
    )


def _beside(profile: Profile) -> Dollars:
    """What a launch costs beside its seconds: a rate is billed by the snapshot's data, which a plan knows."""
    asked = profile.cold_start.volume_initialization_rate is not None
    return Dollars(without=("VolumeInitializationRate (bake plan tells it)",) if asked else ())


def _devices(profile: Profile, kind: InstanceType | None) -> int | None:
    """How many images an instance draws at once: one a GPU; the model takes all Neuron devices together."""
    if kind is None:
        return None
    return kind.device.count if kind.device is not None and profile.base.accelerator == "cuda" else 1
