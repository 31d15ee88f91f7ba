"""Pages of lists: MaxResults and NextToken."""

from __future__ import annotations

from typing import Any

import pytest

from tests.localcloud.recorded_cloud import BASE

from .conftest import Account, new, refusal

pytestmark = pytest.mark.integration


def pages(call: Any, key: str, most: int, **more: Any) -> list[list[Any]]:
    """The pages of a list."""
    answer = call(MaxResults=most, **more)
    found = [answer[key]]
    while token := answer.get("NextToken"):
        answer = call(MaxResults=most, NextToken=token, **more)
        found.append(answer[key])
    return found


# Operation -> the list's key, an entry's id, and the fewest that a page may have.
LISTS = {
    "describe_instance_types": ("InstanceTypes", "InstanceType", 60),
    "describe_instance_type_offerings": ("InstanceTypeOfferings", "InstanceType", 100),
    "describe_instances": ("Reservations", "ReservationId", 5),
    "describe_instance_status": ("InstanceStatuses", "InstanceId", 5),
    "describe_volumes": ("Volumes", "VolumeId", 5),
    "describe_network_interfaces": ("NetworkInterfaces", "NetworkInterfaceId", 5),
    "describe_spot_instance_requests": ("SpotInstanceRequests", "SpotInstanceRequestId", 5),
    "describe_tags": ("Tags", "ResourceId", 5),
    "describe_launch_templates": ("LaunchTemplates", "LaunchTemplateId", 1),
    "describe_security_groups": ("SecurityGroups", "GroupId", 5),
    "describe_subnets": ("Subnets", "SubnetId", 5),
    "describe_images": ("Images", "ImageId", 1),
    "describe_snapshots": ("Snapshots", "SnapshotId", 5),
}


@pytest.fixture
def many(account: Account) -> None:
    ec2 = account.client("ec2")
    market = {"MarketType": "spot"}
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "b"}]}]
    for _ in range(7):
        account.one(InstanceMarketOptions=market, TagSpecifications=tags)
        ec2.create_security_group(GroupName=new(), Description="d")
        ec2.create_launch_template(LaunchTemplateName=new(), LaunchTemplateData={"ImageId": BASE})


def test_every_list_is_told_page_by_page(many: None, account: Account) -> None:
    ec2 = account.client("ec2")
    for operation, (key, name, most) in LISTS.items():
        call = getattr(ec2, operation)
        told = ec2.get_paginator(operation).paginate()
        whole = [one[name] for page in told for one in page[key]]
        found = pages(call, key, most)
        assert [one[name] for page in found for one in page] == whole, operation
        assert all(len(page) == most for page in found[:-1]), operation
        assert len(found) == max(1, -(-len(whole) // most)), operation


def test_botocores_paginator_is_content(many: None, account: Account) -> None:
    paginator = account.client("ec2").get_paginator("describe_instances")
    found = [page["Reservations"] for page in paginator.paginate(PaginationConfig={"PageSize": 5})]
    assert len(found) >= 2
    assert all(len(page) <= 5 for page in found)


@pytest.mark.parametrize(
    ("operation", "most"),
    [
        ("describe_instances", 4),
        ("describe_volumes", 1001),
        ("describe_instance_types", 101),
        ("describe_launch_templates", 201),
        ("describe_tags", 0),
        ("describe_images", -1),
        ("describe_images", "many"),
    ],
)
def test_a_page_of_a_wrong_size_is_refused(served: Account, operation: str, most: Any) -> None:
    call = getattr(served.client("ec2"), operation)
    assert refusal(call, MaxResults=most) == ("InvalidParameterValue", 400)


def test_ids_and_pages_exclude_each_other(account: Account) -> None:
    ec2, identity = account.client("ec2"), account.one()
    for operation in ("describe_instances", "describe_instance_status"):
        code = refusal(getattr(ec2, operation), InstanceIds=[identity], MaxResults=5)
        assert code == ("InvalidParameterCombination", 400)


def test_a_token_is_good_for_the_list_that_gave_it(many: None, account: Account) -> None:
    ec2 = account.client("ec2")
    token = ec2.describe_volumes(MaxResults=5)["NextToken"]
    for call, more in (
        (ec2.describe_volumes, {"NextToken": "page-2"}),
        (ec2.describe_volumes, {"NextToken": token[:-4]}),
        (ec2.describe_instances, {"NextToken": token}),
        (ec2.describe_volumes, {"NextToken": token, "Filters": [{"Name": "size", "Values": ["8"]}]}),
    ):
        assert refusal(call, MaxResults=5, **more) == ("InvalidNextToken", 400)


def test_what_comes_and_goes_between_pages_moves_none_of_the_others(many: None, account: Account) -> None:
    ec2 = account.client("ec2")
    names = [one["LaunchTemplateName"] for one in ec2.describe_launch_templates()["LaunchTemplates"]]
    first = ec2.describe_launch_templates(MaxResults=3)
    ec2.delete_launch_template(LaunchTemplateName=first["LaunchTemplates"][0]["LaunchTemplateName"])
    second = ec2.describe_launch_templates(MaxResults=3, NextToken=first["NextToken"])
    assert [one["LaunchTemplateName"] for one in second["LaunchTemplates"]] == names[3:6]
