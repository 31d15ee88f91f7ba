"""`bake local interrupt`: EC2 takes spot instances back, and starts them again."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner

from bake.errors import BakeError, UsageError
from bake.localcloud.cli import local
from bake.ssh import connect
from bake.wiring import queue_policy

from .moto_account import new
from .test_local_spot import market, requests, tagged

pytestmark = pytest.mark.root
M = "http://169.254.169.254/latest"
ASK = f"""
token=$(curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' {M}/api/token)
for path in spot/instance-action events/recommendations/rebalance; do
  curl -sf -H "X-aws-ec2-metadata-token: $token" {M}/meta-data/$path || echo none; echo
done
"""


def interrupt(*words: str) -> Any:
    """Run `bake local interrupt … --json`; an error that the user would see is raised."""
    result = CliRunner().invoke(local, ["interrupt", *words, "--json"])
    if isinstance(result.exception, BakeError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def described(account: Any, identity: str) -> Any:
    [group] = account.ec2.describe_instances(InstanceIds=[identity])["Reservations"]
    return group["Instances"][0]


def request_is(account: Any, name: str, state: str, code: str) -> bool:
    [request] = requests(account, name)
    return (request["State"], request["Status"]["Code"]) == (state, code)


def listening(account: Any) -> tuple[str, Any]:
    """A queue that gets the default bus's events of EC2, and what removes both."""
    name = new("warned")
    events, sqs = account.client("events", "SPOT_AWS_REGION"), account.client("sqs", "SPOT_AWS_REGION")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    rule = events.put_rule(Name=name, EventPattern=json.dumps({"source": ["aws.ec2"]}))["RuleArn"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": queue_policy(arn, rule)})
    events.put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": arn}])

    def remove() -> None:
        events.remove_targets(Rule=name, Ids=["queue"])
        events.delete_rule(Name=name)
        sqs.delete_queue(QueueUrl=url)

    return url, remove


def test_a_stopped_one_is_started_by_ec2_alone_at_another_public_address(account: Any) -> None:
    name = new("spot")
    launched = account.launch(TagSpecifications=tagged(name), **market())
    url, remove = listening(account)
    try:
        account.reach(launched.id, "running")
        before = described(account, launched.id)
        with connect(launched.login) as session:
            session.run("sh", "-c", "echo kept >kept")
            assert session.run_shell(ASK).stdout.split() == ["none", "none"]
            told = interrupt(launched.id)
            action, rebalance = map(json.loads, session.run_shell(ASK).stdout.strip().splitlines())
        assert request_is(account, name, "active", "marked-for-stop")
        assert action == {"action": "stop", "time": told["at"]}
        at = datetime.fromisoformat(told["at"])
        assert timedelta(seconds=90) < at - datetime.now(UTC) <= timedelta(minutes=2)
        assert timedelta(0) < at - datetime.fromisoformat(rebalance["noticeTime"]) <= timedelta(minutes=2)
        events = _received(account, url, 2)
        warning = events["EC2 Spot Instance Interruption Warning"]
        assert warning["detail"] == {"instance-id": launched.id, "instance-action": "stop"}
        assert events["EC2 Instance Rebalance Recommendation"]["detail"] == {"instance-id": launched.id}
        with pytest.raises(UsageError, match="has its notice already: stop at 20"):
            interrupt(launched.id)
        _advance("+2m")
        account.reach(launched.id, "stopped")
        assert described(account, launched.id)["StateReason"]["Code"] == "Server.SpotInstanceShutdown"
        assert request_is(account, name, "disabled", "instance-stopped-no-capacity")
        with pytest.raises(ClientError, match="IncorrectSpotRequestState"):
            account.ec2.start_instances(InstanceIds=[launched.id])
        address = interrupt(launched.id, "--restore")["address"]
        account.reach(launched.id, "running")
        assert request_is(account, name, "active", "fulfilled")
        after = described(account, launched.id)
        assert before["PublicIpAddress"] != address == after["PublicIpAddress"]
        assert before["PrivateIpAddress"] == after["PrivateIpAddress"]
        with connect(replace(launched.login, address=address)) as session:
            assert session.run("cat", "kept").stdout == "kept\n"
            assert session.run_shell(ASK).stdout.split() == ["none", "none"]
        with pytest.raises(UsageError, match="no interruption has stopped it"):
            interrupt(launched.id, "--restore")
    finally:
        remove()
        _advance("reset")
        _end(account, name)


def test_one_whose_request_was_cancelled_meanwhile_is_terminated(account: Any) -> None:
    name = new("spot")
    launched = account.launch(TagSpecifications=tagged(name), **market())
    try:
        account.reach(launched.id, "running")
        interrupt(launched.id, "--notice", "0s")
        account.reach(launched.id, "stopped")
        _end(account, name, terminate=False)
        account.reach(launched.id, "terminated")
        with pytest.raises(UsageError, match="is terminated"):
            interrupt(launched.id, "--restore")
    finally:
        _end(account, name)


def test_a_one_time_one_is_terminated(account: Any) -> None:
    name = new("spot")
    launched = account.launch(TagSpecifications=tagged(name), **market("one-time", "terminate"))
    try:
        account.reach(launched.id, "running")
        assert interrupt(launched.id, "--notice", "0s")["action"] == "terminate"
        account.reach(launched.id, "terminated")
        assert described(account, launched.id)["StateReason"]["Code"] == "Server.SpotInstanceTermination"
        assert request_is(account, name, "closed", "instance-terminated-no-capacity")
    finally:
        _end(account, name)


def test_only_a_running_spot_instance_is_interrupted(account: Any) -> None:
    launched = account.launch()
    try:
        with pytest.raises(UsageError, match="is paid on demand: EC2 interrupts spot instances only"):
            interrupt(launched.id)
        with pytest.raises(UsageError, match="there is no instance i-0"):
            interrupt("i-0")
        with pytest.raises(UsageError, match="soon is no time"):
            interrupt(launched.id, "--notice", "soon")
    finally:
        account.terminate(launched.id)


def _advance(span: str) -> None:
    assert CliRunner().invoke(local, ["clock", span]).exit_code == 0


def _received(account: Any, url: str, count: int) -> dict[str, Any]:
    sqs = account.client("sqs", "SPOT_AWS_REGION")
    found: dict[str, Any] = {}

    def enough() -> bool | None:
        for message in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
            event = json.loads(message["Body"])
            found[event["detail-type"]] = event
        return True if len(found) >= count else None

    account.wait("the events", enough)
    return found


def _end(account: Any, name: str, *, terminate: bool = True) -> None:
    [request] = requests(account, name)
    account.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[request["SpotInstanceRequestId"]])
    if terminate:
        account.terminate(request["InstanceId"])
