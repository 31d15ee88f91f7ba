"""What `bake channels` tells of a channel."""

from __future__ import annotations

from typing import Any

import pytest

from bake.aws import Aws
from bake.publish.channel_lock import locked
from bake.publish.standing import Standing, look
from tests.localcloud.recorded_cloud import BASE

from .channel_account import VENUE, Bench

pytestmark = pytest.mark.integration


@pytest.fixture
def bench(aws: Aws, witness: Aws) -> Bench:
    return Bench.new(aws, witness)


def seen(bench: Bench) -> Standing:
    return look(bench.aws, bench.channel, VENUE)


def test_a_channel_in_order_has_no_faults(bench: Bench) -> None:
    bench.with_template(BASE)
    assert (seen(bench).now.number, seen(bench).notes) == (0, ("nothing is promoted yet",))
    first, second = bench.image(), bench.image()
    bench.promote(first, "the first")
    bench.promote(second, "the second")
    found = seen(bench)
    assert (found.faults, found.notes) == ((), ())
    told = found.as_dict()
    assert (told["image"], told["version"], told["why"]) == (second, 2, "the second")
    assert told["default"] == {"version": 3, "image": second}
    assert [one["value"] for one in told["history"]] == [second, first]


def test_a_template_that_is_behind_is_shown_with_the_command(bench: Bench) -> None:
    bench.with_template(BASE)
    image = bench.image()
    bench.promote(image)
    template: Any = bench.channel.template
    bench.witness.ec2.modify_launch_template(LaunchTemplateId=template, DefaultVersion="1")
    [fault] = seen(bench).faults
    assert f"the default version 1 of {template} launches {BASE}, not {image}" in fault
    assert fault.endswith(f"bake promote {image} --profile {bench.channel.profile} --to stable")
    bench.promote(image)
    assert seen(bench).faults == ()


def test_a_template_whose_ami_is_gone_or_that_is_gone_itself_is_told(bench: Bench) -> None:
    old, image = bench.image(), bench.image()
    bench.with_template(old)
    bench.witness.ec2.deregister_image(ImageId=old)
    bench.put(image, Overwrite=False)
    [fault] = seen(bench).faults
    assert f"launches {old}, which does not exist any more, not {image}" in fault
    template: Any = bench.channel.template
    bench.witness.ec2.delete_launch_template(LaunchTemplateId=template)
    assert seen(bench).faults == (f"the launch template {template} does not exist",)


def test_an_ami_that_is_gone_or_not_fit_is_told_with_the_way_back(bench: Bench) -> None:
    image, disabled = bench.image(), bench.image()
    bench.put(image, Overwrite=False)
    bench.witness.ec2.deregister_image(ImageId=image)
    back = f"bake rollback --profile {bench.channel.profile} --channel stable"
    assert seen(bench).faults == (f"{image} does not exist any more: {back} serves the one before",)
    bench.put(disabled)
    bench.witness.ec2.disable_image(ImageId=disabled)
    [fault] = seen(bench).faults
    assert fault.startswith(f"{disabled} is not fit to be served: EC2 says that it is disabled; {back}")
    bench.put(BASE)
    assert "bake did not make it" in seen(bench).faults[0]


def test_a_parameter_that_holds_no_ami_is_told(bench: Bench) -> None:
    bench.put("hello", Overwrite=False, DataType="text")
    assert seen(bench).faults == (f"{bench.channel.parameter} holds no AMI's id: 'hello'",)


def test_whoever_changes_it_now_is_named(bench: Bench) -> None:
    with locked(bench.aws, bench.channel, "run", bench.said.append):
        [_, note] = seen(bench).notes
    assert note.startswith("locked by arn:aws:iam::123456789012:root since 20")
