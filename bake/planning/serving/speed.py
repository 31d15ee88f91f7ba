"""How long an image takes: as it was measured, else as others published it; never made up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bake.errors import UsageError

STEPS = 28
"""The steps of a job that names none."""
SIDE = 1024


@dataclass(frozen=True)
class Seconds:
    """Seconds of the accelerator for one image, and where that is from."""

    value: float
    source: str
    measured: bool


@dataclass(frozen=True)
class Published:
    """Seconds of one transformer step at 1024x1024 on a device, as somebody else measured them."""

    device: str
    precision: str
    step: float
    source: str

    def image(self) -> Seconds:
        """An image of the default steps: without text encoders, VAE and everything around the model."""
        told = f"published, not measured here: {STEPS} steps of {self.step} s, {self.source}"
        return Seconds(STEPS * self.step, told, measured=False)


PUBLISHED = (
    Published("L40S", "bf16", 0.532, "the transformer alone, diffusers, not compiled (looked up 2026-11)"),
)
"""For A10G, L4 and Inferentia2, and for int8 as this worker has it, nobody has published any."""


def published(device: str, precision: str) -> Seconds | None:
    """The published seconds of an image on a device; None if there are none."""
    found = (one for one in PUBLISHED if (one.device, one.precision) == (device, precision))
    return next((one.image() for one in found), None)


@dataclass(frozen=True)
class Drawn:
    """What records tell: seconds and pixels of an image, and on which devices it was drawn."""

    seconds: Seconds
    pixels: int


def of_records(records: Mapping[str, Any]) -> Drawn:
    """The mean of the records of finished jobs, by the names of their files. UsageError if one is none."""
    drawn, images, pixels = 0.0, 0, 0
    devices: dict[str, None] = {}
    for name, record in records.items():
        _check(name, record)
        job, images_of = record["job"], record["job"].get("images", 1)
        drawn, images = drawn + record["seconds"]["draw"], images + images_of
        pixels = max(pixels, job.get("width", SIDE) * job.get("height", SIDE))
        devices[str(record["model"]["device"])] = None
    of = f"{len(records)} record{'s' if len(records) > 1 else ''}"
    told = f"measured: the mean of {images} image{'s' if images > 1 else ''} in {of}, on {', '.join(devices)}"
    return Drawn(Seconds(drawn / images, told, measured=True), pixels)


def _check(name: str, record: Any) -> None:
    """Raise UsageError unless the fields that are needed are there."""
    try:
        job, numbers = record["job"], [record["seconds"]["draw"]]
        numbers += [job.get("images", 1), job.get("width", SIDE), job.get("height", SIDE)]
        known = isinstance(record["model"]["device"], str) and all(map(_positive, numbers))
    except (KeyError, TypeError, AttributeError):
        known = False
    if not known:
        raise UsageError(
            f"--record {name} is no record of a job",
            hint="the worker stores one beside each job's images: aws s3 cp s3://BUCKET/images/ID.json .",
        )


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
