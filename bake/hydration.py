"""What a boot check measured of a start, as an AMI's tag keeps it for the plans of later bakes.

A volume made from a snapshot is filled from S3 while it is first read. How fast, no constant tells for all
accounts, regions and hours: the plan takes it from the newest AMI of the profile that was measured.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

TAG = "bake:hydration"
"""The AMI's tag: `93.1 MB/s over 4.1 GB libraries=0.7GB boot=31.0s volume=gp3`."""
UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_SIZE = rf"({_NUMBER}) ?({'|'.join(UNITS)})"
_HEAD = re.compile(rf"({_NUMBER}) MB/s over {_SIZE}(?: .*)?")
_DIGITS = 4  # significant ones


@dataclass(frozen=True)
class Measured:
    """First reads of a start from a new volume, and what the rest of the start took.

    `mb_per_s` is bytes over seconds (10^6 bytes) of what came from the volume, at the queue that the start
    reads with; `bytes` is all that it read, of which `libraries` are no weights. `boot`, `imports` and
    `first_draw` are seconds. `volume` is the volume's type, and `rate` the VolumeInitializationRate in MiB/s
    that it was launched with. None is what was not measured, or not asked for.
    """

    mb_per_s: float
    bytes: int
    libraries: int | None = None
    boot: float | None = None
    imports: float | None = None
    first_draw: float | None = None
    volume: str | None = None
    rate: int | None = None

    def text(self) -> str:
        """The tag's value: at most 256 characters, none that EC2 would not take. `parse` reads it."""
        told = {
            "libraries": None if self.libraries is None else _size(self.libraries, ""),
            "boot": _seconds(self.boot),
            "imports": _seconds(self.imports),
            "first-draw": _seconds(self.first_draw),
            "volume": self.volume,
            "rate": self.rate,
        }
        pairs = (f"{name}={value}" for name, value in told.items() if value is not None)
        return " ".join((self.short, *pairs))

    @property
    def short(self) -> str:
        """`93.1 MB/s over 4.1 GB`."""
        return f"{_number(self.mb_per_s)} MB/s over {_size(self.bytes)}"


def parse(text: str) -> Measured | None:
    """What a tag tells; None where it is none of ours, or tells of no speed. Words not known are passed."""
    head = _HEAD.fullmatch(text.strip())
    if head is None or float(head[1]) <= 0:
        return None
    told = dict(word.split("=", 1) for word in text.split() if "=" in word)
    rate = told.get("rate", "")
    return Measured(
        mb_per_s=float(head[1]),
        bytes=_bytes(head[2], head[3]),
        libraries=_bytes(*size.groups())
        if (size := re.fullmatch(_SIZE, told.get("libraries", "")))
        else None,
        boot=_read_seconds(told.get("boot")),
        imports=_read_seconds(told.get("imports")),
        first_draw=_read_seconds(told.get("first-draw")),
        volume=told.get("volume"),
        rate=int(rate) if rate.isdecimal() else None,
    )


def _size(count: int, space: str = " ") -> str:
    unit = max((unit for unit, size in UNITS.items() if size <= count), key=UNITS.__getitem__, default="B")
    return f"{_number(count / UNITS[unit])}{space}{unit}"


def _bytes(number: str, unit: str) -> int:
    return round(float(number) * UNITS[unit])


def _number(value: float) -> str:
    """Four significant digits, without an exponent."""
    digits = max(0, _DIGITS - len(str(int(abs(value)))))
    return f"{value:.{digits}f}".rstrip("0").rstrip(".") if digits else f"{value:.0f}"


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f}s"


def _read_seconds(text: str | None) -> float | None:
    found = re.fullmatch(rf"({_NUMBER})s", text or "")
    return float(found[1]) if found else None
