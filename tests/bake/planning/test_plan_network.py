"""Network, instance profile, queue, bucket and bus: there, in the right place, and belonging together."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from bake.account.images import name_of
from bake.aws import Aws
from bake.errors import UsageError
from bake.planning import image
from bake.planning.findings import Findings
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


def test_a_security_group_of_another_vpc(plan_cloud: PlanCloud, ec2: Any) -> None:
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    group = ec2.create_security_group(GroupName="other", Description="x", VpcId=vpc)["GroupId"]
    with pytest.raises(UsageError) as caught:
        plan_cloud.plan(builder={"security_group": group})
    own = plan_cloud.plan().launch.network.vpc
    assert caught.value.message == (
        f"builder.security_group: {group} is in {vpc}, but the subnet is in {own}"
    )


def test_a_temporary_security_group_needs_no_look_up(plan_cloud: PlanCloud) -> None:
    plan = plan_cloud.plan(builder={"security_group": "temporary", "ssh_from": "203.0.113.7/32"})
    facts = {fact.name: fact.value for fact in plan.facts}
    assert facts["security_group"] == "temporary, port 22 from 203.0.113.7/32"
    assert "a security group" in as_text(plan)


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
    plan = plan_cloud.plan(builder={**changes, "subnet": made["Subnet"]["SubnetId"]})
    facts = {fact.name: fact.value for fact in plan.facts}
    assert facts["security_group"] == "temporary, port 22 from 2001:db8::7/128"


def test_a_type_that_the_subnets_zone_does_not_offer(plan_cloud: PlanCloud) -> None:
    subnet = plan_cloud.network("eu-north-1a")
    changes = {"subnet": subnet["BAKE_SUBNET_ID"], "security_group": subnet["BAKE_SECURITY_GROUP_ID"]}
    with pytest.raises(UsageError) as caught:
        plan_cloud.plan("g5-ubuntu", builder=changes)
    assert caught.value.message.splitlines() == [
        f"builder.instance_type: g5.xlarge is not offered in eu-north-1a, the zone of {changes['subnet']}",
        "    it is offered in eu-north-1b, eu-north-1c",
    ]


def test_a_market_that_the_type_is_not_sold_on(plan_cloud: PlanCloud) -> None:
    spot = plan_cloud.plan(builder={"market": "spot"})
    assert "g6e.xlarge in eu-north-1, spot" in as_text(spot)
    # No spot for high-memory types.
    changes = {"instance_type": "u-6tb1.112xlarge", "market": "spot"}
    with pytest.raises(UsageError, match=r"builder\.market: u-6tb1\.112xlarge can't be had as spot"):
        plan_cloud.plan(builder=changes, base={"accelerator": "cpu"})


def test_an_instance_profile_without_a_role(plan_cloud: PlanCloud) -> None:
    plan_cloud.aws().iam.create_instance_profile(InstanceProfileName="empty")
    with pytest.raises(UsageError, match=r"builder\.instance_profile: empty has no role"):
        plan_cloud.plan(builder={"instance_profile": "empty"})


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


@pytest.mark.parametrize(
    ("profile", "name", "expected"),
    [
        ("g6e-ubuntu", "flux:{run}", "EC2 takes no ':' in it"),
        ("g6e-ubuntu", "flux\t{run}", r"EC2 takes no '\t' in it"),
        ("g6e-ubuntu", "flüx {run}", r"EC2 takes no '\xfc' in it"),
        ("a+b", "flux-{profile}", "the AMI would be called 'flux-a+b', and EC2 takes no '+' in it"),
        ("образ", "{profile}", "EC2 takes no"),
        ("g", "{profile}", "the AMI would be called 'g', of 1 characters, and EC2 takes 3 to 128"),
        ("x" * 60, "{profile}-{profile}-{run}", "of 144 characters, and EC2 takes 3 to 128"),
        ("g6e-ubuntu", "{profile.__class__}", "{profile.__class__} can't be filled in"),
        ("g6e-ubuntu", "{version}-{run}", "{version} can't be filled in; there are {profile} and {run}"),
        ("g6e-ubuntu", "flux-{run", "{run can't be filled in"),
        ("g6e-ubuntu", "flux-run}", "} can't be filled in"),
        ("g6e-ubuntu", "flux-{}-{0}", "{} {0} can't be filled in"),
        ("g6e-ubuntu", "{{profile}}", "{ } can't be filled in"),
    ],
)
def test_a_name_that_ec2_would_refuse(plan_cloud: PlanCloud, profile: str, name: str, expected: str) -> None:
    found = plan_cloud.profile(image={"name": name}).model_copy(update={"name": profile})
    findings = Findings()
    image.check_name(found, None, findings)
    (problem,) = findings.problems
    assert problem.startswith("image.name: ")
    assert expected in problem


@pytest.mark.parametrize("name", ["{profile}-{run}", "a (b) [c] d.e/f-g'h@i_j", "abc", "x" * 128])
def test_a_name_that_ec2_takes(plan_cloud: PlanCloud, name: str) -> None:
    findings = Findings()
    image.check_name(plan_cloud.profile(image={"name": name}), None, findings)
    assert not findings.problems


def test_a_profiles_name_is_never_filled_in_itself(plan_cloud: PlanCloud) -> None:
    found = plan_cloud.profile(image={"name": "{profile}-{run}"}).model_copy(update={"name": "{run}"})
    assert name_of(found.name, found.image.name, "7") == "{run}-7"


def test_the_user_data_is_measured(plan_cloud: PlanCloud) -> None:
    findings = Findings()
    image.check_user_data(plan_cloud.profile(), {}, findings)
    assert not findings.problems
    image.check_user_data(plan_cloud.profile(), {"LONG": "x" * 16_384}, findings)
    assert len(findings.problems) == 1
    assert "EC2 takes 16,384" in findings.problems[0]
