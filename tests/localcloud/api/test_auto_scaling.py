"""Auto Scaling groups without instances: what they point at, their pages, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.localcloud.recorded_cloud import BASE, OTHER

from .conftest import Account, new, refusal

pytestmark = pytest.mark.integration

NONE: dict[str, Any] = {"MinSize": 0, "MaxSize": 4, "DesiredCapacity": 0}


@pytest.fixture
def scaling(served: Account) -> Any:
    return served.client("autoscaling")


def template(account: Account, image: str = BASE) -> str:
    data = {"ImageId": image, "InstanceType": "g6e.xlarge"}
    made = account.client("ec2").create_launch_template(LaunchTemplateName=new(), LaunchTemplateData=data)
    return str(made["LaunchTemplate"]["LaunchTemplateId"])


def group(account: Account, **asked: Any) -> str:
    name = new("group")
    where = {"VPCZoneIdentifier": account.subnet, **NONE, **asked}
    account.client("autoscaling").create_auto_scaling_group(AutoScalingGroupName=name, **where)
    return name


def described(scaling: Any, name: str) -> Any:
    [found] = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
    return found


def test_a_group_of_a_template_tells_it_and_its_version(served: Account, scaling: Any) -> None:
    identity = template(served)
    tags: Any = [{"Key": "team", "Value": "ours", "PropagateAtLaunch": True}]
    name = group(served, LaunchTemplate={"LaunchTemplateId": identity, "Version": "$Default"}, Tags=tags)
    found = described(scaling, name)
    assert (found["LaunchTemplate"]["LaunchTemplateId"], found["LaunchTemplate"]["Version"]) == (
        identity,
        "$Default",
    )
    assert (found["MinSize"], found["DesiredCapacity"], found["Instances"]) == (0, 0, [])
    assert found["Tags"][0]["Value"] == "ours"


def test_overrides_may_have_templates_of_their_own(served: Account, scaling: Any) -> None:
    first, second = template(served), template(served, OTHER)
    own = {"LaunchTemplateId": second, "Version": "1"}
    policy: Any = {
        "LaunchTemplate": {
            "LaunchTemplateSpecification": {"LaunchTemplateId": first, "Version": "$Latest"},
            "Overrides": [
                {"InstanceType": "g6e.xlarge"},
                {"InstanceType": "g6e.2xlarge", "LaunchTemplateSpecification": own},
            ],
        }
    }
    name = group(served, MixedInstancesPolicy=policy)
    told = described(scaling, name)["MixedInstancesPolicy"]["LaunchTemplate"]
    assert told["LaunchTemplateSpecification"]["LaunchTemplateId"] == first
    assert own.items() <= told["Overrides"][1]["LaunchTemplateSpecification"].items()
    scaling.update_auto_scaling_group(AutoScalingGroupName=name, MaxSize=7)
    found = described(scaling, name)
    assert (found["MaxSize"], found["MixedInstancesPolicy"]["LaunchTemplate"]) == (7, told)
    scaling.update_auto_scaling_group(
        AutoScalingGroupName=name, LaunchTemplate={"LaunchTemplateId": second, "Version": "1"}
    )
    found = described(scaling, name)
    assert found["LaunchTemplate"]["LaunchTemplateId"] == second
    assert "MixedInstancesPolicy" not in found
    policy["LaunchTemplate"]["Overrides"][1]["LaunchTemplateSpecification"] = {**own, "Version": "9"}
    with pytest.raises(scaling.exceptions.ClientError, match="version 9"):
        group(served, MixedInstancesPolicy=policy)


def test_a_launch_configuration_is_told_and_stays_while_it_is_used(served: Account, scaling: Any) -> None:
    name = new("configuration")
    asked = {"LaunchConfigurationName": name, "ImageId": BASE, "InstanceType": "g6e.xlarge"}
    scaling.create_launch_configuration(**asked)
    assert refusal(scaling.create_launch_configuration, **asked) == ("AlreadyExists", 400)
    used = group(served, LaunchConfigurationName=name)
    assert described(scaling, used)["LaunchConfigurationName"] == name
    told = scaling.describe_launch_configurations(LaunchConfigurationNames=[name])
    assert [one["ImageId"] for one in told["LaunchConfigurations"]] == [BASE]
    delete = scaling.delete_launch_configuration
    assert refusal(delete, LaunchConfigurationName=name) == ("ResourceInUse", 400)
    scaling.delete_auto_scaling_group(AutoScalingGroupName=used)
    delete(LaunchConfigurationName=name)
    assert refusal(delete, LaunchConfigurationName=name) == ("ValidationError", 400)


def test_groups_come_in_pages(served: Account, scaling: Any) -> None:
    named = {"LaunchTemplateId": template(served)}
    made = {group(served, LaunchTemplate=named) for _ in range(3)}
    pages = scaling.get_paginator("describe_auto_scaling_groups").paginate(PaginationConfig={"PageSize": 1})
    told = [one["AutoScalingGroupName"] for page in pages for one in page["AutoScalingGroups"]]
    assert made <= set(told)
    assert len(told) == len(set(told))
    ask = scaling.describe_auto_scaling_groups
    assert refusal(ask, NextToken="nonsense") == ("InvalidNextToken", 400)
    assert refusal(ask, MaxRecords=101) == ("ValidationError", 400)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({"DesiredCapacity": 1}, "UnsupportedOperation", id="launches"),
        pytest.param({"MinSize": 1, "DesiredCapacity": None}, "UnsupportedOperation", id="launches-least"),
        pytest.param({"MinSize": 5}, "ValidationError", id="bounds"),
        pytest.param({"DesiredCapacity": 9}, "ValidationError", id="desired"),
        pytest.param({"LaunchConfigurationName": "none"}, "ValidationError", id="two-sources"),
        pytest.param({"LaunchTemplate": None}, "ValidationError", id="no-source"),
        pytest.param(
            {"LaunchTemplate": {"LaunchTemplateId": "lt-0123456789abcdef0"}}, "ValidationError", id="template"
        ),
        pytest.param(
            {"LaunchTemplate": {"LaunchTemplateName": "none such"}}, "ValidationError", id="template-name"
        ),
        pytest.param({"LaunchTemplate": None, "LaunchConfigurationName": "none"}, "ValidationError", id="lc"),
        pytest.param({"VPCZoneIdentifier": None}, "ValidationError", id="zone"),
    ],
)
def test_a_group_that_is_refused(served: Account, scaling: Any, changes: Any, code: str) -> None:
    named = {"LaunchTemplate": {"LaunchTemplateId": template(served)}, "VPCZoneIdentifier": served.subnet}
    asked = {"AutoScalingGroupName": new("group"), **named, **NONE, **changes}
    told = {name: value for name, value in asked.items() if value is not None}
    assert refusal(scaling.create_auto_scaling_group, **told) == (code, 400)


def test_no_group_starts_to_launch(served: Account, scaling: Any) -> None:
    name = group(served, LaunchTemplate={"LaunchTemplateId": template(served)})
    asked = {"AutoScalingGroupName": name, "DesiredCapacity": 1}
    for call in (scaling.set_desired_capacity, scaling.update_auto_scaling_group):
        assert refusal(call, **asked) == ("UnsupportedOperation", 400)
    same = {"LaunchTemplate": {"LaunchTemplateId": template(served)}, "VPCZoneIdentifier": served.subnet}
    code = refusal(scaling.create_auto_scaling_group, AutoScalingGroupName=name, **NONE, **same)
    assert code == ("AlreadyExists", 400)
    scaling.delete_auto_scaling_group(AutoScalingGroupName=name)
    assert scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"] == []
    refused = refusal(scaling.delete_auto_scaling_group, AutoScalingGroupName=name)
    assert refused == ("ValidationError", 400)
