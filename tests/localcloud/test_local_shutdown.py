"""Instances that end themselves, and what a living instance keeps from being deleted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bake.ssh import ConnectionLost, connect

from .moto_account import new


@pytest.fixture(scope="module")
def machine(account: Any) -> Iterator[Any]:
    launched = account.launch()
    yield launched
    account.terminate(launched.id)


def behavior(account: Any, instance: str) -> str:
    name = "instanceInitiatedShutdownBehavior"
    answer = account.ec2.describe_instance_attribute(InstanceId=instance, Attribute=name)
    return str(answer["InstanceInitiatedShutdownBehavior"]["Value"])


def refused(ask: Any, **parameters: Any) -> str:
    with pytest.raises(ClientError) as error:
        ask(**parameters)
    return str(error.value.response["Error"]["Code"])


def power_off(launched: Any) -> None:
    with connect(launched.login) as session, suppress(ConnectionLost):
        session.run("poweroff", sudo=True, check=False)


@pytest.mark.root
def test_an_instance_ends_itself_as_its_behavior_says(account: Any) -> None:
    """It changes while the instance runs and while it is stopped."""
    launched = account.launch()
    modify = account.ec2.modify_instance_attribute
    assert behavior(account, launched.id) == "stop"
    account.reach(launched.id, "running")
    modify(InstanceId=launched.id, InstanceInitiatedShutdownBehavior={"Value": "terminate"})
    assert behavior(account, launched.id) == "terminate"
    modify(InstanceId=launched.id, Attribute="instanceInitiatedShutdownBehavior", Value="stop")
    power_off(launched)
    account.reach(launched.id, "stopped")
    modify(InstanceId=launched.id, InstanceInitiatedShutdownBehavior={"Value": "terminate"})
    assert behavior(account, launched.id) == "terminate"
    account.ec2.start_instances(InstanceIds=[launched.id])
    account.reach(launched.id, "running")
    power_off(launched)
    account.reach(launched.id, "terminated")


@pytest.mark.root
def test_another_behavior_is_refused(account: Any, machine: Any) -> None:
    wrong = {"InstanceInitiatedShutdownBehavior": "hibernate"}
    parameters = {**machine.parameters, "ClientToken": new(), **wrong}
    assert refused(account.ec2.run_instances, **parameters) == "InvalidParameterValue"
    modify = account.ec2.modify_instance_attribute
    value = {"Value": "hibernate"}
    code = refused(modify, InstanceId=machine.id, InstanceInitiatedShutdownBehavior=value)
    assert code == "InvalidParameterValue"
    assert behavior(account, machine.id) == "stop"


@pytest.mark.root
def test_an_unknown_attribute_leaves_the_groups(account: Any, machine: Any) -> None:
    assert refused(account.ec2.modify_instance_attribute, InstanceId=machine.id, SriovNetSupport={}) != ""
    [group] = account.ec2.describe_instances(InstanceIds=[machine.id])["Reservations"]
    groups = [one["GroupId"] for one in group["Instances"][0]["SecurityGroups"]]
    assert groups == machine.parameters["SecurityGroupIds"]


@pytest.mark.root
def test_a_group_in_use_stays(account: Any) -> None:
    subnet = account.cloud.environment["BAKE_SUBNET_ID"]
    [described] = account.ec2.describe_subnets(SubnetIds=[subnet])["Subnets"]
    group = account.ec2.create_security_group(
        GroupName=new("group"), Description="a test's", VpcId=described["VpcId"]
    )["GroupId"]
    launched = account.launch(SecurityGroupIds=[group])
    try:
        assert refused(account.ec2.delete_security_group, GroupId=group) == "DependencyViolation"
    finally:
        account.terminate(launched.id)
    account.delete_group(group)
    assert refused(account.ec2.describe_security_groups, GroupIds=[group]) == "InvalidGroup.NotFound"
