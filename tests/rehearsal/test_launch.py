"""Launches with alternative types, on the spot market, in a temporary security group; and sharing images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from bake.errors import BakeError, TimedOut
from bake.image import mark
from bake.localcloud import RemoteFaults
from bake.planning.plan import Plan
from bake.steps import create_image as images
from bake.steps.boot_check import check_units
from bake.steps.launch import Instance, LaunchSpec, launch
from bake.steps.publish import share
from bake.steps.retire import outdated, retire
from bake.undo import Undo
from tests import plans

if TYPE_CHECKING:
    from tests.conftest import Machine

pytestmark = pytest.mark.root


@pytest.fixture
def scarce(faults: RemoteFaults) -> Callable[..., None]:
    """AWS has no capacity for these types, `times` at most."""

    def without(*types: str, times: int | None = None) -> None:
        for name in types:
            faults.plant("ec2", "RunInstances", "capacity", match=f"InstanceType={name}", times=times)

    return without


def changed(plan: Plan, section: str, **update: object) -> Plan:
    """The plan with other values in one section of its profile."""
    part = getattr(plan.profile, section).model_copy(update=update)
    return plans.changed(plan, plan.profile.model_copy(update={section: part}))


def start(
    machine: Machine, plan: Plan, undo: Undo, role: str, types: tuple[str, ...] | None = None
) -> tuple[Instance, dict[str, Any]]:
    spec = LaunchSpec(role, plan.launch.base.id, types or plan.profile.builder.types)
    instance = launch(spec, plan, machine.aws, machine.run, undo)
    found = machine.aws.ec2.describe_instances(InstanceIds=[instance.id])
    return instance, dict(found["Reservations"][0]["Instances"][0])


def test_the_next_agreed_type_is_tried_where_there_is_no_capacity(
    machine: Machine, scarce: Callable[..., None]
) -> None:
    scarce("g6e.xlarge")
    plan = changed(machine.plan, "builder", instance_type=None, instance_types=("g6e.xlarge", "g6e.2xlarge"))
    with Undo() as undo:
        _, facts = start(machine, plan, undo, "alternatives")
    assert facts["InstanceType"] == "g6e.2xlarge"


def test_no_other_type_is_tried_and_nothing_is_left(machine: Machine, scarce: Callable[..., None]) -> None:
    scarce("g6e.xlarge")
    with pytest.raises(BakeError, match="no capacity for g6e.xlarge") as caught, Undo() as undo:  # noqa: RUF043
        start(machine, machine.plan, undo, "scarce")
    assert "bake approve" in str(caught.value.hint)
    names = [pair["KeyName"] for pair in machine.aws.ec2.describe_key_pairs()["KeyPairs"]]
    assert not [name for name in names if name.endswith("-scarce")]


def test_builder_and_boot_check_are_of_their_own_types(machine: Machine, scarce: Callable[..., None]) -> None:
    scarce("g6e.xlarge")
    plan = changed(machine.plan, "builder", instance_type="m7i.xlarge")
    plan = changed(plan, "worker", instance_types=("g6e.xlarge", "g6e.2xlarge"))
    with Undo() as undo:
        _, builder = start(machine, plan, undo, "cheap")
        _, booted = start(machine, plan, undo, "boot-check", plan.profile.worker_types)
    assert (builder["InstanceType"], booted["InstanceType"]) == ("m7i.xlarge", "g6e.2xlarge")


def test_without_capacity_for_the_workers_no_other_type_is_tried(
    machine: Machine, scarce: Callable[..., None]
) -> None:
    scarce("g6e.xlarge")
    plan = changed(machine.plan, "builder", instance_type="m7i.xlarge")
    plan = changed(plan, "worker", instance_type="g6e.xlarge")
    with pytest.raises(BakeError, match=r"no capacity for g6e\.xlarge") as caught, Undo() as undo:
        start(machine, plan, undo, "boot-check", plan.profile.worker_types)
    assert "list alternatives in worker.instance_types and agree to them" in str(caught.value.hint)


def test_the_boot_check_waits_for_capacity_since_the_image_is_made(
    machine: Machine, scarce: Callable[..., None]
) -> None:
    scarce("g6e.xlarge", times=3)
    plan = machine.plan
    spec = LaunchSpec("late", plan.launch.base.id, plan.profile.builder.types, patience=60)
    with Undo() as undo:
        instance = launch(spec, plan, machine.aws, machine.run, undo)
        found = machine.aws.ec2.describe_instances(InstanceIds=[instance.id])
    assert found["Reservations"][0]["Instances"][0]["InstanceType"] == "g6e.xlarge"
    scarce("g6e.xlarge")
    with (
        pytest.raises(TimedOut, match=r"capacity for g6e\.xlarge in .* not there after") as caught,
        Undo() as undo,
    ):
        launch(replace(spec, role="patient", patience=0.1), plan, machine.aws, machine.run, undo)
    assert "nothing else is tried unasked" in str(caught.value.hint)


def test_a_daemon_of_the_driver_that_fails_on_the_new_image_is_an_error(machine: Machine) -> None:
    """A builder without a GPU is excused for it; where the image boots there is one."""
    check_units(machine.session, machine.run.progress.note)
    machine.session.run(
        "systemd-run", "--quiet", "--wait", "--unit=nvidia-fabric", "false", sudo=True, check=False
    )
    try:
        with pytest.raises(BakeError, match=r"the driver does not start on the new image:\nnvidia-fabric"):
            check_units(machine.session, machine.run.progress.note)
    finally:
        machine.session.run("systemctl", "reset-failed", "nvidia-fabric", sudo=True)


def test_a_fabric_manager_without_an_nvswitch_is_a_note(machine: Machine) -> None:
    unit = "nvidia-fabricmanager"
    machine.session.run("systemd-run", "--quiet", "--wait", f"--unit={unit}", "false", sudo=True, check=False)
    notes: list[str] = []
    try:
        check_units(machine.session, notes.append)
    finally:
        machine.session.run("systemctl", "reset-failed", unit, sudo=True)
    assert len(notes) == 1 and "without NVSwitch" in notes[0]


@pytest.mark.parametrize("network", ["10.1.2.3/32", "2001:db8::7/128"])
def test_a_temporary_security_group_lets_ssh_in_from_one_place_and_goes(
    machine: Machine, network: str
) -> None:
    plan = changed(machine.plan, "builder", security_group="temporary", ssh_from=network)
    ec2 = machine.aws.ec2
    with Undo() as undo:
        _, facts = start(machine, plan, undo, f"group-{network.count(':')}")
        (group,) = facts["SecurityGroups"]
        found = ec2.describe_security_groups(GroupIds=[group["GroupId"]])["SecurityGroups"][0]
        (rule,) = found["IpPermissions"]
        assert (rule["FromPort"], rule["ToPort"], rule["IpProtocol"]) == (22, 22, "tcp")
        sources = [*rule["IpRanges"], *rule["Ipv6Ranges"]]
        assert [source.get("CidrIp") or source.get("CidrIpv6") for source in sources] == [network]
    left = ec2.describe_security_groups()["SecurityGroups"]
    assert group["GroupId"] not in [item["GroupId"] for item in left]


def test_the_disk_is_the_agreed_one_and_the_market_too(machine: Machine) -> None:
    plan = changed(changed(machine.plan, "root_volume", iops=4000, throughput=250), "builder", market="spot")
    with Undo() as undo:
        instance, facts = start(machine, plan, undo, "spot")
        assert facts["InstanceLifecycle"] == "spot"
        [request] = machine.aws.ec2.describe_spot_instance_requests(
            SpotInstanceRequestIds=[facts["SpotInstanceRequestId"]]
        )["SpotInstanceRequests"]
        # It outlives any bake, and ends: what somebody ended is replaced until then.
        assert 4 * plan.lease <= request["ValidUntil"] - facts["LaunchTime"] <= timedelta(days=2)
        images.stop(machine.aws, machine.run, instance)  # a spot builder has no behavior to change
        volume = machine.aws.ec2.describe_volumes(VolumeIds=[instance.root_volume])["Volumes"][0]
    agreed = (volume["Size"], volume["VolumeType"], volume["Iops"], volume["Throughput"])
    assert agreed == (80, "gp3", 4000, 250)


def test_an_image_is_shared_with_the_agreed_accounts_and_old_ones_go(machine: Machine) -> None:
    aws, account = machine.aws, "111122223333"
    plan = changed(machine.plan, "image", share_with=(account,), keep=2, name="kept-{run}")
    own = plan.profile.model_copy(update={"name": f"kept-{machine.run.id}"})  # others bake g6e-ubuntu, too
    plan = plans.changed(plan, own)
    with Undo() as undo:
        instance, _ = start(machine, plan, undo, "publish")
        images.stop(aws, machine.run, instance)
        made = []
        for number in range(3):
            numbered = changed(plan, "image", name=f"kept-{number}-{{run}}")
            image, _ = images.create_image(numbered, aws, machine.run, instance, undo)
            mark(aws, image, "good")
            made.append(image)
            share(plan.image, aws, machine.run, image)
        permissions = aws.ec2.describe_image_attribute(ImageId=made[-1].id, Attribute="launchPermission")
        assert permissions["LaunchPermissions"] == [{"UserId": account}]
        assert outdated(plan.image, aws, made[-1].id) == [made[0].id]
        retire(plan.image, aws, machine.run, made[-1])
        left = [image["ImageId"] for image in aws.ec2.describe_images(Owners=["self"])["Images"]]
        assert [image.id in left for image in made] == [False, True, True]
