"""How fast disks made from snapshots fill, and how fast S3 answers: what a cold start reads from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from bake.errors import UsageError

BLOCK = 512 << 10
"""Bytes fetched at once, as EBS fetches a snapshot's blocks."""
# Reads in parallel are at most so many times as fast as reads in sequence, where only these are named.
_DEEP = 8
_LIMITS = {
    "latency": (0.1, 60_000, "ms"),
    "ceiling": (0.1, 10_000, "MB/s"),
    "initialization_rate": (1, 10_000, "MiB/s"),
    "s3": (0.1, 10_000, "MB/s"),
    "flow": (0.1, 10_000, "MB/s"),
    "rate": (0.1, 10_000, "MB/s"),
}
_EXAMPLE = "latency=30,ceiling=100,initialization_rate=300,s3=400,flow=200; or 17 (MB/s in sequence)"


@dataclass(frozen=True)
class Filling:
    """How a disk fills: as an EBS volume made from a snapshot unless said otherwise.

    The first touch of a block of 512 KiB costs `latency` (ms); blocks come in parallel, those that are asked
    for at `ceiling` (MB/s) at most. EBS has given 5 to 20 MB/s in sequence and 100 to 140 at a deep queue.
    `initialization_rate` (MiB/s) is EBS's VolumeInitializationRate: blocks are filled at that rate beside the
    reads, from the volume's creation on.
    """

    latency: float = 30.0
    ceiling: float = 100.0
    initialization_rate: float | None = None

    @classmethod
    def in_sequence(cls, rate: float) -> Filling:
        """A disk whose blocks come at `rate` MB/s when they are read one after the other."""
        return cls(latency=BLOCK / (rate * 1e6) * 1e3, ceiling=_DEEP * rate)


@dataclass(frozen=True)
class Bandwidth:
    """MB/s at which one instance gets objects from S3: in all, and on one connection; None: unlimited.

    EC2 has 5 Gbit/s (625 MB/s) a flow, and by instance type 2.5 to 100 Gbit/s in all.
    """

    s3: float | None = None
    flow: float | None = None


@dataclass(frozen=True)
class Speeds:
    """All that a cold start reads from."""

    filling: Filling
    bandwidth: Bandwidth = Bandwidth()

    def described(self) -> dict[str, float | None]:
        """The settings by name, as `speeds_of` takes them."""
        return {**asdict(self.filling), **asdict(self.bandwidth)}


def parse_speeds(text: str) -> Speeds:
    """Parse `latency=30,ceiling=100` and so on, or a number: MB/s in sequence. Raises UsageError."""
    text = text.strip()
    if not text:
        return Speeds(Filling())
    if "=" not in text and "," not in text:
        return speeds_of({"rate": text})
    named: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals or name in named:
            raise UsageError(
                f"{part.strip()[:60]!r} is no setting of lazy disks, or is there twice", hint=_EXAMPLE
            )
        named[name] = value
    return speeds_of(named)


def speeds_of(named: Mapping[str, str]) -> Speeds:
    """Settings by name: those of Filling and Bandwidth, or `rate` (MB/s in sequence) for `latency`.

    What is not named is as on EBS. Raises UsageError.
    """
    numbers = {name: _number(name, value) for name, value in named.items()}
    rate = numbers.pop("rate", None)
    if rate is not None and "latency" in numbers:
        raise UsageError("rate and latency of lazy disks say the same: name one of them", hint=_EXAMPLE)
    usual = asdict(Filling() if rate is None else Filling.in_sequence(rate))
    filling = Filling(**{name: numbers.get(name, usual[name]) for name in _names(Filling)})
    return Speeds(filling, Bandwidth(**{name: numbers.get(name) for name in _names(Bandwidth)}))


def _names(kind: Any) -> list[str]:
    return [field.name for field in fields(kind)]


def _number(name: str, text: str) -> float:
    if name not in _LIMITS:
        raise UsageError(
            f"lazy disks have no setting {name[:60]!r}: {', '.join(sorted(_LIMITS))}", hint=_EXAMPLE
        )
    low, high, unit = _LIMITS[name]
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        raise UsageError(
            f"{name} of lazy disks is {low:g} to {high:,g} {unit}, not {text[:60]!r}", hint=_EXAMPLE
        )
    return number
