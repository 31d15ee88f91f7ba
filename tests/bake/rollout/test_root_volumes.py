"""Root volumes in place of instances: what AWS asks for, and what is refused before it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from bake.errors import UsageError
from bake.publish.channels import Channel
from bake.publish.launch_template import Version
from bake.rollout import refreshes, root_volumes
from bake.rollout.desired import stale
from bake.rollout.groups import Group
from bake.rollout.preferences import ROOT_VOLUMES
from bake.rollout.target import Target

from .fleet import TYPES, Fleet

OLD, NEW, TEMPLATE = "ami-0123456789abcdef0", "ami-0123456789abcdef1", "lt-0123456789abcdef0"


def refused(fleet: Fleet) -> str:
    with pytest.raises(UsageError) as error:
        fleet.plan(ROOT_VOLUMES)
    return error.value.message


@pytest.mark.integration
def test_the_overrides_get_the_ami_and_the_version_stays(fleet: Fleet) -> None:
    image = fleet.group(**fleet.with_images(fleet.first)).served()
    found = fleet.plan(ROOT_VOLUMES)
    mixed = found.request["DesiredConfiguration"]["MixedInstancesPolicy"]["LaunchTemplate"]
    assert mixed == {
        "LaunchTemplateSpecification": fleet.spec("1"),
        "Overrides": [{"InstanceType": one, "ImageId": image} for one in TYPES],
    }
    assert found.request["Strategy"] == "ReplaceRootVolume"
    assert found.request["Preferences"]["MinHealthyPercentage"] == 90
    assert "MaxHealthyPercentage" not in found.request["Preferences"]
    refreshes.start(fleet.aws, found.request)
    fleet.reach("Successful")
    assert fleet.plan(ROOT_VOLUMES).is_there
    assert fleet.plan().is_there  # the same AMI, and the same settings: no instance is replaced for a number


@pytest.mark.integration
def test_groups_whose_overrides_name_no_ami(fleet: Fleet) -> None:
    fleet.group(LaunchTemplate=fleet.spec()).served()
    assert "it has no mixed instances policy" in refused(fleet)
    some = [{"InstanceType": TYPES[0], "ImageId": fleet.first}, {"InstanceType": TYPES[1]}]
    update = fleet.scaling.update_auto_scaling_group
    update(AutoScalingGroupName=fleet.name, **fleet.mixed("1", some))
    assert f"its overrides have no ImageId ({TYPES[1]})" in refused(fleet)
    update(AutoScalingGroupName=fleet.name, **fleet.mixed("1", []))
    assert "its overrides have no ImageId (there are none)" in refused(fleet)


@pytest.mark.integration
def test_amis_that_can_not_take_each_others_place(fleet: Fleet) -> None:
    double = fleet.image(volumes=2)
    fleet.group(**fleet.with_images(double)).served()
    assert f"{double}, which it launches now, has 2 volumes" in refused(fleet)
    image = fleet.serve(fleet.image(volumes=2))
    assert f"{image} has 2 volumes, and AWS replaces root volumes by AMIs with one" in refused(fleet)
    fleet.account.call("deregister_image", ImageId=double)
    fleet.served()
    assert f"{double}, which it launches now, does not exist any more" in refused(fleet)


@pytest.mark.integration
def test_settings_that_kept_instances_would_not_get(fleet: Fleet) -> None:
    number = fleet.version(default=True, UserData="YQ==")
    fleet.group(**fleet.with_images(fleet.first)).served()
    said = refused(fleet)
    assert f"versions 1 and {number + 1} of {fleet.template} differ in UserData" in said
    assert "leave out --replace-root-volume" in said
    fleet.plan()


@pytest.mark.integration
def test_a_group_that_names_no_number(fleet: Fleet) -> None:
    fleet.group(**fleet.with_images(fleet.first, "$Default")).served()
    with pytest.raises(UsageError, match="roll out once without --replace-root-volume"):
        fleet.plan(ROOT_VOLUMES, rollback=False)


def facts(**changed: Any) -> dict[str, Any]:
    """An AMI as DescribeImages tells it."""
    root = {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": "snap-1"}}
    common = {"Architecture": "x86_64", "VirtualizationType": "hvm", "UsageOperation": "RunInstances"}
    return {
        "BlockDeviceMappings": [root, {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"}],
        **common,
    } | changed


def target(**changed: Any) -> Target:
    """Version 2 of a template, which differs from version 1 in the AMI alone."""
    channel = Channel("flux", "stable", "/bake/flux/stable", TEMPLATE)
    both = {
        number: Version(
            TEMPLATE, number, image, number == 2, {"ImageId": image, "InstanceType": "g6e.xlarge"}
        )
        for number, image in ((1, OLD), (2, NEW))
    }
    return Target(channel, NEW, both[2], facts(**changed), both)


def group(*instances: Mapping[str, Any], version: str = "1") -> Group:
    named = {"LaunchTemplateId": TEMPLATE, "Version": version}
    overrides = [{"InstanceType": "g6e.xlarge", "ImageId": OLD}]
    mixed = {"LaunchTemplateSpecification": named, "Overrides": overrides}
    return Group("workers", {"MixedInstancesPolicy": {"LaunchTemplate": mixed}, "Instances": list(instances)})


def instance(identity: str, version: str = "1", image: str = OLD) -> dict[str, Any]:
    return {
        "InstanceId": identity,
        "LaunchTemplate": {"LaunchTemplateId": TEMPLATE, "LaunchTemplateName": "flux", "Version": version},
        "ImageId": image,
    }


def test_instances_of_another_version_than_the_group_launches_are_named() -> None:
    assert list(root_volumes.problems(group(instance("i-1"), instance("i-2")), target())) == []
    [said] = root_volumes.problems(group(instance("i-1"), instance("i-2", "2")), target())
    assert said.startswith("i-2 was not launched by version 1")


def test_instances_that_run_the_ami_are_up_to_date_whatever_their_version() -> None:
    found = group(instance("i-1"), instance("i-2", "2", NEW), instance("i-3", "1", NEW), instance("i-4", "9"))
    assert [one["InstanceId"] for one in stale(found, target())] == ["i-1", "i-4"]
    untold = {**instance("i-5", "2"), "ImageId": None}
    assert list(stale(group(untold), target())) == []


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        pytest.param({"Architecture": "arm64"}, "architecture: x86_64 and arm64", id="architecture"),
        pytest.param({"VirtualizationType": "paravirtual"}, "virtualization type", id="virtualization"),
        pytest.param({"UsageOperation": "RunInstances:0010"}, "billing", id="billing"),
        pytest.param({"ProductCodes": [{"ProductCodeId": "x"}]}, "different product codes", id="product"),
    ],
)
def test_amis_that_ec2_does_not_exchange(changed: Any, says: str) -> None:
    assert list(root_volumes.of_images(facts(), OLD, target())) == []
    [said] = root_volumes.of_images(facts(), OLD, target(**changed))
    assert says in said
