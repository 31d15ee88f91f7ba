"""One booted builder for all cases that need a machine and no whole bake."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bake import plan as planning
from bake import profile
from bake import run as runs_of
from bake.aws import Aws
from bake.commands import sources
from bake.localcloud.cloud import LocalCloud
from bake.plan import Plan
from bake.progress import PlainScreen, Progress
from bake.run import Run
from bake.ssh import Session
from bake.steps.launch import Instance, launch, log_in
from bake.undo import Undo

PROFILES = Path(__file__).parents[2] / "profiles"


@dataclass(frozen=True)
class Machine:
    """A builder as the bake has it after `connect`."""

    plan: Plan
    aws: Aws
    run: Run
    instance: Instance
    session: Session


@pytest.fixture(scope="session")
def machine(cloud: LocalCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    progress = Progress(PlainScreen())
    found = profile.load("g6e-ubuntu", PROFILES, dict(cloud.environment))
    aws = Aws(
        region=found.builder.region,
        worker_region=found.worker.region,
        endpoint=cloud.endpoint,
        tally=progress.tally,
    )
    plan = planning.make(found, aws, sources(cloud))
    run = runs_of.new(tmp_path_factory.mktemp("runs"), progress)
    with Undo() as undo:
        instance = launch(plan, aws, run, undo, role="builder", image=plan.base.id)
        with log_in(instance, run) as session:
            yield Machine(plan, aws, run, instance, session)
    left = aws.ec2.describe_instances(Filters=[{"Name": "tag:bake:run", "Values": [run.id]}])
    states = {item["State"]["Name"] for group in left["Reservations"] for item in group["Instances"]}
    assert states <= {"terminated"}
    assert not aws.ec2.describe_key_pairs(Filters=[{"Name": "tag:bake:run", "Values": [run.id]}])["KeyPairs"]
