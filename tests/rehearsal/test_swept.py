"""A bake that died left a real machine on the local cloud: a sweep removes it with all that belongs to it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bake import localcloud, profile
from bake import run as runs_of
from bake.aws import Aws
from bake.lease import Lease
from bake.lifecycle.sweep import preview, sweep
from bake.localcloud import LocalCloud, Settings, sources
from bake.progress import PlainScreen, Progress
from bake.request import ask_and_plan
from bake.steps.launch import launch_builder
from bake.undo import Undo
from bake.weights import lock as locks
from tests.bake.one_run import temporary
from tests.plans import changed

if TYPE_CHECKING:
    from bake.planning.plan import Plan

pytestmark = pytest.mark.root
PROFILES = Path(__file__).parents[2] / "profiles"


def planned(cloud: LocalCloud, aws: Aws, found: profile.Profile) -> Plan:
    """A plan with a security group of the bake's own, and a lease that ends within a second."""
    localcloud.provide(found.base.os, found.base.accelerator, print)
    lock = locks.resolve(found.weights, cloud.hub)
    plan = temporary(ask_and_plan(found, aws, sources(cloud, found.base.os), lock=lock))
    builder = plan.profile.builder.model_copy(update={"lease_hours": 0.0002})
    return changed(plan, plan.profile.model_copy(update={"builder": builder}))


def test_the_builder_of_a_dead_bake_goes_with_its_key_group_and_volume(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    found = profile.load("g6e-ubuntu", PROFILES, cloud.environment)
    regions = {"region": found.builder.region, "worker_region": found.worker.region}
    aws = Aws(**regions, endpoint=cloud.endpoint, endpoint_key=cloud.keys)
    run = runs_of.new(tmp_path, Progress(PlainScreen()))
    undo = Undo()  # never ended: the bake is killed
    plan = planned(cloud, aws, found)
    Lease(plan.lease, aws, run)  # never begun: nobody renews it
    instance = launch_builder(plan, aws, run, undo)
    machine = Settings.load().instances / instance.id
    assert machine.exists()
    wanted = {"instance", "key pair", "security group", "volume"}  # lists tell late of what is new
    seen = preview(aws, run.id, prices=False)
    while not wanted <= {one.held.kind for one in seen.swept}:
        assert seen.swept or {one.outcome for one in seen.verdicts} <= {"living"}
        time.sleep(0.2)
        seen = preview(aws, run.id, prices=False)
    assert seen.inventory.unanswered == {}
    done = sweep(aws, run.id, seen=seen)
    assert (done.leaks, done.spared) == ([], [])
    assert preview(aws, run.id, prices=False).verdicts == ()
    mine: Any = [{"Name": "tag:bake:run", "Values": [run.id]}]
    assert aws.ec2.describe_volumes(Filters=mine)["Volumes"] == []
    assert not machine.exists()
