"""Notices on an event bus, as a rule of the user's delivers them to a queue."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from bake import notices, redaction
from bake.aws import Aws
from bake.errors import BakeError, NotAgreed
from bake.wiring import queue_policy
from tests.bake.conftest import HOME, SPOT, PlanCloud
from tests.report.samples import GOOD

Received = Callable[[], dict[str, Any]]


@pytest.fixture
def aws(plan_cloud: PlanCloud) -> Aws:
    return plan_cloud.aws()


@pytest.fixture
def bus(aws: Aws) -> str:
    name = f"notices-{uuid.uuid4().hex[:12]}"
    aws.events.create_event_bus(Name=name)
    return name


@pytest.fixture
def received(aws: Aws, bus: str) -> Received:
    """The next event that the bus delivers."""
    url = aws.sqs.create_queue(QueueName=bus)["QueueUrl"]
    arn = aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    pattern = json.dumps({"source": [notices.SOURCE]})
    rule = aws.events.put_rule(Name=bus, EventBusName=bus, EventPattern=pattern)["RuleArn"]
    aws.sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": queue_policy(arn, rule)})
    aws.events.put_targets(Rule=bus, EventBusName=bus, Targets=[{"Id": "queue", "Arn": arn}])

    def receive() -> dict[str, Any]:
        (message,) = aws.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=10)["Messages"]
        found: dict[str, Any] = json.loads(message["Body"])
        return found

    return receive


def test_an_image_that_was_baked_is_told_with_its_report(aws: Aws, bus: str, received: Received) -> None:
    kind, detail = notices.of_report(GOOD, SPOT, "s3://reports/flux/g6e-ubuntu/run")
    notices.send(aws, bus, kind, detail)
    event, image = received(), GOOD.image
    assert image is not None
    assert (event["source"], event["detail-type"]) == ("bake", "FluxImageBaked")
    assert event["resources"] == [f"arn:aws:ec2:{SPOT}::image/{image.id}"]
    told = event["detail"]
    assert (told["image"], told["profile"], told["run"]) == (image.id, GOOD.run.profile, GOOD.run.id)
    assert (told["verdict"], told["venue"], told["region"]) == ("good", GOOD.venue.name, SPOT)
    assert told["report"] == "s3://reports/flux/g6e-ubuntu/run"


@pytest.mark.parametrize("state", ["bad", "unproven", "failed", "interrupted", "unfinished"])
def test_whatever_is_not_good_is_a_failure(state: str) -> None:
    verdict = GOOD.verdict.model_copy(update={"state": state, "exit_code": 5, "error": "no capacity"})
    kind, detail = notices.of_report(GOOD.model_copy(update={"verdict": verdict}), SPOT, None)
    assert (kind, detail["verdict"], detail["error"]) == ("FluxBakeFailed", state, "no capacity")
    assert (detail["image"] is None) == (state == "bad")  # a bad one was removed


def test_a_bake_that_did_not_start_is_told_with_its_reason(aws: Aws, bus: str, received: Received) -> None:
    refused = NotAgreed("the base AMI is another", hint="bake approve")
    notices.send(aws, bus, *notices.of_refusal("g6e-ubuntu", SPOT, "AWS", refused))
    told = received()["detail"]
    assert (told["verdict"], told["exit_code"], told["hint"]) == ("refused", 3, "bake approve")


def test_a_promotion_is_told_with_the_ami_of_its_region(aws: Aws, bus: str, received: Received) -> None:
    served = {"channel": "stable", "image": "ami-0123456789abcdef0", "region": HOME, "before": ""}
    notices.send(aws, bus, *notices.of_promotion("g6e-ubuntu", "AWS", "a week in next", served))
    event = received()
    assert event["detail-type"] == "FluxImagePromoted"
    assert event["resources"] == [f"arn:aws:ec2:{HOME}::image/ami-0123456789abcdef0"]
    assert (event["detail"]["because"], event["detail"]["channel"]) == ("a week in next", "stable")


def test_no_secret_is_in_it_and_no_text_is_endless(aws: Aws, bus: str, received: Received) -> None:
    secret = f"hf_{uuid.uuid4().hex}"
    redaction.register(secret)
    detail = {"error": f"denied for {secret} " + "x" * 300_000, "left_behind": [secret] * 200}
    notices.send(aws, bus, "FluxBakeFailed", detail)
    event = received()
    assert secret not in json.dumps(event)
    assert len(event["detail"]["error"]) == notices.LONGEST
    assert len(event["detail"]["left_behind"]) == 100


def test_what_eventbridge_does_not_take_is_an_error_though_the_call_succeeded(aws: Aws, bus: str) -> None:
    kind: Any = ""
    with pytest.raises(BakeError, match=rf"is not on the bus {bus}: InvalidArgument"):
        notices.send(aws, bus, kind, {"profile": "x"})


def test_an_endpoint_that_does_not_answer_is_an_error(aws: Aws) -> None:
    away = Aws(region=SPOT, worker_region=HOME, endpoint="http://127.0.0.1:9")
    with pytest.raises(BakeError, match="FluxImageBaked is not on the bus away"):
        notices.send(away, "away", "FluxImageBaked", {"image": "ami-0123456789abcdef0"})
