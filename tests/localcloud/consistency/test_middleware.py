"""An account behind a seed, as real clients meet it; moto answers what a replica knows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.events.models import EventsBackend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from bake.localcloud.api import events
from bake.localcloud.api.consistency.middleware import Consistent
from bake.localcloud.api.consistency.replicas import Replicas
from bake.localcloud.api.consistency.schedule import Delay, Schedule
from bake.localcloud.api.consistency.settling import Settling
from bake.localcloud.api.faults.faults import AwsFaults
from bake.localcloud.network.server import serve

from ..moto_account import MotoAccount, new

pytestmark = pytest.mark.integration
LAUNCH: dict[str, Any] = {"ImageId": "ami-12345678", "MinCount": 1, "MaxCount": 1, "InstanceType": "t3.micro"}


class Late(Schedule):
    """Every other answer, the first too, does not know what is new, for as long as a test takes."""

    def delay(self, kind: str, number: int) -> Delay:
        return Delay(3600.0, shown_first=False)


@pytest.fixture(scope="module")
def account() -> Iterator[MotoAccount]:
    replicas = Replicas(Late(0), clock=lambda: 0.0)
    app = Consistent(DomainDispatcherApplication(create_backend_app), replicas, Settling(Late(0)))
    of_moto = EventsBackend.put_events
    events.lose(replicas.shows)
    server = serve("127.0.0.1", 0, app, "AWS")
    yield MotoAccount(f"http://127.0.0.1:{server.server_port}", AwsFaults())
    server.shutdown()
    EventsBackend.put_events = of_moto


def state(account: MotoAccount, instance: str) -> str:
    [group] = account.call("ec2", "describe_instances", InstanceIds=[instance])["Reservations"]
    return str(group["Instances"][0]["State"]["Name"])


def test_a_termination_that_is_not_found_has_done_nothing(account: MotoAccount) -> None:
    instance = account.call("ec2", "run_instances", **LAUNCH)["Instances"][0]["InstanceId"]
    refused = account.refused("ec2", "terminate_instances", InstanceIds=[instance])
    assert refused == ("InvalidInstanceID.NotFound", 400)
    assert state(account, instance) == "running"
    account.refused("ec2", "terminate_instances", InstanceIds=[instance])
    account.call("ec2", "terminate_instances", InstanceIds=[instance])
    account.refused("ec2", "describe_instances", InstanceIds=[instance])
    assert state(account, instance) == "terminated"


def test_a_rule_that_is_not_found_is_not_added(account: MotoAccount) -> None:
    group = account.call("ec2", "create_security_group", GroupName=new(), Description="x")["GroupId"]
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "192.0.2.7/32"}]}
    added = {"GroupId": group, "IpPermissions": [rule]}
    assert account.refused("ec2", "authorize_security_group_ingress", **added)[0] == "InvalidGroup.NotFound"
    [found] = account.call("ec2", "describe_security_groups", GroupIds=[group])["SecurityGroups"]
    assert found["IpPermissions"] == []


def test_a_list_leaves_out_every_second_time_what_is_new(account: MotoAccount) -> None:
    name = new()
    account.call("ec2", "run_instances", ClientToken=name, **LAUNCH)
    account.call("sqs", "create_queue", QueueName=name)

    def listed() -> tuple[int, int]:
        mine: Any = [{"Name": "image-id", "Values": ["ami-12345678"]}, {"Name": "instance-state-name"}]
        mine[1]["Values"] = ["pending", "running"]
        groups = account.call("ec2", "describe_instances", Filters=mine)["Reservations"]
        queues = account.call("sqs", "list_queues", QueueNamePrefix=name).get("QueueUrls", [])
        return len(groups), len(queues)

    first, second = listed(), listed()
    assert (second[0] - first[0], second[1] - first[1]) == (1, 1)


def test_a_pending_image_has_no_snapshot_yet(account: MotoAccount) -> None:
    """moto's are available at once: see tests/localcloud/test_local_machines.py for the whole of it."""
    instance = account.call("ec2", "run_instances", **LAUNCH)["Instances"][0]["InstanceId"]
    account.refused("ec2", "create_image", InstanceId=instance, Name=new())
    image = account.call("ec2", "create_image", InstanceId=instance, Name=new())["ImageId"]
    assert account.refused("ec2", "describe_images", ImageIds=[image])[0] == "InvalidAMIID.NotFound"
    [found] = account.call("ec2", "describe_images", ImageIds=[image])["Images"]
    snapshot = found["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    refused = account.refused("ec2", "describe_snapshots", SnapshotIds=[snapshot])
    assert refused[0] == "InvalidSnapshot.NotFound"


def until_found(account: MotoAccount, service: str, operation: str, **parameters: Any) -> Any:
    """Call until what the call names is found: each thing is, by every second answer."""
    for _ in range(8):
        try:
            return account.call(service, operation, **parameters)
        except ClientError as error:
            assert "NotFound" in error.response["Error"]["Code"]
    raise AssertionError(f"{operation}: never found")


def queue_on(account: MotoAccount, bus: str) -> str:
    """A queue for all events of a bus."""
    url = account.call("sqs", "create_queue", QueueName=bus)["QueueUrl"]
    arn = f"arn:aws:sqs:eu-west-1:123456789012:{bus}"
    account.call("events", "create_event_bus", Name=bus)
    rule = {"Name": bus, "EventBusName": bus, "EventPattern": json.dumps({"source": ["flux"]})}
    until_found(account, "events", "put_rule", **rule)
    target = {"Rule": bus, "EventBusName": bus, "Targets": [{"Id": "q", "Arn": arn}]}
    until_found(account, "events", "put_targets", **target)
    return str(url)


def test_events_for_a_bus_that_is_not_there_are_lost_with_success(account: MotoAccount) -> None:
    """The entries of a call are independent: those for a bus that is there arrive."""
    gone, name = new(), new()
    entry = {"Source": "flux", "DetailType": "t"}
    url = queue_on(account, name)
    sent = [
        {**entry, "EventBusName": bus, "Detail": json.dumps({"n": n})} for n, bus in enumerate((gone, name))
    ]
    for _ in range(2):  # one of the two finds the new bus
        answer = account.call("events", "put_events", Entries=sent)
        assert answer["FailedEntryCount"] == 0
        assert all(one["EventId"] for one in answer["Entries"])
    account.refused("sqs", "receive_message", QueueUrl=url)
    found = account.call("sqs", "receive_message", QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    assert [json.loads(one["Body"])["detail"] for one in found] == [{"n": 1}]


def test_what_moto_refuses_of_an_event_it_still_refuses(account: MotoAccount) -> None:
    entry = {"Source": "flux", "DetailType": "t", "Detail": "no JSON", "EventBusName": "default"}
    answer = account.call("events", "put_events", Entries=[entry, {**entry, "EventBusName": new()}])
    assert [one.get("ErrorCode") for one in answer["Entries"]] == ["MalformedDetail", None]
