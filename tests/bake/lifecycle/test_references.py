"""What is asked about AMIs before one goes, against the local cloud's API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from botocore.awsrequest import AWSResponse

from bake.lifecycle import sharing
from bake.lifecycle.asking import ask_proof
from bake.lifecycle.proof import Proof
from bake.localcloud.api.consistency.schedule import Schedule
from bake.localcloud.api.consistency.settling import Settling
from bake.localcloud.api.ec2 import LocalEc2
from bake.localcloud.settings import SPOT_REGION
from tests.bake.lifecycle.kept_images import OTHERS, Kept, new
from tests.localcloud.conftest import ebs, ebs_served
from tests.localcloud.ebs_account import BASE, EbsAccount

__all__ = ["ebs", "ebs_served"]
pytestmark = pytest.mark.integration


@pytest.fixture
def kept(ebs: EbsAccount) -> Iterator[Kept]:
    made = Kept(ebs)
    yield made
    made.clean()


def proof(kept: Kept, *images: str, files: tuple[Path, ...] = ()) -> Proof:
    return ask_proof(kept.clouds, [kept.held(image) for image in images], files)


def references(kept: Kept, image: str, **more: Any) -> set[str]:
    found = proof(kept, image, **more)
    assert (found.unanswered, found.doubts) == ({}, {})
    return {str(one) for one in found.references.get(image, ())}


def test_an_image_of_nobody_has_no_reference_and_no_images_no_question(kept: Kept) -> None:
    image = kept.bake()
    assert references(kept, image) == set()
    before = kept.aws.tally.api_calls
    assert ask_proof(kept.clouds, []) == Proof()
    assert kept.aws.tally.api_calls == before


def test_instances_are_told_with_their_state(kept: Kept) -> None:
    image = kept.bake()
    running, stopped, ended = (kept.ebs.launch(image) for _ in range(3))
    kept.aws.ec2.stop_instances(InstanceIds=[stopped])
    kept.aws.ec2.terminate_instances(InstanceIds=[ended])
    found = references(kept, image)
    assert f"instance {running} (running)" in found
    assert any(one.startswith(f"instance {stopped} (stop") for one in found)
    assert not any(ended in one for one in found)
    kept.aws.ec2.terminate_instances(InstanceIds=[running, stopped])


def test_each_version_of_a_template_counts(kept: Kept) -> None:
    old, default, newest = (kept.bake() for _ in range(3))
    template = kept.template(old)
    kept.version(template, default)
    kept.aws.ec2.modify_launch_template(LaunchTemplateId=template, DefaultVersion="2")
    kept.version(template, newest)
    found = proof(kept, old, default, newest)
    told = {image: [str(one) for one in some] for image, some in found.references.items()}
    versions = enumerate((old, default, newest), 1)
    assert told == {image: [f"launch template {template} version {n}"] for n, image in versions}


def test_a_template_that_goes_by_a_parameter_counts_for_what_the_parameter_holds(kept: Kept) -> None:
    image, other = kept.bake(), kept.bake()
    name = kept.parameter(image)
    template = kept.template(f"resolve:ssm:{name}")
    by_version = kept.template(f"resolve:ssm:{name}:1")
    nothing = kept.template(f"resolve:ssm:/{new('no-parameter')}")
    kept.template("resolve:ssm:/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/ami-id")
    kept.template(None)
    first = references(kept, image)
    assert f"launch template {template} version 1, by resolve:ssm:{name}" in first
    assert f"launch template {by_version} version 1, by resolve:ssm:{name}:1" in first
    assert not any(nothing in one for one in first)
    kept.aws.ssm.put_parameter(Name=name, Value=other, Type="String", Overwrite=True)
    assert not any(template in one for one in references(kept, image))
    assert f"launch template {by_version} version 1, by resolve:ssm:{name}:1" in references(kept, image)
    assert f"launch template {template} version 1, by resolve:ssm:{name}" in references(kept, other)


GROUPS: dict[str, Callable[[Kept, str], tuple[dict[str, Any], str]]] = {
    "template": lambda kept, template: (
        {"LaunchTemplate": {"LaunchTemplateId": template, "Version": "1"}},
        f"by launch template {template} version 1",
    ),
    "default": lambda kept, template: (
        {"LaunchTemplate": {"LaunchTemplateId": template, "Version": "$Default"}},
        f"by launch template {template} version 1",
    ),
    "mixed": lambda kept, template: (
        {
            "MixedInstancesPolicy": {
                "LaunchTemplate": {
                    "LaunchTemplateSpecification": {"LaunchTemplateId": template, "Version": "$Latest"},
                    "Overrides": [{"InstanceType": "g6e.xlarge"}],
                }
            }
        },
        f"by launch template {template} version 1",
    ),
    "override": lambda kept, template: (
        {
            "MixedInstancesPolicy": {
                "LaunchTemplate": {
                    "LaunchTemplateSpecification": {
                        "LaunchTemplateId": kept.template(BASE),
                        "Version": "1",
                    },
                    "Overrides": [
                        {"InstanceType": "g6e.xlarge"},
                        {
                            "InstanceType": "g6e.2xlarge",
                            "LaunchTemplateSpecification": {"LaunchTemplateId": template, "Version": "1"},
                        },
                    ],
                }
            }
        },
        f"by launch template {template} version 1",
    ),
}


@pytest.mark.parametrize("how", GROUPS)
def test_a_group_counts_by_its_template_and_overrides(kept: Kept, how: str) -> None:
    image = kept.bake()
    asked, told = GROUPS[how](kept, kept.template(image))
    group = kept.group(**asked)
    assert f"Auto Scaling group {group} {told}" in references(kept, image)
    kept.aws.autoscaling.delete_auto_scaling_group(AutoScalingGroupName=group, ForceDelete=True)


def test_a_launch_configuration_counts_with_and_without_a_group(kept: Kept) -> None:
    image, name = kept.bake(), new("lc")
    kept.aws.autoscaling.create_launch_configuration(
        LaunchConfigurationName=name, ImageId=image, InstanceType="g6e.xlarge"
    )
    assert references(kept, image) == {f"launch configuration {name}"}
    group = kept.group(LaunchConfigurationName=name)
    assert f"Auto Scaling group {group} by launch configuration {name}" in references(kept, image)
    kept.aws.autoscaling.delete_auto_scaling_group(AutoScalingGroupName=group, ForceDelete=True)
    kept.aws.autoscaling.delete_launch_configuration(LaunchConfigurationName=name)


@pytest.mark.parametrize(
    ("kind", "value", "more", "expected"),
    [
        pytest.param("String", "{}", {}, True, id="text"),
        pytest.param("String", "{}", {"DataType": "aws:ec2:image"}, True, id="an AMI"),
        pytest.param("StringList", "ami-0123456789abcdef1,{}", {}, True, id="in a list"),
        pytest.param("String", '{{"image": "{}", "type": "g6e.xlarge"}}', {}, True, id="in JSON"),
        pytest.param("String", "{}0", {}, False, id="a longer id"),
        pytest.param("SecureString", "{}", {}, False, id="a secret"),
    ],
)
def test_a_parameter_counts_by_its_text(
    kept: Kept, kind: str, value: str, more: dict[str, str], expected: bool
) -> None:
    image = kept.bake()
    name = kept.parameter(value.format(image), kind, **more)
    assert references(kept, image) == ({f"SSM parameter {name}"} if expected else set())


def test_many_parameters_are_read_in_pages(kept: Kept) -> None:
    image = kept.bake()
    names = [kept.parameter(image) for _ in range(60)]
    assert references(kept, image) == {f"SSM parameter {name}" for name in names}


def test_spot_requests_that_may_launch_count(kept: Kept) -> None:
    image = kept.bake()
    options = {"SpotInstanceType": "persistent", "InstanceInterruptionBehavior": "stop"}
    market: Any = {"MarketType": "spot", "SpotOptions": options}
    launched = kept.ebs.call(
        "run_instances",
        ImageId=image,
        InstanceType="g6e.xlarge",
        MinCount=1,
        MaxCount=1,
        InstanceMarketOptions=market,
    )["Instances"][0]
    request = launched["SpotInstanceRequestId"]
    assert f"Spot request {request}" in references(kept, image)
    kept.aws.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[request])
    kept.aws.ec2.terminate_instances(InstanceIds=[launched["InstanceId"]])
    assert not any(request in one for one in references(kept, image))


def test_another_ami_of_the_same_snapshot_counts(kept: Kept) -> None:
    image = kept.bake()
    (snapshot,) = kept.held(image).snapshots
    other = kept.aws.ec2.register_image(
        Name=new(),
        RootDeviceName="/dev/sda1",
        BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot}}],
    )["ImageId"]
    assert references(kept, image) == {f"AMI {other} is of the same snapshot"}


def test_whom_it_is_shared_with_and_who_of_them_uses_it(kept: Kept) -> None:
    image = kept.bake()
    kept.share(image, OTHERS)
    found = proof(kept, image)
    assert (found.shares, found.references) == ({image: (OTHERS,)}, {})
    used, kinds = kept.bake(), (("ec2:Instance", 2), ("ec2:LaunchTemplate", 1))
    kept.share(used, OTHERS, "111122223333")
    for kind, count in kinds:
        kept.used_by_others(used, kind, count)
    found = proof(kept, used)
    assert found.shares == {used: ("111122223333", OTHERS)}
    assert [str(one) for one in found.references[used]] == [
        f"account {OTHERS} (2 instances, 1 launch template)"
    ]


def test_a_young_report_is_used_again(kept: Kept) -> None:
    image = kept.bake()
    kept.share(image, OTHERS)
    for _ in range(2):
        assert proof(kept, image).doubts == {}
    assert len(kept.aws.ec2.describe_image_usage_reports(ImageIds=[image])["ImageUsageReports"]) == 1
    with mock.patch.object(sharing, "YOUNG", -sharing.YOUNG):
        assert proof(kept, image).doubts == {}
    assert len(kept.aws.ec2.describe_image_usage_reports(ImageIds=[image])["ImageUsageReports"]) == 2


def test_a_report_that_takes_long_is_a_missing_answer_about_that_image_alone(kept: Kept) -> None:
    image, other = kept.bake(), kept.bake()
    kept.share(image, OTHERS)
    late = Settling(Schedule(1), clock=lambda: 0.0)  # whose time stands still
    with (
        mock.patch.object(LocalEc2, "settling", late),
        mock.patch("random.Random.random", lambda dice: 0.9),
        mock.patch.object(sharing, "PATIENCE", 0.3),
    ):
        found = proof(kept, image, other)
    assert set(found.doubts) == {image}
    (why,) = found.doubts[image]
    assert why.startswith(f"who uses {image} could not be asked: EC2 still makes the usage report amiur-")


def test_a_report_that_ec2_could_not_make_is_a_missing_answer(kept: Kept) -> None:
    """The local cloud makes all of them."""
    image = kept.bake()
    kept.share(image, OTHERS)
    failed = [{"State": "error", "StateReason": "too busy"}]
    with mock.patch.object(
        sharing, "_reports", lambda aws, **chosen: failed if "ReportIds" in chosen else []
    ):
        found = proof(kept, image)
    assert found.doubts == {
        image: (f"who uses {image} could not be asked: EC2 made no usage report: too busy",)
    }


DENIED = {
    "the references that EC2 knows": ("ec2", "describe_image_references"),
    "instances": ("ec2", "describe_instances"),
    "launch templates": ("ec2", "describe_launch_template_versions"),
    "Auto Scaling groups": ("autoscaling", "describe_auto_scaling_groups"),
    "SSM parameters": ("ssm", "describe_parameters"),
    "Spot requests": ("ec2", "describe_spot_instance_requests"),
    "Spot Fleets": ("ec2", "describe_spot_fleet_requests"),
}


@pytest.mark.parametrize("name", DENIED)
def test_a_question_that_is_refused_hides_no_other(kept: Kept, name: str) -> None:
    image = kept.bake()
    template, parameter = kept.template(image), kept.parameter(image)
    held = [kept.held(image)]
    service, operation = DENIED[name]
    wanted = "".join(word.capitalize() for word in operation.split("_"))

    def refuse(model: Any, **_: Any) -> Any:
        if model.name != wanted:
            return None
        denied = {
            "Error": {"Code": "AccessDenied", "Message": "no"},
            "ResponseMetadata": {"HTTPStatusCode": 403},
        }
        return AWSResponse("", 403, {}, None), denied

    client = getattr(kept.aws, service)
    client.meta.events.register("before-call", refuse)
    try:
        found = ask_proof(kept.clouds, held)
    finally:
        client.meta.events.unregister("before-call", refuse)
    where = f"{name} in {SPOT_REGION}"
    assert found.unanswered == {where: "AWS answers AccessDenied"}
    assert found.doubts == {image: (f"{where} could not be asked: AWS answers AccessDenied",)}
    told = {str(one) for one in found.references[image]}
    assert told & {f"launch template {template} version 1", f"SSM parameter {parameter}"}


def test_files_that_name_it_count_and_those_that_cannot_be_read_are_a_missing_answer(
    kept: Kept, tmp_path: Path
) -> None:
    image = kept.bake()
    (tmp_path / "main.tf").write_text(f'\n\nami = "{image}"\n')
    assert references(kept, image, files=(tmp_path,)) == {f"file {tmp_path / 'main.tf'}:3"}
    (tmp_path / "loop").symlink_to("loop")
    found = proof(kept, image, files=(tmp_path,))
    assert found.unanswered == {
        "some of the files": f"{tmp_path / 'loop'}: Too many levels of symbolic links"
    }
    assert set(found.doubts) == {image}
