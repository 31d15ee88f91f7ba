"""What was created a moment ago is not found for a while, as on AWS."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from .moto_account import MotoAccount, new, wait

LONG = 3600.0  # seconds that no test waits for
LAUNCH: dict[str, Any] = {
    "ImageId": "ami-12345678",
    "MinCount": 1,
    "MaxCount": 1,
    "InstanceType": "t3.micro",
}


def launched(account: MotoAccount) -> str:
    return str(account.call("ec2", "run_instances", **LAUNCH)["Instances"][0]["InstanceId"])


def imaged(account: MotoAccount) -> str:
    return str(account.call("ec2", "create_image", InstanceId=launched(account), Name=new())["ImageId"])


def grouped(account: MotoAccount) -> str:
    return str(account.call("ec2", "create_security_group", GroupName=new(), Description="x")["GroupId"])


def keyed(account: MotoAccount) -> str:
    return str(account.call("ec2", "create_key_pair", KeyName=new())["KeyName"])


def queued(account: MotoAccount) -> str:
    return str(account.call("sqs", "create_queue", QueueName=new())["QueueUrl"])


def bucketed(account: MotoAccount) -> str:
    name = new("bucket")
    location = {"LocationConstraint": "eu-west-1"}
    account.call("s3", "create_bucket", Bucket=name, CreateBucketConfiguration=location)
    return name


def bused(account: MotoAccount) -> str:
    return str(account.call("events", "create_event_bus", Name=new())["EventBusArn"]).rpartition("/")[2]


def profiled(account: MotoAccount) -> str:
    profile = account.call("iam", "create_instance_profile", InstanceProfileName=new())
    return str(profile["InstanceProfile"]["InstanceProfileName"])


FRESH: dict[str, tuple[Callable[[MotoAccount], str], str, str, Callable[[str], dict[str, Any]], str]] = {
    "instance": (
        launched,
        "ec2",
        "describe_instances",
        lambda name: {"InstanceIds": [name]},
        "InvalidInstanceID.NotFound",
    ),
    "instance-to-end": (
        launched,
        "ec2",
        "terminate_instances",
        lambda name: {"InstanceIds": [name]},
        "InvalidInstanceID.NotFound",
    ),
    "image": (
        imaged,
        "ec2",
        "describe_images",
        lambda name: {"ImageIds": [name]},
        "InvalidAMIID.NotFound",
    ),
    "group": (
        grouped,
        "ec2",
        "describe_security_groups",
        lambda name: {"GroupIds": [name]},
        "InvalidGroup.NotFound",
    ),
    "key": (keyed, "ec2", "describe_key_pairs", lambda name: {"KeyNames": [name]}, "InvalidKeyPair.NotFound"),
    "queue": (
        queued,
        "sqs",
        "send_message",
        lambda url: {"QueueUrl": url, "MessageBody": "x"},
        "AWS.SimpleQueueService.NonExistentQueue",
    ),
    "queue-by-name": (
        lambda account: queued(account).rpartition("/")[2],
        "sqs",
        "get_queue_url",
        lambda name: {"QueueName": name},
        "AWS.SimpleQueueService.NonExistentQueue",
    ),
    "bucket": (bucketed, "s3", "list_objects_v2", lambda name: {"Bucket": name}, "NoSuchBucket"),
    "bus": (bused, "events", "describe_event_bus", lambda name: {"Name": name}, "ResourceNotFoundException"),
    "bus-of-a-rule": (
        bused,
        "events",
        "put_rule",
        lambda name: {"Name": "rule", "EventBusName": name, "EventPattern": '{"source": ["x"]}'},
        "ResourceNotFoundException",
    ),
    "profile": (
        profiled,
        "iam",
        "get_instance_profile",
        lambda name: {"InstanceProfileName": name},
        "NoSuchEntity",
    ),
    "profile-of-a-launch": (
        profiled,
        "ec2",
        "run_instances",
        lambda name: {**LAUNCH, "IamInstanceProfile": {"Name": name}},
        "InvalidParameterValue",
    ),
}


@pytest.mark.parametrize("what", FRESH)
def test_what_is_fresh_is_not_found(moto_account: MotoAccount, what: str) -> None:
    create, service, method, parameters, code = FRESH[what]
    moto_account.faults.plant(service, "*", "not-found", seconds=LONG)
    name = create_without(moto_account, create)
    assert moto_account.refused(service, method, **parameters(name))[0] == code
    assert moto_account.faults.struck() >= 1
    moto_account.faults.clear()
    moto_account.call(service, method, **parameters(name))


def create_without(account: MotoAccount, create: Callable[[MotoAccount], str]) -> str:
    """An image is one of an instance, which is fresh itself unless it was launched before."""
    if create is not imaged:
        return create(account)
    account.faults.clear()
    instance = launched(account)
    account.faults.plant("ec2", "*", "not-found", seconds=LONG)
    return str(account.call("ec2", "create_image", InstanceId=instance, Name=new())["ImageId"])


def test_it_is_found_later(moto_account: MotoAccount) -> None:
    moto_account.faults.plant("ec2", "DescribeInstances", "not-found", seconds=1)
    begun = time.monotonic()
    ids = {"InstanceIds": [launched(moto_account)]}

    def found() -> bool:
        try:
            return bool(moto_account.call("ec2", "describe_instances", **ids)["Reservations"])
        except ClientError:
            return False

    wait(found)
    assert time.monotonic() - begun >= 1


def test_what_was_there_before_is_found(moto_account: MotoAccount) -> None:
    before = launched(moto_account)
    moto_account.faults.plant("ec2", "*", "not-found", seconds=LONG)
    after = launched(moto_account)
    moto_account.call("ec2", "describe_instances", InstanceIds=[before])
    # Who names nothing is told of everything, and a filter that nothing fits has an empty answer.
    moto_account.call("ec2", "describe_instances")
    ours = [{"Name": "instance-id", "Values": [after]}]
    moto_account.call("ec2", "describe_instances", Filters=ours)
    code = moto_account.refused("ec2", "describe_instances", InstanceIds=[before, after])[0]
    assert code == "InvalidInstanceID.NotFound"


def test_the_snapshot_of_a_fresh_image_is_fresh_itself(moto_account: MotoAccount) -> None:
    instance = launched(moto_account)
    moto_account.faults.plant("ec2", "DescribeSnapshots", "not-found", seconds=LONG)
    image = moto_account.call("ec2", "create_image", InstanceId=instance, Name=new())["ImageId"]
    [described] = moto_account.call("ec2", "describe_images", ImageIds=[image])["Images"]
    snapshot = described["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    code = moto_account.refused("ec2", "describe_snapshots", SnapshotIds=[snapshot])[0]
    assert code == "InvalidSnapshot.NotFound"


def test_only_so_many_calls_do_not_find_it(moto_account: MotoAccount) -> None:
    moto_account.faults.plant("ec2", "DescribeInstances", "not-found", seconds=LONG, nth=2)
    ids = {"InstanceIds": [launched(moto_account)]}
    moto_account.call("ec2", "describe_instances", **ids)
    moto_account.refused("ec2", "describe_instances", **ids)
    moto_account.call("ec2", "describe_instances", **ids)


def test_a_creation_can_be_sent_again(moto_account: MotoAccount) -> None:
    """Whoever creates a queue or a bucket twice is not told that it does not exist."""
    moto_account.faults.plant("*", "*", "not-found", seconds=LONG)
    name = queued(moto_account).rpartition("/")[2]
    moto_account.call("sqs", "create_queue", QueueName=name)


def test_what_a_lost_answer_tells_of_is_fresh_as_well(moto_account: MotoAccount) -> None:
    name = new()
    moto_account.faults.plant("sqs", "*", "not-found", seconds=LONG)
    moto_account.faults.plant("sqs", "CreateQueue", "lost")
    with pytest.raises(ConnectionClosedError):
        moto_account.call("sqs", "create_queue", QueueName=name)
    code = moto_account.refused("sqs", "get_queue_url", QueueName=name)[0]
    assert code == "AWS.SimpleQueueService.NonExistentQueue"
