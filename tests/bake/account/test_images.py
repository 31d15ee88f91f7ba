"""Finding the base AMI: by id, by SSM parameter, by name and owner."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from moto.ec2.models import ec2_backends

from bake.account.images import BaseFacts, ask_base
from bake.errors import UsageError

if TYPE_CHECKING:
    from tests.bake.conftest import PlanCloud


@pytest.fixture
def ec2(plan_cloud: PlanCloud) -> Any:
    return plan_cloud.aws().ec2


def register(ec2: Any, name: str, architecture: str = "x86_64", **facts: Any) -> str:
    """An AMI of the account; moto keeps neither architecture nor state of RegisterImage."""
    ami = str(ec2.register_image(Name=name, RootDeviceName="/dev/sda1")["ImageId"])
    image = ec2_backends["123456789012"][ec2.meta.region_name].amis[ami]
    usual = {"architecture": architecture, "root_device_name": "/dev/sda1", "root_device_type": "ebs"}
    for fact, value in {**usual, **facts}.items():
        setattr(image, fact, value)
    return ami


def by(**base: str) -> dict[str, Any]:
    """A base section that names its AMI in another way than by its id."""
    return {"ami": None, "ssm": None, "name": None, "owner": None, **base}


@pytest.fixture
def parameter(plan_cloud: PlanCloud) -> Iterator[Any]:
    ssm = plan_cloud.aws().ssm
    made = []

    def put(name: str, value: str) -> str:
        ssm.put_parameter(Name=name, Value=value, Type="String", Overwrite=True)
        made.append(name)
        return name

    yield put
    for name in made:
        ssm.delete_parameter(Name=name)


def test_a_parameter_gives_the_id_that_is_agreed_to(plan_cloud: PlanCloud, parameter: Any) -> None:
    ami = plan_cloud.variables["BASE_AMI_ID"]
    name = parameter("/bases/ubuntu", ami)
    plan = plan_cloud.plan(base=by(ssm=name))
    assert plan.launch.base.id == ami
    fact = next(fact for fact in plan.facts if fact.name == "base_ami")
    assert (fact.value, fact.origin) == (ami, "the profile: SSM parameter /bases/ubuntu")


def test_a_parameter_that_is_not_there(plan_cloud: PlanCloud) -> None:
    with pytest.raises(UsageError, match=r"base\.ssm: there is no SSM parameter /bases/none in eu-north-1"):
        plan_cloud.plan(base=by(ssm="/bases/none"))


def test_a_parameter_that_holds_something_else(plan_cloud: PlanCloud, parameter: Any) -> None:
    name = parameter("/bases/broken", "latest")
    with pytest.raises(UsageError, match=r"base\.ssm: the SSM parameter /bases/broken holds no AMI id"):
        plan_cloud.plan(base=by(ssm=name))


def test_of_one_name_the_newest_counts(plan_cloud: PlanCloud, ec2: Any) -> None:
    found = ec2.describe_images(
        Owners=["amazon"], Filters=[{"Name": "name", "Values": ["ubuntu/images/*amd64*"]}]
    )["Images"]
    newest = max(found, key=lambda image: (image["CreationDate"], image["ImageId"]))
    plan = plan_cloud.plan(base=by(name="ubuntu/images/*amd64*", owner="amazon"))
    assert plan.launch.base.id == newest["ImageId"]


def test_a_name_is_looked_up_with_its_owner_only(plan_cloud: PlanCloud) -> None:
    with pytest.raises(UsageError, match=r"base\.name: self has no AMI named 'ubuntu/images/\*'"):
        plan_cloud.plan(base=by(name="ubuntu/images/*", owner="self"))


def test_an_ami_of_the_other_region_is_said_to_be_just_that(plan_cloud: PlanCloud) -> None:
    there = register(plan_cloud.aws().elsewhere("eu-west-1").ec2, "ubuntu-elsewhere")
    with pytest.raises(UsageError) as caught:
        plan_cloud.plan(base={"ami": there})
    assert caught.value.message.splitlines() == [
        f"base.ami: {there} exists in eu-west-1 (AWS_REGION) only; AMIs are looked up in eu-north-1 "
        "(SPOT_AWS_REGION)",
        "    an AMI id belongs to one region: name the AMI of that region, or copy this one there yourself",
    ]


def test_volumes_that_nobody_agreed_to(plan_cloud: PlanCloud, ec2: Any, monkeypatch: Any) -> None:
    ami = register(ec2, "ubuntu-with-data")
    root = {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 8}}
    data = {"DeviceName": "/dev/sdb", "Ebs": {"VolumeSize": 100}}
    image = ec2_backends["123456789012"]["eu-north-1"].amis[ami]

    class WithData(type(image)):  # type: ignore[misc]
        block_device_mappings = (root, data)

    monkeypatch.setattr(image, "__class__", WithData)
    with pytest.raises(UsageError, match=r"brings volumes that nobody agreed to: /dev/sdb \(100 GiB\)"):
        plan_cloud.plan(base={"ami": ami})


# What is newer than the agreed AMI


def asked(plan_cloud: PlanCloud, agreed: str | None, **base: Any) -> BaseFacts:
    return ask_base(plan_cloud.profile(base=by(**base)), plan_cloud.aws(), agreed)


def two(ec2: Any, name: str) -> tuple[str, str]:
    """An older and a newer AMI of a name."""
    old, new = (
        register(ec2, f"{name}-{number}", creation_date=datetime(2026, 1, number, tzinfo=UTC))
        for number in (1, 2)
    )
    return old, new


def test_a_pinned_profile_starts_from_the_agreed_ami(plan_cloud: PlanCloud, ec2: Any) -> None:
    old, new = two(ec2, "follow-pinned")
    family = {"name": "follow-pinned-*", "owner": "self"}
    found = asked(plan_cloud, old, follow="pinned", **family)
    assert found.ami is not None and found.newest is not None
    assert (found.ami.id, found.newest.id, found.agreed_id) == (old, new, old)
    for follow in (None, "propose", "newest"):
        found = asked(plan_cloud, old, follow=follow, **family)
        assert found.ami is not None and found.agreed is not None
        assert (found.ami.id, found.agreed.id) == (new, old)


def test_a_pinned_profile_without_an_agreement_starts_from_the_newest(
    plan_cloud: PlanCloud, ec2: Any
) -> None:
    _, new = two(ec2, "follow-first")
    found = asked(plan_cloud, None, follow="pinned", name="follow-first-*", owner="self")
    assert found.ami is not None
    assert (found.ami.id, found.agreed_id) == (new, None)


def test_a_pinned_ami_that_is_gone_is_none(plan_cloud: PlanCloud, ec2: Any, parameter: Any) -> None:
    old, new = two(ec2, "follow-gone")
    name = parameter("/bases/follow-gone", new)
    ec2.deregister_image(ImageId=old)
    found = asked(plan_cloud, old, follow="pinned", ssm=name)
    assert (found.ami, found.agreed, found.agreed_id) == (None, None, old)
    assert found.newest is not None and found.newest.id == new


def test_a_pinned_ami_is_used_though_its_family_is_gone(plan_cloud: PlanCloud, ec2: Any) -> None:
    old, _ = two(ec2, "follow-alone")
    found = asked(plan_cloud, old, follow="pinned", ssm="/bases/none")
    assert found.ami is not None
    assert (found.ami.id, found.newest) == (old, None)


def test_of_two_amis_of_one_moment_always_the_same_is_the_newest(plan_cloud: PlanCloud, ec2: Any) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    made = [register(ec2, f"follow-same-{number}", creation_date=at) for number in range(4)]
    found = {asked(plan_cloud, None, name="follow-same-*", owner="self").newest for _ in range(3)}
    assert {one.id for one in found if one} == {max(made)}
