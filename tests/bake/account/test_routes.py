"""The way out of a subnet, and who may come in on port 22."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from bake.account.network import ask_group
from bake.account.routes import Route, Routes, ask_routes
from bake.errors import UsageError

if TYPE_CHECKING:
    from tests.bake.conftest import PlanCloud

TEMPORARY = {"security_group": "temporary", "ssh_from": "192.0.2.7/32"}


@pytest.fixture
def vpc(plan_cloud: PlanCloud) -> Iterator[SimpleNamespace]:
    """A VPC with a subnet and no route out of it."""
    ec2 = plan_cloud.aws().ec2
    made = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    own: Any = [{"Name": "vpc-id", "Values": [made]}]
    table = ec2.describe_route_tables(Filters=own)["RouteTables"][0]["RouteTableId"]
    subnet = ec2.create_subnet(VpcId=made, CidrBlock="10.9.1.0/24", AvailabilityZone="eu-north-1b")
    found = SimpleNamespace(ec2=ec2, id=made, table=table, subnet=subnet["Subnet"]["SubnetId"])
    yield found


def planned(cloud: PlanCloud, vpc: SimpleNamespace) -> Any:
    return cloud.plan(builder={**TEMPORARY, "subnet": vpc.subnet})


def test_a_subnet_without_a_route_is_refused_with_the_choices(
    plan_cloud: PlanCloud, vpc: SimpleNamespace
) -> None:
    with pytest.raises(UsageError) as caught:
        planned(plan_cloud, vpc)
    first, needs, *choices = caught.value.message.splitlines()
    assert first == f"builder.subnet: {vpc.subnet} has no route to the internet"
    assert "pypi.org" in needs
    assert "huggingface.co" in needs
    text = "\n".join(choices)
    for choice in ("internet gateway", "NAT gateway", "weights.mirror", "https://docs.aws.amazon.com/vpc/"):
        assert choice in text


def test_an_internet_gateway_takes_public_addresses_alone(
    plan_cloud: PlanCloud, vpc: SimpleNamespace
) -> None:
    gateway = vpc.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    vpc.ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc.id)
    vpc.ec2.create_route(RouteTableId=vpc.table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    with pytest.raises(
        UsageError, match=f"leads to the internet by {gateway}, which takes packets of public"
    ):
        planned(plan_cloud, vpc)
    vpc.ec2.modify_subnet_attribute(SubnetId=vpc.subnet, MapPublicIpOnLaunch={"Value": True})
    told = {one.question: one.answer for one in planned(plan_cloud, vpc).preflight}
    answer = f"0.0.0.0/0 to {gateway}, with a public address; no endpoints"
    assert told["the way out of the subnet"] == answer


def test_a_nat_gateway_needs_no_public_address(plan_cloud: PlanCloud, vpc: SimpleNamespace) -> None:
    address = vpc.ec2.allocate_address(Domain="vpc")["AllocationId"]
    nat = vpc.ec2.create_nat_gateway(SubnetId=vpc.subnet, AllocationId=address)["NatGateway"]["NatGatewayId"]
    own = vpc.ec2.create_route_table(VpcId=vpc.id)["RouteTable"]["RouteTableId"]
    vpc.ec2.associate_route_table(RouteTableId=own, SubnetId=vpc.subnet)
    vpc.ec2.create_route(RouteTableId=own, DestinationCidrBlock="0.0.0.0/0", NatGatewayId=nat)
    region = plan_cloud.aws().region
    vpc.ec2.create_vpc_endpoint(
        VpcId=vpc.id, ServiceName=f"com.amazonaws.{region}.s3", RouteTableIds=[own], VpcEndpointType="Gateway"
    )
    vpc.ec2.create_vpc_endpoint(
        VpcId=vpc.id,
        ServiceName=f"com.amazonaws.{region}.dynamodb",
        RouteTableIds=[vpc.table],  # another table's
        VpcEndpointType="Gateway",
    )
    found = ask_routes(vpc.subnet, vpc.id, plan_cloud.aws())
    assert isinstance(found, Routes)
    assert found.ipv4 == Route(nat)
    assert found.endpoints == ("s3",)
    assert f"0.0.0.0/0 to {nat}; endpoints of s3" in [
        one.answer for one in planned(plan_cloud, vpc).preflight
    ]


@pytest.mark.parametrize("call", ["DescribeRouteTables", "DescribeVpcEndpoints"])
def test_who_may_not_ask_for_routes_may_plan(plan_cloud: PlanCloud, call: str) -> None:
    plan_cloud.faults.plant("ec2", call, "refuse", code="UnauthorizedOperation", times=None)
    plan = plan_cloud.plan()
    subnet = plan_cloud.variables["BAKE_SUBNET_ID"]
    noted = f"the routes of {subnet} (AWS answers UnauthorizedOperation)" in plan.unchecked
    assert noted == (call == "DescribeRouteTables")


TEN, SIX = {"IpRanges": [{"CidrIp": "10.0.0.0/8"}]}, {"Ipv6Ranges": [{"CidrIpv6": "2001:db8::/64"}]}


@pytest.mark.parametrize(
    ("rules", "admits"),
    [
        ([], False),
        ([{"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, **TEN}], False),
        ([{"IpProtocol": "udp", "FromPort": 0, "ToPort": 65535, **TEN}], False),
        ([{"IpProtocol": "tcp", "FromPort": 20, "ToPort": 30, **TEN}], True),
        ([{"IpProtocol": "-1", **TEN}], True),
        ([{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, **SIX}], True),
    ],
)
def test_a_group_that_admits_ssh_from_somewhere(plan_cloud: PlanCloud, rules: Any, admits: bool) -> None:
    ec2 = plan_cloud.aws().ec2
    [subnet] = ec2.describe_subnets(SubnetIds=[plan_cloud.variables["BAKE_SUBNET_ID"]])["Subnets"]
    name = f"ssh-{datetime.now(UTC).timestamp()}"
    group = ec2.create_security_group(GroupName=name, Description="rules", VpcId=subnet["VpcId"])["GroupId"]
    if rules:
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=rules)
    found = ask_group(plan_cloud.profile(builder={"security_group": group}), plan_cloud.aws())
    assert found is not None
    assert found.ssh is admits
    warnings = plan_cloud.plan(builder={"security_group": group}).warnings
    assert (
        any(text.startswith(f"builder.security_group: {group} lets nobody in") for text in warnings) != admits
    )
    ec2.delete_security_group(GroupId=group)
