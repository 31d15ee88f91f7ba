"""Revoked AMIs: who goes by them, what becomes of them, and that they are not served again."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from bake.aws import Aws, ClientError
from bake.errors import BakeError, UsageError
from bake.image import describe_image, state_of
from bake.publish import places
from bake.publish import revoke as revoking
from bake.publish.revoke import Revoked
from bake.publish.uses import uses
from tests.localcloud.api.conftest import Account
from tests.localcloud.recorded_cloud import BASE

from .channel_account import Bench

pytestmark = pytest.mark.integration
ELSEWHERE = "eu-west-1"


@pytest.fixture
def bench(aws: Aws, witness: Aws) -> Bench:
    return Bench.new(aws, witness)


def revoke(bench: Bench, image: str, because: str = "CVE-1", *, force: bool = False) -> Revoked:
    [done] = revoking.revoke(bench.places(image), because, [bench.channel], bench.said.append, force=force)
    return done


def snapshot_tags(bench: Bench, image: str) -> dict[str, str]:
    facts = bench.witness.ec2.describe_images(ImageIds=[image], IncludeDisabled=True)["Images"][0]
    snapshot = facts["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    tags = bench.witness.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["Tags"]
    return {tag["Key"]: tag["Value"] for tag in tags}


def test_it_is_marked_and_disabled_and_never_served_again(bench: Bench) -> None:
    image, next_one = bench.image(), bench.image()
    bench.promote(image)
    bench.promote(next_one)
    bench.witness.ec2.modify_image_attribute(
        ImageId=image, LaunchPermission={"Add": [{"UserId": "210987654321"}]}
    )
    done = revoke(bench, image)
    assert (done.did, done.lost, done.used_by) == (("marked", "disabled"), ("210987654321",), ())
    for tags in (bench.tags(image), snapshot_tags(bench, image)):
        assert (tags["bake:state"], tags["bake:because"]) == ("revoked", "CVE-1")
    assert bench.state(image) == "disabled"
    with pytest.raises(UsageError, match="it is revoked: CVE-1"):
        bench.promote(image)
    bench.witness.ec2.enable_image(ImageId=image)
    with pytest.raises(UsageError, match="it is revoked: CVE-1"):
        bench.promote(image)


def test_a_second_run_changes_nothing_and_keeps_the_first_reason(bench: Bench) -> None:
    image = bench.image()
    revoke(bench, image)
    again = revoke(bench, image, "another reason")
    assert (again.did, again.because) == ((), "CVE-1")
    assert bench.tags(image)["bake:because"] == "CVE-1"


def test_what_died_half_way_is_finished_by_a_second_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = bench.image()
    with monkeypatch.context() as patch:
        patch.setattr(bench.aws.ec2, "disable_image", _die)
        with pytest.raises(KeyboardInterrupt):
            revoke(bench, image)
    assert (bench.tags(image)["bake:state"], bench.state(image)) == ("revoked", "available")
    assert revoke(bench, image).did == ("disabled",)
    assert bench.state(image) == "disabled"


def _die(**_: Any) -> None:
    raise KeyboardInterrupt


def test_one_in_a_channel_is_refused_and_by_force_told(bench: Bench) -> None:
    bench.with_template(BASE)
    image = bench.image()
    bench.promote(image)
    with pytest.raises(BakeError) as error:
        revoke(bench, image)
    said = error.value.message
    assert said.startswith(f"{image} is in use; nothing was changed")
    channel = bench.channel
    assert f"the channel stable of {channel.profile} ({channel.parameter}): whatever is launched" in said
    assert f"launch template {channel.template} (template-" in said
    assert "default version 2: launches of its default fail" in said
    assert (bench.state(image), bench.tags(image)["bake:state"]) == ("available", "good")
    done = revoke(bench, image, force=True)
    assert len(done.used_by) == 2
    assert len(bench.said) == 2
    assert bench.state(image) == "disabled"


def test_parameters_and_templates_of_others_are_uses_too(bench: Bench) -> None:
    image = bench.image()
    other = f"/somebody/{secrets.token_hex(4)}"
    bench.witness.ssm.put_parameter(Name=other, Value=image, Type="String", DataType="aws:ec2:image")
    bench.with_template(f"resolve:ssm:{other}")
    found = [one.what for one in uses(bench.aws, image)]
    assert found[0] == f"SSM parameter {other}"
    assert found[1].startswith(f"launch template {bench.channel.template} (")


def group(served: Account, bench: Bench, **asked: Any) -> str:
    name = f"group-{secrets.token_hex(4)}"
    sizes = {"MinSize": 0, "MaxSize": 4, "DesiredCapacity": 0}
    scaling = bench.witness.autoscaling
    scaling.create_auto_scaling_group(
        AutoScalingGroupName=name, VPCZoneIdentifier=served.subnet, **sizes, **asked
    )
    return name


def test_groups_launch_by_a_version_that_is_not_the_default(served: Account, bench: Bench) -> None:
    """By its number, as the latest, and in an override."""
    image, other = bench.image(), bench.image()
    template: Any = bench.with_template(image).channel.template
    second: Any = Bench.new(bench.aws, bench.witness).with_template(other).channel.template
    bench.promote(other)  # the default is no use any more
    named: Any = {"LaunchTemplateId": template, "Version": "1"}
    default: Any = {"LaunchTemplateId": template, "Version": "$Default"}
    latest: Any = {"LaunchTemplateId": second, "Version": "$Latest"}
    bench.witness.ec2.create_launch_template_version(
        LaunchTemplateId=second, SourceVersion="1", LaunchTemplateData={"ImageId": image}
    )
    overridden: Any = {
        "LaunchTemplate": {
            "LaunchTemplateSpecification": default,
            "Overrides": [{"InstanceType": "g6e.2xlarge", "LaunchTemplateSpecification": named}],
        }
    }
    by_number = group(served, bench, LaunchTemplate=named)
    by_latest = group(served, bench, LaunchTemplate=latest)
    by_override = group(served, bench, MixedInstancesPolicy=overridden)
    by_default = group(served, bench, LaunchTemplate=default)
    found = {one.what for one in uses(bench.aws, image)}
    assert found == {
        f"Auto Scaling group {by_number}, by version 1 of {template}",
        f"Auto Scaling group {by_latest}, by version 2 of {second}",
        f"Auto Scaling group {by_override}, by version 1 of {template}",
    }
    assert f"Auto Scaling group {by_default}, by version 2 of {template}" in {
        one.what for one in uses(bench.aws, other)
    }
    with pytest.raises(BakeError, match="it replaces no instance and grows no more"):
        revoke(bench, image)


def test_an_old_version_that_nothing_launches_is_no_use(bench: Bench) -> None:
    image = bench.image()
    bench.with_template(image)
    bench.promote(bench.image())
    assert uses(bench.aws, image, [bench.channel]) == []
    assert revoke(bench, image).did == ("marked", "disabled")


def test_copies_in_other_regions_are_revoked_too(bench: Bench) -> None:
    image = bench.image()
    copy = bench.copy(image, ELSEWHERE)
    there = bench.witness.elsewhere(ELSEWHERE)
    name = f"/somebody/{secrets.token_hex(4)}"
    there.ssm.put_parameter(Name=name, Value=copy, Type="String", DataType="aws:ec2:image")

    def both(*, force: bool) -> list[Revoked]:
        found = places.find(bench.aws, image, (ELSEWHERE,))
        return revoking.revoke(found, "CVE-1", [bench.channel], bench.said.append, force=force)

    with pytest.raises(BakeError, match=f"{ELSEWHERE}: SSM parameter {name}"):
        both(force=False)
    assert bench.state(image) == "available"
    assert [(one.region, one.image, one.did) for one in both(force=True)] == [
        ("eu-north-1", image, ("marked", "disabled")),
        (ELSEWHERE, copy, ("marked", "disabled")),
    ]
    facts = describe_image(there, copy, disabled=True)
    assert facts is not None
    assert (facts["State"], state_of(facts)) == ("disabled", "revoked")
    assert [one.did for one in both(force=True)] == [(), ()]


def test_an_instance_that_runs_goes_on(served: Account, bench: Bench) -> None:
    image = bench.image()
    asked: Any = {"ImageId": image, "InstanceType": "g6e.xlarge", "MinCount": 1, "MaxCount": 1}
    [instance] = bench.witness.ec2.run_instances(**asked, SubnetId=served.subnet)["Instances"]
    assert revoke(bench, image).did == ("marked", "disabled")
    with pytest.raises(ClientError, match=r"InvalidAMIID\.Unavailable|disabled"):
        bench.witness.ec2.run_instances(**asked, SubnetId=served.subnet)
    [group] = bench.witness.ec2.describe_instances(InstanceIds=[instance["InstanceId"]])["Reservations"]
    assert group["Instances"][0]["State"]["Name"] in ("pending", "running")
    bench.witness.ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])


def test_what_bake_did_not_make_is_left_alone(bench: Bench) -> None:
    with pytest.raises(UsageError, match="was not made by bake"):
        revoke(bench, BASE)
    assert bench.state(BASE) == "available"
