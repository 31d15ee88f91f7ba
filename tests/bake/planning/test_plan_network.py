"""Network, instance profile, the image's name and its user data: what speaks against them."""

from __future__ import annotations

import pytest

from bake.account.images import name_of
from bake.account.network import Group, InstanceProfile, Subnet
from bake.errors import UsageError
from bake.planning import image
from bake.planning.findings import Findings
from bake.planning.render import as_text

from .conftest import Account


def test_a_security_group_of_another_vpc(account: Account) -> None:
    vpc, group = "vpc-2", "sg-2"
    account.groups[group] = Group(vpc)
    with pytest.raises(UsageError) as caught:
        account.plan(builder={"security_group": group})
    own = account.plan().launch.network.vpc
    assert caught.value.message == (
        f"builder.security_group: {group} is in {vpc}, but the subnet is in {own}"
    )


def test_a_temporary_security_group_needs_no_look_up(account: Account) -> None:
    plan = account.plan(builder={"security_group": "temporary", "ssh_from": "203.0.113.7/32"})
    facts = {fact.name: fact.value for fact in plan.facts}
    assert facts["security_group"] == "temporary, port 22 from 203.0.113.7/32"
    assert "a security group" in as_text(plan)


def test_a_type_that_the_subnets_zone_does_not_offer(account: Account) -> None:
    changes = {"subnet": "subnet-a"}
    account.subnets["subnet-a"] = Subnet("vpc-1", "eu-north-1a", 9)
    with pytest.raises(UsageError) as caught:
        account.plan("g5-ubuntu", builder=changes)
    assert caught.value.message.splitlines() == [
        f"builder.instance_type: g5.xlarge is not offered in eu-north-1a, the zone of {changes['subnet']}",
        "    it is offered in eu-north-1b, eu-north-1c",
    ]


def test_a_market_that_the_type_is_not_sold_on(account: Account) -> None:
    spot = account.plan(builder={"market": "spot"})
    assert "g6e.xlarge in eu-north-1, spot" in as_text(spot)
    # No spot for high-memory types.
    changes = {"instance_type": "u-6tb1.112xlarge", "market": "spot"}
    with pytest.raises(UsageError, match=r"builder\.market: u-6tb1\.112xlarge is not sold as spot"):
        account.plan(builder=changes, base={"accelerator": "cpu"})


def test_an_instance_profile_without_a_role(account: Account) -> None:
    account.instance_profiles["empty"] = InstanceProfile(has_role=False)
    with pytest.raises(UsageError, match=r"builder\.instance_profile: empty has no role"):
        account.plan(builder={"instance_profile": "empty"})


@pytest.mark.parametrize(
    ("profile", "name", "expected"),
    [
        ("g6e-ubuntu", "flux:{run}", "EC2 takes no ':' in it"),
        ("g6e-ubuntu", "flux\t{run}", r"EC2 takes no '\t' in it"),
        ("g6e-ubuntu", "flüx {run}", r"EC2 takes no '\xfc' in it"),
        ("a+b", "flux-{profile}", "the AMI would be called 'flux-a+b', and EC2 takes no '+' in it"),
        ("образ", "{profile}", "EC2 takes no"),
        ("g", "{profile}", "the AMI would be called 'g', of 1 characters, and EC2 takes 3 to 128"),
        ("x" * 60, "{profile}-{profile}-{run}", "of 144 characters, and EC2 takes 3 to 128"),
        ("g6e-ubuntu", "{profile.__class__}", "{profile.__class__} can't be filled in"),
        ("g6e-ubuntu", "{version}-{run}", "{version} can't be filled in; there are {profile} and {run}"),
        ("g6e-ubuntu", "flux-{run", "{run can't be filled in"),
        ("g6e-ubuntu", "flux-run}", "} can't be filled in"),
        ("g6e-ubuntu", "flux-{}-{0}", "{} {0} can't be filled in"),
        ("g6e-ubuntu", "{{profile}}", "{ } can't be filled in"),
    ],
)
def test_a_name_that_ec2_would_refuse(account: Account, profile: str, name: str, expected: str) -> None:
    found = account.profile(image={"name": name}).model_copy(update={"name": profile})
    findings = Findings()
    image.check_name(found, None, findings)
    (problem,) = findings.problems
    assert problem.startswith("image.name: ")
    assert expected in problem


@pytest.mark.parametrize("name", ["{profile}-{run}", "a (b) [c] d.e/f-g'h@i_j", "abc", "x" * 128])
def test_a_name_that_ec2_takes(account: Account, name: str) -> None:
    findings = Findings()
    image.check_name(account.profile(image={"name": name}), None, findings)
    assert not findings.problems


def test_a_profiles_name_is_never_filled_in_itself(account: Account) -> None:
    found = account.profile(image={"name": "{profile}-{run}"}).model_copy(update={"name": "{run}"})
    assert name_of(found.name, found.image.name, "7") == "{run}-7"


def test_the_user_data_is_measured(account: Account) -> None:
    findings = Findings()
    image.check_user_data(account.profile(), {}, findings)
    assert not findings.problems
    image.check_user_data(account.profile(), {"LONG": "x" * 16_384}, findings)
    assert len(findings.problems) == 1
    assert "EC2 takes 16,384" in findings.problems[0]
