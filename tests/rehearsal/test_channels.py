"""A baked image in a channel: what a launch template then launches, with the rights of whoever promotes."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import pytest

from bake.aws import Aws
from bake.image import describe_image, state_of
from bake.instance import describe
from bake.localcloud import LocalCloud

from ..bake.guard import frozen
from .bakes import called

PROFILE = "g6e-ubuntu"


@pytest.fixture
def template(cloud: LocalCloud, aws: Aws) -> str:
    found = cloud.environment
    data: Any = {
        "ImageId": found["BASE_AMI_ID"],
        "InstanceType": "g6e.xlarge",
        "NetworkInterfaces": [{"DeviceIndex": 0, "SubnetId": found["BAKE_SUBNET_ID"]}],
    }
    name = f"workers-{secrets.token_hex(4)}"
    made = aws.ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=data)
    return str(made["LaunchTemplate"]["LaunchTemplateId"])


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    """The profile of the baked image, with a channel."""
    folder = tmp_path / "profiles"
    folder.mkdir()
    for file in frozen.PROFILES.glob("*.yaml"):
        (folder / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    with (folder / f"{PROFILE}.yaml").open("a", encoding="utf-8") as text:
        text.write("\nchannels:\n  stable: {launch_template: '${TEST_TEMPLATE}'}\n")
    return folder


@pytest.fixture
def another(aws: Aws, image: str) -> str:
    """The same image once more, as another bake would leave it."""
    facts = describe_image(aws, image)
    assert facts is not None
    made = aws.ec2.copy_image(
        Name=f"another-{secrets.token_hex(4)}",
        SourceImageId=image,
        SourceRegion=aws.region,
        CopyImageTags=True,
        TagSpecifications=[{"ResourceType": "snapshot", "Tags": facts["Tags"]}],
    )["ImageId"]

    def available() -> bool | None:
        facts = describe_image(aws, made)
        return True if facts and facts["State"] == "available" else None

    aws.wait(made, available, timeout=300)
    return str(made)


def launched(aws: Aws, template: str) -> str:
    """The AMI of an instance that is launched by the template's default."""
    named: Any = {"LaunchTemplateId": template}
    answer = aws.ec2.run_instances(LaunchTemplate=named, MinCount=1, MaxCount=1)
    [instance] = [one["InstanceId"] for one in answer["Instances"]]
    try:
        facts = aws.wait(instance, lambda: describe(aws, instance), timeout=60)
        return str(facts["ImageId"])
    finally:
        aws.ec2.terminate_instances(InstanceIds=[instance])


def test_an_instance_of_the_template_has_the_ami_that_the_channel_serves(
    tmp_path: Path, aws: Aws, image: str, another: str, template: str, profiles: Path
) -> None:
    def bake(*words: str, code: int = 0) -> Any:
        chosen = (*words, "--profile", PROFILE, "--rehearse")
        process = called(tmp_path, *chosen, profiles=profiles, environment={"TEST_TEMPLATE": template})
        out, errors = process.communicate(timeout=600)
        assert process.returncode == code, errors
        return json.loads(out) if code == 0 else errors

    for one in (image, another):
        bake("promote", one, "--to", "stable", "--because", "a rehearsal")
    assert launched(aws, template) == another
    assert f"{another} is in use" in bake("revoke", another, "--because", "a test", code=5)
    bake("rollback", "--channel", "stable", "--because", "a test")
    assert launched(aws, template) == image
    [told] = bake("channels")
    assert (told["image"], told["faults"], told["why"]) == (image, [], "rollback: a test")
    assert told["who"].endswith(f"role/bake-promote-{PROFILE}") or f"/bake-promote-{PROFILE}/" in told["who"]
    channels = {one["image"]: one["channels"] for one in bake("images")}
    assert (channels[image], channels[another]) == (["stable"], [])
    [revoked] = bake("revoke", another, "--because", "a test")["revoked"]
    assert revoked["did"] == ["marked", "disabled"]
    facts = describe_image(aws, another, disabled=True)
    assert facts is not None
    assert (facts["State"], state_of(facts)) == ("disabled", "revoked")
    assert "it is revoked: a test" in bake("promote", another, "--to", "stable", "--because", "x", code=2)
