"""Network, queue, bucket, bus and the image's name: there, in the right place, and readable."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from bake.aws import Aws
from bake.errors import UsageError
from bake.planning.plan import Plan
from bake.planning.render import as_text
from bake.planning.sources import Sources
from bake.request import ask_and_plan
from bake.weights import flux

if TYPE_CHECKING:
    from tests.bake.conftest import PlanCloud

ACCOUNT = "123456789012"


@pytest.fixture
def ec2(plan_cloud: PlanCloud) -> Any:
    return plan_cloud.aws().ec2


def test_the_vpc_and_the_zone_are_those_of_the_subnet(plan_cloud: PlanCloud, ec2: Any) -> None:
    plan = plan_cloud.plan()
    subnet = ec2.describe_subnets(SubnetIds=[plan.launch.network.subnet])["Subnets"][0]
    assert (plan.launch.network.vpc, plan.launch.network.zone) == (subnet["VpcId"], "eu-north-1b")


def test_an_ipv6_network_needs_a_subnet_with_ipv6(plan_cloud: PlanCloud, ec2: Any) -> None:
    changes = {"security_group": "temporary", "ssh_from": "2001:db8::7/128"}
    with pytest.raises(UsageError) as caught:
        plan_cloud.plan(builder=changes)
    subnet = plan_cloud.variables["BAKE_SUBNET_ID"]
    assert caught.value.message.splitlines()[0] == (
        f"builder.ssh_from: 2001:db8::7/128 is an IPv6 network, and {subnet} has no IPv6 addresses to reach"
    )
    vpc = ec2.create_vpc(CidrBlock="10.8.0.0/16", AmazonProvidedIpv6CidrBlock=True)["Vpc"]
    block = ec2.describe_vpcs(VpcIds=[vpc["VpcId"]])["Vpcs"][0]["Ipv6CidrBlockAssociationSet"][0]
    made = ec2.create_subnet(
        VpcId=vpc["VpcId"],
        CidrBlock="10.8.1.0/24",
        Ipv6CidrBlock=block["Ipv6CidrBlock"].replace("/56", "/64"),
        AvailabilityZone="eu-north-1b",
    )
    own: Any = [{"Name": "vpc-id", "Values": [vpc["VpcId"]]}]
    table = ec2.describe_route_tables(Filters=own)["RouteTables"][0]["RouteTableId"]
    out = ec2.create_egress_only_internet_gateway(VpcId=vpc["VpcId"])["EgressOnlyInternetGateway"]
    gateway = out["EgressOnlyInternetGatewayId"]
    ec2.create_route(RouteTableId=table, DestinationIpv6CidrBlock="::/0", EgressOnlyInternetGatewayId=gateway)
    plan = plan_cloud.plan(builder={**changes, "subnet": made["Subnet"]["SubnetId"]})
    assert f"::/0 to {gateway}; no endpoints" in [one.answer for one in plan.preflight]
    facts = {fact.name: fact.value for fact in plan.facts}
    assert facts["security_group"] == "temporary, port 22 from 2001:db8::7/128"


def test_who_may_not_ask_is_told_what_was_not_checked(plan_cloud: PlanCloud) -> None:
    """IAM says no: the plan goes on, and says what it could not look at."""
    from botocore.exceptions import ClientError

    def deny(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "GetInstanceProfile")

    aws = plan_cloud.aws()
    aws.iam.meta.events.register("before-call.iam.GetInstanceProfile", deny)
    plan = ask_and_plan(plan_cloud.profile(), aws, Sources(sizes=flux.SIZES))
    assert "instance profile flux in this account (AWS answers AccessDenied)" in plan.unchecked
    assert "? instance profile flux in this account" in as_text(plan)


def test_a_service_that_is_not_reached_is_no_crash(plan_cloud: PlanCloud) -> None:
    from botocore.exceptions import EndpointConnectionError

    def unreachable(**_: Any) -> None:
        raise EndpointConnectionError(endpoint_url="https://iam.amazonaws.com")

    aws = plan_cloud.aws()
    aws.iam.meta.events.register("before-call.iam.GetInstanceProfile", unreachable)
    plan = ask_and_plan(plan_cloud.profile(), aws, Sources(sizes=flux.SIZES))
    assert "instance profile flux in this account (AWS answers EndpointConnectionError)" in plan.unchecked


# --- the worker's queue, bucket and bus --------------------------------------------------------


def wired(plan_cloud: PlanCloud, **worker: str) -> Plan:
    return plan_cloud.plan(worker=worker)


def test_queue_bucket_and_bus_are_looked_up_in_aws_region(plan_cloud: PlanCloud) -> None:
    aws = plan_cloud.aws()
    dead = aws.sqs.create_queue(QueueName="dead")["QueueUrl"]
    arn = aws.sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 3})
    queue = aws.sqs.create_queue(QueueName="jobs", Attributes={"RedrivePolicy": policy})["QueueUrl"]
    aws.s3.create_bucket(Bucket="pictures", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    aws.events.create_event_bus(Name="done")
    plan = wired(plan_cloud, queue=queue, bucket="pictures", bus="done")
    for text in (
        f"the queue {queue} is in eu-west-1",
        "the bucket pictures is in eu-west-1",
        "the event bus done is in eu-west-1",
    ):
        assert text in plan.checked
    assert not plan.warnings


def test_a_queue_without_dead_letters_is_warned_of(plan_cloud: PlanCloud) -> None:
    queue = plan_cloud.aws().sqs.create_queue(QueueName="endless")["QueueUrl"]
    plan = wired(plan_cloud, queue=queue)
    assert plan.warnings == (
        f"the queue {queue} has no dead-letter queue: a job that fails is tried again for days",
    )


@pytest.mark.parametrize(
    ("worker", "expected"),
    [
        pytest.param(
            {"queue": f"https://sqs.eu-west-1.amazonaws.com/{ACCOUNT}/none"},
            "worker.queue: there is no queue "
            f"https://sqs.eu-west-1.amazonaws.com/{ACCOUNT}/none in eu-west-1",
            id="queue",
        ),
        pytest.param(
            {"queue": f"https://sqs.eu-north-1.amazonaws.com/{ACCOUNT}/jobs"},
            "worker.queue: the queue is in eu-north-1, but AWS_REGION is eu-west-1",
            id="queue elsewhere",
        ),
        pytest.param({"bucket": "no-such"}, "worker.bucket: there is no bucket no-such", id="bucket"),
        pytest.param({"bus": "no-such"}, "worker.bus: there is no event bus no-such in eu-west-1", id="bus"),
        pytest.param(
            {"bus": f"arn:aws:events:eu-north-1:{ACCOUNT}:event-bus/done"},
            "worker.bus: the bus is in eu-north-1, but AWS_REGION is eu-west-1",
            id="bus elsewhere",
        ),
    ],
)
def test_what_is_not_there_is_a_problem(plan_cloud: PlanCloud, worker: dict[str, str], expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        wired(plan_cloud, **worker)
    assert caught.value.message == expected


def test_a_bucket_in_another_region_works_and_is_warned_of(plan_cloud: PlanCloud) -> None:
    far = Aws(region="eu-central-1", worker_region="eu-central-1", endpoint=plan_cloud.endpoint)
    far.s3.create_bucket(
        Bucket="far-pictures", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    plan = wired(plan_cloud, bucket="far-pictures")
    assert plan.warnings == (
        "the bucket far-pictures is in eu-central-1, the queue and the bus are in eu-west-1",
    )


# --- the image ---------------------------------------------------------------------------------


def test_a_name_that_is_taken(plan_cloud: PlanCloud, ec2: Any) -> None:
    name = {"name": "nightly-{profile}"}
    assert "no AMI is called nightly-g6e-ubuntu yet" in plan_cloud.plan(image=name).checked
    ami = ec2.register_image(Name="nightly-g6e-ubuntu", RootDeviceName="/dev/sda1")["ImageId"]
    with pytest.raises(UsageError, match=f"image.name: {ami} is called 'nightly-g6e-ubuntu' already"):
        plan_cloud.plan(image=name)
