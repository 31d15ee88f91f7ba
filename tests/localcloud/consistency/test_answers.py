"""Lists without what is not known yet."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from bake.localcloud.api.consistency import answers
from bake.localcloud.api.faults.calls import Call

SPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
INSTANCES = f"""<?xml version="1.0" encoding="utf-8"?>
<DescribeInstancesResponse xmlns="{SPACE}"><requestId>r</requestId><reservationSet>
<item><reservationId>r-1</reservationId><instancesSet><item><instanceId>i-1</instanceId></item></instancesSet></item>
<item><reservationId>r-2</reservationId><instancesSet><item><instanceId>i-2</instanceId></item>
<item><instanceId>i-3</instanceId></item></instancesSet></item></reservationSet></DescribeInstancesResponse>""".encode()
IMAGES = f"""<DescribeImagesResponse xmlns="{SPACE}"><imagesSet>
<item><imageId>ami-1</imageId><imageState>pending</imageState><blockDeviceMapping><item>
<deviceName>/dev/sda1</deviceName><ebs><snapshotId>snap-1</snapshotId><volumeSize>8</volumeSize></ebs></item>
</blockDeviceMapping></item><item><imageId>ami-2</imageId><imageState>available</imageState>
<blockDeviceMapping><item><ebs><snapshotId>snap-2</snapshotId></ebs></item></blockDeviceMapping></item>
</imagesSet></DescribeImagesResponse>""".encode()


def texts(content: bytes, name: str) -> list[str | None]:
    return [one.text for one in ElementTree.fromstring(content).iter(f"{{{SPACE}}}{name}")]


def test_an_instance_that_is_hidden_goes_with_its_reservation() -> None:
    asked = Call("ec2", "DescribeInstances", "ec2", {"Filter.1.Value.1": "i-1"})
    found = answers.without(asked, INSTANCES, lambda prefix, named: {"i-1", "i-2"})
    assert texts(found, "instanceId") == ["i-3"]
    assert texts(found, "reservationId") == ["r-2"]
    assert ElementTree.fromstring(found).tag == f"{{{SPACE}}}DescribeInstancesResponse"


def test_what_a_call_names_is_in_its_answer() -> None:
    asked = Call("ec2", "DescribeInstances", "ec2", {"InstanceId.1": "i-1"})
    assert answers.without(asked, INSTANCES, lambda prefix, named: {"i-1"} - set(named)) == INSTANCES


@pytest.mark.parametrize("early", [True, False])
def test_a_pending_image_tells_its_snapshot_late(early: bool) -> None:
    found = answers.without_snapshots(IMAGES, lambda image: early)
    assert texts(found, "snapshotId") == (["snap-2"] if early else ["snap-1", "snap-2"])
    assert texts(found, "volumeSize") == ["8"]


@pytest.mark.parametrize(
    ("service", "action", "content", "hidden", "expected"),
    [
        pytest.param(
            "sqs",
            "ListQueues",
            {"QueueUrls": ["http://x/1/a", "http://x/1/b"]},
            {"sqs:CreateQueue a"},
            {"QueueUrls": ["http://x/1/b"]},
            id="queues",
        ),
        pytest.param(
            "events",
            "ListRules",
            {"Rules": [{"Name": "all"}], "NextToken": "n"},
            {"events:PutRule all"},
            {"Rules": [], "NextToken": "n"},
            id="rules",
        ),
        pytest.param("sqs", "ListQueues", {}, {"sqs:CreateQueue a"}, {}, id="none"),
    ],
)
def test_lists_of_names(
    service: str, action: str, content: object, hidden: set[str], expected: object
) -> None:
    asked = Call(service, action, "json", {})
    assert answers.lists(asked)
    found = answers.without(asked, json.dumps(content).encode(), lambda prefix, named: hidden)
    assert json.loads(found) == expected


def test_other_answers_are_no_lists() -> None:
    assert not answers.lists(Call("ec2", "RunInstances", "ec2", {}))
    assert not answers.lists(Call("s3", "ListObjectsV2", "s3", {}))
