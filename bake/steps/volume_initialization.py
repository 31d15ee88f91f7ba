"""How far EBS has filled a new volume from its snapshot, as EC2 tells it. No answer fails nothing.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_InitializationStatusDetails.html
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from bake import retries
from bake.aws import Aws, call_errors, unanswered
from bake.steps.launch import Instance

# Seconds between two questions, and for asking once: the volume is filled for minutes.
PAUSE, LOOK = 10.0, 5.0


@dataclass(frozen=True)
class Initialization:
    """What EC2 tells of a volume: how it is filled, how much of it in percent, and how many seconds are left.

    `kind` is default, provisioned-rate or volume-copy; empty where EC2 told nothing, and `why` says so.
    """

    volume: str
    kind: str = ""
    percent: int | None = None
    seconds_left: int | None = None
    why: str = ""

    @property
    def text(self) -> str:
        """`volume 43 % initialised, 61 s left`; empty where that is not known."""
        if self.percent is None:
            return ""
        left = f", {self.seconds_left} s left" if self.seconds_left else ""
        return f"volume {self.percent} % initialised{left}"

    def as_dict(self) -> dict[str, Any]:
        """For the report."""
        return asdict(self)


def volume_initialization(aws: Aws, instance: Instance) -> Initialization:
    """Ask EC2 how far an instance's root volume is filled."""
    volume = instance.root_volume
    try:
        with retries.until(time.monotonic() + LOOK):
            answer: Any = aws.ec2.describe_volume_status(VolumeIds=[volume])
    except call_errors() as error:
        return Initialization(volume, why=f"AWS answers {unanswered(error)}")
    told = next((one.get("InitializationStatusDetails") for one in answer["VolumeStatuses"]), None) or {}
    if "Progress" not in told:
        return Initialization(volume, told.get("InitializationType", ""), why="EC2 tells no progress")
    left = told.get("EstimatedTimeToCompleteInSeconds")
    return Initialization(volume, told.get("InitializationType", ""), told["Progress"], left)


class Watched:
    """A volume that is asked about now and then, while something else is waited for."""

    def __init__(self, aws: Aws, instance: Instance) -> None:
        self._aws, self._instance = aws, instance
        self._asked = float("-inf")
        self.found = Initialization(instance.root_volume)

    def text(self) -> str:
        """What is shown now; EC2 is asked at most every ten seconds, and no more once it has not answered."""
        due = time.monotonic() - self._asked >= PAUSE
        if due and not self.found.why and self.found.percent != 100:
            self.found = volume_initialization(self._aws, self._instance)
            self._asked = time.monotonic()
        return self.found.text
