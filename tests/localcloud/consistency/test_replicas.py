"""What is known of a new resource, by a clock of the test's own."""

from __future__ import annotations

from typing import Any

import pytest

from bake.localcloud.api.consistency.replicas import Replicas
from bake.localcloud.api.consistency.schedule import Delay, Schedule
from bake.localcloud.api.consistency.settling import PENDING, STOPPED, Settling
from bake.localcloud.api.faults.calls import Call, Protocol

INSTANCE, GROUP, IMAGE, SNAPSHOT = (
    "i-0123456789abcdef0",
    "sg-0123456789abcdef0",
    "ami-01234567",
    "snap-01234567",
)
URL = "http://localhost/123456789012/jobs"


class Fixed(Schedule):
    """Every delay is this one."""

    def __init__(self, delay: Delay) -> None:
        super().__init__(0)
        self.fixed = delay

    def delay(self, kind: str, number: int) -> Delay:
        return self.fixed


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def call(service: str, action: str, protocol: Protocol = "json", **parameters: str) -> Call:
    named = {name.replace("_", "."): value for name, value in parameters.items()}
    return Call(service, action, "ec2" if service == "ec2" else protocol, named)


RUN = call("ec2", "RunInstances", ImageId=IMAGE, SecurityGroupId_1=GROUP)
QUEUE = call("sqs", "CreateQueue", QueueName="jobs")


def replicas(delay: Delay = Delay(2.0)) -> tuple[Replicas, Clock]:  # noqa: B008
    clock = Clock()
    return Replicas(Fixed(delay), clock), clock


def codes(known: Replicas, asked: Call, times: int = 4) -> list[str]:
    return [error.code if (error := known.missing(asked)) else "" for _ in range(times)]


@pytest.mark.parametrize("first", [True, False])
def test_a_new_id_is_known_to_every_second_answer_and_later_to_all(first: bool) -> None:
    known, clock = replicas(Delay(2.0, first))
    known.learn(RUN, f"<instanceId>{INSTANCE}</instanceId><imageId>{IMAGE}</imageId>")
    asked = call("ec2", "DescribeInstances", InstanceId_1=INSTANCE)
    pattern = ["", "InvalidInstanceID.NotFound"] * 2
    assert codes(known, asked) == (pattern if first else pattern[::-1])
    clock.now += 1.9
    assert "InvalidInstanceID.NotFound" in codes(known, asked)
    clock.now += 0.2
    assert codes(known, asked) == [""] * 4


@pytest.mark.parametrize(
    ("made", "answer", "asked", "code"),
    [
        pytest.param(
            RUN,
            INSTANCE,
            call("ec2", "TerminateInstances", InstanceId_1=INSTANCE),
            "InvalidInstanceID.NotFound",
            id="terminate",
        ),
        pytest.param(
            RUN,
            INSTANCE,
            call("ec2", "CreateTags", ResourceId_1=INSTANCE),
            "InvalidInstanceID.NotFound",
            id="tags",
        ),
        pytest.param(
            call("ec2", "CreateSecurityGroup", GroupName="bake"),
            GROUP,
            call("ec2", "AuthorizeSecurityGroupIngress", GroupId=GROUP),
            "InvalidGroup.NotFound",
            id="authorize",
        ),
        pytest.param(
            call("ec2", "ImportKeyPair", KeyName="bake"),
            "",
            call("ec2", "RunInstances", KeyName="bake"),
            "InvalidKeyPair.NotFound",
            id="key",
        ),
        pytest.param(
            call("ec2", "CreateImage", InstanceId=INSTANCE),
            IMAGE,
            call("ec2", "DescribeImages", ImageId_1=IMAGE),
            "InvalidAMIID.NotFound",
            id="image",
        ),
        pytest.param(
            QUEUE,
            URL,
            call("sqs", "SetQueueAttributes", QueueUrl=URL),
            "AWS.SimpleQueueService.NonExistentQueue",
            id="queue",
        ),
        pytest.param(
            call("s3", "CreateBucket", "s3", Bucket="pictures"),
            "",
            call("s3", "PutObject", "s3", Bucket="pictures", Key="a"),
            "NoSuchBucket",
            id="bucket",
        ),
        pytest.param(
            call("events", "CreateEventBus", Name="bake"),
            "",
            call("events", "PutRule", Name="all", EventBusName="bake"),
            "ResourceNotFoundException",
            id="bus",
        ),
        pytest.param(
            call("events", "PutRule", Name="all"),
            "",
            call("events", "PutTargets", Rule="all"),
            "ResourceNotFoundException",
            id="rule",
        ),
        pytest.param(
            call("scheduler", "CreateScheduleGroup", Name="bake"),
            "",
            call("scheduler", "CreateSchedule", Name="end", GroupName="bake"),
            "ResourceNotFoundException",
            id="schedule-group",
        ),
        pytest.param(
            call("iam", "CreateInstanceProfile", "query", InstanceProfileName="flux"),
            "",
            call("ec2", "RunInstances", IamInstanceProfile_Name="flux"),
            "InvalidParameterValue",
            id="instance-profile",
        ),
        pytest.param(
            call("iam", "CreateRole", "query", RoleName="flux"),
            "",
            call("iam", "PutRolePolicy", "query", RoleName="flux"),
            "NoSuchEntity",
            id="role",
        ),
    ],
)
def test_what_is_new_is_not_found_by_acts_either(made: Call, answer: str, asked: Call, code: str) -> None:
    known, _ = replicas(Delay(2.0, shown_first=False))
    known.learn(made, answer)
    assert codes(known, asked, 2) == [code, ""]


def test_a_snapshot_is_new_when_an_answer_about_its_image_first_tells_it() -> None:
    known, _ = replicas(Delay(2.0, shown_first=False))
    known.learn(call("ec2", "CreateImage", InstanceId=INSTANCE), IMAGE)
    known.learn(call("ec2", "DescribeImages", ImageId_1=IMAGE), f"{IMAGE} {SNAPSHOT}")
    assert codes(known, call("ec2", "DescribeSnapshots", SnapshotId_1=SNAPSHOT), 1) == [
        "InvalidSnapshot.NotFound"
    ]


def test_what_was_there_before_the_cloud_was_up_is_old() -> None:
    known, _ = replicas(Delay(2.0, shown_first=False))
    known.learn(call("ec2", "DescribeImages", ImageId_1=IMAGE), f"{IMAGE} {SNAPSHOT}")
    assert codes(known, call("ec2", "CreateTags", ResourceId_1=IMAGE, ResourceId_2=SNAPSHOT)) == [""] * 4


def test_a_repeated_creation_makes_nothing_new() -> None:
    known, clock = replicas(Delay(2.0, shown_first=False))
    asked = call("sqs", "SetQueueAttributes", QueueUrl=URL)
    known.learn(QUEUE, URL)
    clock.now += 60
    known.learn(QUEUE, URL)
    assert codes(known, asked) == [""] * 4
    known.learn(call("sqs", "DeleteQueue", QueueUrl=URL), "")
    known.learn(QUEUE, URL)
    assert codes(known, asked, 1) == ["AWS.SimpleQueueService.NonExistentQueue"]


def test_filters_are_no_names() -> None:
    known, _ = replicas(Delay(2.0, shown_first=False))
    known.learn(RUN, INSTANCE)
    asked = call("ec2", "DescribeInstances", Filter_1_Name="instance-id", Filter_1_Value_1=INSTANCE)
    assert codes(known, asked) == [""] * 4
    assert [known.left_out("i-"), known.left_out("i-"), known.left_out("sg-")] == [{INSTANCE}, set(), set()]


def test_a_lenient_cloud_knows_all_at_once() -> None:
    known = Replicas(Schedule(1, lenient=True), Clock())
    known.learn(RUN, INSTANCE)
    assert codes(known, call("ec2", "DescribeInstances", InstanceId_1=INSTANCE)) == [""] * 4


def scripted(seed: int) -> list[Any]:
    """What one client is told who creates and asks always in the same way."""
    clock = Clock()
    known, told = Replicas(Schedule(seed), clock), []
    for number in range(12):
        clock.now += 0.25
        one = f"i-0000000000000{number:04x}"
        known.learn(RUN, one)
        known.learn(call("sqs", "CreateQueue", QueueName=f"jobs-{number}"), "")
        told += codes(known, call("ec2", "DescribeInstances", InstanceId_1=one), 3)
        told += codes(known, call("sqs", "GetQueueAttributes", QueueUrl=f"{URL}-{number}"), 3)
        told.append(len(known.left_out("i-")))
    return told


def test_the_same_seed_tells_the_same_story() -> None:
    assert scripted(1) == scripted(1)
    assert scripted(1) != scripted(2)


def test_a_change_settles_once_after_its_time() -> None:
    clock = Clock()
    settling = Settling(Fixed(Delay(1.5)), clock)
    assert settling.left(PENDING, IMAGE) == 0  # nobody has begun it
    settling.begin(PENDING, IMAGE)
    assert settling.left(PENDING, IMAGE) == 1.5
    clock.now += 1
    assert settling.left(PENDING, IMAGE) == 0.5
    assert settling.left(STOPPED, INSTANCE, clock.now - 1) == 0.5
    clock.now += 1
    assert settling.left(PENDING, IMAGE) == 0
    assert settling.left(STOPPED, INSTANCE, clock.now) == 1.5  # stopped again


def test_each_change_has_a_delay_of_its_own() -> None:
    clock = Clock()
    settling, alone = Settling(Schedule(4), clock), Schedule(4)
    found = [settling.left(STOPPED, f"i-{number}", clock.now) for number in range(20)]
    assert found == pytest.approx([alone.delay(STOPPED, number).seconds for number in range(1, 21)])
