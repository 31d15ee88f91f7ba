"""The tags of everything that a step creates, from the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bake import creation
from bake.creation import Labels
from bake.planning.plan import Plan
from bake.run import Run

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import TagTypeDef


def tags(plan: Plan, run: Run, name: str) -> list[TagTypeDef]:
    """The tags of something that this run creates now and calls `name`."""
    labels = Labels(
        profile=plan.profile.name,
        plan=plan.id,
        worker=plan.provision.worker.version,
        os=plan.profile.base.os,
        accelerator=plan.profile.base.accelerator,
        venue=plan.sources.venue,
    )
    return creation.tags(labels, run.id, name, run.expires())
