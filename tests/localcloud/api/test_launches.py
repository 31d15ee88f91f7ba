"""Launches as EC2 makes them: how many, what is repeated, and the fields that clients read."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bake.localcloud.lifecycle import fixtures
from tests.localcloud.recorded_cloud import BASE

from .conftest import Account, new, refusal, wait
from .signed import ask

pytestmark = pytest.mark.integration


def test_as_many_are_launched_as_are_asked_for_at_most(account: Account) -> None:
    answer = account.launch(MinCount=1, MaxCount=3, IamInstanceProfile={"Name": fixtures.PROFILE})
    assert [one["AmiLaunchIndex"] for one in answer["Instances"]] == [0, 1, 2]
    for one in answer["Instances"]:
        account.reach(one["InstanceId"], "running")
        found = account.instance(one["InstanceId"])
        assert found["IamInstanceProfile"]["Arn"].endswith(f"instance-profile/{fixtures.PROFILE}")
    [group] = account.client("ec2").describe_instances(
        Filters=[{"Name": "reservation-id", "Values": [answer["ReservationId"]]}]
    )["Reservations"]
    assert len(group["Instances"]) == 3


def test_launches_without_a_token_are_never_joined(account: Account) -> None:
    """Libcloud and old clients send none."""
    call = {"Action": "RunInstances", "ImageId": "ami-0123456789abcdef0", "InstanceType": "g6e.xlarge"}
    call |= {"MinCount": "1", "MaxCount": "1", "SubnetId": account.subnet}
    first, second = (ask(account, call)[2] for _ in range(2))
    identity = [text.partition("<instanceId>")[2].partition("<")[0] for text in (first, second)]
    assert identity[0].startswith("i-")
    assert identity[0] != identity[1]
    assert not account.instance(identity[0]).get("ClientToken")


def test_a_token_joins_launches_although_the_first_has_taken_what_they_ask_for(account: Account) -> None:
    token = new()
    one = account.launch(ClientToken=token, PrivateIpAddress="10.99.0.49")
    again = account.launch(ClientToken=token, PrivateIpAddress="10.99.0.49")
    assert one["ReservationId"] == again["ReservationId"]
    code = refusal(account.launch, ClientToken=token, PrivateIpAddress="10.99.0.48")
    assert code == ("IdempotentParameterMismatch", 400)


def test_tokens_join_other_calls_as_well(served: Account) -> None:
    ec2, token = served.client("ec2"), new()
    made = [
        ec2.create_launch_template(
            LaunchTemplateName=name, LaunchTemplateData={"InstanceType": "g6e.xlarge"}, ClientToken=token
        )["LaunchTemplate"]["LaunchTemplateId"]
        for name in [new()] * 2
    ]
    assert made[0] == made[1]
    code = refusal(
        ec2.create_launch_template,
        LaunchTemplateName=new(),
        LaunchTemplateData={"InstanceType": "g6e.xlarge"},
        ClientToken=token,
    )
    assert code == ("IdempotentParameterMismatch", 400)


def test_an_image_can_be_named_by_a_parameter(account: Account) -> None:
    name = f"/images/{new()}"
    account.client("ssm").put_parameter(Name=name, Value=BASE, Type="String")
    [instance] = account.launch(ImageId=f"resolve:ssm:{name}")["Instances"]
    assert instance["ImageId"] == BASE
    assert refusal(account.launch, ImageId="resolve:ssm:/none") == ("InvalidParameterValue", 400)


def test_concurrent_launches_with_one_token_make_one(account: Account) -> None:
    token, made = new(), []

    def launch() -> None:
        made.append(account.launch(ClientToken=token)["ReservationId"])

    threads = [threading.Thread(target=launch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 4
    assert len(set(made)) == 1


def test_an_instance_has_the_fields_that_clients_read(account: Account) -> None:
    profile = account.client("iam").get_instance_profile(InstanceProfileName=fixtures.PROFILE)
    identity = account.one(IamInstanceProfile={"Name": fixtures.PROFILE}, DisableApiTermination=True)
    found = account.instance(identity)
    public = found["PublicIpAddress"].replace(".", "-")
    assert found["IamInstanceProfile"] == {
        "Arn": profile["InstanceProfile"]["Arn"],
        "Id": profile["InstanceProfile"]["InstanceProfileId"],
    }
    assert found["CpuOptions"] == {"CoreCount": 2, "ThreadsPerCore": 2}
    wanted = {
        "PlatformDetails": "Linux/UNIX",
        "UsageOperation": "RunInstances",
        "EnaSupport": True,
        "Hypervisor": "xen",
        "PublicDnsName": f"ec2-{public}.eu-north-1.compute.amazonaws.com",
        "HibernationOptions": {"Configured": False},
        "EnclaveOptions": {"Enabled": False},
        "BootMode": "uefi-preferred",
        "CurrentInstanceBootMode": "uefi",
    }
    assert {name: found.get(name) for name in wanted} == wanted
    [card] = found["NetworkInterfaces"]
    assert card["Attachment"]["DeleteOnTermination"] is True
    code = refusal(account.client("ec2").terminate_instances, InstanceIds=[identity])
    assert code == ("OperationNotPermitted", 400)


def test_an_image_has_the_fields_that_clients_read(served: Account) -> None:
    ec2 = served.client("ec2")
    [image] = ec2.describe_images(ImageIds=["ami-0123456789abcdef0"])["Images"]
    wanted = {
        "PlatformDetails": "Linux/UNIX",
        "UsageOperation": "RunInstances",
        "EnaSupport": True,
        "Hypervisor": "xen",
        "BootMode": "uefi-preferred",
        "SriovNetSupport": "simple",
        "VirtualizationType": "hvm",
    }
    assert {name: image.get(name) for name in wanted} == wanted


@pytest.fixture
def stopped(account: Account) -> str:
    identity = account.one()
    account.client("ec2").stop_instances(InstanceIds=[identity])
    return account.reach(identity, "stopped")


def test_the_type_changes_only_while_the_instance_is_stopped(account: Account, stopped: str) -> None:
    ec2 = account.client("ec2")
    ec2.modify_instance_attribute(InstanceId=stopped, InstanceType={"Value": "g6e.2xlarge"})
    assert account.instance(stopped)["InstanceType"] == "g6e.2xlarge"
    assert account.instance(stopped)["CpuOptions"]["CoreCount"] == 4
    for kind, code in (
        ("m7g.large", "InvalidParameterValue"),
        ("g99.huge", "InvalidParameterValue"),
        ("u-3tb1.56xlarge", "Unsupported"),
    ):
        found = refusal(ec2.modify_instance_attribute, InstanceId=stopped, InstanceType={"Value": kind})
        assert found == (code, 400)
    ec2.start_instances(InstanceIds=[stopped])
    account.reach(stopped, "running")
    code = refusal(ec2.modify_instance_attribute, InstanceId=stopped, InstanceType={"Value": "g6e.xlarge"})
    assert code == ("IncorrectInstanceState", 400)
    assert account.instance(stopped)["InstanceType"] == "g6e.2xlarge"


def test_one_wrong_id_among_several_changes_none(account: Account) -> None:
    identity = account.one()
    code = refusal(account.client("ec2").terminate_instances, InstanceIds=[identity, "i-00000000000000000"])
    assert code == ("InvalidInstanceID.NotFound", 400)
    assert account.instance(identity)["State"]["Name"] == "running"


def spot(kind: str, interruption: str) -> dict[str, Any]:
    options = {"SpotInstanceType": kind, "InstanceInterruptionBehavior": interruption}
    return {"InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": options}}


def test_a_spot_launch_names_its_request_and_several_have_one_each(account: Account) -> None:
    answer = account.launch(MaxCount=2, **spot("one-time", "terminate"))["Instances"]
    named = [one["SpotInstanceRequestId"] for one in answer]
    assert len(set(named)) == 2
    found = account.client("ec2").describe_spot_instance_requests(SpotInstanceRequestIds=named)
    instances = {one["InstanceId"] for one in found["SpotInstanceRequests"]}
    assert instances == {one["InstanceId"] for one in answer}


def test_a_persistent_request_relaunches_what_it_was_asked_for_until_it_is_cancelled(
    account: Account,
) -> None:
    ec2 = account.client("ec2")
    first = account.one(IamInstanceProfile={"Name": fixtures.PROFILE}, **spot("persistent", "stop"))
    request = account.instance(first)["SpotInstanceRequestId"]

    def current() -> str:
        [found] = ec2.describe_spot_instance_requests(SpotInstanceRequestIds=[request])[
            "SpotInstanceRequests"
        ]
        return str(found["InstanceId"])

    ec2.terminate_instances(InstanceIds=[first])
    wait(lambda: current() != first)
    second = account.reach(current(), "running")
    assert account.instance(second)["IamInstanceProfile"]["Arn"].endswith(f"/{fixtures.PROFILE}")
    assert account.instance(second)["SpotInstanceRequestId"] == request
    ec2.stop_instances(InstanceIds=[second])
    account.reach(second, "stopped")
    ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[request])
    account.reach(second, "terminated")
    assert current() == second


def test_a_one_time_spot_instance_can_not_be_stopped(account: Account) -> None:
    identity = account.one(**spot("one-time", "terminate"))
    ec2 = account.client("ec2")
    for dry in (False, True):
        code = refusal(ec2.stop_instances, InstanceIds=[identity], DryRun=dry)
        assert code == ("UnsupportedOperation", 400)


def test_the_legacy_way_to_a_spot_instance_is_named_for_what_it_is(served: Account) -> None:
    with pytest.raises(ClientError, match=r"UnsupportedOperation.*RunInstances with InstanceMarketOptions"):
        served.client("ec2").request_spot_instances(LaunchSpecification={"ImageId": BASE})


def test_unknown_spot_requests_are_not_found(served: Account) -> None:
    ec2 = served.client("ec2")
    for name in ("cancel_spot_instance_requests", "describe_spot_instance_requests"):
        code = refusal(getattr(ec2, name), SpotInstanceRequestIds=["sir-12345678"])
        assert code == ("InvalidSpotInstanceRequestID.NotFound", 400)
        code = refusal(getattr(ec2, name), SpotInstanceRequestIds=["spot"])
        assert code == ("InvalidSpotInstanceRequestID.Malformed", 400)


def test_a_start_beyond_the_quota_is_refused(account: Account) -> None:
    """What is stopped uses none; the account has 192 vCPUs of a family."""
    ec2, first = account.client("ec2"), account.one(InstanceType="g6e.48xlarge")
    assert refusal(account.launch) == ("VcpuLimitExceeded", 400)
    ec2.stop_instances(InstanceIds=[first])
    account.reach(first, "stopped")
    second = account.one()
    assert refusal(ec2.start_instances, InstanceIds=[first]) == ("VcpuLimitExceeded", 400)
    ec2.terminate_instances(InstanceIds=[second])
    account.reach(second, "terminated")
    ec2.start_instances(InstanceIds=[first])
    account.reach(first, "running")
