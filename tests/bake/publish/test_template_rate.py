"""The agreed rate in the versions that publishing and promoting make of a launch template."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bake.aws import Aws
from bake.errors import BakeError
from bake.publish import launch_template
from bake.publish.root_volume import RootVolume, of_image
from tests.localcloud.recorded_cloud import BASE

from .channel_account import Bench
from .test_launch_template import RICH, ami, template, told

pytestmark = pytest.mark.integration

ROOT = RootVolume("/dev/sda1", 300)
DATA: dict[str, Any] = {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 2, "VolumeType": "gp3"}}


def test_the_root_volume_gets_the_rate_and_all_else_stays(aws: Aws, witness: Aws) -> None:
    disks = [DATA, *RICH["BlockDeviceMappings"]]
    name, image = template(witness, **{**RICH, "BlockDeviceMappings": disks}), ami()
    made = launch_template.ensure_version(aws, name, image, root=ROOT)
    before, after = sorted(told(witness, name), key=lambda one: one["VersionNumber"])
    rated = [DATA, {**disks[1], "Ebs": {**disks[1]["Ebs"], "VolumeInitializationRate": 300}}]
    changed = {"ImageId": image, "BlockDeviceMappings": rated}
    assert after["LaunchTemplateData"] == {**before["LaunchTemplateData"], **changed}
    assert (made.number, made.default) == (2, False)
    assert launch_template.ensure_version(aws, name, image, root=ROOT) == made


def test_a_template_without_disks_gets_one_entry(aws: Aws, witness: Aws) -> None:
    made = launch_template.ensure_version(aws, template(witness), ami(), root=ROOT)
    assert made.data["BlockDeviceMappings"] == [
        {"DeviceName": "/dev/sda1", "Ebs": {"VolumeInitializationRate": 300}}
    ]


def test_a_version_of_the_ami_without_the_rate_is_not_enough(aws: Aws, witness: Aws) -> None:
    name, image = template(witness), ami()
    first = launch_template.ensure_version(aws, name, image)
    second = launch_template.ensure_version(aws, name, image, root=ROOT)
    assert (first.number, second.number) == (2, 3)
    assert launch_template.ensure_version(aws, name, image, root=RootVolume("/dev/sda1", 200)).number == 4


def test_without_a_rate_what_somebody_wrote_into_the_template_stays(aws: Aws, witness: Aws) -> None:
    disks = [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeInitializationRate": 150}}]
    made = launch_template.ensure_version(aws, template(witness, BlockDeviceMappings=disks), ami())
    assert made.data["BlockDeviceMappings"] == disks


def test_the_command_by_hand_has_it_too(aws: Aws) -> None:
    text = launch_template.ensure_by_hand(aws, "lt-0123456789abcdef0", "ami-0123456789abcdef0", None, ROOT)
    assert '"Ebs":{"VolumeInitializationRate":300}' in text


def test_the_ami_says_which_device_is_its_root(aws: Aws) -> None:
    found = of_image(aws, BASE, 300)
    assert found is not None and found.rate == 300 and found.device.startswith("/dev/")
    assert of_image(aws, BASE, None) is None
    with pytest.raises(BakeError, match="whose root volume"):
        of_image(aws, "ami-00000000000000000", 300)


# --- channels --------------------------------------------------------------------------------------


@pytest.fixture
def bench(aws: Aws, witness: Aws) -> Bench:
    return Bench.new(aws, witness).with_template(BASE)


def rates(bench: Bench) -> list[int | None]:
    """Of the default version of the channel's template."""
    assert bench.channel.template is not None
    now = launch_template.default_version(bench.witness, bench.channel.template)
    return [one["Ebs"].get("VolumeInitializationRate") for one in now.data.get("BlockDeviceMappings", [])]


def test_a_promotion_puts_the_rate_into_the_template(bench: Bench) -> None:
    image = bench.image()
    bench.promote(image)
    assert rates(bench) == []
    bench.channel = replace(bench.channel, rate=300)
    served = bench.promote(image)  # the same AMI: the parameter holds it, and the template follows
    assert (served.wrote, rates(bench)) == (False, [300])
    assert bench.promote(image).template == served.template
    other = bench.promote(bench.image())
    assert (other.template, rates(bench)) == ((served.template or 0) + 1, [300])


def test_a_template_that_goes_by_the_parameter_stays_as_it_is(bench: Bench) -> None:
    bench.with_template(f"resolve:ssm:{bench.channel.parameter}")
    bench.channel = replace(bench.channel, rate=300)
    assert bench.promote(bench.image()).template == 1
    assert rates(bench) == []
