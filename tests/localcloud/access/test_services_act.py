"""What services do for others: EventBridge by a queue's policy, Scheduler by its role's."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from moto.events.models import Rule
from moto.scheduler.models import scheduler_backends

from bake import wiring
from bake.localcloud.api import events, scheduler
from bake.localcloud.api.access.inventory import MotoInventory
from bake.localcloud.api.access.policies import Authoriser, NeedLog

from .conftest import REGION, Cloud

TRUST = {"Effect": "Allow", "Principal": {"Service": "scheduler.amazonaws.com"}, "Action": "sts:AssumeRole"}


@pytest.fixture(autouse=True)
def _as_in_the_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rule, "_send_to_sqs_queue", Rule._send_to_sqs_queue)  # put back at the end
    events.install(MotoInventory())


@pytest.fixture
def wired(cloud: Cloud) -> dict[str, Any]:
    """A bus whose rule `all` has a queue as its target."""
    name = f"bake-{uuid.uuid4().hex[:8]}"
    sqs, bus = cloud.client("sqs"), cloud.client("events")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    queue = f"arn:aws:sqs:{REGION}:123456789012:{name}"
    bus.create_event_bus(Name=name)
    pattern = json.dumps({"source": ["flux.worker"]})
    rule = bus.put_rule(Name="all", EventBusName=name, EventPattern=pattern)["RuleArn"]
    bus.put_targets(Rule="all", EventBusName=name, Targets=[{"Id": "q", "Arn": queue}])
    return {"bus": name, "url": url, "queue": queue, "rule": rule}


def delivered(cloud: Cloud, wired: dict[str, Any], policy: str | None) -> list[Any]:
    sqs = cloud.client("sqs")
    if policy is not None:
        sqs.set_queue_attributes(QueueUrl=wired["url"], Attributes={"Policy": policy})
    entry = {"Source": "flux.worker", "DetailType": "t", "Detail": "{}", "EventBusName": wired["bus"]}
    assert cloud.client("events").put_events(Entries=[entry])["FailedEntryCount"] == 0
    return list(sqs.receive_message(QueueUrl=wired["url"]).get("Messages", []))


def test_the_policy_of_the_bakes_own_queue_lets_its_rule_deliver(cloud: Cloud, wired: dict[str, Any]) -> None:
    [message] = delivered(cloud, wired, wiring.queue_policy(wired["queue"], wired["rule"]))
    event = json.loads(message["Body"])
    assert event.keys() == {
        *("version", "id", "detail-type", "source", "account", "time", "region", "resources", "detail")
    }
    assert (event["account"], event["region"]) == ("123456789012", REGION)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda policy, wired: None, id="no policy"),
        pytest.param(lambda policy, wired: policy.replace("rule/", "rule/not-"), id="another rule"),
        pytest.param(
            lambda policy, wired: policy.replace("events.amazon", "sns.amazon"), id="another service"
        ),
        pytest.param(
            lambda policy, wired: policy.replace(wired["queue"], wired["queue"] + "-2"), id="another queue"
        ),
        pytest.param(lambda policy, wired: policy.replace("sqs:Send", "sqs:Receive"), id="another action"),
        pytest.param(lambda policy, wired: policy.replace("Allow", "Deny"), id="a deny"),
    ],
)
def test_any_other_policy_does_not_and_nobody_but_the_log_is_told(
    cloud: Cloud,
    wired: dict[str, Any],
    change: Callable[[str, dict[str, Any]], str | None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    policy = wiring.queue_policy(wired["queue"], wired["rule"])
    with caplog.at_level(logging.WARNING):
        assert not delivered(cloud, wired, change(policy, wired))
    assert "does not let it send" in caplog.text


# --- Scheduler -------------------------------------------------------------------------------------


class DueAtOnce:
    """A clock by which everything is due when it is asked for."""

    def at(self, moment: datetime, act: Callable[[], None]) -> None:
        act()


@pytest.fixture
def needs(monkeypatch: pytest.MonkeyPatch) -> Iterator[NeedLog]:
    log = NeedLog()
    monkeypatch.setattr(scheduler_backends, "backend", scheduler_backends.backend)
    monkeypatch.setattr(scheduler.LocalScheduler, "clock", DueAtOnce(), raising=False)
    monkeypatch.setattr(scheduler.LocalScheduler, "authoriser", Authoriser(record=log.add))
    yield log


def scheduled(cloud: Cloud, instance: str, statement: dict[str, Any]) -> str:
    """Have an instance ended by a schedule whose role may do this; the role's name."""
    iam, name = cloud.client("iam"), f"reaper-{uuid.uuid4().hex[:8]}"
    trust = json.dumps({"Version": "2012-10-17", "Statement": [TRUST]})
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=document)
    target = {
        "Arn": "arn:aws:scheduler:::aws-sdk:ec2:terminateInstances",
        "RoleArn": role,
        "Input": json.dumps({"InstanceIds": [instance]}),
    }
    at = datetime.now(UTC) + timedelta(hours=1)
    backend = scheduler.LocalScheduler(REGION, "123456789012")
    backend.create_schedule(
        name=name,
        group_name="default",
        schedule_expression=f"at({at:%Y-%m-%dT%H:%M:%S})",
        schedule_expression_timezone=None,
        flexible_time_window={"Mode": "OFF"},
        target=target,
        description=None,
        end_date=None,
        start_date=None,
        kms_key_arn=None,
        state="ENABLED",
        action_after_completion="DELETE",
    )
    return name


@pytest.mark.parametrize("tagged", [True, False])
def test_a_schedule_ends_only_what_its_role_may_end(
    cloud: Cloud, needs: NeedLog, caplog: pytest.LogCaptureFixture, tagged: bool
) -> None:
    ec2 = cloud.client("ec2")
    image = ec2.describe_images()["Images"][0]["ImageId"]
    instance = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
    if tagged:
        ec2.create_tags(Resources=[instance], Tags=[{"Key": "bake:run", "Value": "r-1"}])
    mine = {"Null": {"aws:ResourceTag/bake:run": "false"}}
    statement = {"Effect": "Allow", "Action": "ec2:TerminateInstances", "Resource": "*", "Condition": mine}
    with caplog.at_level(logging.WARNING):
        name = scheduled(cloud, instance, statement)
    state = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]["State"]["Name"]
    assert state == ("terminated" if tagged else "running")
    assert (f"schedule default/{name}" in caplog.text) is not tagged
    [need] = needs.listed()
    assert need["principal"] == f"arn:aws:sts::123456789012:assumed-role/{name}/{name}"
    assert (need["action"], need["allowed"]) == ("ec2:TerminateInstances", tagged)
    assert need["resource"] == f"arn:aws:ec2:{REGION}:123456789012:instance/{instance}"
