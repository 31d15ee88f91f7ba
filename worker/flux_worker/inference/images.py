"""What the model hands over: finished images with the job and the model that made them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..jobspec.job import Job

Precision = Literal["bf16", "int8"]


@dataclass(frozen=True)
class Origin:
    """The model that drew: the Hub's repository and commit, the weights' precision, device and packages."""

    repo: str
    revision: str
    precision: Precision
    device: str
    versions: dict[str, str] = field(default_factory=dict)
    """By package: flux_worker, torch, diffusers, transformers, and what else the backend draws with."""


@dataclass(frozen=True)
class GeneratedImages:
    """Finished images (image i was drawn with the job's seed + i) and what they took.

    `job` carries its seed; `seconds` is the time for all images, `step_seconds` the mean of a step.
    """

    job: Job
    images: tuple[Image, ...]
    origin: Origin
    seconds: float
    step_seconds: float
