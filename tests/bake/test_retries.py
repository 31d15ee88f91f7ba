"""Which errors from AWS are retried, for how long, and which are final."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from bake.errors import Interrupted, TimedOut
from bake.instance import KeyPair
from bake.localcloud.api.faults.faults import AwsFault
from bake.retries import FRESH, Fresh, error_code

if TYPE_CHECKING:
    from bake.aws import Aws
    from tests.bake.conftest import PlanCloud

PATIENCE = 60.0


@pytest.fixture
def aws(plan_cloud: PlanCloud) -> Aws:
    return plan_cloud.aws().patiently(seconds=PATIENCE)


def plant(cloud: PlanCloud, action: str, kind: str, **fields: Any) -> None:
    cloud.faults.add(AwsFault(service="*", action=action, kind=kind, **fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        pytest.param("throttle", {}, id="RequestLimitExceeded"),
        pytest.param("throttle", {"code": "Throttling", "status": 400}, id="Throttling-400"),
        pytest.param("error", {}, id="InternalError"),
        pytest.param("error", {"code": "Unavailable", "status": 503}, id="Unavailable"),
        pytest.param("error", {"code": "SomethingNew", "status": 502}, id="any-5xx"),
        pytest.param("lost", {}, id="connection-closed"),
        pytest.param("timeout", {"seconds": 0}, id="dropped"),
    ],
)
@pytest.mark.parametrize("service", ["ec2", "sqs", "s3", "events"])
def test_what_passes_is_outlasted(
    plan_cloud: PlanCloud, aws: Aws, service: str, kind: str, fields: dict[str, Any]
) -> None:
    action = {
        "ec2": "DescribeImages", "sqs": "ListQueues", "s3": "ListBuckets", "events": "ListEventBuses"
    }[service]  # fmt: skip
    plant(plan_cloud, action, kind, times=2, **fields)
    ask = {
        "ec2": lambda: aws.ec2.describe_images(Owners=["self"]),
        "sqs": lambda: aws.sqs.list_queues(),
        "s3": lambda: aws.s3.list_buckets(),
        "events": lambda: aws.events.list_event_buses(),
    }[service]
    assert ask()["ResponseMetadata"]["RetryAttempts"] == 2  # type: ignore[index]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        pytest.param("refuse", {"code": "UnauthorizedOperation"}, id="refused"),
        pytest.param("expired", {}, id="expired"),
        pytest.param("capacity", {}, id="no-capacity"),
        pytest.param("refuse", {"code": "VcpuLimitExceeded"}, id="quota"),
        pytest.param("refuse", {"code": "InvalidAMIID.NotFound"}, id="an-old-id"),
    ],
)
def test_what_does_not_pass_is_taken_at_once(
    plan_cloud: PlanCloud, aws: Aws, kind: str, fields: dict[str, Any]
) -> None:
    plant(plan_cloud, "DescribeImages", kind, times=None, **fields)
    with pytest.raises(Exception, match="DescribeImages"):
        aws.ec2.describe_images(ImageIds=["ami-0123456789abcdef0"])
    assert [planted.struck for planted in plan_cloud.faults.listed()] == [1]


def test_patience_ends(plan_cloud: PlanCloud) -> None:
    plant(plan_cloud, "DescribeImages", "throttle", times=None)
    started = time.monotonic()
    with pytest.raises(Exception, match="RequestLimitExceeded"):
        plan_cloud.aws().patiently(seconds=1.0).ec2.describe_images(Owners=["self"])
    assert time.monotonic() - started < PATIENCE


def test_a_wait_outlasts_trouble_until_its_own_deadline(plan_cloud: PlanCloud, aws: Aws) -> None:
    plant(plan_cloud, "DescribeImages", "throttle", times=None)
    started = time.monotonic()
    with pytest.raises(TimedOut, match="the image: not there after 2 s; AWS: RequestLimitExceeded"):
        aws.wait("the image", lambda: aws.ec2.describe_images(Owners=["self"]) and None, timeout=2)
    assert time.monotonic() - started < PATIENCE


def test_a_wait_goes_on_where_a_call_has_given_up(plan_cloud: PlanCloud) -> None:
    aws = plan_cloud.aws().patiently(seconds=0)
    plant(plan_cloud, "DescribeImages", "error", times=3)
    found = aws.wait("images", lambda: aws.ec2.describe_images(Owners=["self"]), timeout=PATIENCE)
    assert found["ResponseMetadata"]["RetryAttempts"] == 0


def test_not_found_means_not_yet_for_what_was_made_a_moment_ago(plan_cloud: PlanCloud, aws: Aws) -> None:
    plant(plan_cloud, "*", "not-found", seconds=2)
    url = aws.sqs.create_queue(QueueName="fresh-queue")["QueueUrl"]
    aws.sqs.tag_queue(QueueUrl=url, Tags={"empty": ""})
    assert aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    aws.sqs.delete_queue(QueueUrl=url)
    vpc = aws.ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    group = aws.ec2.create_security_group(GroupName="fresh-group", Description="x", VpcId=vpc)["GroupId"]
    rule: Any = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "192.0.2.7/32"}]}
    aws.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    aws.ec2.delete_security_group(GroupId=group)
    assert any(planted.struck for planted in plan_cloud.faults.listed())


def test_what_was_deleted_is_gone_and_not_waited_for(plan_cloud: PlanCloud, aws: Aws) -> None:
    url = aws.sqs.create_queue(QueueName="gone-queue")["QueueUrl"]
    aws.sqs.delete_queue(QueueUrl=url)
    started = time.monotonic()
    with pytest.raises(Exception, match=r"NonExistentQueue|does not exist") as caught:
        aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    assert error_code(caught.value)
    assert time.monotonic() - started < PATIENCE


def test_an_id_is_fresh_for_minutes_and_no_longer() -> None:
    fresh = Fresh(seconds=0.2)
    fresh.add("ami-1")
    assert fresh.any(iter(["ami-0", "ami-1"]))
    time.sleep(0.3)
    assert not fresh.any(iter(["ami-1"]))
    assert FRESH <= 300


def test_an_interrupt_ends_the_retries_of_a_call(plan_cloud: PlanCloud, aws: Aws) -> None:
    import signal

    def interrupt(number: int, frame: object) -> None:
        raise Interrupted("SIGUSR1")

    plant(plan_cloud, "RunInstances", "throttle", times=None)
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        main = threading.main_thread().ident or 0
        threading.Timer(1.0, signal.pthread_kill, (main, signal.SIGUSR1)).start()
        with pytest.raises(Interrupted):
            aws.ec2.run_instances(ImageId=plan_cloud.variables["BASE_AMI_ID"], MinCount=1, MaxCount=1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_what_is_beside_something_fresh_and_does_not_exist_is_not_waited_for(
    plan_cloud: PlanCloud, aws: Aws
) -> None:
    aws.ec2.import_key_pair(KeyName="fresh-key", PublicKeyMaterial=KeyPair.generate().public.encode())
    started = time.monotonic()
    image, group = plan_cloud.variables["BASE_AMI_ID"], "sg-00000000000000000"
    named: Any = {"ImageId": image, "KeyName": "fresh-key", "SecurityGroupIds": [group]}
    with pytest.raises(Exception, match=group) as caught:
        aws.ec2.run_instances(**named, MinCount=1, MaxCount=1)
    assert error_code(caught.value) == "InvalidGroup.NotFound"
    assert time.monotonic() - started < PATIENCE
