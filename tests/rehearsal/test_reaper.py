"""A builder that hangs when nobody bakes any more is ended by its schedule."""

from __future__ import annotations

import io
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from bake.instance import describe
from bake.layout import LEASE_UNIT
from bake.lease import Lease
from bake.lifecycle import sweep
from bake.localcloud import LocalCloud
from bake.localcloud.cli import local
from bake.progress import PlainScreen, Progress
from bake.run import Run
from bake.ssh import connect
from bake.steps.launch import LaunchSpec, launch
from bake.undo import Undo
from tests import plans

from .test_builder_lease import until

if TYPE_CHECKING:
    from tests.conftest import Machine

pytestmark = pytest.mark.root


@pytest.mark.parametrize("market", ["on-demand", "spot"])
def test_a_builder_without_a_timer_is_ended_by_its_schedule(
    cloud: LocalCloud, machine: Machine, tmp_path: Path, market: str
) -> None:
    """The bake is dead, the builder's own timer too; the clock passes the lease. A sweep finds the rest."""
    role = cloud.environment["BAKE_REAPER_ROLE"]
    more = {"reaper": "scheduler", "reaper_role": role, "market": market, "lease_hours": 2.0}
    profile = machine.plan.profile
    builder = profile.builder.model_copy(update=more)
    plan = plans.changed(machine.plan, profile.model_copy(update={"builder": builder}))
    run = Run(f"20261128-000000-{uuid.uuid4().hex[:6]}", tmp_path, Progress(PlainScreen(io.StringIO())))
    undo, aws, runner = Undo(), machine.aws, CliRunner()
    Lease(plan.lease, aws, run)  # nobody renews it
    try:
        spec = LaunchSpec("builder", plan.launch.base.id, plan.profile.builder.types)
        instance = launch(spec, plan, aws, run, undo)
        with connect(instance.login) as session:
            session.run("systemctl", "stop", f"{LEASE_UNIT}.timer", sudo=True)
        assert runner.invoke(local, ["clock", "+2h"]).exit_code == 0
        assert runner.invoke(local, ["clock", "+10m"]).exit_code == 0
        until("its end", lambda: facts(aws, instance.id)["State"]["Name"] == "terminated")
        assert facts(aws, instance.id)["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
        swept = sweep.sweep(aws, run.id)
        assert not swept.leaks
        mine: Any = [{"Name": "tag:bake:run", "Values": [run.id]}]
        living = [
            one["State"]["Name"]
            for group in aws.ec2.describe_instances(Filters=mine)["Reservations"]
            for one in group["Instances"]
        ]
        assert set(living) == {"terminated"}
        assert "schedule group" in {one.kind for one in swept.removed}
    finally:
        runner.invoke(local, ["clock", "reset"])
        undo.now()


def facts(aws: Any, instance: str) -> Any:
    return describe(aws, instance)
