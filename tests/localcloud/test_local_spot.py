"""Spot requests of RunInstances as EC2 has them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner

from bake.localcloud.cli import local

from .moto_account import new


def market(kind: str = "persistent", interruption: str = "stop", **more: Any) -> dict[str, Any]:
    options = {"SpotInstanceType": kind, "InstanceInterruptionBehavior": interruption, **more}
    return {"InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": options}}


def tagged(name: str) -> list[dict[str, Any]]:
    kinds = ("instance", "spot-instances-request")
    return [{"ResourceType": kind, "Tags": [{"Key": "bake:run", "Value": name}]} for kind in kinds]


def requests(account: Any, name: str) -> Any:
    """The requests of a name; a new one is left out of some answers."""
    filters = [{"Name": "tag:bake:run", "Values": [name]}]
    ask = account.ec2.describe_spot_instance_requests
    return account.wait("a request", lambda: ask(Filters=filters)["SpotInstanceRequests"] or None)


def state(account: Any, name: str, wanted: str) -> bool | None:
    return True if requests(account, name)[0]["State"] == wanted else None


@pytest.mark.root
def test_a_persistent_request_replaces_its_instance_until_it_expires(account: Any) -> None:
    name, until = new("spot"), datetime.now(UTC).replace(microsecond=0) + timedelta(hours=2)
    launched = account.launch(TagSpecifications=tagged(name), **market(ValidUntil=until))
    [request] = requests(account, name)
    [group] = account.ec2.describe_instances(InstanceIds=[launched.id])["Reservations"]
    identity = request["SpotInstanceRequestId"]
    assert group["Instances"][0]["SpotInstanceRequestId"] == identity
    assert group["Instances"][0]["InstanceLifecycle"] == "spot"
    assert (request["State"], request["Type"], request["InstanceId"]) == ("active", "persistent", launched.id)
    assert request["ValidUntil"] == until
    account.reach(launched.id, "running")
    account.ec2.stop_instances(InstanceIds=[launched.id])
    account.reach(launched.id, "stopped")
    assert state(account, name, "disabled")
    account.terminate(launched.id)

    def replaced() -> str | None:
        [found] = requests(account, name)
        return found["InstanceId"] if found["InstanceId"] != launched.id else None

    second = account.wait("another instance", replaced)
    account.reach(second, "running")
    runner = CliRunner()
    try:
        assert runner.invoke(local, ["clock", "+3h"]).exit_code == 0
        account.terminate(second)
        assert state(account, name, "closed")
    finally:
        runner.invoke(local, ["clock", "reset"])
        account.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[identity])


@pytest.mark.root
def test_a_cancelled_request_replaces_nothing(account: Any) -> None:
    """Its instance lives on; the next request is replaced while this one is not."""
    name, other = new("spot"), new("spot")
    launched = account.launch(TagSpecifications=tagged(name), **market())
    [request] = requests(account, name)
    identity = [request["SpotInstanceRequestId"]]
    [gone] = account.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=identity)[
        "CancelledSpotInstanceRequests"
    ]
    assert gone["State"] == "cancelled"
    account.reach(launched.id, "running")
    account.terminate(launched.id)
    second = account.launch(TagSpecifications=tagged(other), **market())
    account.terminate(second.id)
    found = account.wait(
        "another", lambda: next((r for r in requests(account, other) if r["InstanceId"] != second.id), None)
    )
    account.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[found["SpotInstanceRequestId"]])
    account.terminate(found["InstanceId"])
    [request] = requests(account, name)
    assert (request["State"], request["InstanceId"]) == ("cancelled", launched.id)


@pytest.mark.root
def test_a_one_time_instance_can_not_be_stopped(account: Any) -> None:
    name = new("spot")
    launched = account.launch(TagSpecifications=tagged(name), **market("one-time", "terminate"))
    try:
        account.reach(launched.id, "running")
        with pytest.raises(ClientError, match="UnsupportedOperation"):
            account.ec2.stop_instances(InstanceIds=[launched.id])
    finally:
        account.terminate(launched.id)
    assert state(account, name, "closed")


@pytest.mark.root
@pytest.mark.parametrize(
    "options",
    [
        market("one-time", "stop"),
        market("persistent", "terminate"),
        market("one-time", "terminate", ValidUntil=datetime(2030, 1, 1, tzinfo=UTC)),
    ],
    ids=["one-time-stop", "persistent-terminate", "one-time-until"],
)
def test_options_that_exclude_each_other_are_refused(account: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ClientError, match="InvalidParameterCombination"):
        account.launch(**options)


@pytest.mark.root
def test_an_unknown_request_is_not_found(account: Any) -> None:
    for ask in (account.ec2.cancel_spot_instance_requests, account.ec2.describe_spot_instance_requests):
        with pytest.raises(ClientError, match=r"InvalidSpotInstanceRequestID\.NotFound"):
            ask(SpotInstanceRequestIds=["sir-12345678"])
