"""How late the API shows things: seconds that are drawn from a seed."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass

# The longest delays in seconds. AWS takes up to minutes; these keep a rehearsal short. Kinds are prefixes of
# EC2's ids, operations that create what has a name, and changes that settle.
LONGEST: Mapping[str, float] = {
    "i": 3.0,
    "ami": 3.0,
    "snap": 3.0,
    "vol": 2.0,
    "sg": 2.0,
    "key": 1.5,
    "sir": 2.0,
    "ec2:CreateKeyPair": 1.5,
    "ec2:ImportKeyPair": 1.5,
    "ec2:CreateSecurityGroup": 2.0,
    # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_CreateQueue.html: a second
    "sqs:CreateQueue": 1.0,
    "s3:CreateBucket": 1.0,
    "events:CreateEventBus": 1.5,
    "events:PutRule": 1.5,
    "scheduler:CreateScheduleGroup": 1.5,
    "iam:CreateRole": 4.0,
    "iam:CreateInstanceProfile": 4.0,
    "stopped": 2.0,
    "pending image": 1.5,
    # https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-ec2-aliases.html
    "image parameter": 2.0,
    "usage report": 2.0,
    "released quota": 3.0,
    "released interface": 2.5,
}
ELSE = 1.5
# A part of what is created is there at once.
AT_ONCE = 0.25


@dataclass(frozen=True)
class Delay:
    """For how many seconds something is shown by some of the answers alone, and whether by the first."""

    seconds: float
    shown_first: bool = True


NONE = Delay(0.0)


class Schedule:
    """The delays of one cloud. Thread-safe.

    The n-th thing of a kind has the same delay whenever the seed is the same, whatever it is named and
    whichever thread makes it.
    """

    def __init__(self, seed: int, *, lenient: bool = False) -> None:
        self.lenient = lenient
        self._seed = seed
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}

    def next(self, kind: str) -> Delay:
        """The delay of the next thing of this kind."""
        with self._lock:
            number = self._counts[kind] = self._counts.get(kind, 0) + 1
        return self.delay(kind, number)

    def delay(self, kind: str, number: int) -> Delay:
        """The delay of the n-th thing of this kind, counted from 1."""
        if self.lenient:
            return NONE
        dice = random.Random(f"{self._seed} {kind} {number}")  # noqa: S311
        if dice.random() < AT_ONCE:
            return NONE
        longest = LONGEST.get(kind, ELSE)
        return Delay(dice.uniform(longest / 4, longest), dice.random() < 0.5)
