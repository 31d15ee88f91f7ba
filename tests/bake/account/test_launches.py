"""RunInstances is asked as a DryRun: with the real arguments, and nothing is launched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from bake.account.launches import ask_launches
from bake.errors import UsageError
from bake.planning.render import as_dict, as_text
from bake.profile import Profile
from bake.profile.cold_start import ColdStart

from ..facts import AMI

if TYPE_CHECKING:
    from tests.bake.conftest import PlanCloud

RATE = "BlockDeviceMapping.1.Ebs.VolumeInitializationRate"
DRY = {"match": "DryRun=true", "times": None}
PASS_ROLE = (
    "You are not authorized to perform this operation. User: arn:aws:sts::123456789012:assumed-role/b/ci "
    "is not authorized to perform: iam:PassRole on resource: arn:aws:iam::123456789012:role/flux because no "
    "identity-based policy allows the iam:PassRole action. Encoded authorization failure message: AbC"
)
OTHER_GROUP = PASS_ROLE.replace("iam:PassRole", "ec2:RunInstances").replace(
    "arn:aws:iam::123456789012:role/flux", "arn:aws:ec2:eu-north-1:123456789012:security-group/sg-1"
)
TEMPORARY = {"security_group": "temporary", "ssh_from": "192.0.2.7/32"}


def asked(cloud: PlanCloud, cold_start: ColdStart | None = None, **builder: Any) -> dict[str, Any]:
    """The parameters of the plan's RunInstances."""
    [sent] = all_asked(cloud, cloud.profile(builder=builder), cold_start).values()
    return sent


def all_asked(
    cloud: PlanCloud, profile: Profile, cold_start: ColdStart | None = None
) -> dict[str, dict[str, Any]]:
    """The parameters of each RunInstances, by instance type."""
    sent: list[dict[str, Any]] = []
    aws = cloud.aws()
    aws.ec2.meta.events.register(
        "before-call.ec2.RunInstances", lambda params, **_: sent.append(params["body"])
    )
    ask_launches(profile.model_copy(update={"cold_start": cold_start or profile.cold_start}), aws, AMI)
    return {one["InstanceType"]: dict(one) for one in sent}


def test_the_launch_is_asked_as_it_will_be_made(plan_cloud: PlanCloud) -> None:
    before = plan_cloud.aws().ec2.describe_instances()["Reservations"]
    sent = asked(plan_cloud, market="spot")
    assert sent["DryRun"] == "true"
    assert sent["InstanceType"] == "g6e.xlarge"
    assert sent["SubnetId"] == plan_cloud.variables["BAKE_SUBNET_ID"]
    assert sent["SecurityGroupId.1"] == plan_cloud.variables["BAKE_SECURITY_GROUP_ID"]
    assert sent["BlockDeviceMapping.1.Ebs.VolumeSize"] == 80
    assert sent["MetadataOptions.HttpTokens"] == "required"
    assert sent["InstanceMarketOptions.MarketType"] == "spot"
    kinds = {value for key, value in sent.items() if key.endswith(".ResourceType")}
    assert kinds == {"instance", "volume", "network-interface", "spot-instances-request"}
    assert "bake:run" in sent.values()
    assert plan_cloud.aws().ec2.describe_instances()["Reservations"] == before


def test_the_rate_is_asked_of_the_workers_types_alone(plan_cloud: PlanCloud) -> None:
    """EC2 says now what it would say to the boot check; a builder is launched without a rate."""
    rate = ColdStart(volume_initialization_rate=300)
    assert asked(plan_cloud, rate)[RATE] == 300
    assert RATE not in asked(plan_cloud)
    apart = plan_cloud.profile(
        builder={"instance_type": "m5.4xlarge"}, worker={"instance_type": "g6e.xlarge"}
    )
    sent = all_asked(plan_cloud, apart, rate)
    assert RATE not in sent["m5.4xlarge"]
    assert sent["g6e.xlarge"][RATE] == 300


def test_no_key_pair_and_no_temporary_group_is_made_for_the_question(plan_cloud: PlanCloud) -> None:
    pairs = plan_cloud.aws().ec2.describe_key_pairs
    before = pairs()["KeyPairs"]  # of other tests
    sent = asked(plan_cloud, **TEMPORARY)
    assert not [key for key in sent if key.startswith(("KeyName", "SecurityGroup"))]
    plan = plan_cloud.plan(builder=TEMPORARY)
    assert "port 22" not in [one.question for one in plan.preflight]
    assert pairs()["KeyPairs"] == before


def test_a_launch_that_is_allowed_is_told(plan_cloud: PlanCloud) -> None:
    plan = plan_cloud.plan()
    answers = {one.question: one.answer for one in plan.preflight}
    assert answers["a launch of g6e.xlarge"] == "EC2 would make it (DryRun)"
    assert "Preflight, asked of AWS without creating anything:\n  - a launch of g6e.xlarge" in as_text(plan)
    assert as_dict(plan)["preflight"][0] == {
        "question": "a launch of g6e.xlarge",
        "answer": "EC2 would make it (DryRun)",
    }


def test_the_right_to_pass_the_role_is_missing(plan_cloud: PlanCloud) -> None:
    plan_cloud.faults.plant(
        "ec2", "RunInstances", "refuse", code="UnauthorizedOperation", message=PASS_ROLE, **DRY
    )
    with pytest.raises(UsageError) as caught:
        plan_cloud.plan()
    assert caught.value.message.splitlines()[0] == (
        "builder.instance_profile: whoever bakes may not launch g6e.xlarge: iam:PassRole is not allowed on "
        "arn:aws:iam::123456789012:role/flux: no identity-based policy allows the iam:PassRole action"
    )
    assert "bake iam --profile g6e-ubuntu" in caught.value.message


def test_a_denial_that_aws_has_encoded_comes_with_the_command_that_reads_it(plan_cloud: PlanCloud) -> None:
    text = "You are not authorized to perform this operation. Encoded authorization failure message: AbC-1_x"
    plan_cloud.faults.plant(
        "ec2", "RunInstances", "refuse", code="UnauthorizedOperation", message=text, **DRY
    )
    with pytest.raises(UsageError, match="--encoded-message AbC-1_x") as caught:
        plan_cloud.plan()
    assert caught.value.message.startswith("builder.instance_type: whoever bakes may not launch g6e.xlarge")


def test_a_denial_of_the_group_that_stands_in_is_not_believed(plan_cloud: PlanCloud) -> None:
    fault = {"code": "UnauthorizedOperation", "message": OTHER_GROUP, **DRY}
    plan_cloud.faults.plant("ec2", "RunInstances", "refuse", **fault)  # type: ignore[arg-type]
    plan = plan_cloud.plan(builder=TEMPORARY)
    assert any("whether whoever bakes may launch g6e.xlarge" in text for text in plan.unchecked)
    with pytest.raises(UsageError, match=r"may not launch g6e\.xlarge: ec2:RunInstances is not"):
        plan_cloud.plan()


@pytest.mark.parametrize(
    ("code", "message", "setting"),
    [
        ("InvalidParameterCombination", "Iops is not supported for gp3 of this size", "root_volume.iops"),
        ("Unsupported", "The requested configuration is not supported.", "builder.instance_type"),
        ("InvalidParameterValue", "iamInstanceProfile.name is invalid", "builder.instance_profile"),
        ("InvalidSubnet.Conflict", "no", "builder.subnet"),
        ("InvalidKMSKey.InvalidState", "no", "root_volume.kms_key"),
        ("InvalidAMIID.Unavailable", "no", "base.ami"),
        (
            "InvalidParameterValue",
            "VolumeInitializationRate for a volume is not supported in this zone",
            "cold_start.volume_initialization_rate",
        ),
        (
            "VolumeLimitExceeded",
            "the cumulative volume initialization rate exceeds your quota, 5000 MiB/s of throughput",
            "cold_start.volume_initialization_rate",
        ),
    ],
)
def test_what_ec2_would_refuse_is_told_at_its_setting(
    plan_cloud: PlanCloud, code: str, message: str, setting: str
) -> None:
    plan_cloud.faults.plant("ec2", "RunInstances", "refuse", code=code, message=message, **DRY)
    with pytest.raises(UsageError) as caught:
        plan_cloud.plan()
    first, *more = caught.value.message.splitlines()
    assert first == f"{setting}: EC2 would refuse a launch of g6e.xlarge: {code}: {message}"
    assert "https://docs.aws.amazon.com/" in more[0]


def test_a_full_quota_may_pass_and_is_warned_of(plan_cloud: PlanCloud) -> None:
    plan_cloud.faults.plant("ec2", "RunInstances", "refuse", code="VcpuLimitExceeded", message="8", **DRY)
    assert (
        "builder.instance_type: g6e.xlarge would not start now: VcpuLimitExceeded: 8"
        in plan_cloud.plan().warnings
    )


def test_a_launch_that_is_not_answered_fails_no_plan(
    plan_cloud: PlanCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bake.aws.PLANNING", 0.5)
    plan_cloud.faults.plant("ec2", "RunInstances", "error", **DRY)
    plan = plan_cloud.plan()
    assert any(text.startswith("a launch of g6e.xlarge (AWS answers ") for text in plan.unchecked)


@pytest.mark.parametrize("code", ["RequestExpired", "ExpiredToken", "AuthFailure", "SignatureDoesNotMatch"])
def test_credentials_that_end_meanwhile_say_nothing_of_the_launch(plan_cloud: PlanCloud, code: str) -> None:
    plan_cloud.faults.plant("ec2", "RunInstances", "refuse", code=code, message="no", **DRY)
    with pytest.raises(ClientError, match=code):
        plan_cloud.plan()
