"""Refuse to bake a profile while another bake of it goes on: `bake --exclusive`."""

from __future__ import annotations

from typing import Any

from bake.aws import Aws
from bake.creation import EXPIRES_TAG, RUN_TAG, tag_of, time_of
from bake.errors import BakeError
from bake.planning.plan import Plan
from bake.run import Run


class NotAlone(BakeError):
    """Another bake of the profile goes on."""


# A builder that was launched a moment ago may be left out of a list.
LOOKS, PAUSE = 3, 0.5


def refuse_second(plan: Plan, aws: Aws, run: Run) -> None:
    """Raise NotAlone if an earlier run of the profile has a builder whose lease goes on.

    Of two that start at once both see the other, and the one with the later id ends.
    """
    with aws.tally.waiting(f"other builders of {plan.profile.name}") as wait:
        for look in range(LOOKS):
            _look(plan, aws, run)
            if look + 1 < LOOKS:
                wait.pause(PAUSE)


def _look(plan: Plan, aws: Aws, run: Run) -> None:
    filters: Any = [
        {"Name": "tag:bake:profile", "Values": [plan.profile.name]},
        {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]},
    ]
    now = aws.now()
    pages = aws.ec2.get_paginator("describe_instances").paginate(Filters=filters)
    for instance in (one for page in pages for group in page["Reservations"] for one in group["Instances"]):
        other, expires = (
            tag_of(instance.get("Tags"), RUN_TAG),
            time_of(tag_of(instance.get("Tags"), EXPIRES_TAG)),
        )
        if other and other < run.id and expires is not None and expires > now:
            raise NotAlone(
                f"run {other} bakes {plan.profile.name} already: {instance['InstanceId']} is its",
                hint="wait for its end, or bake beside it without --exclusive: runs don't disturb each other",
            )
