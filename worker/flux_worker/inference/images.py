"""The result of a job: images, with the job and the model that made them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..jobspec.job import Job

Precision = Literal["bf16", "int8"]


@dataclass(frozen=True)
class Origin:
    """The model that was used: repository and commit on the Hub, precision, device and packages."""

    repo: str
    revision: str
    precision: Precision
    device: str
    versions: dict[str, str] = field(default_factory=dict)
    """By package: flux_worker, torch, diffusers, transformers, and others that the backend uses."""


@dataclass(frozen=True)
class GeneratedImages:
    """The images of a job; image i has the job's seed + i.

    `job` has its seed set; `seconds` is the time for all images, `step_seconds` the mean of a step.
    """

    job: Job
    images: tuple[Image, ...]
    origin: Origin
    seconds: float
    step_seconds: float
