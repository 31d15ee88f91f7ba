"""Each resource that a bake creates, with its answer lost, with its call refused, and with its name taken."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from bake.errors import BakeError, LeftBehind
from bake.image import images_of
from bake.retries import error_code
from bake.steps.create_image import create_image
from bake.undo import Undo
from tests.bake.one_run import OneRun
from tests.plans import changed

NO_KEY = "aws ec2 delete-key-pair"


CREATIONS = [
    pytest.param("ImportKeyPair", OneRun.launch, id="key-pair"),
    pytest.param("CreateSecurityGroup", OneRun.launch, id="security-group"),
    pytest.param("AuthorizeSecurityGroupIngress", OneRun.launch, id="rule-of-the-group"),
    pytest.param("RunInstances", OneRun.launch, id="instance"),
    pytest.param("CreateScheduleGroup", OneRun.launch_with_reaper, id="schedule-group"),
    pytest.param("CreateSchedule", OneRun.launch_with_reaper, id="schedule"),
    pytest.param("UpdateSchedule", OneRun.launch_with_reaper, id="armed-schedule"),
    pytest.param("CreateQueue", OneRun.wire, id="queue"),
    pytest.param("CreateBucket", OneRun.wire, id="bucket"),
    pytest.param("CreateEventBus", OneRun.wire, id="bus"),
    pytest.param("PutRule", OneRun.wire, id="rule"),
    pytest.param("PutTargets", OneRun.wire, id="target"),
    pytest.param("CreateImage", OneRun.image, id="image"),
]
Create = Callable[[OneRun, Undo], Any]


@pytest.mark.parametrize(("action", "create"), CREATIONS)
def test_a_lost_answer_costs_nothing(one_run: OneRun, action: str, create: Create) -> None:
    """The SDK's second try meets what the first one made."""
    one_run.fault(action, "lost")
    with Undo() as undo:
        create(one_run, undo)
        assert one_run.left()
    assert one_run.left() == []


@pytest.mark.parametrize(("action", "create"), CREATIONS)
def test_with_all_answers_lost_nothing_is_left(one_run: OneRun, action: str, create: Create) -> None:
    one_run.fault(action, "lost", times=None)
    one_run.patience = 0.5
    with pytest.raises(Exception, match=r"(?i)connection|exists already"), Undo() as undo:
        create(one_run, undo)
    assert one_run.left() == []


@pytest.mark.parametrize(("action", "create"), CREATIONS)
def test_a_refusal_after_a_lost_answer_does_not_hide_what_was_made(
    one_run: OneRun, action: str, create: Create
) -> None:
    """The first try made it, and the credentials end before the second one."""
    one_run.fault(action, "lost")
    one_run.fault(action, "expired")
    with pytest.raises(Exception, match="Expired"), Undo() as undo:
        create(one_run, undo)
    assert one_run.left() == []


@pytest.mark.parametrize(("action", "create"), CREATIONS)
def test_a_refused_creation_is_not_looked_for(one_run: OneRun, action: str, create: Create) -> None:
    one_run.fault(action, "refuse", code="UnauthorizedOperation")
    with pytest.raises(Exception, match="UnauthorizedOperation"), Undo() as undo:
        create(one_run, undo)
    assert one_run.left() == []


@pytest.mark.parametrize(
    ("action", "create", "say"),
    [
        pytest.param("ImportKeyPair", OneRun.launch, NO_KEY, id="key-pair"),
        pytest.param("RunInstances", OneRun.launch, "aws ec2 terminate-instances", id="instance"),
        pytest.param("CreateQueue", OneRun.wire, "aws sqs delete-queue", id="queue"),
        pytest.param("CreateImage", OneRun.image, "aws ec2 deregister-image", id="image"),
    ],
)
def test_what_nobody_can_look_for_is_named(one_run: OneRun, action: str, create: Create, say: str) -> None:
    """The answer is lost, and the credentials end: how it is found and removed is the last thing said."""
    one_run.fault(action, "lost", times=None)
    one_run.patience = 0.5
    with pytest.raises(LeftBehind) as caught, Undo() as undo:
        try:
            create(one_run, undo)
        finally:
            one_run.fault("*", "expired", times=None)
    assert say in str(caught.value)
    assert f"--endpoint-url {one_run.cloud.endpoint}" in str(caught.value)
    assert one_run.run.id in str(caught.value)


def test_a_foreign_key_pair_is_neither_used_nor_removed(one_run: OneRun) -> None:
    name = f"bake-{one_run.run.id}-builder"
    theirs = one_run.aws.ec2.create_key_pair(KeyName=name)["KeyPairId"]
    with (
        pytest.raises(BakeError, match=f"key pair {name} exists already, and is not this run's"),
        Undo() as undo,
    ):
        one_run.launch(undo)
    found = one_run.aws.ec2.describe_key_pairs(KeyNames=[name])["KeyPairs"]
    assert [pair["KeyPairId"] for pair in found] == [theirs]
    one_run.aws.ec2.delete_key_pair(KeyName=name)


def test_an_ami_of_the_same_name_is_neither_taken_over_nor_removed(one_run: OneRun) -> None:
    """`image.name` need not contain {run}: it may be somebody's production AMI."""
    profile = one_run.plan.profile
    named = profile.image.model_copy(update={"name": f"production-{one_run.run.id}"})
    plan = changed(one_run.plan, profile.model_copy(update={"image": named}))
    with Undo() as undo:
        builder = one_run.launch(undo)
        theirs = one_run.aws.ec2.create_image(InstanceId=builder.id, Name=named.name)["ImageId"]
        with pytest.raises(BakeError, match=f"exists already, and is not this run's: {theirs}"):
            create_image(plan, one_run.aws, one_run.run, builder, undo)
    found = one_run.aws.ec2.describe_images(ImageIds=[theirs])["Images"]
    assert [one["State"] for one in found] == ["available"]
    one_run.aws.ec2.deregister_image(ImageId=theirs)


def test_a_bucket_of_another_account_is_never_ours(one_run: OneRun) -> None:
    name = f"bake-{one_run.run.id}"
    where: Any = {"LocationConstraint": one_run.aws.worker_region}
    one_run.aws.s3.create_bucket(Bucket=name, CreateBucketConfiguration=where)
    with (
        pytest.raises(BakeError, match=f"bucket {name} exists already, and is not this run's"),
        Undo() as undo,
    ):
        one_run.wire(undo)
    assert one_run.left() == [name]
    one_run.aws.s3.delete_bucket(Bucket=name)


def test_a_bucket_with_many_objects_goes(one_run: OneRun) -> None:
    with Undo() as undo:
        one_run.wire(undo)
        for number in range(3):
            one_run.aws.s3.put_object(Bucket=f"bake-{one_run.run.id}", Key=f"{number}", Body=b"")
    assert one_run.left() == []


def test_everything_is_tagged_in_the_call_that_creates_it(one_run: OneRun) -> None:
    """Nothing tags later: what is cut off between two calls could not be found."""
    one_run.fault("*Tag*", "refuse", times=None)
    one_run.fault("Tag*", "refuse", times=None)
    with Undo() as undo:
        one_run.image(undo)
        one_run.wire(undo)
        one_run.cloud.faults.clear()
        aws, name = one_run.witness, f"bake-{one_run.run.id}"
        mine: Any = [{"Name": "tag:bake:run", "Values": [one_run.run.id]}]
        tagged = {
            "key pair": aws.ec2.describe_key_pairs(Filters=mine)["KeyPairs"][0]["Tags"],
            "group": aws.ec2.describe_security_groups(Filters=mine)["SecurityGroups"][0]["Tags"],
            "instance": aws.ec2.describe_instances(Filters=mine)["Reservations"][0]["Instances"][0]["Tags"],
            "volume": aws.ec2.describe_volumes(Filters=mine)["Volumes"][0]["Tags"],
            "image": images_of(aws, one_run.plan.profile.name)[-1]["Tags"],
            "bus": aws.events.list_tags_for_resource(
                ResourceARN=aws.events.describe_event_bus(Name=name)["Arn"]
            )["Tags"],
            "rule": aws.events.list_tags_for_resource(
                ResourceARN=aws.events.describe_rule(Name=name, EventBusName=name)["Arn"]
            )["Tags"],
            "bucket": aws.s3.get_bucket_tagging(Bucket=name)["TagSet"],
        }
        for queue in ("jobs", "results"):
            url = aws.sqs.get_queue_url(QueueName=f"{name}-{queue}")["QueueUrl"]
            found = aws.sqs.list_queue_tags(QueueUrl=url)["Tags"]
            tagged[queue] = [{"Key": key, "Value": value} for key, value in found.items()]
    for what, listed in tagged.items():
        facts: dict[str, str] = {tag["Key"]: tag["Value"] for tag in listed}
        assert facts["bake:run"] == one_run.run.id, what
        assert facts["bake:profile"] == "g6e-ubuntu", what
        assert facts["bake:state"] == "draft", what
        assert facts["bake:expires"].endswith("Z"), what
    assert one_run.left() == []


def test_capacity_is_asked_for_once_a_try(one_run: OneRun) -> None:
    """EC2 answers 500 where it has none, which SDKs send eight times: RequestLimitExceeded follows."""
    one_run.fault("RunInstances", "capacity", times=None)
    started = time.monotonic()
    with pytest.raises(BakeError, match="AWS has no capacity for"), Undo() as undo:
        one_run.launch(undo)
    assert [planted.struck for planted in one_run.cloud.faults.listed()] == [1]
    assert time.monotonic() - started < one_run.patience
    assert one_run.left() == []


@pytest.mark.parametrize(
    "code",
    [
        "InsufficientInstanceCapacity",
        "VcpuLimitExceeded",
        "MaxSpotInstanceCountExceeded",
        "RequestLimitExceeded",
    ],
)
def test_with_patience_what_ends_by_itself_is_waited_for(one_run: OneRun, code: str) -> None:
    kind = "capacity" if code.startswith("Insufficient") else "throttle" if "Request" in code else "refuse"
    one_run.fault("RunInstances", kind, code=code, times=3)
    with Undo() as undo:
        assert one_run.launch(undo, patience=120).id
    assert one_run.left() == []


def test_without_patience_a_full_quota_ends_the_launch(
    one_run: OneRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing that counts in it has just ended."""
    monkeypatch.setattr("bake.steps.launch.ended_lately", lambda aws, kind: False)
    one_run.fault("RunInstances", "refuse", code="VcpuLimitExceeded", times=None)
    with pytest.raises(Exception, match="VcpuLimitExceeded") as caught, Undo() as undo:
        one_run.launch(undo)
    assert error_code(caught.value) == "VcpuLimitExceeded"


def test_whatever_hangs_all_removals_are_sent(one_run: OneRun) -> None:
    """A CI system kills ten seconds after its first signal; what ends the instance may take its time."""
    with Undo() as undo:
        one_run.launch(undo)
        one_run.wire(undo)
        one_run.fault("TerminateInstances", "timeout", seconds=600, times=1)
        removing = threading.Thread(target=undo.now)
        removing.start()
        deadline = time.monotonic() + 120
        while (left := one_run.left()) and [one for one in left if not one.startswith(("i-", "sg-"))]:
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
        assert [one for one in left if one.startswith("i-")]
        one_run.cloud.faults.clear()
        removing.join(timeout=120)
        assert not removing.is_alive()
    assert one_run.left() == []


def test_a_spot_request_is_cancelled_before_its_instance_ends(one_run: OneRun) -> None:
    """A persistent request would start another instance."""
    profile = one_run.plan.profile
    spot = profile.model_copy(update={"builder": profile.builder.model_copy(update={"market": "spot"})})
    run = dataclasses.replace(one_run, plan=changed(one_run.plan, spot))
    name = f"bake-{run.run.id}-builder"
    called: list[str] = []
    with Undo() as undo:
        run.launch(undo)
        # moto's RunInstances makes no request: one like EC2's, tagged as it would be.
        tags: Any = [{"Key": "bake:run", "Value": run.run.id}, {"Key": "Name", "Value": name}]
        run.witness.ec2.request_spot_instances(
            LaunchSpecification={"ImageId": run.plan.launch.base.id, "InstanceType": "g6e.xlarge"},
            TagSpecifications=[{"ResourceType": "spot-instances-request", "Tags": tags}],
        )
        for operation in ("CancelSpotInstanceRequests", "TerminateInstances"):
            run.aws.ec2.meta.events.register(
                f"before-call.ec2.{operation}", lambda model, **_: called.append(model.name)
            )
    assert called == ["CancelSpotInstanceRequests", "TerminateInstances"]


def test_a_fresh_id_that_is_not_found_has_not_been_terminated(one_run: OneRun) -> None:
    with Undo() as undo:
        one_run.launch(undo)
        one_run.fault("TerminateInstances", "refuse", code="InvalidInstanceID.NotFound", status=400, times=3)
    assert one_run.left() == []
