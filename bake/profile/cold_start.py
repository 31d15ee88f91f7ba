"""The section `cold_start`: how soon after its launch an instance must draw, and what may be paid for it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bake.profile.section import Section
from bake.profile.types import Unit


class ColdStart(Section):
    """What a start from the AMI may take. Without it, a start is measured and nothing is asked of it."""

    max_seconds: Annotated[int | None, Unit("seconds")] = Field(default=None, ge=10, le=7200, strict=True)
    """Seconds from the running instance to its first image; an image that took longer stays unproven."""
    launches_per_hour: Annotated[float | None, Unit("launches an hour")] = Field(default=None, gt=0, le=1000)
    """Instances launched an hour, from which the plan works out what faster volumes cost."""
    volume_initialization_rate: Annotated[int | None, Unit("MiB/s")] = Field(
        default=None, ge=100, le=300, strict=True
    )
    """MiB/s at which EBS fills new root volumes, at extra cost; without it, as blocks are first read."""
