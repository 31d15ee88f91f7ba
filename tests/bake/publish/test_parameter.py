"""An SSM parameter that holds an AMI's id."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from bake.aws import Aws
from bake.errors import BakeError
from bake.publish import parameter
from bake.publish.wanted import NotOurs

from .failing import answer_lost
from .images import COPIED, Good, good_image

pytestmark = pytest.mark.integration


@pytest.fixture
def name() -> str:
    return f"/flux/{secrets.token_hex(6)}"


def held(witness: Aws, name: str) -> Any:
    return parameter.current(witness, name)


def write(witness: Aws, name: str, image: str) -> None:
    """As somebody else does."""
    before = held(witness, name)["Version"]
    witness.ssm.put_parameter(Name=name, Value=image, Type="String", DataType=parameter.IMAGE, Overwrite=True)
    witness.wait(name, lambda: held(witness, name)["Version"] > before or None)


def test_a_parameter_is_made_with_the_type_that_ssm_validates(aws: Aws, good: Good, name: str) -> None:
    assert parameter.ensure(aws, name, good.image.id, good.profile) == 1
    found = held(good.witness, name)
    assert (found["Value"], found["DataType"], found["Type"]) == (good.image.id, "aws:ec2:image", "String")


def test_a_second_call_writes_no_version_and_another_ami_one(aws: Aws, good: Good, name: str) -> None:
    other = good_image(good.witness, good.profile)
    for image, version in ((good, 1), (good, 1), (other, 2), (other, 2), (good, 3)):
        assert parameter.ensure(aws, name, image.image.id, good.profile) == version
    assert held(good.witness, name)["Version"] == 3


@pytest.mark.parametrize("value", ["another", "older"])
def test_what_somebody_else_wrote_stays(aws: Aws, good: Good, name: str, value: str) -> None:
    """Also an older AMI of the same profile: somebody has gone back to it."""
    parameter.ensure(aws, name, good.image.id, good.profile)
    other = good_image(good.witness, good.profile if value == "older" else "").image.id
    write(good.witness, name, other)
    newest = good_image(good.witness, good.profile)
    with pytest.raises(NotOurs, match=f"{name} in {aws.region} holds {other}, version 2"):
        parameter.ensure(aws, name, newest.image.id, good.profile)
    assert held(good.witness, name)["Value"] == other
    # The command of the message takes it over.
    words = parameter.by_hand(aws, name, newest.image.id, good.profile)
    assert "--overwrite" in words
    good.witness.ssm.put_parameter(
        Name=name,
        Value=newest.image.id,
        Type="String",
        DataType=parameter.IMAGE,
        Overwrite=True,
        Description=parameter.description(good.profile, newest.image.id),
    )
    assert parameter.ensure(aws, name, newest.image.id, good.profile) == 3


def test_another_profiles_parameter_stays(aws: Aws, good: Good, name: str) -> None:
    parameter.ensure(aws, name, good.image.id, good.profile)
    other = good_image(good.witness)
    with pytest.raises(NotOurs, match=f"no bake of {other.profile}"):
        parameter.ensure(aws, name, other.image.id, other.profile)


def test_a_write_between_the_look_and_the_call_is_told(
    aws: Aws, good: Good, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameter.ensure(aws, name, good.image.id, good.profile)
    newest, other = good_image(good.witness, good.profile), good_image(good.witness)

    def meddle(**_: Any) -> None:
        write(good.witness, name, other.image.id)

    aws.ssm.meta.events.register("before-call.ssm.PutParameter", meddle)
    with pytest.raises(NotOurs, match=r"was at version 1, and .* became version 3: somebody else wrote"):
        parameter.ensure(aws, name, newest.image.id, good.profile)


def test_a_parameter_that_appears_meanwhile_is_told(aws: Aws, good: Good, name: str) -> None:
    other = good_image(good.witness).image.id

    def meddle(**_: Any) -> None:
        what = {"Name": name, "Value": other, "Type": "String", "DataType": parameter.IMAGE}
        good.witness.ssm.put_parameter(**what)
        good.witness.wait(name, lambda: held(good.witness, name))

    aws.ssm.meta.events.register("before-call.ssm.PutParameter", meddle)
    with pytest.raises(NotOurs, match="somebody else created"):
        parameter.ensure(aws, name, good.image.id, good.profile)
    assert held(good.witness, name)["Value"] == other


@pytest.mark.parametrize("there", [False, True], ids=["new", "there"])
def test_a_lost_answer_is_no_error(aws: Aws, good: Good, name: str, there: bool) -> None:
    if there:
        parameter.ensure(aws, name, good_image(good.witness, good.profile).image.id, good.profile)
    with answer_lost(aws.ssm, "PutParameter") as lost:
        parameter.ensure(aws, name, good.image.id, good.profile)
    assert lost
    assert held(good.witness, name)["Value"] == good.image.id


def test_an_ami_that_ssm_does_not_find_is_told(
    aws: Aws, good: Good, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSM answers 200, and never writes it."""
    monkeypatch.setattr(parameter, "VALID", 2.0)
    with pytest.raises(BakeError, match="SSM has not taken ami-0123456789abcdef9"):
        parameter.ensure(aws, name, "ami-0123456789abcdef9", good.profile)


def test_a_parameter_of_another_type_can_not_become_one(aws: Aws, good: Good, name: str) -> None:
    good.witness.ssm.put_parameter(Name=name, Value="mine", Type="String")
    with pytest.raises(NotOurs, match=f"{name} in {aws.region} is of the data type text"):
        parameter.ensure(aws, name, good.image.id, good.profile)


def test_each_region_gets_the_id_of_its_own_copy(aws: Aws, good: Good, name: str) -> None:
    rows = good.publish(aws, regions=(COPIED,), parameter=name)
    [copy] = good.copies(COPIED)
    assert held(good.witness, name)["Value"] == good.image.id
    assert held(good.witness.within(COPIED), name)["Value"] == copy["ImageId"]
    assert [(row.region, row.id) for row in rows if row.what == "SSM parameter"] == [
        (aws.region, f"{name} = {good.image.id}, version 1"),
        (COPIED, f"{name} = {copy['ImageId']}, version 1"),
    ]
