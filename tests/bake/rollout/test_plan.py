"""What is asked of Auto Scaling for a channel and a group, and what stands in the way."""

from __future__ import annotations

from typing import Any

import pytest

from bake.errors import BakeError, UsageError
from bake.rollout import refreshes

from .fleet import SPREAD, TYPES, Fleet

pytestmark = pytest.mark.integration


def refused(fleet: Fleet, **preferences: Any) -> str:
    """What stands in the way; nothing was started."""
    with pytest.raises(UsageError) as error:
        fleet.plan(**preferences)
    if any(
        fleet.scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[fleet.name])["AutoScalingGroups"]
    ):
        assert fleet.refreshes() == []
    return f"{error.value.message}\n{error.value.hint}"


def test_a_mixed_group_gets_the_version_by_its_number_and_keeps_all_else(fleet: Fleet) -> None:
    weighed = [{"InstanceType": one, "WeightedCapacity": str(n)} for n, one in enumerate(TYPES, 1)]
    image = fleet.group(**fleet.mixed("1", weighed)).served()
    found = fleet.plan()
    assert found.request == {
        "AutoScalingGroupName": fleet.name,
        "Strategy": "Rolling",
        "DesiredConfiguration": {
            "MixedInstancesPolicy": {
                "LaunchTemplate": {
                    "LaunchTemplateSpecification": fleet.spec("2"),
                    "Overrides": weighed,
                },
                "InstancesDistribution": SPREAD,
            }
        },
        "Preferences": {
            "MinHealthyPercentage": 100,
            "MaxHealthyPercentage": 110,
            "AutoRollback": True,
            "SkipMatching": True,
            "ScaleInProtectedInstances": "Ignore",
            "StandbyInstances": "Ignore",
        },
    }
    assert (found.before, found.after) == (
        f"version 1 with {fleet.first}",
        f"version 2 with {image}",
    )
    assert not found.is_there
    assert fleet.refreshes() == []


def test_a_group_of_a_plain_template_gets_the_version(fleet: Fleet) -> None:
    fleet.group(LaunchTemplate=fleet.spec()).served()
    assert fleet.plan().request["DesiredConfiguration"] == {"LaunchTemplate": fleet.spec("2")}


def test_overrides_get_the_ami_and_the_version_that_they_name_themselves(fleet: Fleet) -> None:
    named = [
        {"InstanceType": TYPES[0], "ImageId": fleet.first},
        {"InstanceType": TYPES[1], "LaunchTemplateSpecification": fleet.spec()},
    ]
    image = fleet.group(**fleet.mixed("1", named)).served()
    mixed = fleet.plan().request["DesiredConfiguration"]["MixedInstancesPolicy"]["LaunchTemplate"]
    assert mixed["Overrides"] == [
        {"InstanceType": TYPES[0], "ImageId": image},
        {"InstanceType": TYPES[1], "LaunchTemplateSpecification": fleet.spec("2")},
    ]


def test_what_is_planned_is_what_aws_starts_and_then_it_is_there(fleet: Fleet) -> None:
    image = fleet.group(**fleet.with_images(fleet.first)).served()
    refreshes.start(fleet.aws, fleet.plan(bake_time=0).request)
    fleet.reach("Successful")
    mixed = fleet.told()["MixedInstancesPolicy"]["LaunchTemplate"]
    assert mixed["LaunchTemplateSpecification"]["Version"] == "2"
    assert [one["ImageId"] for one in mixed["Overrides"]] == [image, image]
    again = fleet.plan()
    assert again.is_there
    assert again.before == again.after == f"version 2 with {image}"


def test_a_group_that_names_a_default_version_is_not_rolled_back(fleet: Fleet) -> None:
    fleet.group(**fleet.mixed("$Latest"))
    fleet.served()
    said = refused(fleet)
    assert "the version $Latest of its template, to which AWS does not roll back" in said
    assert "--no-rollback" in said
    found = fleet.plan(rollback=False)
    assert found.request["Preferences"]["AutoRollback"] is False
    assert not found.is_there
    refreshes.start(fleet.aws, found.request)
    fleet.reach("Successful")
    assert fleet.plan().is_there


def test_nor_one_whose_template_takes_its_ami_from_a_parameter(fleet: Fleet) -> None:
    number = fleet.version(ImageId=f"resolve:ssm:{fleet.channel.parameter}")
    fleet.group(**fleet.mixed(str(number)))
    fleet.served()
    assert f"takes its AMI from resolve:ssm:{fleet.channel.parameter}" in refused(fleet)
    assert not fleet.plan(rollback=False).is_there


def test_a_group_that_is_not_there_or_goes_by_something_else(fleet: Fleet) -> None:
    fleet.served()
    assert f"there is no Auto Scaling group {fleet.name} in eu-north-1" in refused(fleet)
    fleet.scaling.create_launch_configuration(
        LaunchConfigurationName=fleet.name, ImageId=fleet.first, InstanceType="g6e.xlarge"
    )
    fleet.group(LaunchConfigurationName=fleet.name)
    assert f"it goes by the launch configuration {fleet.name}" in refused(fleet)
    other = fleet.new_template(fleet.first)
    update = fleet.scaling.update_auto_scaling_group
    update(AutoScalingGroupName=fleet.name, LaunchTemplate=fleet.spec(template=other))
    assert f"it launches by {other}, and the channel stable by {fleet.template}" in refused(fleet)
    own = [{"InstanceType": TYPES[0], "LaunchTemplateSpecification": fleet.spec(template=other)}]
    update(AutoScalingGroupName=fleet.name, **fleet.mixed("1", own))
    assert f"its override for {TYPES[0]} launches by {other}, a template of its own" in refused(fleet)


def test_a_channel_that_serves_nothing_to_launch(fleet: Fleet) -> None:
    from dataclasses import replace

    fleet.group()
    assert "the channel stable serves nothing yet in eu-north-1" in refused(fleet)
    image = fleet.served()
    channel = fleet.channel
    fleet.channel = replace(channel, template=None)
    assert "has no launch template" in refused(fleet)
    fleet.channel = replace(channel, template="lt-0123456789abcdef0")
    assert "there is no launch template lt-0123456789abcdef0" in refused(fleet)
    fleet.channel = channel
    by_hand = fleet.version(default=True, ImageId=fleet.first)
    said = refused(fleet)
    assert f"the default version {by_hand} of {fleet.template} launches {fleet.first}" in said
    assert f"bake promote {image} --profile {channel.profile} --to stable" in said
    fleet.version(default=True, ImageId=f"resolve:ssm:{channel.parameter}")
    assert "a refresh is rolled back to nothing but an AMI's id" in refused(fleet)


def test_an_ami_that_may_not_be_served_any_more(fleet: Fleet) -> None:
    image = fleet.group().served()
    tags = [{"Key": "bake:state", "Value": "revoked"}, {"Key": "bake:because", "Value": "INC-7"}]
    fleet.account.call("create_tags", Resources=[image], Tags=tags)
    assert f"{image}, which stable serves in eu-north-1, is not rolled out: it is revoked: INC-7" in refused(
        fleet
    )
    image = fleet.served()
    fleet.account.call("disable_image", ImageId=image)
    assert "is not rolled out: EC2 says that it is disabled" in refused(fleet)
    fleet.account.call("enable_image", ImageId=image)
    fleet.account.call("deregister_image", ImageId=image)
    said = refused(fleet)
    assert "is not rolled out: it does not exist" in said
    assert f"bake rollback --profile {fleet.channel.profile} --channel stable" in said


def test_types_that_the_ami_does_not_run_on(fleet: Fleet) -> None:
    fleet.group(
        **fleet.mixed("1", [{"InstanceType": one} for one in ("g6e.xlarge", "inf2.xlarge", "g5g.xlarge")])
    )
    image = fleet.served()
    said = refused(fleet)
    assert f"inf2.xlarge has neuron, and {image} was baked for cuda" in said
    assert f"g5g.xlarge is arm64, and {image} x86_64" in said
    assert "g6e.xlarge" not in said
    fleet.account.call(
        "replace_image_instance_type_specification",
        ImageId=image,
        InstanceTypeSpecification={"SupportedInstanceTypes": ["inf2.*"]},
    )
    assert f"{image} is not for g6e.xlarge: the AMI's own instance types say so" in refused(fleet)


def test_suspended_processes_that_a_refresh_needs(fleet: Fleet) -> None:
    fleet.group().served()
    suspend = fleet.scaling.suspend_processes
    suspend(AutoScalingGroupName=fleet.name, ScalingProcesses=["AlarmNotification"])
    fleet.plan()
    suspend(AutoScalingGroupName=fleet.name, ScalingProcesses=["Terminate", "Launch"])
    assert "its processes Launch, Terminate are suspended" in refused(fleet)


def test_all_that_stands_in_the_way_is_told_at_once(fleet: Fleet) -> None:
    fleet.group(**fleet.mixed("$Default", [{"InstanceType": "inf2.xlarge"}])).served()
    fleet.scaling.suspend_processes(AutoScalingGroupName=fleet.name, ScalingProcesses=["InstanceRefresh"])
    said = refused(fleet)
    for one in ("$Default", "inf2.xlarge has neuron", "its processes InstanceRefresh are suspended"):
        assert one in said


def test_another_refresh_is_named_with_what_follows_and_ends_it(fleet: Fleet) -> None:
    fleet.group().served()
    started = refreshes.start(fleet.aws, fleet.plan(bake_time=3600).request)
    fleet.reach("Baking")
    with pytest.raises(BakeError) as error:
        fleet.plan()
    assert error.value.exit_code == 5
    assert f"a refresh of {fleet.name} goes on, {started.id}: Baking" in error.value.message
    base = f"bake rollout --profile {fleet.channel.profile} --asg {fleet.name}"
    for what in ("--status --wait", "--cancel", "--roll-back"):
        assert f"{base} {what}" in str(error.value.hint)
    fleet.scaling.cancel_instance_refresh(AutoScalingGroupName=fleet.name)
    fleet.reach("Cancelled")
    assert not fleet.plan().is_there


def test_a_group_without_instances_is_told_of(fleet: Fleet) -> None:
    fleet.group().served()
    found = fleet.plan()
    assert found.instances == "0, to be replaced: 0"
    assert "it has no instances: nothing is replaced" in found.notes[0]
