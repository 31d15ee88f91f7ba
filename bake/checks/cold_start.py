"""The cold start of an image as reports have it: from the running instance to the first image, by stages."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field

from bake.checks.result import Record

StageName = Literal["kernel", "userspace", "warm", "imports", "load", "first draw", "other", "first image"]
NOT_MEASURED: Final = "not measured"


class StartStage(Record):
    """One stage of the start. Null is what was not measured."""

    name: StageName
    began: float | None
    """Seconds since the instance was running."""
    seconds: float | None
    bytes: int | None
    """Bytes that this stage read from the disk; what was in memory by then is not among them."""
    mb_per_s: float | None
    floor_seconds: float | None
    """The bytes, at the rate at which the disk can be read at most."""
    ratio: float | None
    """How many times the floor it took."""
    beside: bool = False
    """Whether it goes on beside the others, and adds nothing to the sum."""
    note: str = ""
    facts: dict[str, Any] = Field(default_factory=dict)
    """What the stage says of itself, such as the bytes from each source."""


class ColdStart(Record):
    """From "instance running" to the first image."""

    seconds: float | None
    """In all: until the worker was ready, and the seconds in which it drew the first job."""
    max_seconds: int | None
    """The profile's limit (`cold_start.max_seconds`)."""
    stages: tuple[StartStage, ...]
    bytes: int | None
    """All that the warm-up and the workers read from the disk."""
    floor_mb_per_s: float | None
    floor_from: str
    """What limits the rate."""
    floor_seconds: float | None
    ratio: float | None
    hydration_mb_per_s: float | None
    """The rate at which bytes were read for the first time, which fills a volume made from a snapshot."""
    hydration_bytes: int | None
    hydration_from: str
    """What read them; or why nobody knows."""
    volume: str | None = None
    """The root volume's type."""
    volume_initialization_rate: int | None = None
    """MiB/s at which EBS was asked to fill it."""
    initialization: str | None = None
    """How EBS fills it, in EC2's words: default, or provisioned-rate."""
    initialized_percent: int | None = None
    """How much of it EBS had filled once the first image was there, as EC2 tells it."""
    notes: tuple[str, ...] = ()

    @property
    def slowest(self) -> StartStage | None:
        """The stage that took most of the time; of those beside others none."""
        timed = [one for one in self.stages if one.seconds is not None and not one.beside]
        return max(timed, key=lambda one: one.seconds or 0.0, default=None)

    @property
    def too_slow(self) -> bool:
        """Whether it took longer than the profile allows, or nobody knows."""
        if self.max_seconds is None:
            return False
        return self.seconds is None or self.seconds > self.max_seconds

    def stage(self, name: StageName) -> StartStage | None:
        """One of its stages."""
        return next((one for one in self.stages if one.name == name), None)


class Bandwidth(Record):
    """MB/s (10^6 bytes) at which the instance's disk can be read at most, and what limits it."""

    mb_per_s: float
    limit: str
