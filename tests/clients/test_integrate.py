"""The AWS CLI's commands of docs/integrate.md, as they stand there: what the bus hears reaches the queue."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import boto3
import pytest

from .conftest import Desk, needed

pytestmark = [pytest.mark.root, pytest.mark.clients]

# Version 1 of the CLI has an endpoint of SQS of its own, whatever the environment says.
AWS = 'aws() { command aws --endpoint-url "$AWS_ENDPOINT_URL" "$@"; }'
PAGE = (Path(__file__).parents[2] / "docs/integrate.md").read_text(encoding="utf-8")


def test_both_events_reach_the_queue_and_no_other(desk_without_delays: Desk) -> None:
    desk = desk_without_delays
    needed("aws")
    [block] = [text for text in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.M | re.S) if "put-rule" in text]

    def client(service: str) -> Any:
        return boto3.client(
            service,  # type: ignore[call-overload,unused-ignore]
            endpoint_url=desk.cloud.endpoint,
            region_name="eu-west-1",
            aws_access_key_id=desk.cloud.keys.id,
            aws_secret_access_key=desk.cloud.keys.secret,
        )

    client("events").create_event_bus(Name="flux")
    script = f'{AWS}\n{block}\necho "$EVENTS_QUEUE_URL $dead_arn"'
    queue, dead = desk.call("bash", "-euo", "pipefail", "-c", script).splitlines()[-1].split()
    kinds = ["FluxProbe", "FluxImageReady", "FluxImageFailed"]
    entries = [
        {"Source": "flux.worker", "DetailType": kind, "Detail": "{}", "EventBusName": "flux"}
        for kind in kinds
    ]
    assert client("events").put_events(Entries=entries)["FailedEntryCount"] == 0
    sqs = client("sqs")
    received = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    assert sorted(json.loads(one["Body"])["detail-type"] for one in received) == sorted(kinds[1:])
    told = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["RedrivePolicy"])["Attributes"]
    assert json.loads(told["RedrivePolicy"]) == {"deadLetterTargetArn": dead, "maxReceiveCount": 5}
