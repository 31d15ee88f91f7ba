"""Show what serving costs: as text for people, as JSON for programs. Each figure has its unit and source."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bake.account.answers import Unanswered
from bake.account.price_list import Price
from bake.columns import table
from bake.creation import stamp
from bake.planning.serving.cost import Costs, Dollars, Line, Serving

WIDTH = 110
UNKNOWN = "price not known"
DIGITS = 3
NOT_COUNTED = (
    "free tiers, discounts and taxes",
    "public IPv4 addresses, NAT gateways and VPC endpoints; KMS, where bucket or queue have a key of yours",
    "requests of senders and readers, and what leaves AWS when images are read; logs",
    "IOPS, throughput and initialization rates that are bought for a volume; tries of calls that failed",
)
MILLION = 1e6


def as_text(costs: Costs, venue: str) -> str:
    """Tables, and below them where their figures are from."""
    parts = (
        _head(costs, venue),
        _requests(costs),
        _images(costs),
        _cold(costs),
        _idle(costs),
        _standing(costs),
    )
    return "\n\n".join("\n".join(part) for part in (*parts, _notes(costs)) if part)


def dollars(amount: float | None) -> str:
    """An amount with cents, or a small one with three digits, never in powers of ten."""
    if amount is None:
        return UNKNOWN
    if amount == 0 or amount >= 1:
        return f"${amount:,.2f}"
    whole, _, cents = f"{amount:.{DIGITS - 1 - math.floor(math.log10(amount))}f}".partition(".")
    return f"${whole}.{cents.rstrip('0').ljust(2, '0')}"


def _sum(found: Dollars | None) -> str:
    """A sum; one that lacks something begins with "at least"."""
    if found is None or found.nothing:
        return UNKNOWN
    return f"at least {dollars(found.known)}" if found.without else dollars(found.known)


def _head(costs: Costs, venue: str) -> Iterator[str]:
    prices = costs.prices
    there = (
        "" if prices.region == prices.worker_region else f"; queue, bucket and bus in {prices.worker_region}"
    )
    yield f"what serving {costs.profile} costs: instances in {prices.region}{there}"
    whose = (
        "the local cloud's own, not AWS's"
        if venue == "REHEARSAL"
        else "AWS's price list, and spot prices of today"
    )
    yield f"prices: {whose}; asked {stamp(prices.asked)}"


def _requests(costs: Costs) -> Iterator[str]:
    images = "one image" if costs.usage.images == 1 else f"{costs.usage.images} images"
    yield f"the requests of a job of {images}:"
    rows = [(f"{line.count:,g}", line.what, _unit(line), *_scaled(line.dollars)) for line in costs.job]
    count = sum(line.count for line in costs.job)
    header = ("calls", "of", "a million", "a job", "1,000 jobs", "1,000,000 jobs")
    yield table(header, [*rows, (f"{count:,g}", "in all", "", *_scaled(costs.requests))])
    yield from _without(costs.requests)
    every = costs.usage.visibility / 3
    if costs.renewals is None:
        yield f"  and 2 more for each {every:g} s that its images take, which is not known"
    else:
        yield f"  and 2 for each {every:g} s that its images take: {costs.renewals} times"


def _unit(line: Line) -> str:
    if line.price == 0:
        return "free"
    return UNKNOWN if line.price is None else dollars(line.price * MILLION)


def _scaled(found: Dollars) -> tuple[str, str, str]:
    return _sum(found), _sum(found * 1e3), _sum(found * MILLION)


def _images(costs: Costs) -> Iterator[str]:
    yield "an image, while jobs wait:"
    header = (
        "type",
        "market",
        "an hour",
        "images at once",
        "seconds",
        "instance",
        "requests",
        "kept",
        "moved",
        "in all",
    )
    beside = (_sum(costs.requests * (1 / costs.usage.images)), _sum(costs.kept), _sum(costs.moved))
    yield table(header, [_image(one, beside) for one in costs.servings])
    yield from _without(*(one.image for one in costs.servings if one.image is not None))
    for name, told in _speeds(costs).items():
        yield from _wrapped(f"seconds of {name}: {told}")
    prices = costs.prices
    yield from _wrapped("an hour: the instance and its root volume")
    yield from _wrapped(f"kept: {costs.usage.megabytes:.3g} MB in S3 for a month; {costs.usage.size_source}")
    if prices.region == prices.worker_region:
        yield from _wrapped("moved: nothing, bucket and instances are in one region")
    else:
        yield from _wrapped(f"moved: those from {prices.region} to the bucket in {prices.worker_region}")


def _image(one: Serving, beside: tuple[str, str, str]) -> tuple[str, ...]:
    seconds = "not known" if one.seconds is None else f"{one.seconds.value:.1f}"
    at_once = "not known" if one.devices is None else str(one.devices)
    drawing = "not known" if one.drawing is None else _sum(one.drawing)
    image = "not known" if one.image is None else _sum(one.image)
    return (one.type, one.market, _sum(one.hour + one.volume), at_once, seconds, drawing, *beside, image)


def _speeds(costs: Costs) -> Mapping[str, str]:
    unknown = "nobody measured or published them: give --seconds-per-image or --record"
    return {one.type: one.seconds.source if one.seconds else unknown for one in costs.servings}


def _cold(costs: Costs) -> Iterator[str]:
    yield "a cold start, before an instance draws its first image:"
    rows = [
        (
            one.type,
            one.market,
            "not known" if one.cold_seconds is None else f"{one.cold_seconds:.0f} s",
            "not known" if one.cold is None else _sum(one.cold),
        )
        for one in costs.servings
    ]
    yield table(("type", "market", "estimated", "costs"), rows)
    yield from _without(*(one.cold for one in costs.servings if one.cold is not None))
    yield from _wrapped(_estimated(costs))


def _estimated(costs: Costs) -> str:
    """Where a cold start's seconds are from."""
    measured = next((one.start.measured for one in costs.servings if one.start and one.start.measured), "")
    how = f"the boot check of {measured} measured it" if measured else "assumed: no start was measured yet"
    return (
        f"estimated as bake plan does: boot and first drawing ({how}), and all that is read from a new volume"
    )


def _idle(costs: Costs) -> Iterator[str]:
    yield "an hour of an instance that waits for jobs:"
    yield table(
        ("type", "market", "an hour"), [(one.type, one.market, _sum(one.idle)) for one in costs.servings]
    )
    yield from _without(*(one.idle for one in costs.servings))
    yield "  of which each of its workers:"
    rows = [(f"{line.count:,g}", line.what, _unit(line), _sum(line.dollars)) for line in costs.idle]
    yield table(("calls", "of", "a million", "an hour"), rows)


def _standing(costs: Costs) -> Iterator[str]:
    yield "a month (730 h), with instances or without:"
    rows = [
        (f"{line.count:,g}", line.what, dollars(line.price), _sum(line.dollars)) for line in costs.standing
    ]
    yield table(("", "of", "each", "a month"), rows)
    yield from _wrapped(
        f"with no instance (desired 0): {_sum(costs.at_zero)} a month, and the images that are kept; "
        "Ready costs only for hours in which a worker publishes it"
    )
    yield from _without(costs.at_zero)


def _without(*found: Dollars) -> Iterator[str]:
    """What sums are without."""
    missing = dict.fromkeys(name for one in found for name in one.without)
    if missing:
        yield from _wrapped(f"without: {', '.join(missing)}")


def _notes(costs: Costs) -> Iterator[str]:
    if unknown := _unknown(costs):
        yield "not known:"
        yield from (f"  - {line}" for line in unknown)
    yield "not counted:"
    yield from (f"  - {line}" for line in NOT_COUNTED)


def _unknown(costs: Costs) -> Sequence[str]:
    """Each price that is not known, and why."""
    prices = costs.prices
    named = [(prices.titles[name].title, price) for name, price in prices.units.items()]
    for name, hour in prices.hours.items():
        named += [(f"an hour of {name}", hour.on_demand), (f"a spot hour of {name}", hour.spot)]
    named.append(("a GB-month of the volume", prices.volume))
    return [f"{name}: {_why(price)}" for name, price in named if not isinstance(price, float)]


def _why(price: Price) -> str:
    return price.why if isinstance(price, Unanswered) else "AWS's price list has none"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    ")


def as_dict(costs: Costs, venue: str) -> dict[str, Any]:
    """For programs: dollars are numbers, null where nothing of them is known; `without` says what lacks."""
    prices = costs.prices
    return {
        "profile": costs.profile,
        "venue": venue,
        "region": prices.region,
        "worker_region": prices.worker_region,
        "asked": prices.asked.isoformat(),
        "prices": {name: _price(costs, name) for name in prices.units},
        "job": {
            "images": costs.usage.images,
            "calls": [_line(line) for line in costs.job],
            "renewals": costs.renewals,
            **_dollars(costs.requests),
        },
        "image": {
            "megabytes": costs.usage.megabytes,
            "megabytes_source": costs.usage.size_source,
            "kept_month": _dollars(costs.kept),
            "moved": _dollars(costs.moved),
        },
        "types": [_type(one) for one in costs.servings],
        "idle_worker_hour": [_line(line) for line in costs.idle],
        "standing_month": [_line(line) for line in costs.standing],
        "without_instances_month": _dollars(costs.at_zero),
        "not_counted": list(NOT_COUNTED),
    }


def _price(costs: Costs, name: str) -> dict[str, Any]:
    found, product = costs.prices.units[name], costs.prices.titles[name]
    known = isinstance(found, float)
    told = {"dollars": found if known else None, "unit": product.unit, "service": product.service}
    return told if known else {**told, "why": _why(found)}


def _line(line: Line) -> dict[str, Any]:
    return {"what": line.what, "count": line.count, "price": line.price, **_dollars(line.dollars)}


def _dollars(found: Dollars | None) -> dict[str, Any]:
    if found is None:
        return {"dollars": None, "without": []}
    return {"dollars": None if found.nothing else found.known, "without": list(found.without)}


def _type(one: Serving) -> dict[str, Any]:
    return {
        "type": one.type,
        "market": one.market,
        "images_at_once": one.devices,
        "seconds": asdict(one.seconds) if one.seconds else None,
        "hour": _dollars(one.hour + one.volume),
        "instance_an_image": _dollars(one.drawing),
        "image": _dollars(one.image),
        "idle_hour": _dollars(one.idle),
        "cold_start_seconds": one.cold_seconds,
        "cold_start": _dollars(one.cold),
    }
